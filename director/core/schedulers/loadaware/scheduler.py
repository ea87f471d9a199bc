"""The composed score, and the order that it keeps.

The host with the least ``(1 + n) / W * X * stall * cap`` is picked, ties to the least recently picked; when it is idle, all
idle ones take turns (`director.core.schedulers.least.turns`, with W / (X * stall * cap) as the estimate).

Scores are kept in a tree. What changes with an event (a pick, a close, a report, a weight) is brought up to date there
and then; what changes with time or with the pool (fading, stalls, medians, ages of reports) by a sweep, part of which is
done with a pick when it is due: all hosts within `SWEEP_S`, as long as there are no more than `SWEEP_MOST`; more take
longer in proportion, so that sweeps never cost more than about 2 % of a core.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from cluster.model import LoadReport, Reason
from director.core.host import Host
from director.core.schedulers.least import LeastLoaded, ended_by_itself, turns
from director.core.schedulers.loadaware import slowness
from director.core.schedulers.loadaware.guards import MOST_SHARE, STALL_AFTER, Shares, Trial, stall
from director.core.schedulers.loadaware.inflight import InFlight, MeanDuration, PoolLoad, pool_load
from director.core.schedulers.loadaware.slowness import Slowness

#: Time of a sweep, its parts, and the hosts of each part.
SWEEP_S = 0.1
SLICE_S = 0.01
SLICE = 64
SWEEP_MOST = SLICE * round(SWEEP_S / SLICE_S)
#: Turnarounds older than this no longer stand in for durations.
TURNED_S = 30.0
#: Nor do they where connections live shorter, on average: those tell sooner by themselves than turnarounds, which are
#: counted up once a second.
LONG_S = 2.0


class _Seen:
    """What is known of one host, and the factors that its score is made of."""

    __slots__ = ("blend", "cap", "durations", "in_flight", "quiet_since", "stall", "trial", "turns", "x")

    def __init__(self) -> None:
        self.durations = Slowness()
        self.turns = Slowness()
        self.in_flight = InFlight()
        self.quiet_since = math.inf
        self.blend = 0.0
        self.x = 1.0
        self.stall = 1.0
        self.cap = 1.0
        self.trial = Trial()

    def guarded(self) -> float:
        return self.x * self.stall * self.cap * self.trial.factor


class LoadAware(LeastLoaded):
    """See the module. Pick O(1), events O(log n).

    :param fade_s: see `slowness`.
    :param stall_after: see `guards`, as is
    :param most_share:
    """

    def __init__(
        self, fade_s: float = slowness.FADE_S, stall_after: float = STALL_AFTER, most_share: float = MOST_SHARE
    ) -> None:
        super().__init__()
        self._fade_s = fade_s
        self._stall_after = stall_after
        self._seen: dict[Host, _Seen] = {}
        self._order: list[Host] = []  # of the sweep
        self._next = 0
        self._swept_at = -math.inf
        self._began_at = -math.inf
        self._shares = Shares(most_share)
        self._duration = MeanDuration()
        self._median: float | None = None  # of log durations
        self._turn_median: float | None = None
        self._usual_s = math.inf
        self._load = PoolLoad()

    # --- the score

    def score(self, host: Host) -> float:
        """As of the last event of *host* and the last sweep."""
        seen = self._seen[host]
        n = seen.in_flight.count(host.in_flight, seen.blend, host.weight, self._load)
        return (1.0 + max(n, 0.0)) / host.weight * seen.guarded()

    def share(self, host: Host) -> float:
        seen = self._seen[host]
        others = 1.0 + max(seen.in_flight.count(0, seen.blend, host.weight, self._load), 0.0)
        return turns(host.weight / host.capacity / others, host.capacity / seen.guarded())

    def worth(self, host: Host, now: float) -> float:
        return host.weight / self._seen[host].guarded()

    def _slowness(self, seen: _Seen, now: float) -> float:
        long = not self._duration.count or self._duration.seconds >= LONG_S
        if long and now - seen.turns.at <= TURNED_S:
            return seen.turns.factor(self._turn_median, now, self._fade_s)
        return seen.durations.factor(self._median, now, self._fade_s)

    # --- events

    def configure(self, hosts: Collection[Host]) -> None:
        super().configure(hosts)
        self._seen = {host: self._seen.get(host) or _Seen() for host in hosts}

    def add(self, host: Host) -> None:
        if host not in self._seen:
            self._seen[host] = _Seen()
        super().add(host)
        self._began_at = -math.inf  # a new sweep

    def remove(self, host: Host) -> None:
        super().remove(host)
        self._began_at = -math.inf

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        if now - self._swept_at >= SLICE_S:
            self._sweep(now)
        return super().pick(client, exclude, now)

    def picked(self, host: Host, client: bytes | None, now: float) -> None:
        seen = self._seen[host]
        if host.in_flight == 1:
            seen.quiet_since = now
        forgotten = self._shares.picked(host)
        seen.trial.picked()
        seen.cap = self._shares.cap(host)
        if forgotten is not None and forgotten is not host:
            other = self._seen.get(forgotten)
            if other is not None and other.cap > 1.0:
                other.cap = self._shares.cap(forgotten)
                self._rescore(forgotten)
        super().picked(host, client, now)

    def closed(self, host: Host, duration_s: float, reason: Reason, now: float) -> None:
        seen = self._seen.get(host)
        if seen is not None:
            seen.quiet_since = now
            seen.stall = 1.0
            if ended_by_itself(reason):
                self._duration.sample(duration_s)
                seen.durations.sample(duration_s, now)
                seen.x = self._slowness(seen, now)
        super().closed(host, duration_s, reason, now)

    def turned(self, host: Host, count: int, total_s: float, now: float) -> None:
        seen = self._seen.get(host)
        if seen is not None and count:
            seen.turns.sample(total_s / count, now, count)
            seen.x = self._slowness(seen, now)
            self._rescore(host)

    def reported(self, host: Host, report: LoadReport, now: float) -> None:
        seen = self._seen.get(host)
        if seen is not None:
            seen.trial.reported(report)
            seen.in_flight.reported(report, host.in_flight, now)
            seen.blend = seen.in_flight.blend(self._duration.seconds, now)
            self._rescore(host)

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        seen = self._seen.get(host)
        if seen is None:
            return {}
        numbers = super().factors(host, client, now)
        n = seen.in_flight.count(host.in_flight, seen.blend, host.weight, self._load)
        return {**numbers, "n": n, "x": seen.x, "stall": seen.stall, "cap": seen.cap * seen.trial.factor}

    # --- time

    def cleanup(self, now: float) -> int:
        """Scores do not grow old while nobody comes."""
        if now - self._swept_at >= SLICE_S:
            self._sweep(now)
        return super().cleanup(now)

    @contextmanager
    def looking(self, now: float) -> Iterator[None]:
        parts = (self._order, self._next, self._swept_at, self._began_at, self._shares, self._median, self._turn_median,
                 self._usual_s, self._load)
        seen = [(each, (each.blend, each.x, each.stall, each.cap)) for each in self._seen.values()]
        scores, paces = self._scores.copy(), self._idle.paces()
        self._shares = self._shares.copy()
        if now - self._swept_at >= SLICE_S:
            self._sweep(now)
        try:
            yield
        finally:
            (self._order, self._next, self._swept_at, self._began_at, self._shares, self._median, self._turn_median,
             self._usual_s, self._load) = parts
            for each, factors in seen:
                each.blend, each.x, each.stall, each.cap = factors
            for host, score in scores.items():
                if self._scores[host] != score:
                    self._scores[host] = score
                    self._tree.put(host, score)
            self._idle.put_back(paces)

    def _sweep(self, now: float) -> None:
        """Bring as many hosts up to date as are due since the last part."""
        slices = round(min((now - self._swept_at) / SLICE_S, SWEEP_MOST // SLICE))
        self._swept_at = now
        left = slices * SLICE
        if self._next >= len(self._order):
            if now - self._began_at < SWEEP_S:
                return
            self._begin(now)
        hosts = self._order[self._next : self._next + left]
        self._next += len(hosts)
        for host in hosts:
            if host in self._tree:
                self._update(host, now)

    def _begin(self, now: float) -> None:
        """Start a sweep: with who is there, and the pool's medians."""
        self._began_at = now
        self._order = list(self._tree)
        self._next = 0
        pool = [(host, self._seen[host]) for host in self._order]
        self._median = slowness.median((seen.durations for _host, seen in pool), now)
        if self._median is not None:
            self._usual_s = math.exp(self._median)
        self._turn_median = slowness.median((seen.turns for _host, seen in pool), now)
        self._shares.resize(len(pool), sum(host.weight for host, _seen in pool))
        self._load = pool_load((seen.in_flight, host.in_flight, host.weight) for host, seen in pool)

    def _update(self, host: Host, now: float) -> None:
        seen = self._seen[host]
        seen.x = self._slowness(seen, now)
        seen.blend = seen.in_flight.blend(self._duration.seconds, now)
        seen.stall = stall(host.in_flight, now - seen.quiet_since, self._usual_s, self._stall_after)
        seen.cap = self._shares.cap(host)
        self._rescore(host)
