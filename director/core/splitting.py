"""Which of several groups a client belongs to, where a service splits its new clients among them; and their pools as one.

Rules:

1. A client belongs to the group that its sticky table's newest memory names (of a sticky service by ``table``), else to
   one by its address (of any sticky service, or with a group that ``maglev`` schedules), else, or without an address, to
   one by its turn. It keeps its turn while it waits, or those at the head of a queue would sooner or later all be a
   group's that has a place.
2. Its group serves it while that has a place. A group other than the enabled one that is full, or has no host available,
   leaves its clients to the enabled group. The enabled group's clients wait while it is full: a canary gets no more than
   its share because the others are busy. Only while the enabled group has no host available at all do the others serve its
   clients: a client at a canary is better off than one refused.
3. After a failed connect a client stays in the group where it was tried first, as long as that has a host left; then any
   other group takes it, the enabled one first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from director.core.host import Host
from director.core.pool import Pool, Ticket
from director.core.schedulers.maglev import point_of
from director.core.schedulers.sticky import StickyTable

#: Of a hash: as many as a float tells apart from 1 even after half a step is added.
_BITS = 52

#: 2**64 divided by the golden ratio. Its multiples, modulo 2**64, lie as evenly as any sequence's (Knuth, The Art of
#: Computer Programming, volume 3, section 6.4): of 100,000 turns in a row a group has its share but for 4.
_STEP = 0x9E3779B97F4A7C15


class Shares:
    """Groups by their shares of clients.

    By address it is an exponential race (weighted rendezvous hashing: Schindelhauer, Schomaker, "Weighted Distributed Hash
    Tables", SPAA 2005, the logarithmic method). Each group has an alarm for each client, at ``-ln(u) / share`` with u from
    a hash of both names, and the first to ring takes the client: the group with chance share / sum of shares. It needs no
    memory and is the same on every director. A larger share makes a group's alarms ring earlier and no other's, so that a
    change moves clients only towards a group whose share has grown beside that of the group they leave; with two groups
    that is as few as can be. Two services with groups of the same names and shares put a client on the same side.

    :param weights: at least one above 0; in any order, for the names decide between equals.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        total = sum(weights.values())
        self.parts = {name: weights[name] / total for name in sorted(weights)}  #: each between 0 and 1
        self._racing = tuple((f"{name}\0".encode(), part, name) for name, part in self.parts.items() if part > 0)

    def of_address(self, client: bytes) -> str:
        """Whose a client with that packed address is."""
        return min((_alarm(prefix + client, part), name) for prefix, part, name in self._racing)[1]

    def of_turn(self, turn: int) -> str:
        """Whose the *turn*-th client is."""
        place = (turn * _STEP % 2**64) / 2**64
        for _, part, name in self._racing:
            place -= part
            if place < 0:
                return name
        return self._racing[-1][2]  # what rounding left over


def _alarm(key: bytes, part: float) -> float:
    return -math.log(((point_of(key) >> (64 - _BITS)) + 0.5) / 2**_BITS) / part


class Split:
    """Several pools, of which `director.core.admission.Admission` sees one.

    :param pools: of every group with a share, 0 included, in the order in which they stand in for one another: the
        enabled group is the first.
    :param by_address: the service is sticky, or a group is by its scheduler.
    :param strayed: counts, by the groups they belong to, the clients that another group took.
    """

    def __init__(self, shares: Shares, pools: Mapping[str, Pool], *, by_address: bool, strayed: Counter[str]) -> None:
        self.shares = shares
        self._pools = dict(pools)
        self._enabled = next(iter(pools))
        self._by_address = by_address
        self._strayed = strayed

    @property
    def available(self) -> int:
        return sum(pool.available for pool in self._pools.values())

    @property
    def eligible(self) -> int:
        return sum(pool.eligible for pool in self._pools.values())

    def pick(self, client: bytes | None, turn: int, now: float, exclude: Collection[Host] = ()) -> Ticket | None:
        """As `Pool.pick`; *turn* is the client's number, the same at each try."""
        own = self._tried_first(exclude) or self.certain(client, now)[0] or self.shares.of_turn(turn)
        for name in self._in_turn(own, waits=not exclude):
            ticket = self._pools[name].pick(client, now, exclude)
            if ticket is not None:
                if name != own:
                    self._strayed[own] += 1
                return ticket
        return None

    def certain(self, client: bytes | None, now: float) -> tuple[str | None, str]:
        """Which group *client* belongs to, and why; None: that depends on its turn."""
        if client is None or not self._by_address:
            return None, "by its turn"
        memories = [
            (until, name) for name, pool in self._pools.items()
            if isinstance(pool.scheduler, StickyTable) and (until := pool.scheduler.until(client, now)) is not None
        ]
        if memories:
            return max(memories)[1], "remembered"
        return self.shares.of_address(client), "by its address"

    def serving(self, own: str) -> str | None:
        """The group that a client who belongs to *own* comes to now; None: it waits or is refused."""
        return next((name for name in self._in_turn(own, waits=True) if self._pools[name].eligible), None)

    def _in_turn(self, own: str, *, waits: bool) -> Iterator[str]:
        """Whom a client of *own* may come to, the next one while those before have no place.

        :param waits: for a place in the enabled group, rather than to go elsewhere.
        """
        for name in dict.fromkeys((own, *self._pools)):
            yield name
            if waits and name == self._enabled and self._pools[name].available:
                return

    def _tried_first(self, exclude: Collection[Host]) -> str | None:
        """The group of the first host that was tried, while it has a part in the split."""
        name = next((host.ref.group for host in exclude), None)
        return name if name in self._pools else None
