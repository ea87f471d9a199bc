"""One group's hosts, and the tickets of the connections they carry.

The pool decides who is *eligible* and tells its scheduler, which only chooses. A host is eligible when it is in the
*rotation* and below its maximum. The rotation is the first of these that has anyone with a weight above 0:

1. hosts that are available and not backups;
2. available backups: hosts at their maximum are still available, so fullness alone does not bring backups in;
3. when the group fails open: every admissible host, backup or not.

Everything is kept up to date at each change of a host. Only a change of rotation looks at all hosts; a pick or a
release never does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import count
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple

from cluster.errors import Misuse
from cluster.model import HostRef, LoadReport, Reason
from director.core.expected import expected_shares
from director.core.host import Host
from director.core.schedulers.base import Scheduler

#: Turns of hosts that were never picked start here, so that they come before every host that was.
_BEFORE_THE_FIRST_PICK = -(2**53)

_NOBODY: AbstractSet[Host] = frozenset()


class Ticket:
    """One connection's place on a host, from `Pool.pick` to `Pool.release`. Tens of thousands may live at once."""

    __slots__ = ("host", "picked_at", "pool")

    def __init__(self, host: Host, pool: Pool, picked_at: float) -> None:
        self.host = host
        self.pool: Pool | None = pool  #: None once released
        self.picked_at = picked_at  #: monotonic seconds

    def release(self, reason: Reason, now: float) -> None:
        """See `Pool.release`."""
        if self.pool is None:
            raise Misuse(f"{self!r} cannot be released again")
        self.pool.release(self, reason, now)

    def __repr__(self) -> str:
        return f"<Ticket {self.host.ref}{' released' if self.pool is None else ''}>"


class Considered(NamedTuple):
    """One host's part in a `Preview`."""

    host: Host
    eligible: bool
    why_not: str  #: empty when eligible
    factors: Mapping[str, float]
    share: float  #: of the pool's new connections, as `Pool.shares`


class Preview(NamedTuple):
    """What a pick would answer, and why."""

    chosen: Host | None
    random: bool  #: somebody would be chosen, but by a draw
    hosts: tuple[Considered, ...]
    rule: str  #: by which the scheduler chooses, as a sentence that goes on behind its name


class Pool:
    """The only writer of its hosts. Times are monotonic seconds."""

    def __init__(self, scheduler: Scheduler, *, fail_open: bool = False) -> None:
        self._scheduler = scheduler
        self._fail_open = fail_open
        self._hosts: dict[str, Host] = {}
        self._primaries: set[Host] = set()
        self._backups: set[Host] = set()
        self._admissible: set[Host] = set()
        self._rotation: AbstractSet[Host] = _NOBODY
        self._joins = count(_BEFORE_THE_FIRST_PICK)
        self._turns = count(1)
        self._in_flight = 0
        self._eligible = 0

    @property
    def scheduler(self) -> Scheduler:
        return self._scheduler

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The configured hosts by name, read-only."""
        return MappingProxyType(self._hosts)

    @property
    def in_flight(self) -> int:
        """Open tickets, those of removed hosts included."""
        return self._in_flight

    @property
    def available(self) -> int:
        """Hosts in rotation, full or not."""
        return len(self._rotation)

    @property
    def eligible(self) -> int:
        """Hosts in rotation that are below their maximum."""
        return self._eligible

    @property
    def backups_in_use(self) -> bool:
        return self._rotation is self._backups

    @property
    def failing_open(self) -> bool:
        """No host is available, and those that somebody may still hope for are tried all the same."""
        return self._rotation is self._admissible

    # --- configuration ------------------------------------------------------------------------------------

    def put(self, ref: HostRef, *, weight: float = 1.0, max_connections: int = 0, backup: bool = False) -> Host:
        """Add a host, taken to be available until `set_available` says otherwise; or change what is configured of one.

        Of a changed one the factor between configured and effective weight stays in force, and its maximum is touched
        only when the configured one changed. Call `configured` after the last of a batch.
        """
        _check_weight(weight)
        host = self._hosts.get(ref.host)
        if host is None:
            host = Host(ref, weight=weight, max_connections=max_connections, backup=backup)
            host.turn = next(self._joins)
            self._hosts[ref.host] = host
        else:
            if host.configured_weight != weight:
                factor = host.weight / host.configured_weight if host.configured_weight else 1.0
                host.configured_weight = weight
                self.set_weight(host, weight * factor, host.capacity)
            if host.configured_maximum != max_connections:
                host.configured_maximum = host.max_connections = max_connections
            host.backup = backup
        self._update(host)
        return host

    def discard(self, name: str) -> None:
        """Remove a host; its tickets live on and still count down. An unknown name is no error."""
        host = self._hosts.pop(name, None)
        if host is not None:
            host.retired = True
            self._update(host)

    def configured(self) -> None:
        """A batch of `put` and `discard` is complete."""
        self._scheduler.configure(tuple(self._hosts.values()))

    def replace_scheduler(self, scheduler: Scheduler) -> None:
        """Choose by another scheduler from the next pick on; open tickets do not notice."""
        self._scheduler = scheduler
        scheduler.configure(tuple(self._hosts.values()))
        for host in self._hosts.values():
            if host.eligible:
                scheduler.add(host)

    def set_fail_open(self, fail_open: bool) -> None:
        self._fail_open = fail_open
        self._rotate()

    # --- what is known of a host --------------------------------------------------------------------------

    def set_available(self, host: Host, available: bool, admissible: bool) -> None:
        """*available*: admin state and health allow new connections. *admissible*: admin state does."""
        host.available = available
        host.admissible = admissible
        self._update(host)

    def set_weight(self, host: Host, weight: float, capacity: float = 1.0) -> None:
        """Set the effective weight. Raises Misuse unless it is finite and at least 0.

        :param capacity: the factor in it that is an estimate, above 0.
        """
        _check_weight(weight)
        host.capacity = capacity
        if weight == host.weight:
            return
        host.weight = weight
        self._update(host)
        if host.eligible:
            self._scheduler.reweigh(host)

    def set_maximum(self, host: Host, maximum: int) -> None:
        """Set the effective maximum of open connections; 0: none. Open ones beyond it go on."""
        host.max_connections = maximum
        self._update(host)

    def reported(self, host: Host, report: LoadReport, now: float) -> None:
        """*host*'s agent reported."""
        self._scheduler.reported(host, report, now)

    def turned(self, host: Host, count: int, total_s: float, now: float) -> None:
        """*count* turnarounds of *host* ended on this director's connections, which took *total_s* together."""
        self._scheduler.turned(host, count, total_s, now)

    # --- connections --------------------------------------------------------------------------------------

    def pick(self, client: bytes | None, now: float, exclude: Collection[Host] = ()) -> Ticket | None:
        """Give a connection of *client* to an eligible host outside *exclude*; None when there is none."""
        host = self._scheduler.pick(client, exclude, now)
        if host is None:
            return None
        host.in_flight += 1
        host.picks += 1
        host.turn = next(self._turns)
        self._in_flight += 1
        self._scheduler.picked(host, client, now)
        if 0 < host.max_connections <= host.in_flight:  # host.full, without the cost of a property
            self._set_eligible(host, False)
        return Ticket(host, self, now)

    def release(self, ticket: Ticket, reason: Reason, now: float) -> None:
        """The connection is over. Raises Misuse the second time, or for another pool's ticket; nothing is changed."""
        if ticket.pool is not self:
            raise Misuse(f"{ticket!r} cannot be released here")
        ticket.pool = None
        host = ticket.host
        host.in_flight -= 1
        self._in_flight -= 1
        self._scheduler.closed(host, now - ticket.picked_at, reason, now)
        if not host.eligible:
            self._set_eligible(host, host in self._rotation and not host.full)

    # --- looking ------------------------------------------------------------------------------------------

    def rotates(self, host: Host) -> bool:
        """Whether *host* is in rotation, full or not."""
        return host in self._rotation

    def why_not(self, host: Host) -> str:
        """Why *host* takes no new connection; empty when it does."""
        if host.eligible:
            return ""
        if host.retired:
            return "removed"
        if host in self._rotation:
            return f"full ({host.in_flight} of {host.max_connections})"
        if not host.available:
            return "unavailable"
        return "weight 0" if host.weight <= 0 else "backup"

    def explain(self, client: bytes | None, now: float) -> Preview:
        """What `pick` would answer now; changes nothing. Looks at every host."""
        scheduler = self._scheduler
        with scheduler.looking(now):
            chosen, shares = scheduler.preview(client, now), self.shares(now)
            return Preview(
                chosen,
                chosen is None and self._eligible > 0,
                tuple(
                    Considered(host, host.eligible, self.why_not(host), scheduler.factors(host, client, now),
                               shares.get(host, 0.0))
                    for host in self._hosts.values()
                ),
                scheduler.rule(client, now),
            )

    def shares(self, now: float, walk: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> dict[Host, float]:
        """The part of the new connections that each eligible host gets at the present load: `director.core.expected`."""
        parts, in_flight = {}, 0
        for host in walk(self._hosts.values()):
            if host.eligible:
                parts[host] = self._scheduler.parts(host, now)
                in_flight += host.in_flight
        return expected_shares(parts, in_flight)

    # --- who is eligible ----------------------------------------------------------------------------------

    def _update(self, host: Host) -> None:
        """Anything about *host* changed: put it where it belongs now."""
        weighs = host.weight > 0 and not host.retired
        _belongs(host, self._primaries, weighs and host.available and not host.backup)
        _belongs(host, self._backups, weighs and host.available and host.backup)
        _belongs(host, self._admissible, weighs and host.admissible)
        self._rotate()
        self._set_eligible(host, host in self._rotation and not host.full)

    def _rotate(self) -> None:
        """Choose the rotation; when it is another one than before, go through all hosts."""
        rotation: AbstractSet[Host] = self._primaries or self._backups or _NOBODY
        if self._fail_open and not rotation:
            rotation = self._admissible or _NOBODY
        if rotation is not self._rotation:
            self._rotation = rotation
            for host in self._hosts.values():
                self._set_eligible(host, host in rotation and not host.full)

    def _set_eligible(self, host: Host, eligible: bool) -> None:
        if eligible is host.eligible:
            return
        host.eligible = eligible
        if eligible:
            self._eligible += 1
            self._scheduler.add(host)
        else:
            self._eligible -= 1
            self._scheduler.remove(host)


def _belongs(host: Host, members: set[Host], belongs: bool) -> None:
    if belongs:
        members.add(host)
    else:
        members.discard(host)


def _check_weight(weight: float) -> None:
    if not 0 <= weight < inf:
        raise Misuse(f"a weight of {weight!r}")
