"""What this director sees of hosts, written for the others; and what they have written, into the node.

Writing: a host's record (`cluster.model.Observed`) exists while this director sees the host otherwise than up, and lies
under its membership lease. Also a host that somebody sees down and this director has not seen at all lately: the record
then says that it is *blind*, since no record means "up". Only what this director's own health machines say is written,
never the merged verdict. Records follow changes, at most one transaction each `INTERVAL_S`; what changes to and fro in
between is not written, and while nothing changes nothing is. A new lease means writing everything again.

Reading: one watch of all observations. While the store is away the last word stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import Misuse, StoreUnavailable
from cluster.keys import Keys, ObservedKey
from cluster.model import HostRef, HostState, Observed
from cluster.store import MAX_OPERATIONS, Delete, Event, Lease, Operation, Put, Store, Watch
from cluster.view import View
from director.core.merge import Disagreement, disagreements
from director.core.transitions import Evidence
from director.engine.node import Node
from director.ha.membership import Membership
from director.timing.alarm import Alarm
from director.timing.seldom import Seldom, more

#: Between two transactions: a rack that dies is a few of them, and others hear of a single host at once.
INTERVAL_S = 0.25
#: After a transaction that failed.
RETRY_S = 1.0
#: Between lines about those.
UNWRITTEN_EVERY_S = 60.0
#: So many records are written as they come; then `RECORDS_PER_S` at most, each the latest of its host. Ten thousand hosts
#: that die are told at once, and a thousand hosts that flap all day write some 400 MB instead of ten times as much.
BURST_RECORDS, RECORDS_PER_S = 20_000, 20.0
#: Of a reason: what the system says of a failed connect fits.
MAX_WHY = 200


class _Seen(NamedTuple):
    """What a record is about; two equal ones need no writing."""

    state: HostState
    since: float  #: monotonic
    blind: bool


#: In the store may be anything: another process's, or a write of unknown outcome.
_UNKNOWN: Final = "unknown"
_Written: TypeAlias = _Seen | Literal["unknown"] | None


class Observing(Service):
    """Writes and watches while it runs; a child of a director whose store is shared.

    :ivar records: every director's, this one's included, as the store has them.
    """

    log = Logger()

    def __init__(self, store: Store, keys: Keys, node: Node, membership: Membership, *, boot_id: str, reactor: Any) -> None:
        self.setName("observing")
        self.records: dict[HostRef, dict[str, Observed]] = {}
        self._store = store
        self._keys = keys
        self._node = node
        self._membership = membership
        self._boot_id = boot_id
        self._alarm = Alarm(self._due, reactor=reactor, monotonic=node.monotonic)
        self._earliest = 0.0  #: of the next transaction
        self._debt, self._wrote_at = 0.0, node.monotonic()  # records written beyond `RECORDS_PER_S`, and when the last
        self._seldom = Seldom(monotonic=node.monotonic, every_s=UNWRITTEN_EVERY_S)
        self._writing = False
        self._changed: dict[HostRef, None] = {}  # in order
        self._written: dict[HostRef, _Written] = {}
        self._view = View(keys, keys.observations(), ObservedKey, Observed)
        self._watch: Watch | None = None
        node.on_host.append(self._host_changed)
        membership.on_lease.append(self._leased)
        membership.on_members.append(self._members_changed)

    def disagreements(self) -> tuple[Disagreement, ...]:
        """Hosts that the live directors see differently, by what they have written."""
        return disagreements(self.records, self._membership.members)

    @property
    def problems(self) -> dict[str, str]:
        """Observations that cannot be read."""
        return self._view.problems

    def startService(self) -> None:
        if self.running:
            return
        super().startService()
        self._watch = self._store.watch(self._view.prefix, self._deliver)
        self._members_changed()
        if self._membership.lease is not None:
            self._leased(self._membership.lease)

    def stopService(self) -> None:
        super().stopService()
        self._alarm.cancel()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    # --- writing

    def _leased(self, lease: Lease) -> None:
        """Whatever was written is gone with the former lease, or is a former process's."""
        mine = [ref for ref, by in self.records.items() if self._node.director in by]
        self._written = dict.fromkeys(mine, _UNKNOWN)
        self._host_changed(*mine, *self._node.inventory.hosts)

    def _host_changed(self, *refs: HostRef) -> None:
        if not self.running:
            return  # a lease comes later, and then everything is written
        self._changed.update(dict.fromkeys(refs))
        if self._changed and not self._writing:
            self._alarm.at(max(self._earliest, self._node.monotonic()))

    def _due(self) -> None:
        lease = self._membership.lease
        if lease is None or self._writing:
            return  # a new lease, or the end of the transaction, comes back to it
        now = self._node.monotonic()
        epoch = self._node.wall() - now
        operations: list[Operation] = []
        becomes: dict[HostRef, _Seen | None] = {}
        while self._changed and len(operations) < MAX_OPERATIONS:
            ref = next(iter(self._changed))
            del self._changed[ref]
            seen = self._see(ref, now)
            if seen == self._written.get(ref):
                continue
            becomes[ref] = seen
            key = self._keys.observed(self._node.director, ref)
            operations.append(Delete(key) if seen is None else Put(key, self._record(ref, seen, epoch), lease.id))
        if operations:
            self._writing = True
            self._debt = max(0.0, self._debt - (now - self._wrote_at) * RECORDS_PER_S) + len(operations)
            self._wrote_at = now
            self._earliest = now + max(INTERVAL_S, (self._debt - BURST_RECORDS) / RECORDS_PER_S)
            Deferred.fromCoroutine(self._write(operations, becomes, lease)).addErrback(self._unexpected)

    async def _write(self, operations: Sequence[Operation], becomes: dict[HostRef, _Seen | None], lease: Lease) -> None:
        try:
            committed = await self._store.commit(operations, when=[self._membership.fence()])
            certain = committed.succeeded and self._membership.lease is lease
            if not committed.succeeded:  # the membership writes its record again
                self._earliest = self._node.monotonic() + RETRY_S
        except (StoreUnavailable, Misuse) as error:  # Misuse: the lease ended meanwhile
            certain = False
            held = self._seldom.due("unwritten")
            if held is not None:
                self.log.info("observations are not written yet: {why}{more}", why=error, more=more(held))
            self._earliest = self._node.monotonic() + RETRY_S
        finally:
            self._writing = False
        for ref, seen in becomes.items():
            if certain and seen is None:
                self._written.pop(ref, None)
            else:
                self._written[ref] = seen if certain else _UNKNOWN
        self._host_changed(*(() if certain else becomes))

    def _see(self, ref: HostRef, now: float) -> _Seen | None:
        """This director's own view; None where no record says it."""
        entry = self._node.inventory.hosts.get(ref)
        if entry is None:
            return None
        health = entry.health
        blind = health.evidence(now) is Evidence.NONE and self._node.inventory.others.say_down(ref)
        if health.state is HostState.UP and not blind:
            return None
        return _Seen(health.state, health.since, blind)

    def _record(self, ref: HostRef, seen: _Seen, epoch: float) -> bytes:
        why = self._node.inventory.hosts[ref].health.why[:MAX_WHY]
        return msgspec.json.encode(
            Observed(state=seen.state, since=epoch + seen.since, why=why, boot_id=self._boot_id, blind=seen.blind)
        )

    def _unexpected(self, failure: Failure) -> None:
        self.log.failure("observations could not be written", failure)

    # --- reading

    def _members_changed(self) -> None:
        if self.running:
            self._node.set_directors(name for name in self._membership.members if name != self._node.director)

    def _deliver(self, event: Event) -> None:
        news = self._view.take(event)
        changes = {(place.director, place.ref): observed for place, observed in news.changed.items()}
        for (name, ref), observed in changes.items():
            self._remember(name, ref, observed)
        me = self._node.director
        self._node.set_observed({place: each for place, each in changes.items() if place[0] != me})
        if news.resync:  # of mine may be there what a former process of this director left
            for ref in [ref for (name, ref), each in changes.items() if name == me and each is not None]:
                self._written.setdefault(ref, _UNKNOWN)
        self._host_changed(*(ref for _, ref in changes))  # being blind matters, or matters no more

    def _remember(self, name: str, ref: HostRef, observed: Observed | None) -> None:
        by = self.records.setdefault(ref, {})
        if observed is None:
            by.pop(name, None)
        else:
            by[name] = observed
        if not by:
            del self.records[ref]
