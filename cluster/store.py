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
3. A store that cannot answer raises `StoreUnavailable`; it never answers "nothing there" instead.
4. A leased record is deleted when its lease is revoked or runs out, and never outlives an embedded store's process.
5. History is bounded; asking for what was compacted yields what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from twisted.internet.defer import Deferred


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


class Change(NamedTuple):
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
        """Fires when the lease is gone though nobody revoked it."""
        ...

    def remaining_s(self) -> float:
        """Seconds the store has certainly promised still, counted from the *sending* of the last renewal."""
        ...

    def revoke(self) -> Deferred[None]:
        """Give the lease up; its records are deleted."""
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
        """Revoke this process's leases as far as possible, write what is unwritten, release everything."""
        ...

    def get(self, key: str) -> Deferred[Record | None]: ...

    def list(self, prefix: str) -> Deferred[Listing]: ...

    def commit(self, operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
        """Do all *operations* if every comparison holds, else none of them.

        :raises cluster.errors.Misuse: two operations on one key, an unknown lease, a value over `MAX_VALUE_BYTES`.
        """
        ...

    def watch(self, prefix: str, deliver: Callable[[Event], None]) -> Watch:
        """Deliver events as the module's second rule says. *deliver* must not raise; never called re-entrantly
        from within ``watch`` itself."""
        ...

    def lease(self, ttl_s: float) -> Deferred[Lease]:
        """Grant a lease and keep it renewed."""
        ...

    def history(self, prefix: str, *, limit: int = 100) -> Deferred[tuple[Change, ...]]:
        """The newest *limit* changes under *prefix*, newest first, as far back as the store remembers."""
        ...


#: One service with all its groups and hosts is one value: the unit of atomicity.
MAX_VALUE_BYTES = 1024 * 1024
