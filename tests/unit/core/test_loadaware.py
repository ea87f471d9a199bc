"""The composed score: picked like a scan, up to date with time, and each factor where it matters."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import LoadReport, Reason
from director.core.host import Host
from director.core.pool import Pool, Ticket
from director.core.schedulers import make_scheduler
from director.core.schedulers.loadaware import LoadAware
from director.core.schedulers.loadaware.scheduler import SLICE_S, SWEEP_MOST, SWEEP_S
from tests.unit.core.core_pools import pool_of

DONE = Reason.HOST_CLOSED
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pick", "pick", "pick", "close", "close", "report", "turn", "weigh", "leave", "wait"]),
        st.integers(0, 9), st.floats(0, 1),
    ),
    max_size=120,
)


def serve(pool: Pool, host: Host, seconds: float, count: int, now: float) -> None:
    """*host* serves *count* connections of *seconds*, one after the other, that end *now*."""
    others = [each for each in pool.hosts.values() if each is not host]
    for _ in range(count):
        ticket = pool.pick(None, now - seconds, others)
        assert ticket is not None
        pool.release(ticket, DONE, now)


class LikeAScanTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.7]), min_size=1, max_size=10), STEPS)
    def test_like_a_scan(self, weights: list[float], steps: list[tuple[str, int, float]]) -> None:
        """Exactly the host that looking at all of them would find, whatever happened before; if that is idle, an idle one."""
        scheduler = LoadAware()
        pool = pool_of(scheduler, weights)
        hosts = list(pool.hosts.values())
        tickets: list[Ticket] = []
        now = 0.0
        for what, number, value in steps:
            host = hosts[number % len(hosts)]
            match what:
                case "pick":
                    preview = pool.explain(None, now).chosen
                    scheduler.cleanup(now)
                    eligible = [each for each in hosts if each.eligible]
                    scores = {each: scheduler.score(each) for each in eligible}
                    best = min(eligible, key=lambda each: (scores[each], each.turn), default=None)
                    idle = {each for each in eligible if not each.in_flight}
                    ticket = pool.pick(None, now)
                    self.assertIs(ticket.host if ticket is not None else None, preview)
                    if ticket is not None:
                        tickets.append(ticket)
                        self.assertTrue(ticket.host is best or {ticket.host, best} <= idle)
                case "close" if tickets:
                    pool.release(tickets.pop(number % len(tickets)), DONE, now)
                case "report":
                    report = LoadReport(utilisation=value, in_flight=float(number))
                    pool.reported(host, report, now)
                case "turn":
                    pool.turned(host, number, value, now)
                case "weigh":
                    pool.set_weight(host, 0.1 + value)
                case "leave":
                    pool.set_available(host, not host.available, True)
                case _:
                    now += value

    def test_up_to_date(self) -> None:
        """Time alone changes scores within a tenth of a second, in groups of up to some hundred hosts."""
        for count in (4, SWEEP_MOST):
            scheduler = LoadAware()
            pool = pool_of(scheduler, [1.0] * count)
            slow = pool.hosts["h1"]
            for name in ("h0", "h1", "h2"):
                serve(pool, pool.hosts[name], 0.8 if name == "h1" else 0.01, 60, 1.0)
            now, factors = 1.0 + SWEEP_S, []
            for _ in range(400):
                now += SLICE_S
                scheduler.cleanup(now)
                factors.append(pool.explain(None, now).hosts[1].factors["x"])
                known = scheduler._seen[slow].durations
                fresh = known.factor(scheduler._median, now - SWEEP_S - 5 * SLICE_S)
                self.assertLessEqual(factors[-1], max(fresh, 1.0) + 1e-9, f"{count} hosts at {now}")
            self.assertGreater(factors[0], 3)
            self.assertLess(factors[-1], factors[0] / 3)


    def test_up_to_date_after_a_host_left(self) -> None:
        """Who is slow is forgiven with time, whoever left meanwhile."""
        scheduler = LoadAware()
        pool = pool_of(scheduler, [1.0] * 4)
        for host in pool.hosts.values():
            serve(pool, host, 0.8 if host.name == "h1" else 0.01, 60, 1.0)
        scheduler.cleanup(1.0 + SWEEP_S)
        pool.set_available(pool.hosts["h3"], False, True)
        factors = []
        for now in (1.2, 1.2 + SWEEP_S, 4.0, 4.0 + SWEEP_S):
            scheduler.cleanup(now)
            factors.append(scheduler.factors(pool.hosts["h1"], None, now)["x"])
        self.assertGreater(factors[0], 3)
        self.assertLess(factors[-1], factors[0] / 2)

    def test_looking(self) -> None:
        """What is looked up as of now leaves every factor as it was, though time changed it."""
        scheduler = LoadAware()
        pool = pool_of(scheduler, [1.0] * 4)
        for host in pool.hosts.values():
            serve(pool, host, 0.8 if host.name == "h1" else 0.01, 60, 1.0)
            pool.reported(host, LoadReport(utilisation=0.5, in_flight=3.0), 1.0)
        scheduler.cleanup(1.0 + SWEEP_S)

        def factors() -> list[dict[str, float]]:
            return [scheduler.factors(host, None, 4.0) for host in pool.hosts.values()]

        before = factors()
        with scheduler.looking(4.0):
            self.assertNotEqual(factors(), before)
        self.assertEqual(factors(), before)


class FactorTests(SynchronousTestCase):
    def test_parameters(self) -> None:
        """Each guard can be set: here a host that had all picks is held back later than by default."""
        made = [pool_of(make_scheduler("loadaware", parameters, random=random.random), [1.0] * 4)
                for parameters in ({}, {"most_share": 3.0, "fade_s": 5.0, "stall_after": 4.0})]
        for pool in made:
            serve(pool, pool.hosts["h0"], 0.01, 80, 1.0)
        self.assertEqual([pool.explain(None, 1.0).hosts[0].factors["cap"] > 1 for pool in made], [True, False])

    def test_slow_host(self) -> None:
        """A host whose connections take long is avoided while others have no more than a few open."""
        pool = pool_of("loadaware", [1.0] * 4)
        for name, host in pool.hosts.items():
            serve(pool, host, 0.8 if name == "h2" else 0.01, 60, 1.0)
        picked = Counter(pool.pick(None, 1.2).host.name for _ in range(12))
        self.assertLessEqual(picked["h2"], 1)

    def test_turnarounds(self) -> None:
        """Where there are turnarounds, they tell who is slow; connections' durations do not."""
        pool = pool_of("loadaware", [1.0] * 4)
        for name, host in pool.hosts.items():
            serve(pool, host, 30.0 if name == "h0" else 1.0, 60, 100.0)
            for number in range(60):
                pool.turned(host, 5, 4.0 if name == "h2" else 0.05, 100.0 + number / 100)
        pool.pick(None, 101.0)
        factors = {each.host.name: each.factors["x"] for each in pool.explain(None, 101.2).hosts}
        self.assertGreater(factors["h2"], 3)
        self.assertLess(factors["h0"], 1.1)

    def test_turnarounds_of_short_connections(self) -> None:
        """Short connections tell by themselves, and sooner: turnarounds do not stand in for them."""
        pool = pool_of("loadaware", [1.0] * 4)
        for name, host in pool.hosts.items():
            serve(pool, host, 0.8 if name == "h2" else 0.01, 60, 100.0)
            pool.turned(host, 60, 60 * 0.05, 100.0)
        pool.pick(None, 101.0)
        self.assertGreater({each.host.name: each.factors["x"] for each in pool.explain(None, 101.2).hosts}["h2"], 3)

    def test_turnarounds_of_seconds(self) -> None:
        """Connections that end after a second or two still tell by themselves."""
        pool = pool_of("loadaware", [1.0] * 4)
        for name, host in pool.hosts.items():
            serve(pool, host, 1.9 if name == "h2" else 1.1, 60, 100.0)
            pool.turned(host, 60, 60 * 0.05, 100.0)
        pool.pick(None, 101.0)
        self.assertGreater({each.host.name: each.factors["x"] for each in pool.explain(None, 101.2).hosts}["h2"], 1.2)

    def test_failing_host(self) -> None:
        """What fails fast looks idle at every pick, and still gets three clients between two reports; healed, it gets its share."""
        pool = pool_of("loadaware", [1.0] * 4)
        now, tickets, failed = 0.0, list[tuple[float, Ticket]](), []
        for second in range(60):
            shares = Counter[str]()
            for _ in range(200):
                now += 0.005
                while tickets and tickets[0][0] <= now:
                    pool.release(tickets.pop(0)[1], DONE, now)
                ticket = pool.pick(None, now)
                assert ticket is not None
                shares[ticket.host.name] += 1
                if ticket.host.name == "h3" and second < 40:
                    pool.release(ticket, DONE, now)
                else:
                    tickets.append((now + 0.045, ticket))
            for name, host in pool.hosts.items():
                errors = 1.0 if name == "h3" and second < 40 else 0.0
                pool.reported(host, LoadReport(errors=errors, completions=float(shares[name])), now)
            failed.append(shares["h3"])
        self.assertGreater(failed[0], 20)  # before its first report nothing says so
        self.assertLessEqual(max(failed[1:41]), 3)
        self.assertGreater(failed[-1], 20)

    def test_hanging_host(self) -> None:
        """A host that finishes nothing while others do gets no more, well before anything times out."""
        pool = pool_of("loadaware", [1.0] * 4)
        for host in pool.hosts.values():
            serve(pool, host, 0.01, 60, 1.0)
        stuck = pool.hosts["h3"]
        hanging = [pool.pick(None, 1.0, [host for host in pool.hosts.values() if host is not stuck]) for _ in range(2)]
        now = 1.0
        tickets: list[Ticket] = []
        for _ in range(200):
            now += 0.005
            tickets += [ticket for _ in range(3) if (ticket := pool.pick(None, now))]
            while len(tickets) > 9:
                ticket = tickets.pop(0)
                if ticket.host is not stuck:
                    pool.release(ticket, DONE, now)
        self.assertEqual(len(hanging), 2)
        self.assertLess(stuck.in_flight, 6)

    def test_long_connections(self) -> None:
        """Where connections outlive reports, the one whose report says it is busy is left alone at equal counts."""
        pool = pool_of("loadaware", [1.0] * 4)
        for host in pool.hosts.values():
            serve(pool, host, 20.0, 20, 100.0)
        for _ in range(40):
            pool.pick(None, 100.0)
        for name, host in pool.hosts.items():
            pool.reported(host, LoadReport(utilisation=0.9 if name == "h0" else 0.3, in_flight=10.0), 100.1)
        picked = Counter(pool.pick(None, 100.2).host.name for _ in range(20))
        self.assertEqual(picked["h0"], 0)

    def test_configured_weights(self) -> None:
        """An operator's weights hold, guards or no guards."""
        pool = pool_of("loadaware", [1, 3])
        picked: Counter[str] = Counter()
        for number in range(400):
            ticket = pool.pick(None, float(number))
            picked[ticket.host.name] += 1
            pool.release(ticket, DONE, number + 0.01)
        self.assertLessEqual(abs(picked["h0"] - 100), 5)
