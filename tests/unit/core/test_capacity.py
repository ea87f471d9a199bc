"""W of SCHEDULING from reports, with each of its guards."""

from __future__ import annotations

import math
import statistics

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import LoadReport
from director.core.capacity import EXPIRY_S, LEAST_FACTOR, MEDIAN_STEP, MOST_FACTOR, SMOOTHING_S, STALE_S, Basis, Capacity
from director.core.seen import Window


def working(capacity: float, utilisation: float = 0.5, errors: float = 0.0, seconds: float = 1.0) -> LoadReport:
    """What a host of *capacity* completions per second reports while it is *utilisation* busy."""
    rate = capacity * utilisation / (1.0 - errors)
    return LoadReport(utilisation=utilisation, rate=rate, errors=errors, completions=rate * seconds)


#: A sinkhole's: it fails everything, at once, and is never busy.
FAILING = LoadReport(utilisation=0.01, rate=500.0, errors=1.0, completions=500.0)
IDLE = LoadReport(utilisation=0.0, rate=0.0, errors=0.0, completions=0.0)

fractions = st.floats(0, 1)
reports = st.builds(
    LoadReport,
    utilisation=st.none() | fractions,
    rate=st.none() | st.floats(0, 1e9),
    errors=st.none() | fractions,
    completions=st.none() | st.floats(0, 1e12),
    capacity=st.none() | st.floats(0, 1e9, exclude_min=True),
)


class PoolTestCase(SynchronousTestCase):
    """A pool whose hosts report once a second."""

    def setUp(self) -> None:
        self.capacity = Capacity()
        self.now = 1000.0

    def run_for(self, seconds: float, **hosts: LoadReport) -> dict[str, float]:
        """Let every named host report once a second; its factors at the end."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            for key, report in hosts.items():
                self.capacity.reported(key, report, self.now)
        return {str(key): factor for key, factor in self.capacity.factors(self.now).items()}


class FactorTests(PoolTestCase):
    def test_nobody_reports(self) -> None:
        """Without a report a host has the pool's median: 1."""
        self.assertEqual(self.capacity.factors(self.now), {})
        self.assertEqual(self.capacity.factor("a", self.now), 1.0)

    def test_one_host_alone(self) -> None:
        """A pool's only reporter is its own median."""
        self.assertEqual(self.run_for(5, a=working(100)), {"a": 1.0})

    def test_equal_hosts(self) -> None:
        """Equal hosts weigh the same however busy each is."""
        factors = self.run_for(5, a=working(100, 0.1), b=working(100, 0.5), c=working(100, 0.99))
        for factor in factors.values():
            self.assertAlmostEqual(factor, 1.0)

    def test_unequal_hosts(self) -> None:
        """Weights are as capacities: a quarter of the capacity, a quarter of the weight."""
        factors = self.run_for(5, a=working(100), b=working(100), c=working(400), d=working(400))
        self.assertAlmostEqual(factors["c"] / factors["a"], 4.0)

    def test_one_before_all(self) -> None:
        """A host that is asked for first is compared with the median, too."""
        for key, each in (("a", 100), ("b", 100), ("c", 150)):
            self.capacity.reported(key, working(each), self.now)
        self.assertAlmostEqual(self.capacity.factor("c", self.now), 1.5)

    def test_clamp(self) -> None:
        """A giant within belief is held at 2, a dwarf at 1/32."""
        usual = working(1000)
        factors = self.run_for(5, a=usual, b=usual, c=usual, giant=working(3900), dwarf=working(4, 1.0))
        self.assertEqual((factors["giant"], factors["dwarf"]), (2.0, 0.03125))

    def test_disbelief(self) -> None:
        """A claim above four times the median counts as 1, one of four times does not."""
        factors = self.run_for(5, a=working(100), b=working(100), c=working(100), liar=working(401), giant=working(400))
        self.assertEqual((factors["liar"], factors["giant"]), (1.0, MOST_FACTOR))

    def test_idle_claims_are_no_samples(self) -> None:
        """Below 5 % a host is idle: what it had to do there does not tell what it could do, and it can take more again."""
        idle = LoadReport(utilisation=0.04, rate=50.0, completions=50.0)
        self.assertEqual(self.run_for(5, a=working(100), b=working(100), c=idle)["c"], 1.0)
        self.assertLess(self.run_for(20, a=working(100), b=working(100), c=working(20))["c"], 0.5)
        self.assertGreater(self.run_for(60, a=working(100), b=working(100), c=idle)["c"], 0.95)

    def test_idle_claims_are_bounded(self) -> None:
        """Of a host that is mostly busy, a second of hardly any work is not divided by less than 5 %."""
        moment = LoadReport(utilisation=0.001, rate=5.0, completions=5.0)
        self.run_for(20, a=working(100), b=working(100), c=working(100))
        self.assertLess(self.run_for(1, a=working(100), b=working(100), c=moment)["c"], 1.01)

    def test_few_completions(self) -> None:
        """Fewer than three completions give no sample by themselves; together they do, with all the time they took."""
        few = LoadReport(utilisation=0.5, rate=1.0, completions=1.0)
        self.assertEqual(self.run_for(2, a=working(4), b=working(4), c=few)["c"], 1.0)
        self.assertAlmostEqual(self.run_for(1, a=working(4), b=working(4), c=few)["c"], 0.5)
        self.assertAlmostEqual(self.run_for(9, a=working(4), b=working(4), c=few)["c"], 0.5)

    def test_failures_begin_a_sample_anew(self) -> None:
        """What was gathered before a report of many errors is no part of the next sample, nor is that report."""
        self.run_for(1, a=LoadReport(utilisation=0.9, rate=2.0, completions=2.0))
        self.run_for(1, a=working(100, errors=0.5))
        self.assertEqual(self.capacity.bases(self.now)["a"].capacity, 0.0)
        self.run_for(10, a=LoadReport(utilisation=0.5, rate=0.2, completions=0.2))
        self.assertEqual(self.capacity.bases(self.now)["a"].capacity, 0.0)
        self.run_for(1, a=LoadReport(utilisation=0.5, rate=1.0, completions=1.0))
        self.assertAlmostEqual(self.capacity.bases(self.now)["a"].capacity, 3 / 5.5)

    def test_no_median(self) -> None:
        """Where no host gave a sample there is nothing to compare with: 0."""
        self.run_for(1, a=IDLE)
        self.assertEqual(self.capacity.bases(self.now)["a"].median, 0.0)

    def test_believed(self) -> None:
        """Up to four times the median; everything where there is none."""
        for capacity, middle, believed in ((0.0, 0.0, True), (1e9, 0.0, True), (400.0, 100.0, True), (401.0, 100.0, False)):
            self.assertIs(Basis(capacity, middle, 0.0, 1.0).believed, believed, (capacity, middle))

    def test_completions_from_the_rate(self) -> None:
        """A report without a count of completions has its rate times its age."""
        self.run_for(1, c=LoadReport(utilisation=1.0, rate=10.0))
        self.assertEqual(self.run_for(1, a=working(100), b=working(100))["c"], 1.0)
        self.assertAlmostEqual(self.run_for(1, c=LoadReport(utilisation=1.0, rate=10.0))["c"], 0.1)

    def test_utilisation_alone(self) -> None:
        """CPU without a rate gives no weight: such weights spiral."""
        factors = self.run_for(5, a=working(100), b=LoadReport(utilisation=0.99, completions=50.0))
        self.assertEqual(factors["b"], 1.0)

    def test_own_estimate(self) -> None:
        """An agent's estimate stands in for the sample, but not without traffic, nor beyond belief."""
        others = {"a": working(100), "b": working(100), "c": working(100)}
        factors = self.run_for(5, **others, d=LoadReport(capacity=50.0, completions=10.0),
                               idle=LoadReport(capacity=50.0, completions=0.0),
                               liar=LoadReport(capacity=1e9, completions=10.0))
        self.assertAlmostEqual(factors["d"], 0.5)
        self.assertEqual(factors["idle"], 1.0)
        self.assertEqual(factors["liar"], 1.0)

    def test_first_reports_are_a_plain_mean(self) -> None:
        """The first few reports count alike, the first among them."""
        self.run_for(1, a=working(100), b=working(100), c=working(50))
        factors = self.run_for(1, a=working(100), b=working(100), c=working(150))
        self.assertAlmostEqual(factors["c"], 1.0)

    def test_slow(self) -> None:
        """After that a change of capacity takes a time constant of 30 s to be learnt."""
        steady = {"a": working(100), "b": working(100)}
        self.run_for(300, **steady, c=working(100))
        factors = self.run_for(SMOOTHING_S, **steady, c=working(50))
        self.assertAlmostEqual(factors["c"], 0.5 + 0.5 * 0.3679, places=3)

    def test_discard(self) -> None:
        """A removed host leaves the median, too; removing a stranger is no error."""
        self.run_for(5, a=working(100), b=working(300))
        self.capacity.discard("b")
        self.capacity.discard("nobody")
        self.assertEqual(self.capacity.factors(self.now), {"a": 1.0})

    def test_single_factor_follows(self) -> None:
        """Asking for one host gives what asking for all does, once the median may be renewed."""
        factors = self.run_for(5, a=working(100), b=working(200), c=working(300))
        for key, factor in factors.items():
            self.assertEqual(self.capacity.factor(key, self.now + 0.04), factor)

    def test_age_of_the_median(self) -> None:
        """Who is asked for alone is compared with a median that is less than a twentieth of a second old; whose rate counts what
        nobody's did before weighs 1 until there is one."""
        self.capacity.reported("a", working(100), 0.0)
        self.assertEqual(self.capacity.factor("a", 0.0), 1.0)
        self.capacity.reported("b", working(300), 0.0)
        self.assertEqual([self.capacity.factor("b", now) for now in (0.04, 0.05)], [2.0, 1.5])
        self.capacity.reported("c", LoadReport(utilisation=0.5), 0.05, Window("turnarounds", 3, 1.5, 0.5, 0.0, 0.1))
        self.assertEqual(self.capacity.bases(0.06)["c"].capacity, 3.0)
        self.assertEqual(self.capacity.factor("c", 0.06), 1.0)

    def test_recalled(self) -> None:
        """What another process knew of a host counts at once, beside a median that it is part of."""
        self.capacity.reported("a", working(100), self.now)
        self.assertEqual(self.capacity.factor("a", self.now), 1.0)
        other: Capacity[str] = Capacity()
        other.reported("b", working(300), self.now)
        known = other.known("b")
        assert known is not None
        self.capacity.recall("b", {**known, "of a later release": 1})
        self.assertEqual([self.capacity.factor(key, self.now) for key in "ab"], [0.5, 1.5])
        self.assertEqual(set(self.capacity.news(self.now)), {"a", "b"})
        self.assertIsNone(self.capacity.known("c"))

    def test_idle_and_slow(self) -> None:
        """However little an idle host could carry, it rises to the median in ten seconds, all but a third of the way."""
        self.run_for(1, a=working(0.5, seconds=100), b=working(3.5, seconds=100), c=working(3.5, seconds=100))
        before = self.capacity.bases(self.now)["a"].capacity
        self.assertEqual(before, 0.5)
        self.capacity.reported("a", IDLE, self.now + 20.0)  # which averages its utilisation down
        after = self.capacity.bases(self.now)["a"].capacity
        self.assertAlmostEqual(after, 3.5 - 3.0 * math.exp(-2.0))

    def test_idle_alone(self) -> None:
        """An idle host that is compared with nobody, however long, keeps the capacity that it had."""
        self.run_for(1, a=working(0.5, seconds=100))
        self.run_for(2 * EXPIRY_S, a=IDLE)
        self.assertEqual(self.capacity.bases(self.now)["a"].capacity, 0.5)

    def test_own_estimate_needs_traffic(self) -> None:
        """Three completions of its time, at least."""
        for completions, capacity in ((2.0, 0.0), (3.0, 50.0)):
            self.capacity = Capacity()
            self.run_for(1, a=LoadReport(capacity=50.0, completions=completions))
            self.assertEqual(self.capacity.bases(self.now)["a"].capacity, capacity)


class ErrorTests(PoolTestCase):
    def test_counted(self) -> None:
        """A ratio counts by its completions beside three; more than half of three or more counts at once."""
        for errors, completions, known in ((0.4, 1.0, 0.1), (0.4, 3.0, 0.2), (0.4, 9.0, 0.3), (0.5, 3.0, 0.25), (0.52, 3.0, 0.52),
                                           (0.6, 2.0, 0.24)):
            self.capacity = Capacity()
            self.run_for(1, a=LoadReport(utilisation=0.5, rate=completions, errors=errors, completions=completions))
            self.assertAlmostEqual(self.capacity.bases(self.now)["a"].errors, known, msg=f"{errors} of {completions}")
        self.run_for(10, a=IDLE)
        self.assertAlmostEqual(self.capacity.bases(self.now)["a"].errors, 0.24 * math.exp(-1))

    def test_samples(self) -> None:
        """A report with a fifth of errors is no sample; one with less is, of what succeeded."""
        for errors, capacity in ((0.2, 0.0), (0.19, 81.0)):
            self.capacity = Capacity()
            self.run_for(1, a=LoadReport(utilisation=0.5, rate=50.0, errors=errors, completions=50.0))
            self.assertAlmostEqual(self.capacity.bases(self.now)["a"].capacity, capacity)

    def test_sinkhole(self) -> None:
        """A host that fails fast falls to the floor within two reports and does not look capable."""
        healthy = {"a": working(100), "b": working(100), "c": working(100)}
        self.run_for(20, **healthy, d=working(100))
        self.assertEqual(self.run_for(2, **healthy, d=FAILING)["d"], LEAST_FACTOR)

    def test_sinkhole_from_birth(self) -> None:
        """Failures lower the weight of a host that never gave a sample, too."""
        self.assertEqual(self.run_for(2, a=working(100), b=working(100), d=FAILING)["d"], LEAST_FACTOR)

    def test_sinkhole_is_not_forgiven_by_age(self) -> None:
        """A host that goes on failing stays at the floor long after its last usable report."""
        healthy = {"a": working(100), "b": working(100)}
        self.run_for(20, **healthy, d=working(100))
        self.assertEqual(self.run_for(300, **healthy, d=FAILING)["d"], LEAST_FACTOR)

    def test_healing_without_traffic(self) -> None:
        """Without traffic errors are forgotten in tens of seconds, so that the host is tried again."""
        healthy = {"a": working(100), "b": working(100)}
        self.run_for(20, **healthy, d=working(100))
        self.run_for(5, **healthy, d=FAILING)
        self.assertLess(self.run_for(5, **healthy, d=IDLE)["d"], 0.1)
        self.assertGreater(self.run_for(25, **healthy, d=IDLE)["d"], 0.7)

    def test_healing_with_traffic(self) -> None:
        """Answers that succeed heal a host as fast as failures condemned it."""
        healthy = {"a": working(100), "b": working(100)}
        self.run_for(20, **healthy, d=working(100))
        self.run_for(5, **healthy, d=FAILING)
        self.assertGreater(self.run_for(2, **healthy, d=working(100))["d"], 0.95)

    def test_a_failed_trial(self) -> None:
        """A trial of three clients that fails puts the next one off for as long as the first failures did."""
        healthy = {"a": working(100), "b": working(100)}
        self.run_for(20, **healthy, d=working(100))
        self.run_for(5, **healthy, d=FAILING)
        first = self.run_for(12, **healthy, d=IDLE)["d"]
        self.run_for(1, **healthy, d=LoadReport(utilisation=0.01, rate=3.0, errors=1.0, completions=3.0))
        self.assertLessEqual(self.run_for(12, **healthy, d=IDLE)["d"], first)

    def test_few_failures(self) -> None:
        """One failure among three is no verdict; steady ones are."""
        one = LoadReport(utilisation=0.03, rate=3.0, errors=1 / 3, completions=3.0)
        healthy = {"a": working(100), "b": working(100)}
        self.run_for(20, **healthy, d=working(100))
        first = self.run_for(1, **healthy, d=one)["d"]
        self.assertGreater(first, 0.4)
        self.assertLess(self.run_for(20, **healthy, d=one)["d"], 0.25)

    def test_a_failing_majority_is_not_the_norm(self) -> None:
        """When most of a pool fails, its healthy hosts keep their weight and the failing ones lose theirs."""
        self.run_for(20, a=working(100), b=working(100), c=working(100))
        factors = self.run_for(5, a=working(100), b=FAILING, c=FAILING)
        self.assertAlmostEqual(factors["a"], 1.0)
        self.assertEqual(factors["b"], LEAST_FACTOR)


class AgeTests(PoolTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.run_for(20, a=working(100), b=working(100), c=working(50))
        self.last = self.now

    def keep(self, until: float) -> float:
        """The others go on reporting; the factor of the silent one."""
        return self.run_for(until - self.now, a=working(100), b=working(100))["c"]

    def test_drift(self) -> None:
        """A weight holds for 60 s without reports and is 1 after 120 s."""
        self.assertAlmostEqual(self.keep(self.last + STALE_S), 0.5)
        self.assertAlmostEqual(self.keep(self.last + 90), 0.75)
        self.assertAlmostEqual(self.keep(self.last + 120), 1.0)
        self.assertAlmostEqual(self.keep(self.last + 500), 1.0)

    def test_expiry(self) -> None:
        """After 180 s a silent host's capacity leaves the median."""
        capacity = Capacity()
        for key, value in [("a", 100.0), ("b", 300.0)]:
            capacity.reported(key, working(value), 0.0)
        capacity.reported("b", working(300.0), EXPIRY_S)
        self.assertAlmostEqual(capacity.factors(EXPIRY_S)["b"], 1.5)
        self.assertAlmostEqual(capacity.factors(EXPIRY_S + 1)["b"], 1.0)

    def test_errors_age_too(self) -> None:
        """What a silent host failed is forgotten by age as well."""
        self.run_for(5, a=working(100), b=working(100), c=FAILING)
        self.last = self.now
        self.assertEqual(self.keep(self.last + STALE_S), LEAST_FACTOR)
        self.assertAlmostEqual(self.keep(self.last + 120), 1.0)


class PropertyTests(SynchronousTestCase):
    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.integers(0, 5), reports, st.floats(0, 100)), max_size=40), st.floats(0, 300))
    def test_bounds(self, events: list[tuple[int, LoadReport, float]], later: float) -> None:
        """Whatever is reported, every factor stays within [1/32, 2]."""
        capacity, now = Capacity(), 0.0
        for key, report, pause in events:
            now += pause
            capacity.reported(key, report, now)
            self.assertTrue(LEAST_FACTOR <= capacity.factor(key, now) <= MOST_FACTOR)
        for factor in capacity.factors(now + later).values():
            self.assertTrue(LEAST_FACTOR <= factor <= MOST_FACTOR)

    @settings(max_examples=100)
    @given(st.lists(st.tuples(st.integers(0, 5), st.floats(100, 350), st.floats(0, 1)), max_size=40))
    def test_news(self, events: list[tuple[int, float, float]]) -> None:
        """Whoever follows the news is never further from all factors than two steps of the median, and a reporter not at
        all."""
        capacity: Capacity[int] = Capacity()
        known: dict[int, float] = {}
        now = 0.0
        for key, value, pause in events:
            now += pause
            capacity.reported(key, working(value), now)
            known |= capacity.news(now)
            exact = {each: capacity.factor(each, now + 0.04) for each in known}
            self.assertEqual(known[key], exact[key])
            for each, factor in exact.items():
                self.assertLessEqual(abs(known[each] - factor), 2.1 * MEDIAN_STEP * factor)

    def test_median_that_matters(self) -> None:
        """A median that moved by less than a hundredth is no news to those that did not report; by more, up or down, it is."""
        for moved, told in ((0.009, {"b"}), (-0.009, {"b"}), (0.011, {"a", "b"}), (-0.011, {"a", "b"})):
            capacity: Capacity[str] = Capacity()
            capacity.reported("a", working(1000), 0.0)
            capacity.news(0.0)
            capacity.reported("b", working(1000 * (1 + 2 * moved)), 0.0)  # of two, the median is their mean
            self.assertEqual(set(capacity.news(0.0)), told, moved)

    def test_after_errors(self) -> None:
        """A report full of errors ends what was gathered: nothing of it, its time neither, is in the next sample."""
        capacity: Capacity[str] = Capacity()
        for now, errors in ((0.0, 0.5), (1.0, 0.0)):
            capacity.reported("a", LoadReport(utilisation=0.05, rate=50.0, errors=errors, completions=50.0), now)
        self.assertAlmostEqual(capacity.bases(1.0)["a"].capacity, 1000.0)

    def test_no_news(self) -> None:
        """Who did not report is not in the news while the median stays, and the news are told once."""
        capacity: Capacity[str] = Capacity()
        for key in "abc":
            capacity.reported(key, working(100), 0.0)
        self.assertEqual(set(capacity.news(0.0)), {"a", "b", "c"})
        capacity.reported("b", working(100), 1.0)
        self.assertEqual(set(capacity.news(1.0)), {"b"})
        self.assertEqual(capacity.news(1.0), {})

    @settings(max_examples=60)
    @given(st.lists(st.floats(10, 1000), min_size=3, max_size=12), reports)
    def test_one_liar(self, capacities: list[float], lie: LoadReport) -> None:
        """One liar moves the others' factors no further than the median can move by one rank."""
        capacity = Capacity()
        for key, value in enumerate(capacities):
            capacity.reported(key, working(value), 0.0)
        capacity.reported("liar", lie, 0.0)
        capacity.reported("liar", lie, 1.0)
        factors = capacity.factors(1.0)
        bounds = [statistics.median([*capacities, extreme]) for extreme in (0.0, 1e12)]
        for key, value in enumerate(capacities):
            allowed = [value / median for median in bounds]
            if max(allowed) <= 4.0:
                self.assertGreaterEqual(factors[key], min(max(min(allowed), LEAST_FACTOR), MOST_FACTOR) * (1 - 1e-9))
                self.assertLessEqual(factors[key], min(max(*allowed, LEAST_FACTOR), MOST_FACTOR) * (1 + 1e-9))

    @settings(max_examples=40)
    @given(st.floats(1, 1e6), st.lists(st.floats(0.05, 1), min_size=1, max_size=20))
    def test_homogeneous(self, value: float, utilisations: list[float]) -> None:
        """In a homogeneous pool every factor is 1, whatever each host's load."""
        capacity = Capacity()
        for key, utilisation in enumerate(utilisations):
            capacity.reported(key, working(value, utilisation, seconds=3 / (value * utilisation) + 1), 0.0)
        for factor in capacity.factors(0.0).values():
            self.assertAlmostEqual(factor, 1.0)

    @settings(max_examples=40)
    @given(st.floats(0.3, 1.9), st.floats(1, 1e6))
    def test_proportional(self, ratio: float, base: float) -> None:
        """Within the clamp a factor is the host's capacity beside the median's."""
        capacity = Capacity()
        for key in "abc":
            capacity.reported(key, working(base, seconds=100), 0.0)
        capacity.reported("odd", working(base * ratio, seconds=100), 0.0)
        self.assertAlmostEqual(capacity.factors(0.0)["odd"], ratio)
