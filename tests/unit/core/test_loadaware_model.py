"""The composed score beside a model of it: every host looked at anew, by the formulas of the module's description."""

from __future__ import annotations

import copy
import math
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import LoadReport, Reason
from director.core.host import Host
from director.core.pool import Pool, Ticket
from director.core.schedulers.least import turns
from director.core.schedulers.loadaware import LoadAware, slowness
from director.core.schedulers.loadaware.guards import Trial, stall
from director.core.schedulers.loadaware.inflight import InFlight, MeanDuration, pool_load
from director.core.schedulers.loadaware.slowness import Slowness
from tests.unit.core.core_pools import pool_of

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pick", "pick", "pick", "close", "close", "cut", "fail", "report", "turn", "weigh", "leave", "serve", "wait"]),
        st.integers(0, 9), st.sampled_from([0.0, 0.004, 0.01, 0.03, 0.1, 0.3, 1.0, 2.5, 9.0, 31.0]),
    ),
    min_size=10, max_size=80,
)


class Known:
    """What the model keeps of one host."""

    def __init__(self) -> None:
        self.durations, self.turns, self.in_flight, self.trial = Slowness(), Slowness(), InFlight(), Trial()
        self.quiet_since = math.inf
        self.blend, self.x, self.stall, self.cap = 0.0, 1.0, 1.0, 1.0


class Model:
    """A pool small enough for every sweep to be of all hosts."""

    def __init__(self, hosts: list[Host], fade_s: float, stall_after: float, most_share: float) -> None:
        self.known = {host: Known() for host in hosts}
        self.there = list(hosts)
        self.fade_s, self.stall_after, self.most_share = fade_s, stall_after, most_share
        self.picks: deque[Host] = deque()
        self.window, self.weight = 0, 0.0
        self.duration, self.load = MeanDuration(), pool_load([])
        self.medians: tuple[float | None, float | None] = None, None
        self.usual_s = math.inf
        self.looked_at = self.began_at = -math.inf

    def cap(self, host: Host) -> float:
        fair = host.weight * self.window
        count = self.picks.count(host)
        if not fair:
            return math.inf if count else 1.0
        share = count * self.weight / fair
        return 2.0 + 10.0 * (share - self.most_share) if share > self.most_share else 1.0

    def x(self, known: Known, now: float) -> float:
        # turnarounds of the last half minute, unless connections end within two seconds, on average
        short = self.duration.count > 0 and self.duration.seconds < 2.0
        if not short and now - known.turns.at <= 30.0:
            return known.turns.factor(self.medians[1], now, self.fade_s)
        return known.durations.factor(self.medians[0], now, self.fade_s)

    def sweep(self, now: float) -> None:
        if now - self.looked_at < 0.01:
            return
        self.looked_at = now
        if now - self.began_at < 0.1:
            return
        self.began_at = now
        every = [(host, self.known[host]) for host in self.there]
        durations = slowness.median((each.durations for _, each in every), now)
        if durations is not None:
            self.usual_s = math.exp(durations)
        self.medians = durations, slowness.median((each.turns for _, each in every), now)
        self.window, self.weight = 32 * len(every), sum(host.weight for host, _ in every)
        while len(self.picks) > self.window:
            self.picks.popleft()
        self.load = pool_load((each.in_flight, host.in_flight, host.weight) for host, each in every)
        for host, each in every:
            each.x = self.x(each, now)
            each.blend = each.in_flight.blend(self.duration.seconds, now)
            each.stall = stall(host.in_flight, now - each.quiet_since, self.usual_s, self.stall_after)
            each.cap = self.cap(host)

    def looked(self, now: float) -> Model:
        """As it will be then, if nothing else happens."""
        other = copy.copy(self)
        other.known = {host: copy.copy(known) for host, known in self.known.items()}
        other.picks = self.picks.copy()
        other.sweep(now)
        return other

    def picked(self, host: Host, now: float) -> None:
        known = self.known[host]
        if host.in_flight == 1:
            known.quiet_since = now
        self.picks.append(host)
        gone = self.picks.popleft() if len(self.picks) > self.window else None
        known.trial.picked()
        known.cap = self.cap(host)
        if gone is not None and self.known[gone].cap > 1.0:
            self.known[gone].cap = self.cap(gone)

    def closed(self, host: Host, seconds: float, reason: Reason, now: float) -> None:
        known = self.known[host]
        known.quiet_since, known.stall = now, 1.0
        if reason in (Reason.CLIENT_CLOSED, Reason.HOST_CLOSED, Reason.CLIENT_RESET, Reason.HOST_RESET):
            self.duration.sample(seconds)
            known.durations.sample(seconds, now)
            known.x = self.x(known, now)

    def turned(self, host: Host, count: int, seconds: float, now: float) -> None:
        if count:
            self.known[host].turns.sample(seconds / count, now, count)
            self.known[host].x = self.x(self.known[host], now)

    def reported(self, host: Host, report: LoadReport, now: float) -> None:
        known = self.known[host]
        known.trial.reported(report)
        known.in_flight.reported(report, host.in_flight, now)
        known.blend = known.in_flight.blend(self.duration.seconds, now)

    def factors(self, host: Host) -> tuple[float, ...]:
        known = self.known[host]
        n = known.in_flight.count(host.in_flight, known.blend, host.weight, self.load)
        return n, known.x, known.stall, known.cap * known.trial.factor

    def score(self, host: Host) -> float:
        n, x, stalls, cap = self.factors(host)
        return (1.0 + n) / host.weight * x * stalls * cap

    def share(self, host: Host) -> float:
        """As one of the idle: by weight, less what others' connections take from it, and by what it is known for."""
        known = self.known[host]
        others = known.in_flight.count(0, known.blend, host.weight, self.load)
        guards = known.x * known.stall * known.cap * known.trial.factor
        return turns(host.weight / host.capacity / (1.0 + others), host.capacity / guards)

    def worth(self, host: Host) -> float:
        known = self.known[host]
        return host.weight / (known.x * known.stall * known.cap * known.trial.factor)


class ModelTests(SynchronousTestCase):
    def same(self, pool: Pool, scheduler: LoadAware, model: Model, now: float) -> None:
        for host in pool.hosts.values():
            shown = scheduler.factors(host, None, now)
            for name, value in zip(("n", "x", "stall", "cap"), model.factors(host), strict=True):
                self.assertAlmostEqual(shown[name], value, 9, f"{name} of {host.name}")
            if host in model.there:
                self.assertAlmostEqual(scheduler.score(host) / model.score(host), 1.0, 9, f"score of {host.name}")
                self.assertAlmostEqual(shown["load"] / model.score(host), 1.0, 9, f"kept score of {host.name}")
                parts = scheduler.parts(host, now)
                self.assertAlmostEqual(parts.idle / model.share(host), 1.0, 9, f"share of {host.name}")
                self.assertAlmostEqual(parts.busy / model.worth(host), 1.0, 9, f"worth of {host.name}")

    @settings(max_examples=80, deadline=None)
    @given(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=1, max_size=5), STEPS,
           st.sampled_from([(2.5, 8.0, 1.5), (2.5, 8.0, 1.5), (6.0, 3.0, 1.1)]))
    def test_like_its_model(self, weights: list[float], steps: list[tuple[str, int, float]],
                            parameters: tuple[float, float, float]) -> None:
        """Whatever happens, every factor of every host, and what they make together, is as the formulas say."""
        scheduler = LoadAware(*parameters)
        pool = pool_of(scheduler, weights)
        hosts = list(pool.hosts.values())
        model = Model(hosts, *parameters)
        tickets: list[tuple[Ticket, float]] = []
        now = 100.0

        def release(ticket: Ticket, seconds: float, reason: Reason) -> None:
            pool.release(ticket, reason, now)
            model.closed(ticket.host, seconds, reason, now)

        def take(exclude: list[Host]) -> Ticket | None:
            model.sweep(now)
            if (ticket := pool.pick(None, now, exclude)) is not None:
                model.picked(ticket.host, now)
            return ticket

        for what, number, value in steps:
            host = hosts[number % len(hosts)]
            match what:
                case "pick":
                    if (ticket := take([])) is not None:
                        tickets.append((ticket, now))
                case "close" | "cut" | "fail" if tickets:
                    ticket, since = tickets.pop(number % len(tickets))
                    reason = {"close": Reason.CLIENT_CLOSED, "cut": Reason.DRAIN_DEADLINE, "fail": Reason.HOST_RESET}[what]
                    release(ticket, now - since, reason)
                case "serve":  # a row of connections to one host, one at a time
                    for _ in range(40):
                        if (ticket := take([each for each in hosts if each is not host])) is not None:
                            since, now = now, now + value / 40
                            release(ticket, now - since, Reason.HOST_CLOSED)
                case "report":
                    report = LoadReport(utilisation=min(value, 1.0), in_flight=float(4 * number),
                                        errors=number / 10, completions=float(number % 3))
                    pool.reported(host, report, now)
                    model.reported(host, report, now)
                case "turn":
                    pool.turned(host, number, value, now)
                    model.turned(host, number, value, now)
                case "weigh":
                    pool.set_weight(host, 0.1 + value)
                case "leave":
                    if host in model.there:
                        model.there.remove(host)
                    else:
                        model.there.append(host)
                    pool.set_available(host, host in model.there, True)
                    model.began_at = -math.inf
                case _:
                    now += value
            for later in (now, now + value):
                with scheduler.looking(later):
                    self.same(pool, scheduler, model.looked(later), later)
            self.same(pool, scheduler, model, now)
            model.sweep(now)
            scheduler.cleanup(now)
            self.same(pool, scheduler, model, now)


class SweepTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """Each hundredth of a second is good for 64 hosts, at most 640 at once, and no sweep begins within a tenth of the last."""
        for pauses, swept in (
            ((0.01,), [64]), ((0.0099, 0.003), [0, 64]), ((0.014, 0.011), [64, 128]), ((0.0149, 0.0171), [64, 192]),
            ((0.07,), [448]), ((0.101,), [640]), ((3.0,), [640]), ((0.021, 0.009, 0.002), [128, 128, 192]),
            ((0.051, 3.0), [320, 800]), ((0.099, 0.021, 0.051), [640, 768, 800]),
        ):
            scheduler = LoadAware()
            pool = pool_of(scheduler, [1.0] * 800)
            for now in (-9.0, -8.0, -7.0):  # all of one sweep, and the begin of the next one
                scheduler.cleanup(now)
            scheduler.cleanup(-6.0)
            seen = [scheduler._seen[host] for host in pool.hosts.values()]
            for each in seen:
                each.x = 7.0  # not what a sweep finds
            scheduler._swept_at = now = 0.0
            self.assertEqual(scheduler._next, len(scheduler._order))
            found = []
            for pause in pauses:
                now += pause
                scheduler.cleanup(now)
                found.append(sum(each.x == 1.0 for each in seen))
            self.assertEqual(found, swept, pauses)

    def test_next_sweep(self) -> None:
        """It begins a tenth of a second after the last one did, whoever asks, and at once when a host comes or goes."""
        for pause, change, looks in ((0.1, False, True), (0.0999, False, False), (0.0999, True, True)):
            for picks in (True, False):
                scheduler = LoadAware()
                pool = pool_of(scheduler, [1.0] * 3)
                scheduler.cleanup(0.0)
                seen = scheduler._seen[pool.hosts["h1"]]
                seen.x = 7.0
                if change:
                    pool.set_available(pool.hosts["h2"], False, True)
                if picks:
                    pool.pick(None, pause)
                else:
                    scheduler.cleanup(pause)
                self.assertEqual(seen.x, 1.0 if looks else 7.0, (pause, change, picks))
