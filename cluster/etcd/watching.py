"""Watches that outlive connections: everything first, then each change once, everything anew on any doubt.

A watch is begun by listing its prefix and watching from the revision after. It is begun again when the stream ends,
when etcd cancels it (compaction), when a revision comes that should have come before, and when a comparison with what is
there shows that an event was lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from cluster.errors import StoreUnavailable
from cluster.etcd.connection import Caller
from cluster.etcd.records import Heard
from cluster.etcd.stream import Reader, Stream
from cluster.etcd.told import Told
from cluster.store import Event, Listing, Resync

#: Between attempts while etcd is away, and after what ended as soon as it began. etcd feels nothing of a few directors
#: asking so often, and nobody waits long once it is back.
RETRY_S = 0.25
#: Between comparisons of what was told with what is there: how long a lost event stays lost. Keys and revisions of 10,000
#: hosts are some 1 MB.
COMPARE_S = 60.0
#: A comparison comes earlier by up to this share, so that directors which started together do not ask together.
JITTER = 0.5
#: From a listing to its comparison: events under way come within milliseconds.
SETTLE_S = 2.0


class Watched:
    """A `cluster.store.Watch`."""

    log = Logger()

    def __init__(self, watching: Watching, prefix: str, deliver: Callable[[Event], None]) -> None:
        self.prefix = prefix
        self.active = True
        self.told = Told()
        self._watching = watching
        self._deliver = deliver
        self._revision = 0

    def stop(self) -> None:
        if self.active:
            self.active = False
            self._watching.forget(self)

    def begun(self, listing: Listing) -> None:
        self._revision = listing.revision
        self.told.resync(listing)
        self._tell(Resync(listing))

    def heard(self, answer: Heard) -> None:
        if answer.cancelled:
            self._watching.cancelled(self, answer)
            return
        for changes in answer.changes:
            if changes.revision <= self._revision:
                self.log.warn("etcd told revision {revision} of {prefix} after {known}: reading everything anew",
                              revision=changes.revision, prefix=self.prefix, known=self._revision)
                self._watching.begin_again(self)
                return
            self._revision = changes.revision
            self.told.take(changes)
            self._tell(changes)
            if not self.active:
                return

    def _tell(self, event: Event) -> None:
        try:
            self._deliver(event)
        except Exception:
            self.log.failure("a watcher of {prefix} raised", prefix=self.prefix)


class Watching:
    """All watches of a store, on one stream at a time.

    :param listing: reads everything under a prefix; raises `StoreUnavailable`.
    :param keys: the same, without the values.
    :param random: uniform in [0, 1).
    :ivar lost: how often a comparison found that an event was lost.
    """

    log = Logger()

    def __init__(self, caller: Caller, listing: Callable[[str], Awaitable[Listing]],
                 keys: Callable[[str], Awaitable[Listing]], *, reactor: Any, random: Callable[[], float]) -> None:
        self.lost = 0
        self._caller = caller
        self._listing = listing
        self._keys = keys
        self._reactor = reactor
        self._random = random
        self._timer: IDelayedCall | None = None
        self._watched: set[Watched] = set()
        self._stream: Stream | None = None
        self._running: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Keep a stream, even for nobody: its end tells that the endpoint is gone."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(lambda failure: self.log.failure("watching etcd failed", failure))
        self._compare_later()

    async def stop(self) -> None:
        """No watcher hears of anything from the call on. Returns when the thread is done."""
        self._stopped = True
        for watched in self._watched:
            watched.active = False
        self._watched.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._stream is not None:
            self._stream.close()
        if self._running is not None:
            await self._running

    def watch(self, prefix: str, deliver: Callable[[Event], None]) -> Watched:
        watched = Watched(self, prefix, deliver)
        self._watched.add(watched)
        self._begin(watched)
        return watched

    def forget(self, watched: Watched) -> None:
        self._watched.discard(watched)
        if self._stream is not None:
            self._stream.cancel(watched)

    def replay(self, prefix: str, revision: int, reader: Reader) -> Stream:
        """Let *reader* hear of past changes. Cancel it on the stream; it hears nothing of the stream's end.

        :raises StoreUnavailable: there is no stream now.
        """
        if self._stream is None:
            raise StoreUnavailable("etcd is away")
        self._stream.create(prefix, revision, reader)
        return self._stream

    def cancelled(self, watched: Watched, answer: Heard) -> None:
        """etcd ended one watch."""
        if answer.compacted:
            self.log.info("etcd was compacted beyond what was read of {prefix}: reading everything anew",
                          prefix=watched.prefix)
            self._begin(watched)
        elif self._stream is not None:  # perhaps the token the stream began with is too old for a new watch
            self.log.warn("etcd cancelled the watch of {prefix}: {why}", prefix=watched.prefix, why=answer.why)
            self._stream.close()

    def begin_again(self, watched: Watched) -> None:
        if self._stream is not None:
            self._stream.cancel(watched)
            self._begin(watched)

    # --- what was lost

    def _compare_later(self) -> None:
        if not self._stopped:
            self._timer = self._reactor.callLater(COMPARE_S * (1.0 - JITTER * self._random()), self._compare)

    def _compare(self) -> None:
        Deferred.fromCoroutine(self._look()).addErrback(
            lambda failure: self.log.failure("what etcd told could not be compared", failure)
        ).addBoth(lambda _: self._compare_later())

    async def _look(self) -> None:
        found: dict[Watched, Listing] = {}
        for watched in list(self._watched):
            watched.told.attend()
            try:
                found[watched] = await self._keys(watched.prefix)
            except StoreUnavailable:
                return  # what comes back is read anew anyway
        settled: Deferred[None] = Deferred()
        if self._stopped:
            return
        self._timer = self._reactor.callLater(SETTLE_S, settled.callback, None)
        await settled
        for watched, listing in found.items():
            lost = watched.told.lost(listing)
            if lost and watched.active:
                self.lost += 1
                self.log.warn("etcd lost events of {count} keys under {prefix}, {key} the first: reading everything anew",
                              count=len(lost), prefix=watched.prefix, key=lost[0])
                self.begin_again(watched)

    async def _run(self) -> None:
        while not self._stopped:
            try:
                connection = await self._caller.connected()
            except StoreUnavailable:
                await self._pause()
                continue
            began = self._reactor.seconds()
            stream = self._stream = Stream(connection, reactor=self._reactor)
            for watched in list(self._watched):
                self._begin(watched)
            why = await stream.ended
            self._stream = None
            if stream.closed:  # the endpoint is good, and others may be asking it something
                await self._caller.renew(connection, stream.metadata)
            else:
                self._caller.drop(connection, why)
            if self._reactor.seconds() - began < 2 * RETRY_S:
                await self._pause()

    def _begin(self, watched: Watched) -> None:
        if self._stream is not None:
            Deferred.fromCoroutine(self._list_and_watch(watched, self._stream)).addErrback(
                lambda failure: self.log.failure("{prefix} could not be watched", failure, prefix=watched.prefix))

    async def _list_and_watch(self, watched: Watched, stream: Stream) -> None:
        while True:
            try:
                listing = await self._listing(watched.prefix)
            except StoreUnavailable as reason:
                self.log.debug("{prefix} cannot be read: {reason}", prefix=watched.prefix, reason=reason)
                await self._pause()
                listing = None
            if not watched.active or stream is not self._stream:
                return  # a new stream begins the watch anew
            if listing is not None:
                stream.create(watched.prefix, listing.revision + 1, watched)
                watched.begun(listing)
                return

    async def _pause(self) -> None:
        if not self._stopped:
            await deferLater(self._reactor, RETRY_S)
