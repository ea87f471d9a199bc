"""Who of those that have just connected shakes hands next: there is little time for it, and a flood must not have it all.

Rules:

1. An address from which an agent has proven itself goes first, as long as it does not come more often than agents do.
2. The others form a line for each address, and the lines take turns: whoever floods waits behind itself.
3. Lines are short: who waited longer would have given up. Who finds no place is turned away, and comes again.

An IPv6 address stands for its network of 64 bits, which one machine may have to itself.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from typing import Generic, TypeVar

from director.core.bucket import TokenBucket

T = TypeVar("T")
#: Handshakes in one go before the rate applies: a pair of racks.
BURST = 100.0
#: All who wait are through after so long, which is how long an agent waits for its welcome.
ALL_WAIT_S = 10.0
#: One address's line may hold up what is behind it for so long.
LINE_WAIT_S = 2.0
#: From a known address, per second and at once: dozens of agents on one machine that start together.
KNOWN_PER_S, KNOWN_BURST = 5.0, 50.0
#: Addresses remembered: as many as there may be connections.
MAX_KNOWN = 20_000


class Turns(Generic[T]):
    """:param rate: handshakes per second."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._bucket = TokenBucket(rate, BURST, now)
        self._known: dict[str, TokenBucket] = {}
        self._lines: dict[str, deque[T]] = {}  # the first one's turn is next
        self._waiting: dict[T, str] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def arrive(self, who: T, ip: str, now: float) -> bool | None:
        """True: go on. False: wait for `due`. None: there is no place to wait."""
        address = _network(ip)
        known = self._known.get(address)
        if known is not None and known.take(now):
            return True
        if not self._waiting and self._bucket.take(now):
            return True
        line = self._lines.get(address, ())
        if len(self._waiting) >= max(1.0, self._rate * ALL_WAIT_S) or len(line) >= max(1.0, self._rate * LINE_WAIT_S):
            return None
        self._lines.setdefault(address, deque()).append(who)
        self._waiting[who] = address
        return False

    def due(self, now: float) -> list[T]:
        """Whose turn it is now."""
        found = []
        while self._waiting and self._bucket.take(now):
            address = next(iter(self._lines))
            line = self._lines.pop(address)
            who = line.popleft()
            if line:
                self._lines[address] = line  # behind the other lines
            del self._waiting[who]
            found.append(who)
        return found

    def wait_s(self, now: float) -> float | None:
        """Until somebody is `due`; None when nobody waits."""
        return self._bucket.wait(now) if self._waiting else None

    def forget(self, who: T) -> None:
        """Waits no longer."""
        address = self._waiting.pop(who, None)
        if address is not None:
            self._lines[address].remove(who)
            if not self._lines[address]:
                del self._lines[address]

    def proven(self, ip: str, now: float) -> None:
        """An agent is there."""
        address = _network(ip)
        bucket = self._known.pop(address, None) or TokenBucket(KNOWN_PER_S, KNOWN_BURST, now)
        self._known[address] = bucket  # the last one now: the first is forgotten first
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]


def _network(ip: str) -> str:
    if ":" not in ip:
        return ip
    return str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(ip.partition("%")[0])) >> 64 << 64))
