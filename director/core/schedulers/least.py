"""Schedulers that go by open connections: least connections, its weighted form, and the power of d choices.

**Light load.** At any load, shares of equally loaded hosts follow their weights. Open connections alone do not give
that: with nothing in flight the largest weight would win each time, and what tells it from the others may be nothing but
the noise of an estimate. So once the best host is idle, all idle hosts take turns by weight (`turns`).
"""

from __future__ import annotations

from collections.abc import Collection

from cluster.model import Reason
from director.core.host import Host
from director.core.schedulers.base import Parts, Quiet, Random
from director.core.schedulers.smooth import SmoothRoundRobin
from director.core.schedulers.structures import LeastTree, ShareTree

#: From this estimate downwards a host is known to be slow: no noise explains it.
KNOWN_SLOW = 0.75
#: How much less often than in proportion it comes then.
AVOIDANCE = 3


def turns(ordered: float, estimate: float) -> float:
    """How often an idle host comes, beside other idle ones.

    In proportion to *ordered*, the part of its weight that somebody ordered (the operator, the agent, a slow start), and to
    *estimate*, what its speed beside its pool's is thought to be, as long as noise may explain that. Of a host that is known
    to be slow it is the fourth power: an idle slow host is a worse place than a fast one with a connection, and with
    several directors, none of which sees the others' connections, "idle" is said of busy hosts too
    (docs/decisions/light-load.md).
    """
    return ordered * estimate * (estimate / KNOWN_SLOW) ** AVOIDANCE if estimate < KNOWN_SLOW else ordered * estimate


def load(host: Host) -> float:
    """Connections per unit of weight that *host* would have with one more."""
    return (host.in_flight + 1) / host.weight


#: Ends by the client or the host, and not by a director: such durations say how fast a host is.
_BY_ITSELF = frozenset({Reason.CLIENT_CLOSED, Reason.HOST_CLOSED, Reason.CLIENT_RESET, Reason.HOST_RESET})


def ended_by_itself(reason: Reason) -> bool:
    """Nobody cut or refused the connection: its duration says something about the host."""
    return reason in _BY_ITSELF


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

    def rule(self, client: bytes | None, now: float) -> str:
        return "takes the host with the fewest open connections; among equals, whose last turn is longest ago"


class LeastLoaded(Quiet):
    """The eligible host with the least *score* (what it would cost with one more connection); among equals the least
    recently picked. When that host is idle, all idle ones in turn, each as often as `share` says. Pick O(1), events
    O(log n).

    Not "an idle host whenever there is one": a fast host with a connection open may still be the better choice.
    """

    def __init__(self) -> None:
        self._tree = LeastTree()
        self._idle = SmoothRoundRobin(self.share)  # of the eligible hosts, those with nothing in flight
        self._scores: dict[Host, float] = {}

    def score(self, host: Host) -> float:
        """What the order is by; read again with each event of the host, and by `_rescore`."""
        raise NotImplementedError

    def share(self, host: Host) -> float:
        """How often an idle host comes, beside other idle ones: see `turns`."""
        raise NotImplementedError

    def worth(self, host: Host, now: float) -> float:
        """How many connections *host* has beside others while all are busy: what equal scores make of them."""
        raise NotImplementedError

    def _rescore(self, host: Host) -> None:
        """Something about *host* has changed."""
        if host in self._tree and (score := self.score(host)) != self._scores[host]:
            self._scores[host] = score
            self._tree.put(host, score)
            if not host.in_flight:
                self._idle.reweigh(host)

    def configure(self, hosts: Collection[Host]) -> None:
        self._idle.configure(hosts)

    def add(self, host: Host) -> None:
        score = self._scores[host] = self.score(host)
        self._tree.put(host, score)
        if not host.in_flight:
            self._idle.add(host)

    def remove(self, host: Host) -> None:
        self._tree.remove(host)
        self._idle.discard(host)
        del self._scores[host]

    def reweigh(self, host: Host) -> None:
        self._rescore(host)

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        best = self._tree.least(exclude)
        return best if best is None or best.in_flight else self._idle.pick(client, exclude, now)

    def picked(self, host: Host, client: bytes | None, now: float) -> None:
        if host.in_flight == 1:
            self._idle.picked(host, client, now)
            self._idle.remove(host)
        score = self._scores[host] = self.score(host)
        self._tree.put(host, score)

    def closed(self, host: Host, duration_s: float, reason: Reason, now: float) -> None:
        if host in self._tree:
            score = self._scores[host] = self.score(host)
            self._tree.put(host, score)
            if not host.in_flight:
                self._idle.add(host)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return LeastLoaded.pick(self, client, (), now)

    def rule(self, client: bytes | None, now: float) -> str:
        best = self._tree.least()
        if best is None or best.in_flight:
            return "takes the host with the least score"
        if len(self._idle) == 1:
            return "takes the host with the least score, the only idle one"
        return f"sees the host with the least score idle, so the {len(self._idle)} idle hosts take turns by weight"

    def parts(self, host: Host, now: float) -> Parts:
        return Parts(self.share(host), self.worth(host, now))

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        score = {"load": self._scores[host]} if host in self._tree else {}
        return {"in_flight": host.in_flight, "weight": host.weight, **score, **self._idle.factors(host, client, now)}


class WeightedLeastConnections(LeastLoaded):
    """By `load`: open connections for its weight."""

    def score(self, host: Host) -> float:
        return (host.in_flight + 1) / host.weight

    def share(self, host: Host) -> float:
        return turns(host.weight / host.capacity, host.capacity)

    def worth(self, host: Host, now: float) -> float:
        return host.weight


class PowerOfChoices(Quiet):
    """Of *choices* hosts drawn as `turns` says the one that would have the least `load`; when that one is idle, the first
    drawn of the idle. Pick O(choices * log n).

    Two choices already avoid most of random's imbalance, and directors that know nothing of each other do not all
    run to the same host: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
    """

    def __init__(self, random: Random, choices: int = 2) -> None:
        self._random = random
        self._choices = choices
        self._shares = ShareTree()

    def add(self, host: Host) -> None:
        self._shares.put(host, turns(host.weight / host.capacity, host.capacity))

    def remove(self, host: Host) -> None:
        self._shares.remove(host)

    def reweigh(self, host: Host) -> None:
        self._shares.put(host, turns(host.weight / host.capacity, host.capacity))

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

    def rule(self, client: bytes | None, now: float) -> str:
        drawn = min(self._choices, len(self._shares))
        return f"takes the least loaded of {drawn} hosts drawn by weight; if that is idle, the first drawn of the idle"

    def parts(self, host: Host, now: float) -> Parts:
        turn = turns(host.weight / host.capacity, host.capacity)
        return Parts(turn, turn)
