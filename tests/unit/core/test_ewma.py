"""Peak EWMA: the host whose latency times its connections is least; rises at once, falls slowly."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Reason
from director.core.host import Host
from director.core.pool import Pool
from director.core.schedulers.ewma import DECAY_S, PeakEwma
from director.core.schedulers.least import turns
from tests.unit.core.core_pools import pool_of

DONE = Reason.HOST_CLOSED


def once(pool: Pool, name: str, seconds: float, now: float, reason: Reason = DONE) -> None:
    """A connection of *seconds* to the host ends now."""
    ticket = pool.pick(None, now - seconds, [host for host in pool.hosts.values() if host.name != name])
    assert ticket is not None
    pool.release(ticket, reason, now)


def latency(pool: Pool, name: str, now: float) -> float:
    return next(each.factors["latency_s"] for each in pool.explain(None, now).hosts if each.host.name == name)


class PeakEwmaTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.scheduler = PeakEwma()
        self.pool = pool_of(self.scheduler, [1, 1, 1])

    def test_peak(self) -> None:
        """A longer duration counts at once, a shorter one by and by; without any it decays."""
        once(self.pool, "h0", 0.1, 1.0)
        once(self.pool, "h0", 0.5, 1.1)
        self.assertAlmostEqual(latency(self.pool, "h0", 1.1), 0.5)
        once(self.pool, "h0", 0.1, 1.1 + DECAY_S)
        expected = 0.5 / math.e + 0.1 * (1 - 1 / math.e)
        self.assertAlmostEqual(latency(self.pool, "h0", 1.1 + DECAY_S), expected)
        self.assertAlmostEqual(latency(self.pool, "h0", 1.1 + 2 * DECAY_S), expected / math.e)

    def test_of_other_times(self) -> None:
        """Latencies of different times are compared as they are by now, each decayed since its own."""
        once(self.pool, "h0", 0.1, 1.0)
        once(self.pool, "h1", 0.05, 1.0 + DECAY_S / 2)
        h0, h1 = self.pool.hosts["h0"], self.pool.hosts["h1"]
        self.assertLess(self.scheduler.score(h1), self.scheduler.score(h0))
        once(self.pool, "h1", 0.05, 1.0 + 2 * DECAY_S)
        now = 1.0 + 2 * DECAY_S
        ratio = self.scheduler.worth(h0, now) / self.scheduler.worth(h1, now)
        self.assertAlmostEqual(ratio, latency(self.pool, "h1", now) / latency(self.pool, "h0", now))

    def test_shown(self) -> None:
        """What an operator is shown of a host: what its latency makes of one connection more, for its weight."""
        once(self.pool, "h0", 0.1, 1.0)
        host = self.pool.hosts["h0"]
        for weight, load in ((1.0, 0.1), (2.0, 0.1), (0.5, 0.6)):
            self.pool.set_weight(host, weight)
            self.assertAlmostEqual(self.scheduler.factors(host, None, 1.0)["load"], load)
            self.pool.pick(None, 1.0, [each for each in self.pool.hosts.values() if each is not host])
        self.pool.set_weight(host, 0.0)
        self.assertNotIn("load", self.scheduler.factors(host, None, 1.0))

    def test_cut(self) -> None:
        """A connection that a director cut says nothing."""
        once(self.pool, "h0", 0.1, 1.0)
        once(self.pool, "h0", 50.0, 51.0, Reason.DRAIN_DEADLINE)
        self.assertLess(latency(self.pool, "h0", 51.0), 0.1)

    def test_turnarounds(self) -> None:
        """Turnarounds stand in for durations."""
        once(self.pool, "h0", 3.0, 4.0)
        self.pool.turned(self.pool.hosts["h0"], 10, 0.2, 104.0)
        self.assertAlmostEqual(latency(self.pool, "h0", 104.0), 0.02, 3)
        once(self.pool, "h0", 3.0, 104.0)
        self.assertAlmostEqual(latency(self.pool, "h0", 104.0), 0.02, 3)
        self.pool.turned(self.pool.hosts["h0"], 0, 0.0, 104.0)
        self.assertAlmostEqual(latency(self.pool, "h0", 104.0), 0.02, 3)

    def test_slow(self) -> None:
        """Twice as slow gets one connection for two of the others."""
        for name, seconds in (("h0", 0.1), ("h1", 0.1), ("h2", 0.2)):
            once(self.pool, name, seconds, 1.0)
        picked = Counter(self.pool.pick(None, 1.0).host.name for _ in range(50))
        self.assertEqual(picked, {"h0": 20, "h1": 20, "h2": 10})

    def test_unknown(self) -> None:
        """A host of which nothing is known is tried with one connection, and gets the next once that has ended."""
        for name in ("h0", "h1"):
            once(self.pool, name, 0.1, 1.0)
        tickets = [self.pool.pick(None, 1.0) for _ in range(9)]
        self.assertEqual(sum(ticket.host.name == "h2" for ticket in tickets), 1)

    def test_nobody_known(self) -> None:
        """Busy hosts of which nothing is known are compared by what one connection more would make of them, for their weight."""
        pool = pool_of(PeakEwma(), [1, 3])
        one, other = pool.hosts.values()
        for beside in (other, *[one] * 4):
            pool.pick(None, 0.0, [beside])
        self.assertIs(pool.explain(None, 0.0).chosen, other)  # its fifth for a weight of 3, or the second for a weight of 1
        pool.pick(None, 0.0, [one])
        self.assertIs(pool.explain(None, 0.0).chosen, one)

    def test_nobody_known_of_great_weights(self) -> None:
        """The same where weights are so large that a connection adds little."""
        pool = pool_of(PeakEwma(), [100, 100])
        few, many = pool.hosts.values()
        for beside in (few, few, many):
            pool.pick(None, 0.0, [beside])
        self.assertIs(pool.explain(None, 0.0).chosen, few)

    @given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 100), st.floats(0, 1e3)), max_size=30), st.floats(0, 1e4))
    def test_time_changes_no_order(self, ends: list[tuple[int, float, float]], later: float) -> None:
        """The order by the kept keys is that of decayed latencies times connections, at any time after."""
        scheduler = PeakEwma()
        pool = pool_of(scheduler, [1, 2, 0.5])
        now = 1000.0
        for number, seconds, gap in ends:
            now += gap
            once(pool, f"h{number}", seconds, now)
        known = [each for each in pool.explain(None, now + later).hosts if each.factors.get("load", 0.0) > 1e-200]
        for one in known:
            for other in known:
                if one.factors["load"] < other.factors["load"] * (1 - 1e-6):
                    self.assertLess(scheduler.score(one.host), scheduler.score(other.host))

    @settings(max_examples=80, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(["end", "end", "turn", "cut", "pick", "weigh"]), st.integers(0, 2),
                              st.sampled_from([0.0, 1e-6, 1e-5, 0.01, 0.1, 2.0, 40.0]), st.sampled_from([0.0, 0.01, 1.0, 29.0, 31.0, 300.0])),
                    min_size=1, max_size=30), st.sampled_from([10.0, 10.0, 3.0]))
    def test_formula(self, events: list[tuple[str, int, float, float]], decay_s: float) -> None:
        """Each host's latency, cost, turns and worth as they are defined, whatever ended before."""
        scheduler = PeakEwma() if decay_s == 10.0 else PeakEwma(decay_s)
        pool = pool_of(scheduler, [1, 2, 0.5])
        hosts = list(pool.hosts.values())
        latencies: dict[Host, tuple[float, float]] = {}  # as of when
        turned: dict[Host, float] = {}
        usual, usual_at, now = 0.0, 0.0, 1000.0

        def sample(host: Host, seconds: float) -> None:
            nonlocal usual, usual_at
            seconds = max(seconds, 1e-5)
            latency_s, at = latencies.get(host, (seconds, now))
            kept = math.exp((at - now) / decay_s)
            latencies[host] = max(seconds, latency_s * kept + seconds * (1 - kept)), now
            usual, usual_at = usual + (math.log(seconds) - usual) / 16, now

        for what, number, seconds, gap in events:
            now += gap
            host = hosts[number]
            match what:
                case "end" | "cut":
                    if what == "end" and now - turned.get(host, -math.inf) > 30.0:
                        sample(host, now - (now - seconds))
                    once(pool, host.name, seconds, now, DONE if what == "end" else Reason.DRAIN_DEADLINE)
                case "turn":
                    pool.turned(host, number + 1, (number + 1) * seconds, now)
                    sample(host, (number + 1) * seconds / (number + 1))
                    turned[host] = now
                case "pick":
                    pool.pick(None, now, [each for each in hosts if each is not host])
                case _:
                    pool.set_weight(host, 0.5 + gap)
            for each in hosts:
                shown = scheduler.factors(each, None, now)
                if each not in latencies:
                    self.assertNotIn("latency_s", shown)
                    self.assertEqual(scheduler.worth(each, now), each.weight)
                    self.assertEqual(scheduler.share(each), turns(each.weight / each.capacity, each.capacity))
                    continue
                latency_s, at = latencies[each]
                fresh_s = latency_s * math.exp((at - now) / decay_s)
                self.close(shown["latency_s"], fresh_s)
                self.close(shown["load"], fresh_s * (each.in_flight + 1) / each.weight)
                self.close(scheduler.share(each), turns(each.weight / each.capacity, each.capacity * math.exp(usual) / latency_s))
                faster = min(usual - math.log(latency_s) + (usual_at - at) / decay_s, 50.0)
                self.close(scheduler.worth(each, now), each.weight * math.exp(faster))
            known = [each for each in hosts if each in latencies]
            for one in known:  # the keys differ as the logarithms of the costs do
                for other in known:
                    cost = [math.log(latency_s * (each.in_flight + 1) / each.weight) + at / decay_s
                            for each, (latency_s, at) in ((one, latencies[one]), (other, latencies[other]))]
                    self.assertAlmostEqual(scheduler.score(one) - scheduler.score(other), cost[0] - cost[1], 6)

    def close(self, one: float, other: float) -> None:
        self.assertTrue(math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-300), f"{one} {other}")

    def test_unknown_ones(self) -> None:
        """Idle and unknown comes before all that are known, busy and unknown after them, by connections for the weight."""
        once(self.pool, "h0", 1e4, 1e4)
        scheduler, (slow, one, other) = self.scheduler, self.pool.hosts.values()
        self.assertEqual(scheduler.score(one), -math.inf)
        self.pool.pick(None, 1e4, [slow, other])
        self.pool.set_weight(other, 2.0)
        self.pool.pick(None, 1e4, [slow, one])
        self.assertGreater(scheduler.score(one), scheduler.score(slow))
        self.assertEqual((scheduler.score(one), scheduler.score(other)), (2e15, 1e15))
