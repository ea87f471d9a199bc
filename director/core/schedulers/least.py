"""Schedulers that go by open connections: least connections, its weighted form, and the power of d choices."""

from __future__ import annotations

from collections.abc import Collection

from cluster.model import Reason
from director.core.host import Host
from director.core.schedulers.base import Quiet, Random
from director.core.schedulers.structures import LeastTree, Roster


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
    """The eligible host that would have the least `load`; among equals the least recently picked."""

    _key = staticmethod(load)

    def reweigh(self, host: Host) -> None:
        self._tree.put(host, load(host))

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        cost = {"load": load(host)} if host.weight > 0 else {}
        return {"in_flight": host.in_flight, "weight": host.weight, **cost, "last_turn": host.last_turn}


class PowerOfChoices(Quiet):
    """Of *choices* hosts drawn at random the one that would have the least `load`. Pick O(choices).

    Two choices already avoid most of random's imbalance, and directors that know nothing of each other do not all
    run to the same host: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
    """

    def __init__(self, random: Random, choices: int = 2) -> None:
        self._random = random
        self._choices = choices
        self._roster = Roster()

    def add(self, host: Host) -> None:
        self._roster.add(host)

    def remove(self, host: Host) -> None:
        self._roster.remove(host)

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        drawn = self._roster.sample(self._choices, self._random, exclude)
        return min(drawn, key=lambda host: (load(host), host.turn), default=None)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return self.pick(client, (), now) if len(self._roster) <= self._choices else None

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        cost = {"load": load(host)} if host.weight > 0 else {}
        return {"in_flight": host.in_flight, "weight": host.weight, **cost}
