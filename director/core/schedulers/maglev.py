"""Consistent hashing by Maglev's lookup table.

Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4; weights by giving
each host turns in proportion. The table depends on configured names and weights alone, so that directors which know
nothing of each other send a client to the same host, and it changes little when a host is configured or removed.

With a *bound* c, no host takes more than c times its fair share (by configured weight) of this director's open
connections; a client whose host has them goes on to the next slot of the table. Mirrokni, Thorup and Zadimoghaddam,
"Consistent Hashing with Bounded Loads", SODA 2018. Directors then agree only on clients of hosts that are not full.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence
from hashlib import blake2b
from math import ceil

from cluster.model import Reason
from director.core.host import Host
from director.core.schedulers.base import Parts, Quiet, Random
from director.core.schedulers.structures import ShareTree

#: Prime, and a hundred times as large as the largest group that keeps the guarantee on remapping (655 hosts).
TABLE_SIZE = 65537

#: Table slots looked at before `_Ring` takes over: with an eighth of the hosts eligible, for one client in 5,000.
MAX_WALK = 64

_POINTS = 2**64


def point_of(key: bytes) -> int:
    """64 bits that are the same in every process and on every machine."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def lookup_table(shares: Sequence[tuple[str, float]], size: int) -> list[int]:
    """Which of *shares* (name, weight above 0) owns each of *size* slots; empty for no shares.

    Each host goes through its own permutation of the slots and takes the next free one at each of its turns. That is
    about ``size * log(size)`` looks, 60 ms for the default size: weights that agents change must not come in here.

    :param shares: by name; the order decides who comes first in a round.
    :param size: a prime, so that every step visits every slot.
    """
    if not shares:
        return []
    digests = [blake2b(name.encode(), digest_size=16).digest() for name, _weight in shares]
    slots = [int.from_bytes(digest[:8], "big") % size for digest in digests]
    steps = [int.from_bytes(digest[8:], "big") % (size - 1) + 1 for digest in digests]
    per_round = len(shares) / sum(weight for _name, weight in shares)
    turns = [weight * per_round for _name, weight in shares]
    due = [0.0] * len(shares)
    table = [-1] * size
    left = size
    while True:
        for index, (step, more) in enumerate(zip(steps, turns, strict=True)):
            due[index] += more
            slot = slots[index]
            while due[index] >= 1:
                due[index] -= 1
                while table[slot] >= 0:
                    slot += step
                    if slot >= size:
                        slot -= size
                table[slot] = index
                left -= 1
                if not left:
                    return table
            slots[index] = slot


class _Ring:
    """Eligible hosts around a circle, one point each. It decides for a client whose host in the table cannot take it.

    Uneven, but consistent and O(log n). (Insertion moves the rest of a list, 80 KB in a group of 10,000: microseconds.)
    """

    def __init__(self) -> None:
        self._points: list[tuple[int, str, Host]] = []

    def __len__(self) -> int:
        return len(self._points)

    def add(self, host: Host) -> None:
        insort(self._points, (point_of(host.name.encode()), host.name, host), key=lambda entry: entry[:2])

    def remove(self, host: Host) -> None:
        del self._points[
            bisect_left(self._points, (point_of(host.name.encode()), host.name), key=lambda entry: entry[:2])
        ]

    def after(self, point: int, exclude: Collection[Host]) -> Host | None:
        """The first host outside *exclude* from *point* on."""
        points = self._points
        place = bisect_left(points, point, key=lambda entry: entry[0])
        for ahead in range(min(len(points), len(exclude) + 1)):
            host = points[(place + ahead) % len(points)][2]
            if host not in exclude:
                return host
        return None


class Maglev(Quiet):
    """The same host for the same client address; one that is not eligible, or has its bound, lends its clients to all the
    others.

    Pick O(1), at most `MAX_WALK` slots and O(log n). Clients without an address get a random point.
    """

    def __init__(self, random: Random, table_size: int = TABLE_SIZE, bound: float = 0.0) -> None:
        self._random = random
        self._size = table_size
        self._bound = bound  #: 0: none
        self._open = 0  #: connections of the eligible hosts
        self._weights = ShareTree()  #: of the eligible hosts, configured
        self._shares: list[tuple[str, float]] = []
        self._hosts: list[Host] = []  # as numbered in the table
        self._table = lookup_table((), table_size)
        self._slots: dict[Host, int] = {}
        self._eligible: set[Host] = set()
        self._ring = _Ring()

    def configure(self, hosts: Collection[Host]) -> None:
        self._hosts = sorted((host for host in hosts if host.configured_weight > 0), key=lambda host: host.name)
        shares = [(host.name, host.configured_weight) for host in self._hosts]
        if shares != self._shares:
            self._shares = shares
            self._table = lookup_table(shares, self._size)
        for host in self._eligible:
            self._weights.put(host, host.configured_weight)
        counts = [0] * len(shares)
        for index in self._table:
            counts[index] += 1
        self._slots = dict(zip(self._hosts, counts, strict=True))

    def add(self, host: Host) -> None:
        self._eligible.add(host)
        self._ring.add(host)
        self._open += host.in_flight
        self._weights.put(host, host.configured_weight)

    def remove(self, host: Host) -> None:
        self._eligible.remove(host)
        self._ring.remove(host)
        self._open -= host.in_flight
        self._weights.remove(host)

    def picked(self, host: Host, client: bytes | None, now: float) -> None:
        self._open += 1

    def closed(self, host: Host, duration_s: float, reason: Reason, now: float) -> None:
        if host in self._eligible:
            self._open -= 1

    def _most(self, host: Host) -> int:
        """The connections that *host* may have with one more in the group."""
        return ceil(self._bound * (self._open + 1) * host.configured_weight / self._weights.total())

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        point = point_of(client) if client is not None else int(self._random() * _POINTS)
        table, hosts, eligible = self._table, self._hosts, self._eligible
        size = len(table)
        if size:
            slot = point % size
            for _step in range(MAX_WALK):
                host = hosts[table[slot]]
                if host in eligible and host not in exclude and not (self._bound and host.in_flight >= self._most(host)):
                    return host
                slot = slot + 1 if slot + 1 < size else 0
        return self._ring.after(point, exclude)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return self.pick(client, (), now) if client is not None or len(self._ring) == 1 else None

    def rule(self, client: bytes | None, now: float) -> str:
        if client is None:
            return "draws a point of its table: the client has no address"
        own = self._hosts[self._table[point_of(client) % self._size]] if self._table else None
        if own is None:
            return "takes the next host around its circle: no weight is configured"
        if own is self.pick(client, (), now):
            return f"takes the host that the client's address belongs to, {own.name}"
        lack = "has all the connections that its bound allows" if own in self._eligible else "takes no connections now"
        return f"takes the next host of its table: the client's address belongs to {own.name}, which {lack}"

    def parts(self, host: Host, now: float) -> Parts:
        slots = float(self._slots.get(host, 0))
        return Parts(slots, slots)

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        numbers = {"configured_weight": host.configured_weight, "table_share": self._slots.get(host, 0) / self._size}
        if self._bound and host in self._eligible:
            numbers["most"] = float(self._most(host))
        if client is not None and self._table:
            numbers["first_choice"] = float(self._hosts[self._table[point_of(client) % self._size]] is host)
        return numbers
