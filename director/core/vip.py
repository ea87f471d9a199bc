"""When a director may hold the virtual addresses. Pure; `director.ha.vips` acts on it.

The kernel is asked to forget each address after `VALID_S` unless it is told again, so that a director that was killed or
frozen loses them without doing anything. Hence the one rule:

    An address is added or refreshed only while the right to it (the leader's lease, or the promises of everybody who
    could lead) lasts for `needed_s` more.

So the address is gone before the right ends. A lease too short for that (1 s, on an etcd tuned for it) is used down to
`SHARE` of it, and what the address may outlive it by, `linger_s`, is waited for by whoever leads next.
"""

from __future__ import annotations

import enum
import math

#: What the kernel is asked for; it counts in whole seconds.
VALID_S = 1
#: Four attempts for each lifetime: the reactor may be late for three of them.
REFRESH_S = 0.25
#: The longest that an address is seen after its last refresh. The kernel forgets up to a quarter of a second late, so that
#: its timer meets a full second (ADDRCONF_TIMER_FUZZ), and a tenth is for a busy one. Measured: 1.01 to 1.25 s.
OUTLIVES_S = VALID_S + 0.35
#: A lease of a second is renewed eight times in its life and has seven eighths of it left at the least while all is well. A
#: look that finds less leaves the address to its last refresh, which the next three looks may renew.
SHARE = 0.85


def needed_s(ttl_s: float) -> float:
    """How long the right must last still for an address to be refreshed, under leases of *ttl_s*."""
    return min(OUTLIVES_S, SHARE * ttl_s)


def linger_s(ttl_s: float) -> float:
    """How long an address may outlive a lease of *ttl_s*."""
    return max(0.0, OUTLIVES_S - needed_s(ttl_s))


#: A link that comes back sooner was pulled and plugged, and keeps its addresses; a take-over costs the connections.
CARRIER_S = 0.2


class Act(enum.Enum):
    NOTHING = "nothing"
    TAKE = "take"  #: add, and tell the neighbours
    REFRESH = "refresh"
    DROP = "drop"


class Carrier:
    """Whether the clients' side has been without a carrier for so long that another director should have the addresses."""

    def __init__(self) -> None:
        self._since: float | None = None

    def lost(self, now: float, running: bool) -> bool:
        """The link is as said now; `now` in seconds of any one clock."""
        if running:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since >= CARRIER_S


class Custody:
    """All virtual addresses of one director: they are held together or not at all. Times are seconds of any one clock.

    :param needed: see `needed_s`.
    """

    def __init__(self, needed: float) -> None:
        self.held = False
        self._needed_s = needed
        self._take_at = -math.inf
        self._refreshed_at = -math.inf

    def gained(self, now: float, wait_s: float) -> None:
        """Leads from now on; the former owner's addresses may live for *wait_s* still."""
        self._take_at = now + wait_s

    def adopted(self, now: float) -> None:
        """Another process of this director has them on the interface, and has just refreshed them."""
        self.held, self._refreshed_at = True, now

    def dropped(self) -> None:
        """The addresses were given up."""
        self.held = False

    def step(self, now: float, right_s: float, *, leads: bool) -> Act:
        """What to do now that the right lasts for *right_s* more. Only who leads takes what it does not hold."""
        if right_s <= 0:
            was, self.held = self.held, False
            return Act.DROP if was else Act.NOTHING
        if right_s < self._needed_s or now < self._take_at or not (self.held or leads):
            return Act.NOTHING
        fresh = self.held and now - self._refreshed_at < VALID_S
        self.held, self._refreshed_at = True, now
        return Act.REFRESH if fresh else Act.TAKE
