"""Schedulers that look at neither load nor memory: random, weighted random, round robin."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from director.core.host import Host
from director.core.schedulers.base import Parts, Quiet, Random
from director.core.schedulers.structures import HostArray, ShareTree


class Drawn(Quiet):
    """Any eligible host, all equally likely. Pick O(1)."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._roster = HostArray()

    def add(self, host: Host) -> None:
        self._roster.add(host)

    def remove(self, host: Host) -> None:
        self._roster.remove(host)

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        return self._roster.draw(self._random, exclude)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return self._roster.only()

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        return {"in_flight": host.in_flight}

    def rule(self, client: bytes | None, now: float) -> str:
        return "draws one, all equally likely"


class Weighted(Quiet):
    """Any eligible host, as likely as its share of the effective weights. Pick O(log n)."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._shares = ShareTree()

    def add(self, host: Host) -> None:
        self._shares.put(host, host.weight)

    def remove(self, host: Host) -> None:
        self._shares.remove(host)

    def reweigh(self, host: Host) -> None:
        self._shares.put(host, host.weight)

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        return self._shares.draw(self._random, exclude)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return self._shares.only()

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        return {"weight": host.weight}

    def rule(self, client: bytes | None, now: float) -> str:
        return "draws one by weight"

    def parts(self, host: Host, now: float) -> Parts:
        return Parts(host.weight, host.weight)


class RoundRobin(Quiet):
    """Every eligible host in turn, weights ignored: the one whose last pick is longest ago. Pick O(1).

    One that becomes eligible joins at the end of the line.
    """

    def __init__(self) -> None:
        # Not a plain dict: finding the first key of one that is always deleted from at the front is O(n).
        self._line: OrderedDict[Host, None] = OrderedDict()

    def add(self, host: Host) -> None:
        self._line[host] = None

    def remove(self, host: Host) -> None:
        del self._line[host]

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        for host in self._line:
            if host not in exclude:
                return host
        return None

    def picked(self, host: Host, client: bytes | None, now: float) -> None:
        self._line.move_to_end(host)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return self.pick(client, (), now)

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        return {"last_turn": host.last_turn}

    def rule(self, client: bytes | None, now: float) -> str:
        return "takes the host whose last turn is longest ago"
