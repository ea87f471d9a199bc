"""The store of a cluster: etcd, through the ``etcd3`` package's stubs.

`EtcdStore` is on the reactor's thread; what has a thread, and how it ends, is told in `cluster.etcd`. Limits: a lease
lives whole seconds and at least as long as etcd grants (2 s by default); etcd keeps no times, so changes of its history
have none; history ends at etcd's last compaction and `HISTORY_REVISIONS` back at the latest.
"""

from __future__ import annotations

import enum
import math
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.logger import Logger

from cluster.errors import Misuse, StoreFull, StoreUnavailable
from cluster.etcd import records
from cluster.etcd.client import rpc
from cluster.etcd.connection import CALL_S, Access, Caller, Compacted
from cluster.etcd.leases import EtcdLease
from cluster.etcd.past import Past
from cluster.etcd.replay import replayed
from cluster.etcd.room import REMEDY, Room
from cluster.etcd.watching import Watching
from cluster.store import (
    Committed,
    Compare,
    Event,
    Lease,
    Listing,
    Operation,
    PastWrite,
    Put,
    Record,
    Watch,
    check_transaction,
)

_T = TypeVar("_T")

#: Records of one answer: the observations of a large cluster take a few, and decoding one holds gRPC's thread up for
#: milliseconds only.
PAGE_RECORDS = 1000
#: A listing whose revision was compacted while its pages were read is begun anew; that this happens repeatedly means
#: that somebody compacts at every revision.
LISTING_ATTEMPTS = 3
#: More clusters than share an etcd.
MAX_NAMES = 20
#: For all leases together to be revoked at stop; then they run out by themselves.
REVOKE_S = 1.0
#: How far back history looks: etcd reads every change since, of whatever key, at some 100,000 a second.
HISTORY_REVISIONS = 100_000


class _Phase(enum.Enum):
    NEW = "has not been started"
    STARTING = "is being started"
    RUNNING = "is running"
    STOPPED = "was stopped"


class EtcdStore:
    """A `cluster.store.Store`. A start that failed may be tried again.

    :param boottime: seconds on a clock that runs on while the machine sleeps, for leases.
    :ivar room: whether etcd takes writes, and whether it will.
    :ivar writes: transactions that were sent.
    :ivar written_bytes: of keys and values in them; etcd keeps all until it is compacted.
    """

    log = Logger()

    def __init__(self, access: Access, *, reactor: Any,
                 boottime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)) -> None:
        self._reactor = reactor
        self._boottime = boottime
        self._caller = Caller(access, reactor=reactor)
        self._watching = Watching(self._caller, self._list, lambda prefix: self._list(prefix, keys_only=True),
                                  reactor=reactor, random=random.random)
        self.room = Room(self._caller, reactor=reactor)
        self.writes = 0
        self.written_bytes = 0
        self._leases: dict[int, EtcdLease] = {}
        self._phase = _Phase.NEW

    @property
    def available(self) -> bool:
        """Whether etcd answered last, as far as is known."""
        return self._phase is _Phase.RUNNING and self._caller.available

    # --- life ---

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        if self._phase is not _Phase.NEW:
            raise Misuse(f"the store {self._phase.value}")
        self._phase = _Phase.STARTING
        try:
            await self._caller.connected()
        except StoreUnavailable:
            if self._phase is _Phase.STARTING:
                self._phase = _Phase.NEW
            raise
        if self._phase is not _Phase.STARTING:  # stopped meanwhile
            raise self._unavailable()
        self._phase = _Phase.RUNNING
        self._watching.start()
        self.room.start()

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        was, self._phase = self._phase, _Phase.STOPPED
        leases = list(self._leases.values())
        for lease in leases:
            lease.forget()
        self.room.stop()
        watching = Deferred.fromCoroutine(self._watching.stop())
        if was is _Phase.RUNNING and self._caller.available:
            await DeferredList([Deferred.fromCoroutine(self._revoke(lease.id, REVOKE_S)) for lease in leases],
                               consumeErrors=True)  # what was not revoked runs out
        self._caller.stop()
        await watching

    def _unavailable(self) -> StoreUnavailable:
        return StoreUnavailable(f"the store {self._phase.value}")

    def _when_running(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> Deferred[_T]:
        if self._phase is not _Phase.RUNNING:
            return fail(self._unavailable())
        return Deferred.fromCoroutine(work())

    # --- reading ---

    def get(self, key: str) -> Deferred[Record | None]:
        return self._when_running(lambda: self._get(key))

    async def _get(self, key: str) -> Record | None:
        page = await self._caller.call(lambda to: to.kv.Range, rpc.RangeRequest(key=key.encode()), records.page)
        return page.records[0] if page.records else None

    def list(self, prefix: str) -> Deferred[Listing]:
        return self._when_running(lambda: self._list(prefix))

    async def _list(self, prefix: str, *, keys_only: bool = False) -> Listing:
        for _ in range(LISTING_ATTEMPTS):
            try:
                return await self._pages(prefix, keys_only)
            except Compacted as reason:
                self.log.debug("{prefix} changed while it was read: {reason}", prefix=prefix, reason=reason)
        raise StoreUnavailable(f"etcd is compacted faster than {prefix} can be read")

    async def _pages(self, prefix: str, keys_only: bool) -> Listing:
        """All pages at the revision of the first."""
        found: list[Record] = []
        revision, more = 0, True
        while more:
            request = records.range_request(prefix, after=found[-1].key if found else None, limit=PAGE_RECORDS,
                                            revision=revision, keys_only=keys_only)
            page = await self._caller.call(lambda to: to.kv.Range, request, records.page)
            found += page.records
            revision, more = revision or page.revision, page.more
        return Listing(tuple(found), revision)

    def names(self, prefix: str) -> Deferred[tuple[str, ...]]:
        """What follows *prefix*, which ends in ``/``, up to the next one: the first `MAX_NAMES`, one question each."""
        return self._when_running(lambda: self._names(prefix))

    async def _names(self, prefix: str) -> tuple[str, ...]:
        found: list[str] = []
        start = prefix
        while len(found) < MAX_NAMES:
            request = records.range_request(prefix, limit=1, keys_only=True)
            request.key = start.encode("utf-8", "surrogateescape")
            page = await self._caller.call(lambda to: to.kv.Range, request, records.page)
            if not page.records:
                break
            found.append(page.records[0].key.removeprefix(prefix).partition("/")[0])
            start = f"{prefix}{found[-1]}0"  # the character after the slash: the first key beyond all under that name
        return tuple(found)

    # --- writing ---

    def commit(self, operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
        if self._phase is not _Phase.RUNNING:
            return fail(self._unavailable())
        try:
            check_transaction(operations, when)
            self._check_leases(operations)
        except Misuse as misuse:
            return fail(misuse)
        puts = [operation for operation in operations if isinstance(operation, Put)]
        self.writes += 1
        self.written_bytes += sum(len(put.key) + len(put.value) for put in puts)
        return Deferred.fromCoroutine(self._write(
            lambda to: to.kv.Txn, records.transaction(operations, when),
            lambda answer: Committed(answer.succeeded, answer.header.revision), tells=bool(puts),
        ))

    async def _write(self, method: Callable[[Any], Any], request: Any, read: Callable[[Any], _T], *, tells: bool) -> _T:
        """:param tells: etcd would refuse it without space; it takes deletions then."""
        try:
            answer = await self._caller.call(method, request, read, again=False)
        except StoreFull as error:
            self.room.refused()
            raise StoreFull(f"{error}; {REMEDY}") from error
        if tells:
            self.room.wrote()
        return answer

    def _check_leases(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            if isinstance(operation, Put) and operation.lease is not None and operation.lease not in self._leases:
                raise Misuse(f"{operation.key}: lease {operation.lease} is unknown, lost or revoked")

    # --- watching ---

    def watch(self, prefix: str, deliver: Callable[[Event], None]) -> Watch:
        if self._phase is not _Phase.RUNNING:
            raise self._unavailable()
        return self._watching.watch(prefix, deliver)

    # --- leases ---

    def lease(self, ttl_s: float) -> Deferred[Lease]:
        if not ttl_s > 0:
            return fail(Misuse(f"a lease lives longer than {ttl_s} s"))
        return self._when_running(lambda: self._lease(ttl_s))

    async def _lease(self, ttl_s: float) -> Lease:
        sent = self._boottime()
        number, granted_s = await self._write(
            lambda to: to.lease.LeaseGrant, rpc.LeaseGrantRequest(TTL=math.ceil(ttl_s)),
            lambda answer: (answer.ID, float(answer.TTL)), tells=True,
        )
        if self._phase is not _Phase.RUNNING:
            raise self._unavailable()
        return self.adopt_lease(number, granted_s, sent + granted_s)

    def adopt_lease(self, number: int, ttl_s: float, until: float) -> Lease:
        """Renew a lease that etcd has granted, be it to another process. *until*: boot time for which it is promised."""
        lease = self._leases[number] = EtcdLease(
            number, ttl_s, until - ttl_s, ask=self._renew,
            end=lambda each: self._when_running(lambda: self._revoke(each)),
            over=self._ended, reactor=self._reactor, boottime=self._boottime, random=random.random,
        )
        return lease

    def held_lease(self, lease: Lease) -> tuple[float, float]:
        """What `adopt_lease` in another process needs: its time to live, and until when it is promised."""
        held = self._leases[lease.id]
        return held.ttl_s, held.until

    def let_go(self, lease: Lease) -> None:
        """Another process renews it."""
        held = self._leases.get(lease.id)
        if held is not None:
            held.forget()

    def _ended(self, number: int) -> None:
        del self._leases[number]

    def _renew(self, number: int, timeout_s: float) -> Deferred[float]:
        return Deferred.fromCoroutine(self._caller.call(
            lambda to: to.keep_alive, rpc.LeaseKeepAliveRequest(ID=number), lambda answer: float(answer.TTL),
            timeout_s=timeout_s, again=False,
        ))

    async def _revoke(self, number: int, timeout_s: float = CALL_S) -> None:
        try:
            await self._caller.call(lambda to: to.lease.LeaseRevoke, rpc.LeaseRevokeRequest(ID=number),
                                    lambda answer: None, timeout_s=timeout_s)
        except Misuse as reason:  # etcd does not know it any more
            self.log.debug("lease {id:x} had ended before: {reason}", id=number, reason=reason)

    # --- history ---

    def history(self, prefix: str, *, limit: int = 100) -> Deferred[tuple[PastWrite, ...]]:
        return self._when_running(lambda: self._history(prefix, limit))

    async def _history(self, prefix: str, limit: int) -> tuple[PastWrite, ...]:
        there = await self._list(prefix, keys_only=True)
        written = {record.key: record.mod_revision for record in there.records}
        start = max(1, there.revision - HISTORY_REVISIONS)
        while True:
            past = Past(written, start, there.revision, limit=limit)
            compacted = await replayed(self._watching, prefix, start, past, reactor=self._reactor)
            if not compacted:
                return past.newest_first
            start = compacted + 1
