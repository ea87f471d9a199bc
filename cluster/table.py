"""What an embedded store knows: records, the revision, bounded history. Pure; `cluster.memory` adds time and watchers.

A `Table` is what has been committed. A `Stage` on top of it decides transactions that are not yet durable: when
writing them down fails the stage is thrown away and the table never knew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cluster.store import Committed, Compare, Listing, Operation, PastWrite, Put, Record

#: changes remembered; at a hundred operators' orders a day, three months
HISTORY_LIMIT = 10_000
#: of remembered keys and values: large services written often must not fill the memory
HISTORY_BYTES = 16 * 1024 * 1024


class Transaction(NamedTuple):
    """A decided transaction: the records as it leaves them, and the keys it removed."""

    revision: int
    at: float  #: POSIX seconds
    written: tuple[Record, ...] = ()
    deleted: tuple[str, ...] = ()

    @property
    def changes(self) -> int:
        return len(self.written) + len(self.deleted)

    @property
    def size_bytes(self) -> int:
        return sum(len(record.key) + len(record.value) for record in self.written) + sum(map(len, self.deleted))


class Table:
    """Committed records and history."""

    def __init__(self, *, history_limit: int = HISTORY_LIMIT, history_bytes: int = HISTORY_BYTES) -> None:
        self.revision = 0
        self._records: dict[str, Record] = {}
        self._past: deque[Transaction] = deque()
        self._past_changes = 0
        self._past_bytes = 0
        self._history_limit = history_limit
        self._history_bytes = history_bytes

    @property
    def records(self) -> tuple[Record, ...]:
        return tuple(self._records.values())

    @property
    def past(self) -> tuple[Transaction, ...]:
        """What history still remembers, oldest first."""
        return tuple(self._past)

    def restore(self, revision: int, records: Iterable[Record], past: Iterable[Transaction]) -> None:
        """Become what a snapshot says."""
        self.revision = revision
        self._records = {record.key: record for record in records}
        for transaction in past:
            self._remember(transaction)

    def apply(self, transaction: Transaction) -> None:
        """Let a decided transaction have happened."""
        assert transaction.revision > self.revision, "transactions are applied in order"
        self.revision = transaction.revision
        for record in transaction.written:
            self._records[record.key] = record
        for key in transaction.deleted:
            self._records.pop(key, None)
        self._remember(transaction)

    def drop_leased(self) -> None:
        """Forget records whose leases died with the process that held them."""
        self._records = {key: record for key, record in self._records.items() if record.lease is None}

    def get(self, key: str) -> Record | None:
        return self._records.get(key)

    def listing(self, prefix: str) -> Listing:
        keys = sorted(key for key in self._records if key.startswith(prefix))
        return Listing(tuple(self._records[key] for key in keys), self.revision)

    def history(self, prefix: str, limit: int) -> tuple[PastWrite, ...]:
        found: list[PastWrite] = []
        for transaction in reversed(self._past):
            if len(found) >= limit:
                break
            found.extend(PastWrite(record.key, record.value, transaction.revision, transaction.at)
                         for record in transaction.written if record.key.startswith(prefix))
            found.extend(PastWrite(key, None, transaction.revision, transaction.at)
                         for key in transaction.deleted if key.startswith(prefix))
        return tuple(found[:max(0, limit)])

    def _remember(self, transaction: Transaction) -> None:
        self._past.append(transaction)
        self._past_changes += transaction.changes
        self._past_bytes += transaction.size_bytes
        while self._past and (self._past_changes > self._history_limit or self._past_bytes > self._history_bytes):
            oldest = self._past.popleft()
            self._past_changes -= oldest.changes
            self._past_bytes -= oldest.size_bytes


class Stage:
    """Transactions decided one after another on top of *table*, which they leave untouched."""

    def __init__(self, table: Table) -> None:
        self.transactions: list[Transaction] = []
        self.size_bytes = 0
        self._table = table
        self._changed: dict[str, Record | None] = {}
        self._revision = table.revision

    def decide(self, operations: Sequence[Operation], when: Sequence[Compare], *, at: float) -> Committed:
        """Do *operations* at time *at* if every comparison holds. The caller has checked them."""
        if not all(self._holds(compare) for compare in when):
            return Committed(False, self._revision)
        revision = self._revision + 1
        written: list[Record] = []
        deleted: list[str] = []
        for operation in operations:
            present = self._get(operation.key)
            if isinstance(operation, Put):
                created = present.create_revision if present else revision
                written.append(Record(operation.key, operation.value, created, revision, operation.lease))
            elif present:
                deleted.append(operation.key)
        if written or deleted:
            self._revision = revision
            self._changed.update((record.key, record) for record in written)
            self._changed.update(dict.fromkeys(deleted))
            transaction = Transaction(revision, at, tuple(written), tuple(deleted))
            self.transactions.append(transaction)
            self.size_bytes += transaction.size_bytes
        return Committed(True, self._revision)

    def leased(self, lease: int) -> list[str]:
        """Keys of the records that die with *lease*."""
        candidates = {record.key for record in self._table.records if record.lease == lease} | self._changed.keys()
        return sorted(key for key in candidates if (record := self._get(key)) and record.lease == lease)

    def _holds(self, compare: Compare) -> bool:
        record = self._get(compare.key)
        if record is None:
            return compare.mod_revision == 0
        return compare.mod_revision == (record.create_revision if compare.created else record.mod_revision)

    def _get(self, key: str) -> Record | None:
        return self._changed[key] if key in self._changed else self._table.get(key)
