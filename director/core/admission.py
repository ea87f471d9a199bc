"""One service's gate: who comes in now, who waits, who is refused, and why.

The invariant: ``connections`` counts clients that were let in and have not left. Each of them holds one ticket, or is
between two hosts because `redispatch` found no other; `leave` ends both kinds, and nothing else does.

Clients wait in order of arrival and only while hosts or the service are full. Nobody overtakes: as long as somebody
waits, a newcomer waits behind. The gate has no clock; its owner calls

- `serve` when capacity may have grown (a host came back, a weight or maximum was raised, a redispatch freed a place),
- `expire` at `next_expiry`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from typing import NamedTuple

from cluster.errors import Misuse
from cluster.model import Limits, Reason
from director.core.host import Host
from director.core.pool import Pool, Ticket
from director.core.splitting import Split


class _Place(NamedTuple):
    client: bytes | None
    arrived: float
    turn: int


class Admission:
    """Lets clients into the enabled group's *pool*, or those of a split (None: no group is enabled). Times are monotonic
    seconds. Maxima and queue are the service's, whichever group a client belongs to.

    :param on_waiting: told when the first of a queue has come.
    """

    def __init__(self, pool: Pool | Split | None, limits: Limits, on_waiting: Callable[[], None] = lambda: None) -> None:
        self._on_waiting = on_waiting
        self._pool = pool
        self._limits = limits
        self.maximum = _maximum(limits, None)  #: of `connections`; infinite without one
        self._holding = 0  # let in, with a ticket
        self._between = 0  # let in, redispatched in vain, not left yet
        self._turn = 0  # of the last client that came
        self._queue: OrderedDict[Hashable, _Place] = OrderedDict()

    @property
    def pool(self) -> Pool | Split | None:
        return self._pool

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def connections(self) -> int:
        """Clients that were let in and have not left, of all groups."""
        return self._holding + self._between

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def eligible(self) -> int:
        """Hosts that the next client may be given to."""
        return self._pool.eligible if self._pool is not None else 0

    def switch(self, pool: Pool | Split | None) -> None:
        """Enable another group, or split clients anew. Tickets of the old one count down as before; call `serve` next."""
        self._pool = pool

    def set_limits(self, limits: Limits, share: int | None = None) -> None:
        """Change limits: of clients already let in or waiting nobody is thrown out. Call `serve` next.

        :param share: this director's part of a maximum that several share.
        """
        self._limits = limits
        self.maximum = _maximum(limits, share)

    def arrive(self, client: bytes | None, waiter: Hashable, now: float) -> Ticket | Reason | None:
        """A client came.

        :param waiter: under which `serve`, `leave`, `abandon` and `expire` will speak of the client if it must wait.
        :returns: its ticket; or None: it waits; or why it is refused: NO_HOST, SERVICE_FULL, HOSTS_FULL, QUEUE_FULL.
        :raises Misuse: *waiter* waits already.
        """
        pool = self._pool
        if pool is None or not pool.available:
            return Reason.NO_HOST  # waiting would be for a repair, not for a place
        self._turn += 1
        if not self._queue:
            if self._holding + self._between >= self.maximum:  # `_has_room`, and below `_pick`, without their calls
                refusal = Reason.SERVICE_FULL
            elif (ticket := self._pick(client, self._turn, now) if isinstance(pool, Split)
                  else pool.pick(client, now)) is not None:
                self._holding += 1
                return ticket
            else:
                refusal = Reason.HOSTS_FULL
            if not self._limits.queue:
                return refusal
        elif waiter in self._queue:
            raise Misuse(f"{waiter!r} waits already")
        if len(self._queue) >= self._limits.queue:
            return Reason.QUEUE_FULL
        if not self._queue:
            self._on_waiting()
        self._queue[waiter] = _Place(client, now, self._turn)
        return None

    def redispatch(
        self, ticket: Ticket, client: bytes | None, reason: Reason, now: float, exclude: Collection[Host],
        avoid: Collection[Host] = (),
    ) -> Ticket | None:
        """A try of *client* failed: release *ticket* and pick another host outside *exclude*, before anyone who waits; and
        outside *avoid*, if there is one.

        The client keeps its place in the service. With None nobody is left to try: `leave` with None follows.
        Call `serve` next, for those who waited for a place on the failed host.
        """
        ticket.release(reason, now)
        another = self._pick(client, self._turn, now, {*exclude, *avoid}) if avoid else None
        if another is None:
            another = self._pick(client, self._turn, now, exclude)
        if another is None:
            self._holding -= 1
            self._between += 1
        return another

    def leave(self, ticket: Ticket | None, reason: Reason, now: float) -> list[tuple[Hashable, Ticket]]:
        """A client that was let in is gone; None: after a redispatch in vain. Answers as `serve`.

        :raises Misuse: it left before; nothing is changed.
        """
        if ticket is not None:
            ticket.release(reason, now)
            self._holding -= 1
        elif self._between:
            self._between -= 1
        else:
            raise Misuse("nobody is between two hosts")
        return self.serve(now) if self._queue else []

    def serve(self, now: float) -> list[tuple[Hashable, Ticket]]:
        """Let in who waits, in order of arrival, as far as there is room."""
        served: list[tuple[Hashable, Ticket]] = []
        if self._pool is None:
            return served
        while self._queue and self._pool.eligible and self._has_room():
            waiter, place = next(iter(self._queue.items()))
            ticket = self._pick(place.client, place.turn, now)
            if ticket is None:
                break
            del self._queue[waiter]
            self._holding += 1
            served.append((waiter, ticket))
        return served

    def waiters(self) -> list[Hashable]:
        """Who waits, in order of arrival."""
        return list(self._queue)

    def abandon(self, waiter: Hashable) -> bool:
        """*waiter* waits no longer; False when it did not wait."""
        return self._queue.pop(waiter, None) is not None

    def expire(self, now: float) -> list[Hashable]:
        """Those whose time in the queue is over; they wait no longer."""
        expired: list[Hashable] = []
        while (due := self.next_expiry()) is not None and due <= now:
            expired.append(self._queue.popitem(last=False)[0])
        return expired

    def next_expiry(self) -> float | None:
        """When `expire` will next have somebody, None when nobody waits."""
        if not self._queue:
            return None
        return next(iter(self._queue.values())).arrived + self._limits.queue_timeout_s

    def _pick(self, client: bytes | None, turn: int, now: float, exclude: Collection[Host] = ()) -> Ticket | None:
        pool = self._pool
        if isinstance(pool, Split):
            return pool.pick(client, turn, now, exclude)
        return pool.pick(client, now, exclude) if pool is not None else None

    def _has_room(self) -> bool:
        return self.connections < self.maximum


def _maximum(limits: Limits, share: int | None) -> float:
    if share is not None:
        return share
    return limits.max_connections or math.inf
