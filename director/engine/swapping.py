"""Changes of shared records: compared, swapped, and answered in time, if only by "nobody knows".

1. A change is decided from the record as it is in the store, and committed only if that is still so; who loses decides
   anew. Changes of one record by this director wait for each other, so that only directors race.
2. It is answered within `DEADLINE_S`, once this director follows it as far as that is to be had in time; also where
   nothing needed changing.
3. A commit of unknown outcome is looked up, and committed again while the record is as it was: the comparison lets only
   one of the two happen. What is still unknown at the deadline is told as `OutcomeUnknown`, and looked up once the store
   answers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import OutcomeUnknown, StoreUnavailable
from cluster.store import Committed, Compare, Operation, Put, Record, Store
from director.engine.errors import Conflict
from director.engine.sync import Sync

_T = TypeVar("_T")

#: For all of a change. Longer than the store's own patience with one call (5 s), shorter than that of directorctl (10 s).
DEADLINE_S = 8.0
#: For the watch to bring back what was committed; it takes milliseconds, and what is done is done without it.
FOLLOW_S = 3.0
#: A comparison that fails this often is not racing with people any more.
MAX_ATTEMPTS = 30
#: Between two attempts at a commit of unknown outcome.
RETRY_S = 0.25
#: Between two attempts at what nobody waits for: `Swapping.persist`, and looking up what became of a change.
PATIENT_RETRY_S = 1.0
#: Changes of unknown outcome that are looked up; more of them in one outage are told to nobody but those who ordered them.
MAX_DOUBTS = 100
#: Of `Swapping.persist` at once: ten thousand agents that register together must not keep operators waiting.
PERSISTED_AT_ONCE = 32


class Swap(NamedTuple):
    """One write that happens whole or not at all: of the record, and of others *along* with it, if *when* still holds."""

    operation: Operation
    along: Sequence[Operation] = ()
    when: Sequence[Compare] = ()


#: Decides from the record (None: there is none) what is to be done; None: nothing. What it raises is the answer.
Decide = Callable[[Record | None], Coroutine[Any, Any, Swap | None]]


class _Doubt(NamedTuple):
    key: str
    before: int  #: the record's revision; 0: there was none
    wanted: bytes | None
    why: str

    def happened(self, record: Record | None) -> bool | None:
        """By what the store says now; None: somebody else has been there since."""
        if (None if record is None else record.value) == self.wanted:
            return True
        return False if _revision(record) == self.before else None


class Swapping(Service):
    """Works at any time; looks up and persists while it runs.

    :param on_settled: told of the key, and what became of a change that was told as unknown.
    """

    log = Logger()

    def __init__(self, store: Store, sync: Sync, *, reactor: Any,
                 on_settled: Callable[[str, str], None] = lambda key, outcome: None) -> None:
        self.setName("swapping")
        self._on_settled = on_settled
        self._store = store
        self._sync = sync
        self._reactor = reactor
        self._locks: WeakValueDictionary[str, DeferredLock] = WeakValueDictionary()
        self._tasks: set[Deferred[None]] = set()
        self._doubts = 0
        self._turns = DeferredSemaphore(PERSISTED_AT_ONCE)

    def stopService(self) -> None:
        super().stopService()
        for task in list(self._tasks):
            task.cancel()

    def change(self, key: str, decide: Decide, *, over: Callable[[], None] = lambda: None) -> Deferred[int]:
        """Fires with the record's revision after the change; 0: there is no record, and none was wanted.

        *over* is called at the end, whatever the outcome, before the next change of the record begins.

        Fails with what *decide* raises, `Conflict`, `OutcomeUnknown`, and `StoreUnavailable` when nothing was changed.
        """
        return Deferred.fromCoroutine(self._in_turn(key, decide, over))

    def persist(self, key: str, decide: Decide, done: Callable[[], None]) -> None:
        """`change` for nobody who waits: until it is *done*, or decided by an error."""
        if self.running:
            self._task(self._persisted(key, decide, done))

    # --- one change

    async def _in_turn(self, key: str, decide: Decide, over: Callable[[], None]) -> int:
        deadline = self._reactor.seconds() + DEADLINE_S
        lock = self._locks.setdefault(key, DeferredLock())
        try:
            await self._within(lock.acquire(), deadline)
        except TimedOut:
            raise StoreUnavailable(f"other changes of it take longer than {DEADLINE_S:g} s") from None
        try:
            return await self._attempts(key, decide, deadline)
        finally:
            over()
            lock.release()

    async def _attempts(self, key: str, decide: Decide, deadline: float) -> int:
        doubt: _Doubt | None = None
        for _ in range(MAX_ATTEMPTS):
            record = await self._looked(key, doubt, deadline)
            happened = doubt.happened(record) if doubt is not None else False
            if happened is None and doubt is not None:
                raise OutcomeUnknown(f"{doubt.why}; somebody else changed it since")
            swap = None if happened else await self._decided(decide, record, doubt, deadline)
            if swap is None:
                followed = self._sync.gone(key) if record is None else self._sync.reached(key, record.mod_revision)
                await self._follow(followed, deadline)
                return _revision(record)
            try:
                committed = await self._commit(key, record, swap, deadline)
            except OutcomeUnknown as error:
                wanted = swap.operation.value if isinstance(swap.operation, Put) else None
                doubt = _Doubt(key, _revision(record), wanted, str(error))
            except StoreUnavailable:
                if doubt is None:
                    raise
            else:
                if committed.succeeded:
                    await self._follow(self._sync.reached(key, committed.revision), deadline)
                    return committed.revision
                continue
            await self._pause(doubt, deadline)
        raise Conflict("it kept changing; try again")

    async def _looked(self, key: str, doubt: _Doubt | None, deadline: float) -> Record | None:
        while True:
            try:
                return await self._within(self._store.get(key), deadline)
            except (StoreUnavailable, TimedOut) as error:
                if doubt is None:
                    raise StoreUnavailable(str(error) or f"no answer within {DEADLINE_S:g} s") from error
            await self._pause(doubt, deadline)

    async def _decided(self, decide: Decide, record: Record | None, doubt: _Doubt | None, deadline: float) -> Swap | None:
        try:
            return await self._within(Deferred.fromCoroutine(decide(record)), deadline)
        except (StoreUnavailable, TimedOut) as error:
            if doubt is not None:
                self._look_up(doubt)
                raise OutcomeUnknown(doubt.why) from error
            raise StoreUnavailable(str(error) or f"no answer within {DEADLINE_S:g} s") from error

    async def _commit(self, key: str, record: Record | None, swap: Swap, deadline: float) -> Committed:
        when = [Compare(key, _revision(record)), *swap.when]
        try:
            return await self._within(self._store.commit([swap.operation, *swap.along], when=when), deadline)
        except TimedOut:
            raise OutcomeUnknown(f"no answer within {DEADLINE_S:g} s") from None

    async def _follow(self, followed: Deferred[None], deadline: float) -> None:
        try:
            await self._within(followed, min(deadline, self._reactor.seconds() + FOLLOW_S))
        except TimedOut:
            self.log.warn("a change was made, but the store's watch does not bring it back yet")

    async def _pause(self, doubt: _Doubt, deadline: float) -> None:
        """:raises OutcomeUnknown: there is no time left."""
        if self._reactor.seconds() + RETRY_S >= deadline:
            self._look_up(doubt)
            raise OutcomeUnknown(doubt.why)
        await deferLater(self._reactor, RETRY_S)

    def _within(self, answer: Deferred[_T], deadline: float) -> Deferred[_T]:
        return answer.addTimeout(max(0.0, deadline - self._reactor.seconds()), self._reactor)

    # --- what nobody waits for

    def _look_up(self, doubt: _Doubt) -> None:
        if self.running and self._doubts < MAX_DOUBTS:
            self._task(self._looked_up(doubt))

    async def _looked_up(self, doubt: _Doubt) -> None:
        self._doubts += 1
        try:
            while True:
                await deferLater(self._reactor, PATIENT_RETRY_S)
                try:
                    record = await self._store.get(doubt.key)
                    break
                except StoreUnavailable:
                    continue
        finally:
            self._doubts -= 1
        outcome = {True: "it was made", False: "it was not made", None: "somebody else changed it since"}[
            doubt.happened(record)]
        self.log.warn("the change of {key} whose outcome was unknown: {outcome}", key=doubt.key, outcome=outcome)
        self._on_settled(doubt.key, outcome)

    async def _persisted(self, key: str, decide: Decide, done: Callable[[], None]) -> None:
        while True:
            await self._turns.acquire()
            try:
                await self.change(key, decide)
                done()
                return
            except (StoreUnavailable, Conflict) as error:
                self.log.info("{key} is not written yet: {why}", key=key, why=error)
            finally:
                self._turns.release()
            await deferLater(self._reactor, PATIENT_RETRY_S)

    def _task(self, work: Any) -> None:
        task: Deferred[None] = Deferred.fromCoroutine(work)
        if not task.called:
            self._tasks.add(task)
        task.addErrback(self._failed).addBoth(lambda _: self._tasks.discard(task))

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("a record was not written", failure)


def _revision(record: Record | None) -> int:
    return 0 if record is None else record.mod_revision
