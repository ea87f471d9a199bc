"""The embedded store that survives its process: a `MemoryStore` that writes each transaction down before it is seen.

`StoreFile` does the blocking I/O, one call at a time, on whatever thread `FileStore` is given; the format and what a
crash can do to it are told in `cluster.journal`. Rules:

- the file only grows, by whole groups, each followed by fdatasync; or it is replaced as a whole: written aside,
  fsynced, renamed, the directory fsynced;
- a group that could not be written is taken back; when even that fails the file is replaced before anything else;
- what was found damaged is never overwritten: `salvage` writes what can be read of it into a new file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from cluster import journal
from cluster.errors import StoreUnavailable
from cluster.memory import MemoryStore
from cluster.store import Record, StoreDamaged
from cluster.table import HISTORY_LIMIT, Table, Transaction

_T = TypeVar("_T")

#: Runs blocking work elsewhere, as ``twisted.internet.threads.deferToThread`` does.
Threads = Callable[[Callable[[], _T]], Deferred[_T]]

#: The file is written anew when what followed its snapshot exceeds this and the snapshot: so it is at most twice
#: as long as needed, and every byte is rewritten about once.
REWRITE_BYTES = 1024 * 1024


class Recovered(NamedTuple):
    """A torn tail found at start: a commit under way when the process or the machine died, acknowledged to nobody."""

    kept_aside: str  #: the file that holds it now
    offset: int
    size_bytes: int


class Salvaged(NamedTuple):
    """What `salvage` did."""

    into: str | None  #: the new file; None when a director starts on the old one as it is, and nothing was written
    keys: tuple[str, ...]  #: of the records that are in it
    revision: int
    damages: tuple[journal.Damage, ...]  #: what was left out


class FileStore(MemoryStore):
    """A `cluster.store.Store` in one file, of one process at a time.

    :param path: the file; its directory must exist. ``path.lock`` and ``path.new`` lie beside it.
    :param clock: for leases and for delivering events.
    :param wall: POSIX seconds, for history and the names of files kept aside.
    :param threads: runs a blocking function elsewhere; never called again before the last call's Deferred has fired.
    """

    def __init__(self, path: str, *, clock: IReactorTime, wall: Callable[[], float],
                 threads: Callable[[Callable[[], object]], Deferred[object]],
                 history_limit: int = HISTORY_LIMIT, inherited: bytes | None = None) -> None:
        super().__init__(clock=clock, wall=wall, history_limit=history_limit, inherited=inherited)
        self.recovered: Recovered | None = None  #: what start found torn and kept aside
        self._file = StoreFile(path, history_limit=history_limit)
        self._threads = threads

    @property
    def lock(self) -> int | None:
        """The descriptor that keeps other processes from the file; None while there is none."""
        return self._file.locked

    def take_over(self, lock: int) -> None:
        """Own the file that *lock* keeps, as its present owner left it; the descriptor is ours from now on.

        :raises StoreUnavailable: it cannot be opened; it is as it was.
        """
        try:
            self._file.take_over(lock)
        except OSError as error:
            raise StoreUnavailable(f"{self._file.path}: {error.strerror or error}") from error

    def give_up(self) -> None:
        super().give_up()
        self._file.close()

    async def _open(self) -> Table:
        at = self._wall()
        table, self.recovered = await self._blocking(lambda: self._file.open(at))
        if self.recovered is not None:
            self.log.warn("{path}: a commit was torn off by a crash, acknowledged to nobody; {recovered.size_bytes} "
                          "bytes from byte {recovered.offset} on are kept in {recovered.kept_aside}",
                          path=self._file.path, recovered=self.recovered)
        return table

    async def _persist(self, transactions: Sequence[Transaction]) -> None:
        if self._file.wants_rewrite:
            revision, records, past, at = self._table.revision, self._table.records, self._table.past, self._wall()
            try:
                await self._blocking(lambda: self._file.rewrite(revision, records, past, at=at))
            except StoreUnavailable as reason:
                if not self._file.sound:
                    raise
                self.log.warn("the store's file was not compacted: {reason}", reason=reason)
        await self._blocking(lambda: self._file.append(transactions))

    async def _close(self) -> None:
        await self._blocking(self._file.close)

    async def _blocking(self, work: Callable[[], _T]) -> _T:
        threads: Threads[_T] = self._threads  # type: ignore[assignment]  # it is generic; an attribute cannot say so
        try:
            return await threads(work)
        except OSError as error:
            raise StoreUnavailable(f"{self._file.path}: {error.strerror or error}") from error


class StoreFile:
    """The file and its lock. Every method blocks; calls must not overlap. Raises OSError unless told otherwise."""

    def __init__(self, path: str, *, history_limit: int = HISTORY_LIMIT) -> None:
        self.path = os.path.realpath(path)  # a rename must replace the file, not a link to it
        self.sound = True  #: False: what lies at its end is not known; it must be rewritten before it is appended to
        self._history_limit = history_limit
        self._fd: int | None = None
        self._lock: int | None = None
        self._size = 0
        self._rewrite_at = 0

    @property
    def wants_rewrite(self) -> bool:
        return not self.sound or self._size > self._rewrite_at

    def open(self, at: float) -> tuple[Table, Recovered | None]:
        """Lock and read the file, or create it; *at* is POSIX seconds.

        :raises StoreUnavailable: another process uses it.
        :raises StoreDamaged: it was damaged; nothing was changed.
        """
        self.lock()
        try:
            data = self.read()
            if data is None:
                self.rewrite(0, (), (), at=at)
                return Table(history_limit=self._history_limit), None
            try:
                content = journal.read(data, history_limit=self._history_limit)
            except journal.Damaged as damaged:
                raise StoreDamaged(self.path, *damaged.damage) from None
            table = content.table
            recovered = None
            if content.torn:
                offset = len(data) - len(content.torn)
                recovered = Recovered(self.keep_aside(content.torn, at), offset, len(content.torn))
            if content.whole:
                self._adopt(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), len(data),
                            content.snapshot_bytes)
            else:
                self.rewrite(table.revision, table.records, table.past, at=at)
            return table, recovered
        except BaseException:
            self.close()
            raise

    def lock(self) -> None:
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise StoreUnavailable(f"{self.path} is in use by process {holder}") from None
        except BaseException:
            os.close(lock)
            raise
        self._locked(lock)

    @property
    def locked(self) -> int | None:
        return self._lock

    def take_over(self, lock: int) -> None:
        """What `lock` and `open` do, where another process has done both and passed its lock on."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._locked(lock)
        size = os.fstat(fd).st_size
        self._adopt(fd, size, size)

    def _locked(self, lock: int) -> None:
        self._lock = lock
        with suppress(OSError):  # the number is for people; a full disk must not cost the start
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d\n" % os.getpid(), 0)

    def read(self) -> bytes | None:
        """All of it; None when there is no file."""
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def append(self, transactions: Sequence[Transaction]) -> None:
        """Write one group. When it fails the file is as before, or no longer *sound*."""
        assert self._fd is not None and self.sound
        line = journal.group(transactions)
        try:
            _write(self._fd, line)
            os.fdatasync(self._fd)
        except BaseException:
            try:
                os.ftruncate(self._fd, self._size)
                os.fsync(self._fd)
            except OSError:
                self.sound = False
            raise
        self._size += len(line)

    def rewrite(self, revision: int, records: Sequence[Record], past: Sequence[Transaction], *,
                at: float) -> None:
        """Replace the file by a snapshot. When it fails the old one is still in place, or the file is not *sound*."""
        self._rewrite_at = self._size + REWRITE_BYTES  # should this attempt fail
        aside = f"{self.path}.new"
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            content = b"".join(journal.compacted(revision, records, past, at=at))
            _write(fd, content)
            os.fsync(fd)
            os.rename(aside, self.path)
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                os.unlink(aside)
            raise
        self._adopt(fd, len(content), len(content))
        self.sound = False  # until the rename is durable, whatever is appended may be lost with it
        _sync_directory(self.path)
        self.sound = True

    def keep_aside(self, data: bytes, at: float) -> str:
        """Save *data* in a new file beside, durably; answers its name."""
        stamp = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
        name, number = f"{self.path}.damaged-{stamp}", 0
        while os.path.lexists(name):
            number += 1
            name = f"{self.path}.damaged-{stamp}-{number}"
        _write_new(name, data)
        return name

    def close(self) -> None:
        """Release file and lock; a second time does nothing."""
        for fd in (self._fd, self._lock):
            if fd is not None:
                os.close(fd)
        self._fd = self._lock = None

    def _adopt(self, fd: int, size: int, snapshot_bytes: int) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._size = fd, size
        self._rewrite_at = snapshot_bytes + max(snapshot_bytes, REWRITE_BYTES)


def salvage(path: str, into: str, *, at: float) -> Salvaged:
    """Write what can be read of a damaged file into a new one; the damaged one stays as it is. Blocks; for a command,
    not for a reactor.

    What was not readable is missing: a key may hold its value of before, or be gone, or a deleted one be back. Compare
    with what is expected before starting a director on it.

    :param at: POSIX seconds, for the new file's header.
    :raises StoreUnavailable: there is no such file, it is in use, or *into* exists or cannot be written.
    :raises StoreDamaged: not one line of it is readable.
    """
    file = StoreFile(path)
    try:
        data = file.read()
        if data is None:
            raise StoreUnavailable(f"{file.path}: there is no such file")
        file.lock()
        try:
            table = journal.read(data).table
            return Salvaged(None, tuple(record.key for record in table.records), table.revision, ())
        except journal.Damaged as damaged:
            content = journal.salvage(data)
            if not content.readable_lines:
                raise StoreDamaged(file.path, *damaged.damage) from None
        table = content.table
        _write_new(into, b"".join(journal.compacted(table.revision, table.records, table.past, at=at)))
        return Salvaged(into, tuple(record.key for record in table.records), table.revision, content.damages)
    except OSError as error:
        raise StoreUnavailable(f"{error.filename or file.path}: {error.strerror or error}") from error
    finally:
        file.close()


def _write_new(path: str, data: bytes) -> None:
    """Create *path* with *data*, durably. Raises FileExistsError, and leaves nothing half done."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write(fd, data)
        os.fsync(fd)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)
    _sync_directory(os.path.abspath(path))


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def _sync_directory(path: str) -> None:
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
