"""The table of committed records: what its history remembers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.store import Record
from cluster.table import Table, Transaction


class HistoryTests(SynchronousTestCase):
    def test_writes_and_deletions_count_alike(self) -> None:
        """What was written and what was deleted are a change each."""
        transaction = Transaction(1, 0.0, (Record("/a", b"", 1, 1), Record("/b", b"", 1, 1)), ("/c", "/d"))
        self.assertEqual(transaction.changes, 4)
        for limit, remembered in ((4, (transaction,)), (3, ())):
            table = Table(history_limit=limit)
            table.apply(transaction)
            self.assertEqual(table.past, remembered)

    def test_at_the_bounds(self) -> None:
        """History holds as much as its bounds say, and not one change or byte more."""
        ones = [Transaction(revision, 0.0, deleted=("x" * 10,)) for revision in range(1, 5)]
        for table in (Table(history_limit=3), Table(history_bytes=30)):
            for each in ones:
                table.apply(each)
            self.assertEqual(table.past, tuple(ones[1:]))

    def test_what_is_remembered(self) -> None:
        """16 MiB of keys and values, unless the store says otherwise."""
        whole = [Transaction(revision, 0.0, (Record("k", bytes(2**20 - 1), revision, revision),)) for revision in range(1, 17)]
        table = Table()
        for each in whole:
            table.apply(each)
        self.assertEqual([each.revision for each in table.past], list(range(1, 17)))
        table.apply(Transaction(17, 0.0, deleted=("k",)))
        self.assertEqual(len(table.past), 16)

    def test_size(self) -> None:
        """Of a transaction: its keys and values."""
        transaction = Transaction(1, 0.0, (Record("/a", b"value", 1, 1),), ("/cc",))
        self.assertEqual(transaction.size_bytes, 2 + 5 + 3)

    def test_in_order(self) -> None:
        """A transaction of a revision that was applied, or of one before it, is a mistake."""
        table = Table()
        table.apply(Transaction(2, 0.0))
        for revision in (1, 2):
            self.assertRaises(AssertionError, table.apply, Transaction(revision, 0.0))
