"""Where schedulers keep their eligible hosts, so that neither a pick nor an event ever scans them.

- `HostArray`: an array; any member by a uniform draw in O(1).
- `LeastTree`: a tournament; the member with the smallest key in O(1), a changed key in O(log n).
- `ShareTree`: sums; a member drawn in proportion to its weight in O(log n).

The trees are complete binary trees in a list (children of *i* at 2i and 2i + 1, root at 1). An inner node is computed
from its two children anew each time, so nothing drifts however often fractional weights change.

*exclude* is small everywhere: hosts already tried for one client.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import inf
from typing import Generic, TypeVar

from director.core.host import Host
from director.core.schedulers.base import Random


class HostArray:
    """Members in an array without order or gaps: the last one fills the place of one that leaves."""

    def __init__(self) -> None:
        self._hosts: list[Host] = []
        self._place: dict[Host, int] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    def __contains__(self, host: Host) -> bool:
        return host in self._place

    def add(self, host: Host) -> None:
        self._place[host] = len(self._hosts)
        self._hosts.append(host)

    def remove(self, host: Host) -> None:
        place = self._place.pop(host)
        last = self._hosts.pop()
        if last is not host:
            self._hosts[place] = last
            self._place[last] = place

    def only(self) -> Host | None:
        """The one member, if there is just one."""
        return self._hosts[0] if len(self._hosts) == 1 else None

    def draw(self, random: Random, exclude: Collection[Host]) -> Host | None:
        """One member outside *exclude*, all equally likely."""
        gaps = self._gaps(exclude) if exclude else ()
        count = len(self._hosts) - len(gaps)
        return self._outside(int(random() * count), gaps) if count else None

    def _gaps(self, exclude: Collection[Host]) -> Collection[int]:
        return sorted({self._place[host] for host in exclude if host in self._place})

    def _outside(self, rank: int, gaps: Collection[int]) -> Host:
        """The member of *rank* when those at *gaps* (ascending) are not counted."""
        for gap in gaps:
            if rank >= gap:
                rank += 1
        return self._hosts[rank]


Leaf = TypeVar("Leaf")


class _Tree(Generic[Leaf]):
    """Slots for hosts at the leaves of a tree that doubles when it is full."""

    _vacant: Leaf  #: what a leaf without a host holds

    def __init__(self) -> None:
        self._leaves = 1
        self._tree: list[Leaf] = [self._vacant] * 2
        self._host_at: list[Host | None] = [None]
        self._slot: dict[Host, int] = {}
        self._free = [0]

    def __len__(self) -> int:
        return len(self._slot)

    def __contains__(self, host: Host) -> bool:
        return host in self._slot

    def __iter__(self) -> Iterator[Host]:
        return iter(self._slot)

    def remove(self, host: Host) -> None:
        slot = self._slot.pop(host)
        self._host_at[slot] = None
        self._free.append(slot)
        self._set(slot, self._vacant)

    def _take_slot(self, host: Host) -> int:
        if not self._free:
            self._grow()
        slot = self._slot[host] = self._free.pop()
        self._host_at[slot] = host
        return slot

    def _grow(self) -> None:
        old, leaves = self._tree, self._leaves
        self._leaves = 2 * leaves
        self._tree = [self._vacant] * (4 * leaves)
        self._host_at.extend([None] * leaves)
        self._free.extend(reversed(range(leaves, 2 * leaves)))
        for slot in range(leaves):
            self._set(slot, old[leaves + slot])

    def _set(self, slot: int, leaf: Leaf) -> None:
        raise NotImplementedError

    def _without(self, exclude: Collection[Host]) -> list[tuple[int, Leaf]]:
        """Empty the leaves of *exclude*; the answer, set again, undoes it."""
        saved = [(slot, self._tree[self._leaves + slot]) for host in exclude if (slot := self._slot.get(host, -1)) >= 0]
        for slot, _leaf in saved:
            self._set(slot, self._vacant)
        return saved


class LeastTree(_Tree[tuple[float, float, int]]):
    """Hosts by key, the smallest first; among equal keys the least recently picked (`Host.turn`)."""

    _vacant = (inf, inf, -1)

    def put(self, host: Host, key: float) -> None:
        """Add *host*, or change its key; ``host.turn`` is read again too."""
        slot = self._slot.get(host)
        if slot is None:
            slot = self._take_slot(host)
        self._set(slot, (key, host.turn, slot))

    def least(self, exclude: Collection[Host] = ()) -> Host | None:
        """The member with the smallest key outside *exclude*."""
        if exclude and (saved := self._without(exclude)):
            slot = self._tree[1][2]
            for each, leaf in saved:
                self._set(each, leaf)
        else:
            slot = self._tree[1][2]
        return self._host_at[slot] if slot >= 0 else None

    def least_key(self) -> float:
        """The smallest key; infinite when there is no member."""
        return self._tree[1][0]

    def _set(self, slot: int, leaf: tuple[float, float, int]) -> None:
        tree = self._tree
        node = self._leaves + slot
        tree[node] = leaf
        while node > 1:
            rival = tree[node ^ 1]
            if rival < leaf:
                leaf = rival
            node >>= 1
            if tree[node] is leaf:
                return  # the same winner as before: nothing changes further up
            tree[node] = leaf


class ShareTree(_Tree[float]):
    """Hosts with weights, drawn in proportion."""

    _vacant = 0.0

    def put(self, host: Host, weight: float) -> None:
        """Add *host*, or change its weight."""
        slot = self._slot.get(host)
        if slot is None:
            slot = self._take_slot(host)
        self._set(slot, weight)

    def total(self) -> float:
        return self._tree[1]

    def only(self) -> Host | None:
        """The one member, if there is just one."""
        return next(iter(self._slot)) if len(self._slot) == 1 else None

    def draw(self, random: Random, exclude: Collection[Host]) -> Host | None:
        """One member outside *exclude*, each as likely as its share of the weights."""
        if exclude and (saved := self._without(exclude)):
            host = self._descend(random)
            for slot, weight in saved:
                self._set(slot, weight)
            return host
        return self._descend(random)

    def sample(self, wanted: int, random: Random, exclude: Collection[Host]) -> list[Host]:
        """*wanted* different members outside *exclude* (or all, when there are fewer), one after the other, each as likely
        as its share of the weights of those that are left."""
        saved = self._without(exclude) if exclude else []
        drawn: list[Host] = []
        while len(drawn) < wanted and (host := self._descend(random)) is not None:
            drawn.append(host)
            saved += self._without((host,))
        for slot, weight in reversed(saved):
            self._set(slot, weight)
        return drawn

    def _descend(self, random: Random) -> Host | None:
        tree, leaves = self._tree, self._leaves
        if not tree[1]:
            return None
        mark = random() * tree[1]
        node = 1
        while node < leaves:
            node *= 2
            left = tree[node]
            # Rounding may carry the mark past the last weight: never turn into a branch without weight.
            if mark >= left and tree[node + 1]:
                mark -= left
                node += 1
        return self._host_at[node - leaves]

    def _set(self, slot: int, leaf: float) -> None:
        tree = self._tree
        node = self._leaves + slot
        tree[node] = leaf
        while node > 1:
            node >>= 1
            tree[node] = tree[2 * node] + tree[2 * node + 1]
