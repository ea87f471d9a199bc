"""W from what directors see of hosts whose agents know only how busy the machine is: in a closed loop, where weights make the
shares that make the next weights."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import LoadReport
from director.core.capacity import LEAST_FACTOR, Capacity
from director.core.seen import Seen, Totals, Window


class Machine:
    """A host of *capacity* turnarounds a second, of which somebody else's work may take a share.

    :ivar burnt: share of the CPU that somebody else's work takes for itself, and keeps.
    :ivar patient: share that somebody else's work takes only while nobody else wants it (nice 19).
    :ivar own_noise: what the machine does for itself.
    """

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.burnt = self.patient = 0.0
        self.own_noise = 0.01
        self.totals = Totals()
        self.utilisation = 0.0

    def work(self, offered: float, rng: random.Random) -> None:
        """One second, in which it was *offered* so much; what it does not finish is lost."""
        able = self.capacity * (1.0 - self.burnt)
        wanted = max(rng.gauss(offered, offered**0.5), 0.0)
        done = min(wanted, able)
        busy = done / self.capacity
        latency = 1.0 / self.capacity / (1.0 - self.burnt) / max(1.0 - done / able, 0.02)
        self.utilisation = min(max(busy + self.burnt, self.patient) + self.own_noise * rng.uniform(0.0, 2.0), 1.0)
        before = self.totals
        self.totals = before._replace(turnarounds=before.turnarounds + round(done), seconds=before.seconds + done * latency)


class LoopTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.capacity: Capacity[str] = Capacity()
        self.seen: Seen[str] = Seen()
        self.now = 1000.0
        self.rng = random.Random(3)

    def pool(self, **capacities: float) -> None:
        self.machines = {name: Machine(capacity) for name, capacity in capacities.items()}

    def run_for(self, seconds: int, load: float, each: Callable[[dict[str, float]], None] = lambda shares: None
                ) -> dict[str, float]:
        """Offer *load* a second, split by weight. Returns the shares at the end; tells *each* of those of every second."""
        shares: dict[str, float] = {}
        for _ in range(seconds):
            self.now += 1.0
            weights = {name: self.capacity.factor(name, self.now) for name in self.machines}
            whole = sum(weights.values())
            shares = {name: weight / whole for name, weight in weights.items()}
            each(shares)
            for name, machine in self.machines.items():
                machine.work(load * shares[name], self.rng)
                report = LoadReport(utilisation=machine.utilisation)
                window = self.seen.reported(name, machine.totals, report.utilisation, None, self.now)
                self.capacity.reported(name, report, self.now, window)
            self.capacity.factors(self.now)
        return shares


class LoopTests(LoopTestCase):
    def test_unequal_hosts(self) -> None:
        """Within 30 s shares are as capacities, to a fifth, at every load; and stay so."""
        for load in (0.2, 0.4, 0.6, 0.8, 0.95):
            self.setUp()
            self.pool(a=400, b=400, c=200, d=100)
            self.run_for(30, load * 1100)
            for _ in range(6):
                shares = self.run_for(20, load * 1100)
                for name, machine in self.machines.items():
                    self.assertApproximates(shares[name] * 1100 / machine.capacity, 1.0, 0.2, f"{name} at {load}")

    def test_slow_hosts(self) -> None:
        """Also where the slowest finishes three in a second."""
        self.pool(a=12, b=12, c=6, d=3)
        self.run_for(60, 0.6 * 33)
        mean = dict.fromkeys(self.machines, 0.0)

        def add(shares: dict[str, float]) -> None:
            for name, share in shares.items():
                mean[name] += share / 120

        self.run_for(120, 0.6 * 33, add)
        for name, machine in self.machines.items():
            self.assertApproximates(mean[name] * 33 / machine.capacity, 1.0, 0.3, name)

    def test_light_load(self) -> None:
        """Equal hosts that hardly do anything have equal shares, to a fifth, for as long as that lasts."""
        for load in (0.01, 0.03, 0.06):
            self.setUp()
            self.pool(a=400, b=400, c=400, d=400)
            self.machines["b"].own_noise = 0.03

            def fair(shares: dict[str, float]) -> None:
                for share in shares.values():
                    self.assertApproximates(share, 0.25, 0.05)

            self.run_for(300, load * 1600, fair)

    def test_burnt(self) -> None:
        """A host whose CPU is burnt loses half of its share within 10 s, and has most of it back within a minute."""
        self.pool(a=400, b=400, c=400, d=400)
        before = self.run_for(60, 960)["a"]
        self.machines["a"].burnt = 0.75
        self.assertLess(self.run_for(10, 960)["a"], 0.5 * before)
        self.assertGreater(self.run_for(60, 960)["a"], LEAST_FACTOR / 4)
        self.machines["a"].burnt = 0.0
        self.assertGreater(self.run_for(60, 960)["a"], 0.75 * before)

    def test_burnt_for_long(self) -> None:
        """However long it lasted, and however little there is to do: at the floor it is still measured, and comes back."""
        for load in (200, 960):
            self.setUp()
            self.pool(a=400, b=400, c=400, d=400)
            self.run_for(60, 960)
            self.machines["a"].burnt = 0.97
            self.run_for(300, load)
            self.machines["a"].burnt = 0.0
            self.assertGreater(self.run_for(60, load)["a"], 0.75 * 0.25, f"at {load}")

    def test_patient_work(self) -> None:
        """Work of somebody else that yields makes a machine look saturated: no dip of the rate is amplified within seconds."""
        self.pool(a=400, b=400, c=400, d=400)
        before = self.run_for(60, 640)["a"]
        self.machines["a"].patient = 1.0
        self.assertGreater(self.run_for(10, 640)["a"], 0.6 * before)

    def test_joining(self) -> None:
        """A host that comes later finds its place."""
        self.pool(a=400, b=400)
        self.run_for(60, 700)
        self.machines["c"] = Machine(100)
        shares = self.run_for(60, 700)
        self.assertApproximates(shares["c"], 100 / 900, 0.03)


class SourceTests(LoopTestCase):
    """What a rate counts."""

    def report(self, key: str, source: str, rate: float, utilisation: float = 0.5, errors: float = 0.0) -> None:
        window = Window(source, round(rate), rate, utilisation, errors, 0.01)  # type: ignore[arg-type]
        self.capacity.reported(key, LoadReport(utilisation=utilisation), self.now, window)

    def second(self) -> None:
        self.now += 1.0

    def factors(self) -> dict[str, float]:
        return {key: round(factor, 2) for key, factor in self.capacity.factors(self.now).items()}

    def test_each_kind_beside_its_own(self) -> None:
        """Turnarounds are not compared with connections, nor with what applications call completions."""
        for _ in range(5):
            self.second()
            self.report("t1", "turnarounds", 1000)
            self.report("t2", "turnarounds", 500)
            self.report("c1", "connections", 10)
            self.report("c2", "connections", 30)
            self.capacity.reported("r", LoadReport(utilisation=0.5, rate=7.0, completions=7.0), self.now)
        self.assertEqual(self.factors(), {"t1": 1.33, "t2": 0.67, "c1": 0.5, "c2": 1.5, "r": 1.0})

    def test_another_kind(self) -> None:
        """Who begins to count something else begins anew: the old rate is no part of the new mean."""
        for source, rates in (("turnarounds", (1000, 100)), ("connections", (10, 30))):
            for _ in range(3):
                self.second()
                for key, rate in zip("ab", rates, strict=True):
                    self.report(key, source, rate)
        self.assertEqual(self.factors(), {"a": 0.5, "b": 1.5})

    def test_agents_word_first(self) -> None:
        """An agent that says its rate or capacity is not overruled; what is seen proves the traffic behind a capacity."""
        for _ in range(3):
            self.second()
            for key, rate in (("a", 100.0), ("b", 300.0)):
                window = Window("turnarounds", 50, 50.0, 0.5, 0.0, 0.01)
                self.capacity.reported(key, LoadReport(utilisation=0.5, rate=rate, completions=rate), self.now, window)
            for key, capacity in (("c", 100.0), ("d", 300.0)):
                self.capacity.reported(key, LoadReport(capacity=capacity), self.now, Window("turnarounds", 9, 9.0, None, 0.0, 1.0))
        self.assertEqual(self.factors(), {"a": 1.0, "b": 2.0, "c": 0.5, "d": 1.5} | self.factors())
        self.assertLess(self.factors()["c"], self.factors()["d"])

    def test_what_is_seen_stands_in_for_a_whole_report(self) -> None:
        """Not for the rate alone of an agent that counts its completions, nor where nobody says how busy the host is."""
        window = Window("turnarounds", 50, 50.0, 0.5, 0.0, 0.01)
        for report, seen, capacity in ((LoadReport(utilisation=0.5), window, 100.0),
                                       (LoadReport(utilisation=0.5, completions=50.0), window, 0.0),
                                       (LoadReport(utilisation=0.5), window._replace(utilisation=None), 0.0)):
            self.second()
            self.capacity = Capacity()
            self.capacity.reported("a", report, self.now, seen)
            self.assertEqual(self.capacity.bases(self.now)["a"].capacity, capacity, report)

    def test_failures_seen(self) -> None:
        """Connects that fail cost a stock agent's host its weight, and are forgiven when they stop."""
        for _ in range(5):
            self.second()
            self.report("a", "turnarounds", 100)
            self.report("b", "turnarounds", 100, errors=0.9)
        self.assertLess(self.factors()["b"], 0.1)
        for _ in range(10):
            self.second()
            self.report("b", "turnarounds", 100)
        self.assertGreater(self.factors()["b"], 0.9)

    def settled(self) -> float:
        """A host's capacity, after a minute of the same."""
        self.capacity = Capacity()
        for _ in range(60):
            self.second()
            self.report("a", "turnarounds", 90, utilisation=0.9)
        return self.capacity.bases(self.now)["a"].capacity

    def test_fall(self) -> None:
        """It counts with 5 s while the host is nine tenths busy and its turnarounds take a quarter longer than usual; else, as
        every rise, with 30 s."""
        for rate, busy, took_s, smoothing_s in (
            (45, 0.9, 0.0126, 5.0), (45, 0.9, 0.0125, 30.0), (45, 0.89, 0.02, 30.0), (180, 0.9, 0.02, 30.0), (45, 0.9, None, 30.0),
        ):
            before = self.settled()
            self.assertAlmostEqual(before, 100.0)
            self.second()
            window = Window("turnarounds", rate, float(rate), busy, 0.0, took_s)
            self.capacity.reported("a", LoadReport(utilisation=busy), self.now, window)
            self.assertAlmostEqual(self.capacity.bases(self.now)["a"].capacity,
                                   before + (rate / busy - before) * (1 - math.exp(-1 / smoothing_s)), msg=f"{rate} {busy} {took_s}")

    def test_what_is_usual(self) -> None:
        """What turnarounds take for long becomes usual, within 30 s: they do not make falls quick for ever."""
        for seconds, smoothing_s in ((17, 5.0), (18, 30.0)):  # of 56 % more, 1 - e^(-17.55 / 30) makes it 25 % beside usual
            self.settled()
            for _ in range(seconds):
                self.second()
                self.capacity.reported("a", LoadReport(utilisation=0.95), self.now, Window("turnarounds", 95, 95.0, 0.95, 0.0, 0.0156))
            before = self.capacity.bases(self.now)["a"].capacity
            self.second()
            self.capacity.reported("a", LoadReport(utilisation=0.95), self.now, Window("turnarounds", 9, 9.5, 0.95, 0.0, 0.0156))
            self.assertAlmostEqual(self.capacity.bases(self.now)["a"].capacity, before + (10 - before) * (1 - math.exp(-1 / smoothing_s)))

    def test_idle(self) -> None:
        """Below a tenth of utilisation, averaged over 5 s, what is seen is no sample; of an agent that counts, below a
        twentieth."""
        for busy, counts, capacity in ((0.1, False, 90.0), (0.099, False, 0.0), (0.05, True, 180.0), (0.049, True, 0.0)):
            self.capacity = Capacity()
            self.second()
            told = LoadReport(utilisation=busy, rate=9.0, completions=9.0) if counts else LoadReport(utilisation=busy)
            self.capacity.reported("a", told, self.now, Window("turnarounds", 9, 9.0, busy, 0.0, 0.01))
            self.assertAlmostEqual(self.capacity.bases(self.now)["a"].capacity, capacity)
        self.settled()
        for seconds in range(1, 14):
            self.second()
            self.capacity.reported("a", LoadReport(utilisation=0.0), self.now, Window("turnarounds", 9, 9.0, 0.09, 0.0, 0.01))
            self.assertIs(self.capacity.bases(self.now)["a"].sample_age_s == 0.0, seconds <= 10)  # 0.9 e^(-11 / 5) = 0.0997
