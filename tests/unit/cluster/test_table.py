"""The table of committed records, and what is decided on top of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.store import Committed, Compare, Delete, Listing, PastWrite, Put, Record
from cluster.table import Stage, Table, Transaction

KEYS = st.sampled_from(["/a", "/a/b", "/a/c", "/b"])
OPERATIONS = st.lists(st.builds(Put, KEYS, st.sampled_from([b"", b"x"]), st.sampled_from([None, None, 1, 2])) | st.builds(Delete, KEYS),
                      max_size=3, unique_by=lambda operation: operation.key)
COMPARES = st.lists(st.builds(Compare, KEYS, st.integers(0, 3), st.booleans()), max_size=1)


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


class DecidedTests(SynchronousTestCase):
    @given(st.lists(st.tuples(OPERATIONS, COMPARES, st.booleans()), max_size=12))
    def test_like_a_list_of_writes(self, steps: list[tuple[list[Put | Delete], list[Compare], bool]]) -> None:
        """Records, revisions, comparisons, leases and history are as a list of all writes tells them; a stage changes no table."""
        table = Table()
        stage = Stage(table)
        log: list[tuple[int, Put | Delete]] = []  # with the revision of each
        applied = 0

        def standing(upto: int) -> dict[str, Record]:
            records: dict[str, Record] = {}
            for revision, each in log:
                if revision > upto:
                    break
                if isinstance(each, Put):
                    before = records.get(each.key)
                    created = before.create_revision if before is not None else revision
                    records[each.key] = Record(each.key, each.value, created, revision, each.lease)
                else:
                    del records[each.key]
            return records

        def meant(compare: Compare, records: dict[str, Record]) -> bool:
            record = records.get(compare.key)
            return (0 if record is None else record.create_revision if compare.created else record.mod_revision) == compare.mod_revision

        last = 0
        for operations, when, flush in steps:
            now = standing(last)
            holds = all(meant(each, now) for each in when)
            effective = [each for each in operations if isinstance(each, Put) or each.key in now] if holds else []
            if effective:
                last += 1
                log += [(last, each) for each in effective]
            self.assertEqual(stage.decide(operations, when, at=10.0 * last), Committed(holds, last))
            for lease in (1, 2):
                self.assertEqual(stage.leased(lease), sorted(key for key, record in standing(last).items() if record.lease == lease))
            self.assertEqual(stage.size_bytes, sum(each.size_bytes for each in stage.transactions))
            if flush:
                for transaction in stage.transactions:
                    table.apply(transaction)
                stage, applied = Stage(table), last
            records = standing(applied)
            self.assertEqual((table.revision, {each.key: each for each in table.records}), (applied, records))
            self.assertEqual([table.get(key) for key in ("/a", "/b", "/z")], [records.get(key) for key in ("/a", "/b", "/z")])
            for prefix in ("/", "/a", "/a/", "/z"):
                inside = tuple(records[key] for key in sorted(records) if key.startswith(prefix))
                self.assertEqual(table.listing(prefix), Listing(inside, applied))
                writes = [PastWrite(each.key, each.value if isinstance(each, Put) else None, revision, 10.0 * revision)
                          for revision, each in sorted(log, key=lambda each: (-each[0], isinstance(each[1], Delete)))
                          if revision <= applied and each.key.startswith(prefix)]
                for limit in (-1, 0, 1, 2, 100):
                    self.assertEqual(table.history(prefix, limit), tuple(writes[:max(0, limit)]))
            other = Table()
            other.restore(table.revision, table.records, table.past)
            self.assertEqual((other.revision, other.records, other.past), (table.revision, table.records, table.past))
            other.drop_leased()
            self.assertEqual({each.key for each in other.records}, {key for key, record in records.items() if record.lease is None})

    def test_how_much_is_remembered(self) -> None:
        """Ten thousand changes, unless the store says otherwise."""
        table = Table()
        for revision in range(1, 10_003):
            table.apply(Transaction(revision, 0.0, deleted=("k",)))
        self.assertEqual([len(table.past), table.past[0].revision], [10_000, 3])
