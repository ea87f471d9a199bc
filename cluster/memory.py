"""The embedded store: one process, in memory.

`MemoryStore` forgets when its process ends; `cluster.file.FileStore` is a MemoryStore that writes every transaction
down before anybody sees it. Commits that arrive while others are being written wait and are written as one group.

Rules:

- a transaction is visible to readers and watchers only once it is durable;
- outcomes and events keep the order of commits;
- events are delivered from the clock's next turn, never from within a call.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from cluster import journal
from cluster.errors import Misuse, StoreUnavailable
from cluster.store import (
    Changes,
    Committed,
    Compare,
    Delete,
    Event,
    Lease,
    Listing,
    Operation,
    PastWrite,
    Put,
    Record,
    Resync,
    Watch,
    check_transaction,
)
from cluster.table import HISTORY_LIMIT, Stage, Table, Transaction

_T = TypeVar("_T")

#: Renewals for each time to live: two may come late before the lease is lost.
RENEWALS_PER_TTL = 3
#: Deleting the records of a lost lease is tried again after this, while the store cannot write.
RETRY_DELETION_S = 1.0
#: Commits that wait while others are written. A burst of orders for every host of a large cluster fits.
MAX_WAITING = 20_000
#: Of keys and values written as one group: what a disk writes in some tens of milliseconds.
GROUP_BYTES = 4 * 1024 * 1024


class _Phase(enum.Enum):
    NEW = "has not been started"
    STARTING = "is being started"
    RUNNING = "is running"
    STOPPED = "was stopped"


class _Waiting(NamedTuple):
    outcome: Deferred[Committed]
    operations: Sequence[Operation] = ()
    when: Sequence[Compare] = ()
    ended_lease: int | None = None  #: delete its records instead


class _Watch:
    def __init__(self, prefix: str, deliver: Callable[[Event], None], watches: set[_Watch]) -> None:
        self.prefix = prefix
        self.deliver = deliver
        self._watches = watches

    @property
    def active(self) -> bool:
        return self in self._watches

    def stop(self) -> None:
        self._watches.discard(self)


class _Lease:
    """Renewed by a timer of this very process; so it is lost only when the process stood still for its whole time."""

    def __init__(self, number: int, ttl_s: float, clock: IReactorTime,
                 end: Callable[[int], Deferred[None]]) -> None:
        self.id = number
        self.lost: Deferred[None] = Deferred()
        self.live = True
        self._ttl_s = ttl_s
        self._clock = clock
        self._end = end
        self._renewed = clock.seconds()
        self._timer: IDelayedCall = clock.callLater(ttl_s / RENEWALS_PER_TTL, self._renew)

    def remaining_s(self) -> float:
        return max(0.0, self._renewed + self._ttl_s - self._clock.seconds()) if self.live else 0.0

    def revoke(self) -> Deferred[None]:
        if not self.live:
            return succeed(None)
        self.forget()
        return self._end(self.id)

    def forget(self) -> None:
        """Renew no more."""
        self.live = False
        if self._timer.active():
            self._timer.cancel()

    def _renew(self) -> None:
        if self.remaining_s() > 0:
            self._renewed = self._clock.seconds()
            self._timer = self._clock.callLater(self._ttl_s / RENEWALS_PER_TTL, self._renew)
        else:
            self.live = False
            self._end(self.id).addErrback(lambda failure: None)  # logged, and tried again
            self.lost.callback(None)


class MemoryStore:
    """A `cluster.store.Store` of one process.

    :param clock: for leases and for delivering events.
    :param wall: POSIX seconds, for history only.
    :param history_limit: changes remembered.
    :param inherited: `content` of another process's, which is still the owner: this one is held from the start.
    """

    log = Logger()

    def __init__(self, *, clock: IReactorTime, wall: Callable[[], float], history_limit: int = HISTORY_LIMIT,
                 inherited: bytes | None = None) -> None:
        self._inherited = inherited
        self._clock = clock
        self._wall = wall
        self._history_limit = history_limit
        self._table = Table(history_limit=history_limit)
        self._phase = _Phase.NEW
        self._waiting: deque[_Waiting] = deque()
        self._writing = False
        self._held = inherited is not None  # commits wait: another process is the owner
        self._watches: set[_Watch] = set()
        self._events: deque[tuple[_Watch, Event]] = deque()
        self._delivery: IDelayedCall | None = None
        self._leases: dict[int, _Lease] = {}
        self._lease_numbers = count(1)
        self._retries: set[IDelayedCall] = set()

    # --- what a store with a file does differently ---

    async def _open(self) -> Table:
        return self._table

    async def _persist(self, transactions: Sequence[Transaction]) -> None:
        """Make *transactions* durable, all or none. Raises `StoreUnavailable`."""

    async def _close(self) -> None:
        """Release what ``_open`` took."""

    # --- life ---

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        if self._phase is not _Phase.NEW:
            raise Misuse(f"the store {self._phase.value}")
        self._phase = _Phase.STARTING
        try:
            if self._inherited is None:
                self._table = await self._open()
            else:
                self._table = journal.read(self._inherited, history_limit=self._history_limit).table
        except journal.Damaged as damaged:
            self._phase = _Phase.NEW
            raise StoreUnavailable(f"what the other process has cannot be read: {damaged}") from damaged
        except BaseException:
            self._phase = _Phase.NEW
            raise
        if self._phase is not _Phase.STARTING:  # stopped meanwhile
            await self._close()
            raise self._unavailable()
        self._phase = _Phase.RUNNING

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        was, self._phase = self._phase, _Phase.STOPPED
        if was is not _Phase.RUNNING:
            return
        self._watches.clear()
        self._events.clear()
        for timer in (self._delivery, *self._retries):
            if timer is not None and timer.active():
                timer.cancel()
        ended = []
        for lease in self._leases.values():
            lease.forget()
            ended.append(self._enqueue(_Waiting(Deferred(), ended_lease=lease.id)))
        self._leases.clear()
        ended.append(self._enqueue(_Waiting(Deferred())))  # decided after all that waited before has been written
        for outcome in ended:
            try:
                await outcome
            except StoreUnavailable as reason:
                self.log.warn("records of leases were not deleted at stop: {reason}", reason=reason)
        await self._close()

    # --- from one process to the next ---

    def hold(self) -> None:
        """Write nothing more until `release`; commits wait. `content` is the whole truth once it is not `writing`."""
        self._held = True

    @property
    def writing(self) -> bool:
        return self._writing

    def release(self) -> None:
        """Write what waits, and go on."""
        self._held = False
        self._go_on()

    def content(self) -> bytes:
        """All of it, for a process that follows."""
        table = self._table
        return b"".join(journal.compacted(table.revision, table.records, table.past, at=self._wall()))

    def replace(self, content: bytes) -> None:
        """Have *content* instead, but for what leases of the other process keep; and tell everybody who watches, unless it
        is the same.

        :raises journal.Damaged: it cannot be read.
        """
        table = journal.read(content, history_limit=self._history_limit).table
        if table.revision != self._table.revision:
            self._table = table
            for watch in self._watches:
                self._tell(watch, Resync(table.listing(watch.prefix)))

    def give_up(self) -> None:
        """Another process has it from now on; what waits is refused. Nothing is deleted."""
        self._phase = _Phase.STOPPED
        waiting, self._waiting = self._waiting, deque()
        for each in waiting:
            each.outcome.errback(StoreUnavailable("another process has taken over; ask again"))
        self._watches.clear()
        for timer in self._retries:
            if timer.active():
                timer.cancel()
        for lease in self._leases.values():
            lease.forget()
        self._leases.clear()

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable(f"the store {self._phase.value}")

    # --- reading ---

    def get(self, key: str) -> Deferred[Record | None]:
        return self._read(lambda: self._table.get(key))

    def list(self, prefix: str) -> Deferred[Listing]:
        return self._read(lambda: self._table.listing(prefix))

    def history(self, prefix: str, *, limit: int = 100) -> Deferred[tuple[PastWrite, ...]]:
        return self._read(lambda: self._table.history(prefix, limit))

    def _read(self, read: Callable[[], _T]) -> Deferred[_T]:
        return succeed(read()) if self._phase is _Phase.RUNNING else fail(self._unavailable())

    # --- writing ---

    def commit(self, operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
        try:
            if self._phase is not _Phase.RUNNING:
                raise self._unavailable()
            if len(self._waiting) >= MAX_WAITING:
                raise StoreUnavailable(f"{MAX_WAITING} commits are waiting to be written already")
            check_transaction(operations, when)
        except (Misuse, StoreUnavailable) as refusal:
            return fail(refusal)
        return self._enqueue(_Waiting(Deferred(), tuple(operations), tuple(when)))

    def _enqueue(self, waiting: _Waiting) -> Deferred[Committed]:
        self._waiting.append(waiting)
        self._go_on()
        return waiting.outcome

    def _go_on(self) -> None:
        if not self._writing and not self._held:
            Deferred.fromCoroutine(self._write()).addErrback(
                lambda failure: self.log.failure("the store's writer failed", failure))

    async def _write(self) -> None:
        """Write group after group until nothing waits."""
        self._writing = True
        try:
            while self._waiting and not self._held:
                await self._write_group()
        finally:
            self._writing = False

    async def _write_group(self) -> None:
        stage = Stage(self._table)
        decided: list[tuple[Deferred[Committed], Committed | Misuse | StoreUnavailable]] = []
        while self._waiting and stage.size_bytes < GROUP_BYTES:
            outcome, operations, when, ended_lease = self._waiting.popleft()
            if ended_lease is not None:
                operations = [Delete(key) for key in stage.leased(ended_lease)]
            try:
                self._check_leases(operations)
                decided.append((outcome, stage.decide(operations, when, at=self._wall())))
            except Misuse as misuse:
                decided.append((outcome, misuse))
        try:
            if stage.transactions:
                await self._persist(stage.transactions)
        except Exception as error:
            if isinstance(error, StoreUnavailable):
                reason = error
            else:
                self.log.failure("the store's writer failed")
                reason = StoreUnavailable(f"the store's writer failed: {error!r}")
            # Also for those whose comparison failed: it may have failed because of what did not happen after all.
            decided = [(outcome, result if isinstance(result, Misuse) else reason) for outcome, result in decided]
        else:
            for transaction in stage.transactions:
                self._table.apply(transaction)
                self._announce(transaction)
        for outcome, result in decided:
            if isinstance(result, Committed):
                outcome.callback(result)
            else:
                outcome.errback(result)

    # --- watching ---

    def watch(self, prefix: str, deliver: Callable[[Event], None]) -> Watch:
        if self._phase is not _Phase.RUNNING:
            raise self._unavailable()
        watch = _Watch(prefix, deliver, self._watches)
        self._watches.add(watch)
        self._tell(watch, Resync(self._table.listing(prefix)))
        return watch

    def _announce(self, transaction: Transaction) -> None:
        for watch in self._watches:
            written = tuple(record for record in transaction.written if record.key.startswith(watch.prefix))
            deleted = tuple(key for key in transaction.deleted if key.startswith(watch.prefix))
            if written or deleted:
                self._tell(watch, Changes(written, deleted, transaction.revision))

    def _tell(self, watch: _Watch, event: Event) -> None:
        self._events.append((watch, event))
        if self._delivery is None:
            self._delivery = self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._delivery = None
        events, self._events = self._events, deque()  # what deliveries cause waits for the next turn
        for watch, event in events:
            if watch.active:
                try:
                    watch.deliver(event)
                except Exception:
                    self.log.failure("a watcher of {prefix} raised", prefix=watch.prefix)

    # --- leases ---

    def lease(self, ttl_s: float) -> Deferred[Lease]:
        if self._phase is not _Phase.RUNNING:
            return fail(self._unavailable())
        if not ttl_s > 0:
            return fail(Misuse(f"a lease lives longer than {ttl_s} s"))
        lease = _Lease(next(self._lease_numbers), ttl_s, self._clock, self._end_lease)
        self._leases[lease.id] = lease
        return succeed(lease)

    def _check_leases(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            if isinstance(operation, Put) and operation.lease is not None and operation.lease not in self._leases:
                raise Misuse(f"{operation.key}: lease {operation.lease} is unknown, lost or revoked")

    def _end_lease(self, number: int) -> Deferred[None]:
        """Delete the lease's records; when the store cannot write now, fail, and try again until it can."""
        self._leases.pop(number, None)
        return Deferred.fromCoroutine(self._delete_leased(number))

    async def _delete_leased(self, number: int) -> None:
        try:
            await self._enqueue(_Waiting(Deferred(), ended_lease=number))
        except StoreUnavailable as reason:
            if self._phase is _Phase.RUNNING:
                self.log.warn("records of an ended lease stay for now: {reason}", reason=reason)
                self._retry(number)
            raise

    def _retry(self, number: int) -> None:
        def again() -> None:
            self._retries.discard(timer)
            self._end_lease(number).addErrback(lambda failure: None)  # logged, and tried again

        timer = self._clock.callLater(RETRY_DELETION_S, again)
        self._retries.add(timer)
