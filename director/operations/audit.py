"""The audit that all directors share: who changed what, newest first, bounded.

Every entry goes to this director's log at once and, in the order of their happening, to the store. When the store is
away, or slower than people are, entries are in the log only; what an operator does never waits for its audit.
A watch keeps the entries of all directors at hand. Whoever writes the one too many deletes the oldest.

What was refused never costs a word of what was done: a caller's refusals are noted a few a minute and otherwise counted,
they wait only while there is room, and they are the first to be deleted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cluster.errors import StoreUnavailable
from cluster.keys import AuditKey, Keys
from cluster.model import AuditEntry
from cluster.store import Compare, Delete, Event, Put, Store, Watch
from cluster.view import View
from director.admin.control import Audit, log_audit
from director.operations.refusals import Refusals

#: The newest that are kept; at some 300 bytes each they are as much as three large services.
KEPT = 10_000
#: Of them, refusals.
KEPT_REFUSED = 1_000
#: Deleted at once, when there are so many too many: one transaction for each hundred entries, far below its limit.
BATCH = 100
#: Entries that wait for a slow store.
MAX_WAITING = 100
#: Of them, when a refusal comes; the rest of the room is for what was done.
MAX_WAITING_REFUSED = 50
#: Microseconds tried for one entry: two directors rarely write within the same one.
MAX_TRIES = 20


class AuditTrail(Service):
    """Writes while it runs.

    :param wall: POSIX seconds.
    :param refused: called for each refusal, noted or not.
    """

    log = Logger()

    def __init__(
        self, store: Store, keys: Keys, *, director: str, wall: Callable[[], float], monotonic: Callable[[], float],
        refused: Callable[[], None],
    ) -> None:
        self.setName("audit")
        self._store = store
        self._keys = keys
        self._director = director
        self._wall = wall
        self._monotonic = monotonic
        self._count_refused = refused
        self._refusals = Refusals()
        self._known = View(keys, keys.audits(), AuditKey, AuditEntry)
        self._refused: set[str] = set()  # keys of those known
        self._waiting: deque[AuditEntry] = deque()
        self._writing = False
        self._idle: list[Deferred[None]] = []
        self._watch: Watch | None = None

    def startService(self) -> None:
        if self.running:
            return
        super().startService()
        self._watch = self._store.watch(self._known.prefix, self._heard)

    def stopService(self) -> Deferred[None] | None:
        """What waits is still written, as far as the store answers."""
        super().stopService()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if not self._writing:
            return None
        self._idle.append(Deferred())
        return self._idle[-1]

    def record(self, audit: Audit) -> None:
        """Keep one entry; never raises, never waits."""
        left_out = 0
        if audit.refused:
            self._count_refused()
            noted = self._refusals.told(audit.caller.who, self._monotonic())
            if noted is None:
                return
            if left_out := noted:
                self.log.info("{who}: {count} refusals more than are logged", who=audit.caller.who, count=left_out)
        log_audit(audit)
        if not self.running:
            return
        if len(self._waiting) >= (MAX_WAITING_REFUSED if audit.refused else MAX_WAITING):
            self.log.warn("the store does not keep up: an entry of the audit is in this log only")
            return
        self._waiting.append(AuditEntry(
            at=self._wall(), who=audit.caller.who, origin=audit.caller.origin, director=self._director,
            operation=audit.operation, arguments=dict(audit.arguments), outcome=audit.outcome,
            refused=audit.refused, left_out=left_out,
        ))
        if not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._write()).addErrback(
                lambda failure: self.log.failure("the audit could not be written", failure)
            ).addBoth(self._written)

    @property
    def problems(self) -> dict[str, str]:
        """Entries that cannot be read."""
        return self._known.problems

    def newest(self, limit: int) -> tuple[AuditEntry, ...]:
        """What all directors recorded, the newest first; what cannot be read is left out.

        New is what the store took last, whatever the directors' clocks said.
        """
        newest = sorted(self._known.values, key=self._taken, reverse=True)[:limit]
        return tuple(self._known.values[place] for place in newest)

    def _taken(self, place: AuditKey) -> int:
        """The revision in which the store took an entry."""
        return self._known.revisions[self._keys.audit(place.at_us)]

    def _written(self, _: None) -> None:
        self._writing = False
        idle, self._idle = self._idle, []
        for each in idle:
            each.callback(None)

    async def _write(self) -> None:
        while self._waiting:
            entry = self._waiting.popleft()
            try:
                await self._put(entry)
                await self._trim()
            except StoreUnavailable as error:
                self.log.warn("an entry of the audit is in this log only: {why}", why=str(error))
            except Exception:  # one bad entry must not stop the others
                self.log.failure("an entry of the audit is in this log only")

    async def _put(self, entry: AuditEntry) -> None:
        at_us = round(entry.at * 1e6)
        for later in range(MAX_TRIES):
            key = self._keys.audit(at_us + later)
            committed = await self._store.commit([Put(key, msgspec.json.encode(entry))], when=[Compare(key, 0)])
            if committed.succeeded:
                return
        self.log.warn("{count} entries of the audit are of one time; one is in this log only", count=MAX_TRIES)

    async def _trim(self) -> None:
        """The watch tells of it; another director that does the same at the same time is no harm."""
        known = self._known.revisions
        if len(self._refused) >= KEPT_REFUSED + BATCH or len(known) >= KEPT + BATCH:
            ours = self._refused or (key for key in known if self._keys.parse(key) is not None)
            oldest = sorted(ours, key=known.__getitem__)[:BATCH]
            await self._store.commit([Delete(key) for key in oldest], when=[Compare(key, known[key]) for key in oldest])

    def _heard(self, event: Event) -> None:
        for place, entry in self._known.take(event).changed.items():
            key = self._keys.audit(place.at_us)
            if entry is not None and entry.refused:
                self._refused.add(key)
            else:
                self._refused.discard(key)
