"""Schedulers that go by open connections: least connections, its weighted form, and the power of d choices.

**Light load.** At any load, shares of equally loaded hosts follow their weights. Open connections alone do not give
that: with nothing in flight the largest weight would win each time, and what tells it from the others may be nothing but
the noise of an estimate. So once the best host is idle, all idle hosts take turns by weight.
"""

from __future__ import annotations

from collections.abc import Collection

from cluster.model import Reason
from director.core.host import Host
from director.core.schedulers.base import Quiet, Random
from director.core.schedulers.smooth import SmoothRoundRobin
from director.core.schedulers.structures import LeastTree, ShareTree


def load(host: Host) -> float:
    """Connections per unit of weight that *host* would have with one more."""
    return (host.in_flight + 1) / host.weight


class LeastConnections(Quiet):
    """The eligible host with the fewest open connections, weights ignored; among equals the least recently picked.

    Pick O(1), events O(log n).
    """

    def __init__(self) -> None:
        self._tree = LeastTree()

    @staticmethod
    def _key(host: Host) -> float:
        return host.in_flight

    def add(self, host: Host) -> None:
        self._tree.put(host, self._key(host))

    def remove(self, host: Host) -> None:
        self._tree.remove(host)

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        return self._tree.least(exclude)

    def picked(self, host: Host, client: bytes | None, now: float) -> None:
        self._tree.put(host, self._key(host))

    def closed(self, host: Host, duration_s: float, reason: Reason, now: float) -> None:
        if host in self._tree:
            self._tree.put(host, self._key(host))

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return self._tree.least()

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        return {"in_flight": host.in_flight, "last_turn": host.last_turn}


class WeightedLeastConnections(LeastConnections):
    """The eligible host that would have the least `load`; among equals the least recently picked. When that host is idle,
    all idle ones in turn by weight. Pick O(1), events O(log n).

    Not "an idle host whenever there is one": a fast host with a connection open may still be the better choice.
    """

    _key = staticmethod(load)

    def __init__(self) -> None:
        super().__init__()
        self._idle = SmoothRoundRobin()  #: of the eligible hosts, those with nothing in flight

    def configure(self, hosts: Collection[Host]) -> None:
        self._idle.configure(hosts)

    def add(self, host: Host) -> None:
        super().add(host)
        if not host.in_flight:
            self._idle.add(host)

    def remove(self, host: Host) -> None:
        super().remove(host)
        self._idle.discard(host)

    def reweigh(self, host: Host) -> None:
        self._tree.put(host, load(host))
        if not host.in_flight:
            self._idle.reweigh(host)

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        best = self._tree.least(exclude)
        return best if best is None or best.in_flight else self._idle.pick(client, exclude, now)

    def picked(self, host: Host, client: bytes | None, now: float) -> None:
        super().picked(host, client, now)
        if host.in_flight == 1:
            self._idle.picked(host, client, now)
            self._idle.remove(host)

    def closed(self, host: Host, duration_s: float, reason: Reason, now: float) -> None:
        super().closed(host, duration_s, reason, now)
        if not host.in_flight and host in self._tree:
            self._idle.add(host)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return self.pick(client, (), now)

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        cost = {"load": load(host)} if host.weight > 0 else {}
        idle = self._idle.factors(host, client, now)
        return {"in_flight": host.in_flight, "weight": host.weight, **cost, **idle}


class PowerOfChoices(Quiet):
    """Of *choices* hosts drawn by weight the one that would have the least `load`; when that one is idle, the first drawn
    of the idle. Pick O(choices * log n).

    Two choices already avoid most of random's imbalance, and directors that know nothing of each other do not all
    run to the same host: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
    """

    def __init__(self, random: Random, choices: int = 2) -> None:
        self._random = random
        self._choices = choices
        self._shares = ShareTree()

    def add(self, host: Host) -> None:
        self._shares.put(host, host.weight)

    def remove(self, host: Host) -> None:
        self._shares.remove(host)

    def reweigh(self, host: Host) -> None:
        self._shares.put(host, host.weight)

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        drawn = self._shares.sample(self._choices, self._random, exclude)
        best = min(drawn, key=lambda host: (load(host), host.turn), default=None)
        if best is None or best.in_flight:
            return best
        return next(host for host in drawn if not host.in_flight)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        if len(self._shares) > self._choices:
            return None
        best = min(self._shares, key=lambda host: (load(host), host.turn), default=None)
        drawn = best is not None and sum(not host.in_flight for host in self._shares) > 1 and not best.in_flight
        return None if drawn else best

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        cost = {"load": load(host)} if host.weight > 0 else {}
        return {"in_flight": host.in_flight, "weight": host.weight, **cost}
