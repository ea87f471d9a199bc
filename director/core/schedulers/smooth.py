"""Smooth weighted round robin: exact shares, evenly spread, computed and never accumulated.

Hosts have deadlines in a virtual time that advances by 1 while everybody is picked as often as its weight says: after
*k* picks it is due at ``origin + (k + phase) / weight``, and whoever is due first is picked. With integer weights and
0 < phase < 1 exactly *weight* deadlines of each host lie between one whole number and the next, so every cycle of
sum(weights) picks gives each host exactly its weight. With phase 1/2 for all this is the Sainte-Laguë apportionment;
here phases differ, so that many light hosts do not come due all at once between two picks of a heavy one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from operator import attrgetter

from director.core.host import Host
from director.core.schedulers.base import Parts, Quiet
from director.core.schedulers.structures import LeastTree

#: Its multiples modulo 1 spread evenly, however many there are: the golden ratio less 1.
_SPREAD = 0.6180339887498949


def _phase(number: int) -> float:
    """A phase for the *number*-th host; away from 0 and 1, so that rounding cannot carry it into another cycle."""
    return 0.1 + 0.8 * (number * _SPREAD % 1)


class _Pace:
    """When one host is due, in virtual time."""

    __slots__ = ("due", "origin", "phase", "picks", "weight")

    def __init__(self, origin: float, phase: float, weight: float) -> None:
        self.origin = origin
        self.phase = phase
        self.weight = weight
        self.picks = 0
        self.due = origin + phase / weight

    def advance(self) -> None:
        self.picks += 1
        self.due = self.origin + (self.picks + self.phase) / self.weight

    def change(self, weight: float, now: float) -> _Pace:
        """From *now* on with another weight; what is missing to its next pick stays."""
        return _Pace(now, (self.due - now) * self.weight, weight)


class SmoothRoundRobin(Quiet):
    """Every eligible host as often as its weight says, spread as evenly as possible. Pick O(1), events O(log n).

    A host that is not eligible for a while keeps its deadline; if that passed meanwhile, it starts anew: nobody is paid
    back for missed turns.
    """

    def __init__(self, weight: Callable[[Host], float] = attrgetter("weight")) -> None:
        self._weight = weight
        self._tree = LeastTree()
        self._paces: dict[Host, _Pace] = {}
        self._front = 0.0  #: virtual time: the earliest deadline at the last pick
        self._joined = 0

    def __len__(self) -> int:
        return len(self._tree)

    def configure(self, hosts: Collection[Host]) -> None:
        self._paces = {host: self._paces[host] for host in hosts if host in self._paces}

    def add(self, host: Host) -> None:
        pace = self._paces.get(host)
        weight = self._weight(host)
        if pace is None or pace.due < self._front:
            self._joined += 1
            pace = _Pace(self._front, _phase(self._joined), weight)
        elif pace.weight != weight:
            pace = pace.change(weight, self._front)
        self._paces[host] = pace
        self._tree.put(host, pace.due)

    def remove(self, host: Host) -> None:
        self._tree.remove(host)

    def discard(self, host: Host) -> None:
        """`remove`, if it is there."""
        if host in self._tree:
            self._tree.remove(host)

    def reweigh(self, host: Host) -> None:
        pace = self._paces[host] = self._paces[host].change(self._weight(host), self._front)
        self._tree.put(host, pace.due)

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        return self._tree.least(exclude)

    def picked(self, host: Host, client: bytes | None, now: float) -> None:
        self._front = self._tree.least_key()
        pace = self._paces[host]
        pace.advance()
        self._tree.put(host, pace.due)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return self._tree.least()

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        due = {"due": self._paces[host].due - self._front} if host in self._tree else {}
        return {"weight": host.weight, **due, "last_turn": host.last_turn}

    def rule(self, client: bytes | None, now: float) -> str:
        return "takes the host that is due first, each as often as its weight says"

    def parts(self, host: Host, now: float) -> Parts:
        return Parts(host.weight, host.weight)

    def paces(self) -> Mapping[Host, object]:
        """What `put_back` takes, to undo any `reweigh` since."""
        return self._paces.copy()

    def put_back(self, paces: Mapping[Host, object]) -> None:
        for host, pace in paces.items():
            if isinstance(pace, _Pace) and self._paces[host] is not pace:
                self._paces[host] = pace
                self._tree.put(host, pace.due)
