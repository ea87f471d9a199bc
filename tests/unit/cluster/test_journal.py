"""The store file's format: what a crash or a damaged disk can leave, byte by byte."""

from __future__ import annotations

from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster import journal
from cluster.journal import Content, Damaged
from cluster.store import Delete, Operation, Put, Record
from cluster.table import Stage, Table, Transaction

OLD: list[list[Operation]] = [
    [Put("/a", b"1"), Put("/b", b"\xff\x00 not text")],
    [Put("/a", "2 ünïcode\n\0".encode()), Put("/leased", b"x", 7)],
    [Delete("/b")],
]
NEW: list[list[Operation]] = [
    [Put("/c", b'{"json": true}')],
    [Put("/a", b"3"), Delete("/c"), Put("/d", b"")],
    [Put("/e", b"5", 7)],
]


def run(table: Table, transactions: list[list[Operation]]) -> list[Transaction]:
    stage = Stage(table)
    for number, operations in enumerate(transactions):
        stage.decide(operations, (), at=1000.5 + number)
    for transaction in stage.transactions:
        table.apply(transaction)
    return stage.transactions


def written() -> tuple[list[bytes], list[dict[str, bytes]]]:
    """A file as lines, and what it must hold after each of its groups."""
    table = Table()
    run(table, OLD)
    lines = [b"".join(journal.compacted(table.revision, table.records, table.past, at=999.0))]
    states = [values(table)]
    for operations in NEW:
        lines.append(journal.group(run(table, [operations])))
        states.append(values(table))
    return lines, states


def values(table: Table) -> dict[str, bytes]:
    return {record.key: record.value for record in table.records if record.lease is None}


class RoundTripTests(SynchronousTestCase):

    def test_everything_but_leased_records_comes_back(self) -> None:
        """Records with their revisions, the revision and history survive; leased records do not."""
        table = Table()
        run(table, OLD)
        data = b"".join(journal.compacted(table.revision, table.records, table.past, at=999.0))
        data += journal.group(run(table, NEW))
        content = journal.read(data)
        self.assertEqual(content.table.records, tuple(record for record in table.records if record.lease is None))
        self.assertEqual((content.table.revision, content.table.past), (table.revision, table.past))
        self.assertEqual((content.torn, content.whole, content.damages), (b"", True, ()))

    @given(st.lists(st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.binary(max_size=20)), min_size=1,
                             max_size=4, unique_by=lambda operation: operation[0]), max_size=8), st.integers(0, 8))
    @settings(max_examples=60)
    def test_any_transactions(self, drawn: list[list[tuple[str, bytes | None]]], split: int) -> None:
        """Whatever was done comes back, wherever the snapshot was taken."""
        operations: list[list[Operation]] = [
            [Delete(key) if value is None else Put(key, value) for key, value in each] for each in drawn]
        table = Table()
        run(table, operations[:split])
        data = b"".join(journal.compacted(table.revision, table.records, table.past, at=1.0))
        group = run(table, operations[split:])
        data += journal.group(group) if group else b""
        content = journal.read(data)
        self.assertEqual((content.table.records, content.table.past, content.table.revision),
                         (table.records, table.past, table.revision))

    def test_read_by_people(self) -> None:
        """Text stays text, one line for each thing, in the documented form."""
        record = Record("/txdirector/main/services/web", b'{"enable":"blue"}', 3, 4)
        header, line = journal.compacted(4, (record,), (), at=5.0)
        self.assertEqual(header[9:], b'{"line":"header","records":1,"history":0,"revision":4,"at":5.0,'
                                     b'"format":"txdirector-store","version":1}\n')
        self.assertEqual(line[9:], b'{"line":"record","record":{"key":"/txdirector/main/services/web",'
                                   b'"text":"{\\"enable\\":\\"blue\\"}","created":3,"modified":4}}\n')


class CrashTests(SynchronousTestCase):

    def test_cut_anywhere(self) -> None:
        """A file cut at any byte of its groups holds every group before the cut, and the rest is the torn tail."""
        lines, states = written()
        data = b"".join(lines)
        ends = [len(b"".join(lines[:n + 1])) for n in range(len(lines))]
        for cut in range(ends[0], len(data) + 1):
            # A line is complete without its newline, too.
            complete = sum(1 for end in ends if end - 1 <= cut)
            content = journal.read(data[:cut])
            self.assertEqual(values(content.table), states[complete - 1], cut)
            expected = b"" if cut == ends[complete - 1] - 1 else data[ends[complete - 1]:cut]
            self.assertEqual(content.torn, expected)
            self.assertEqual(content.whole, cut in ends)

    def test_cut_in_the_snapshot(self) -> None:
        """A snapshot appears whole or not at all; so one that is cut was damaged, and an empty file is too."""
        lines, _ = written()
        for cut in range(len(lines[0]) - 1):
            self.assertRaises(Damaged, journal.read, lines[0][:cut])

    def test_holes(self) -> None:
        """A last line with blocks that never reached the disk is a torn tail, with or without its newline."""
        lines, states = written()
        last = lines[-1]
        for hole in (last[:20] + b"\0" * (len(last) - 20), b"\0" * 40 + last[40:], b"\0" * 4096):
            content = journal.read(b"".join(lines[:-1]) + hole)
            self.assertEqual(values(content.table), states[-2])
            self.assertEqual(content.torn, hole)

    def test_holes_before_others(self) -> None:
        """Holes in a line that another follows are damage: the other was written after the first was acknowledged."""
        lines, _ = written()
        self.assertRaises(Damaged, journal.read, b"".join(lines[:-2]) + b"\0" * 40 + lines[-2][40:] + lines[-1])


class DamageTests(SynchronousTestCase):

    def check(self, data: bytes, expected: dict[str, bytes]) -> Content | None:
        try:
            content = journal.read(data)
        except Damaged as damaged:
            assert 0 <= damaged.damage.offset <= len(data)
            return None
        self.assertEqual(values(content.table), expected)
        return content

    def test_any_byte_damaged(self) -> None:
        """Any one byte changed, to any of a few values, is damage or harms nothing: no acknowledged commit is lost."""
        lines, states = written()
        data = b"".join(lines)
        for at, byte in enumerate(data):
            for wrong in {byte ^ 1, byte ^ 0x20, byte ^ 0x80, 0, ord("\n"), ord(" ")} - {byte}:
                self.check(data[:at] + bytes((wrong,)) + data[at + 1:], states[-1])

    def test_any_line_missing_doubled_or_exchanged(self) -> None:
        """Lines lost, repeated or out of order are damage - but for the last, which nothing can miss."""
        lines, _ = written()
        single = b"".join(lines).splitlines(keepends=True)
        for n in range(len(single) - 1):
            self.assertRaises(Damaged, journal.read, b"".join(single[:n] + single[n + 1:]))
            exchanged = [*single[:n], single[n + 1], single[n], *single[n + 2:]]
            if n == 0 or b'"commit"' in single[n + 1]:  # within a snapshot, order means nothing
                self.assertRaises(Damaged, journal.read, b"".join(exchanged))
        for n in range(len(single)):
            self.assertRaises(Damaged, journal.read, b"".join([*single[:n + 1], *single[n:]]))

    def test_names_the_place(self) -> None:
        """The damaged line's offset is told."""
        lines, _ = written()
        data = bytearray(b"".join(lines))
        start = len(lines[0])
        data[start + 30] ^= 1
        damaged = self.assertRaises(Damaged, journal.read, bytes(data))
        self.assertEqual(damaged.damage.offset, start)

    def test_newer_version(self) -> None:
        """A file of another version is refused, not guessed at."""
        text = (b'{"line":"header","records":0,"history":0,"revision":0,"at":0,"format":"txdirector-store",'
                b'"version":2}')
        damaged = self.assertRaises(Damaged, journal.read, b"%08x %b\n" % (crc32(text), text))
        self.assertIn("the file is of 2", damaged.damage.what)

    @given(st.binary(max_size=300))
    def test_garbage(self, data: bytes) -> None:
        """Garbage is damage, never anything else."""
        self.assertRaises(Damaged, journal.read, data)


class SalvageTests(SynchronousTestCase):

    def test_keeps_every_readable_line(self) -> None:
        """With one line damaged, every other line's effect is kept and the one is named."""
        lines, states = written()
        single = b"".join(lines).splitlines(keepends=True)
        for n, line in enumerate(single):
            damaged = b"".join([*single[:n], b"X" + line[1:], *single[n + 1:]])
            content = journal.salvage(damaged)
            self.assertEqual([damage.offset for damage in content.damages], [len(b"".join(single[:n]))])
            self.assertEqual(content.readable_lines, len(single) - 1)
            if b'"header"' in line or b'"history"' in line:
                self.assertEqual(values(content.table), states[-1])
        self.assertEqual(journal.salvage(b"").readable_lines, 0)

    @given(st.binary(max_size=300), st.integers(0, 3))
    def test_never_raises(self, garbage: bytes, at: int) -> None:
        """Whatever lies between the lines, salvage reads on."""
        lines, _ = written()
        self.assertIsNotNone(journal.salvage(b"".join([*lines[:at], garbage, *lines[at:]])).table)
