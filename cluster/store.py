"""The store: small records under keys, shared by every director, watched in order.

Three implementations pass one contract suite (``tests/contract/test_store.py``): `cluster.memory.MemoryStore`,
`cluster.file.FileStore` and, for a cluster, etcd. The model is etcd's: one *revision* counter for the whole
store, raised by one with every transaction that changes anything; each record knows the revision that created it and
the one that last wrote it.

Rules every implementation keeps:

1. A transaction happens wholly or not at all; its comparisons and its operations see one revision.
2. A watcher first receives one `Resync` with everything under its prefix, then every later change exactly once, in
   order of revision; all changes of a transaction arrive in one batch. Whenever continuity is in doubt it receives
   another `Resync`, which replaces all it knew.
3. A store that cannot answer fails with `StoreUnavailable`; it never answers "nothing there" instead. So does every
   call before ``start`` has succeeded and after ``stop``. A commit that fails so has not happened, unless it fails with
   `OutcomeUnknown`: then it may have, or may yet. Read before deciding again.
4. A leased record is deleted when its lease is revoked or runs out, all records of a lease in one transaction, and
   never outlives an embedded store's process.
5. History is bounded; asking for what was compacted yields what is left.
6. Wrong calls fail with `Misuse` and change nothing (`check_transaction`); the limits are etcd's, so that what
   an embedded store accepts a cluster accepts too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from twisted.internet.defer import Deferred

from cluster.errors import Misuse

#: One service with all its groups and hosts is one value: the unit of atomicity.
MAX_VALUE_BYTES = 1024 * 1024
#: of keys and values together: etcd's default request limit is 1.5 MiB, framing included
MAX_TRANSACTION_BYTES = 1_400_000
#: operations, and comparisons, of one transaction: etcd's default ``--max-txn-ops``
MAX_OPERATIONS = 128
#: of one key; far above the longest in `cluster.keys`
MAX_KEY_BYTES = 1024


class StoreDamaged(Exception):
    """A store's file is not what was written. Nothing was changed; `cluster.file.salvage` saves what can be read."""

    def __init__(self, path: str, offset: int, what: str) -> None:
        super().__init__(f"{path}: damaged at byte {offset}: {what}; nothing was changed. Restore the file from a "
                         f"backup, or save what can be read: director salvage {path} (docs/operations/damaged-state.md)")
        self.path = path
        self.offset = offset
        self.what = what


class Record(NamedTuple):
    """A value as stored."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int | None = None


class Put(NamedTuple):
    """Write *value* at *key*; with a lease id the record dies with that lease."""

    key: str
    value: bytes
    lease: int | None = None


class Delete(NamedTuple):
    """Remove *key*; removing what is absent is no error and no change."""

    key: str


Operation: TypeAlias = Put | Delete


class Compare(NamedTuple):
    """True while *key* was last written at *mod_revision*; 0 means "does not exist".

    With *created* the creating revision is compared instead (fencing tokens).
    """

    key: str
    mod_revision: int
    created: bool = False


class Committed(NamedTuple):
    """A transaction's outcome: whether every comparison held, and the store's revision after it."""

    succeeded: bool
    revision: int


class Listing(NamedTuple):
    """Every record under a prefix, by key, as of *revision*."""

    records: tuple[Record, ...]
    revision: int


class Resync(NamedTuple):
    """All that is under the prefix now; forget what was known before."""

    listing: Listing


class Changes(NamedTuple):
    """One transaction's effect under the prefix: writes, and keys deleted."""

    written: tuple[Record, ...]
    deleted: tuple[str, ...]
    revision: int


Event: TypeAlias = Resync | Changes


class PastWrite(NamedTuple):
    """One past write (or deletion, when *value* is None) of a key."""

    key: str
    value: bytes | None
    revision: int
    at: float | None  #: POSIX seconds when known (embedded stores); etcd does not keep times


class Lease(Protocol):
    """A promise to be alive, renewed by the store until revoked."""

    @property
    def id(self) -> int: ...

    @property
    def lost(self) -> Deferred[None]:
        """Fires when the lease is gone though nobody revoked it.

        Neither ``revoke`` nor the store's ``stop`` fires it.
        """
        ...

    def remaining_s(self) -> float:
        """Seconds the store has certainly promised still, counted from the *sending* of the last renewal; 0 once
        the lease is lost or revoked."""
        ...

    def revoke(self) -> Deferred[None]:
        """Give the lease up; its records are deleted. Doing so again, or to a lost lease, does nothing."""
        ...


class Watch(Protocol):
    def stop(self) -> None:
        """No event is delivered from now on."""
        ...


class Store(Protocol):
    """What directors share. Every Deferred may fail with `StoreUnavailable`."""

    def start(self) -> Deferred[None]:
        """Open the store. Fails with `StoreUnavailable`, or with `StoreDamaged` from a store with a file."""
        ...

    def stop(self) -> Deferred[None]:
        """Revoke this process's leases as far as possible, write what is unwritten, release everything.

        No watcher hears of anything from the call on. A stopped store is not started again.
        """
        ...

    def get(self, key: str) -> Deferred[Record | None]: ...

    def list(self, prefix: str) -> Deferred[Listing]: ...

    def commit(self, operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
        """Do all *operations* if every comparison holds, else none of them.

        A record written again loses its former lease. Deleting only what is absent raises no revision. Once the
        Deferred fires, the change survives what the store promises to survive, and ``get`` sees it; watchers may
        hear of it earlier or later. Fails with `Misuse` for what `check_transaction` refuses, and for a lease that
        is unknown, lost or revoked.
        """
        ...

    def watch(self, prefix: str, deliver: Callable[[Event], None]) -> Watch:
        """Deliver events as the module's second rule says; ``StoreUnavailable`` is raised only before ``start`` and
        after ``stop``: in between, the watch outlives the store's absence.

        *deliver* is never called from within ``watch`` or ``commit``. It must not raise: what it raises is logged,
        and harms no other watcher.
        """
        ...

    def lease(self, ttl_s: float) -> Deferred[Lease]:
        """Grant a lease and keep it renewed."""
        ...

    def history(self, prefix: str, *, limit: int = 100) -> Deferred[tuple[PastWrite, ...]]:
        """The newest *limit* changes under *prefix*, newest first, as far back as the store remembers."""
        ...



def check_transaction(operations: Sequence[Operation], when: Sequence[Compare]) -> None:
    """What every store refuses before asking anybody.

    :raises cluster.errors.Misuse: an empty or unprintable key, two operations on one key, or one of the limits above.
    """
    if max(len(operations), len(when)) > MAX_OPERATIONS:
        raise Misuse(f"a transaction holds at most {MAX_OPERATIONS} operations and as many comparisons")
    keys = [operation.key for operation in operations]
    if len(set(keys)) != len(keys):
        raise Misuse(f"two operations on one key: {sorted({key for key in keys if keys.count(key) > 1})}")
    total = 0
    for key in (*keys, *(compare.key for compare in when)):
        if not (key and key.isprintable() and len(key.encode()) <= MAX_KEY_BYTES):
            raise Misuse(f"not a key: {key!r}: it must be printable and of 1 to {MAX_KEY_BYTES} bytes")
        total += len(key.encode())
    for operation in operations:
        if isinstance(operation, Put):
            size = len(operation.value)
            if size > MAX_VALUE_BYTES:
                raise Misuse(f"{operation.key}: a value has at most {MAX_VALUE_BYTES} bytes, not {size}")
            total += size
    if total > MAX_TRANSACTION_BYTES:
        raise Misuse(f"a transaction has at most {MAX_TRANSACTION_BYTES} bytes, not {total}")
