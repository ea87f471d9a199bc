"""The store's last known state kept on disk, for a start without the store (`cluster.snapshot`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import StoreUnavailable
from cluster.snapshot import Snapshot, Unusable, decode, encode
from cluster.store import Record, Store

#: Changes come in bursts (an `apply`, a thousand registrations); the last of one is what matters.
DELAY_S = 1.0
#: After a write that failed: a disk that is full does not empty at once.
RETRY_S = 30.0


class Keeping(Service):
    """Writes the records under *prefixes* to *path* some time after `changed` was called.

    :param threads: runs the disk's part; the reactor's thread pool by default.
    """

    log = Logger()

    def __init__(self, store: Store, prefixes: tuple[str, ...], path: str, cluster: str, *, reactor: Any,
                 wall: Callable[[], float] = time.time,
                 threads: Callable[[Callable[[], None]], Deferred[None]] | None = None) -> None:
        self.setName("keeping")
        self._store = store
        self._prefixes = prefixes
        self._path = Path(path)
        self._cluster = cluster
        self._reactor = reactor
        self._wall = wall
        self._threads = threads or (lambda work: deferToThreadPool(reactor, reactor.getThreadPool(), work))
        self._timer: Any = None
        self._busy: Deferred[None] | None = None
        self._again = False

    def changed(self) -> None:
        """Something under the prefixes is different now."""
        if not self.running:
            return
        if self._busy is not None:
            self._again = True
        elif self._timer is None:
            self._timer = self._reactor.callLater(DELAY_S, self._write)

    def startService(self) -> None:
        super().startService()
        self.changed()

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return self._busy

    def _write(self) -> None:
        self._timer = None
        self._busy = Deferred.fromCoroutine(self._save())
        self._busy.addErrback(self._failed).addBoth(self._written)

    async def _save(self) -> None:
        records: list[Record] = []
        revision = 0
        for prefix in self._prefixes:
            listing = await self._store.list(prefix)
            records += listing.records
            revision = max(revision, listing.revision)
        data = encode(Snapshot(self._cluster, self._wall(), revision, tuple(records)))
        await self._threads(lambda: replace(self._path, data))

    def _failed(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable):
            return  # what is on disk is the last known state
        self.log.error("{path}: the snapshot was not written: {why}", path=str(self._path), why=failure.getErrorMessage())
        if self.running and self._timer is None:
            self._timer = self._reactor.callLater(RETRY_S, self._write)

    def _written(self, _: None) -> None:
        self._busy = None
        if self._again:
            self._again = False
            self.changed()


def replace(path: Path, data: bytes) -> None:
    """Put *data* at *path*, whole or not at all, for nobody but us to read. Raises OSError."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def last_known(path: str | None, cluster: str) -> tuple[Snapshot | None, str]:
    """What was kept, or None and why there is nothing to start with."""
    if path is None:
        return None, "no snapshot is configured (node.etcd.snapshot)"
    try:
        return decode(Path(path).read_bytes(), cluster), ""
    except FileNotFoundError:
        return None, f"there is no snapshot at {path} yet"
    except (OSError, Unusable) as error:
        return None, f"{path}: {error}"
