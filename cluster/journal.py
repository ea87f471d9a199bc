"""The format of an embedded store's file: bytes in, transactions out, and back. Pure; `cluster.file` does the I/O.

A file is lines of ``crc json``: eight hexadecimal digits of the CRC-32 of the JSON text, a blank, the text. First a
snapshot - one ``header``, as many ``record`` and ``history`` lines as it says - which only ever appears whole, by a
rename; then one ``commit`` line for each group of transactions written together. An example is in
docs/operations/damaged-state.md.

What a crash can do and what it cannot:

- A group is one line, acknowledged only once it is on the disk. A crash while it is written leaves a *torn tail*: a
  last line that has no newline, or that has holes, which are runs of NUL. JSON contains neither, and nothing of a
  torn tail was ever acknowledged; so it is dropped.
- Anything else that does not check is *damage*: of the disk, or by a hand. It may hide what was acknowledged.
- A last line that lacks only its newline, or has another byte in its place, is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from cluster.store import Record
from cluster.table import HISTORY_LIMIT, Table, Transaction

VERSION = 1
#: Bytes of NUL that only a hole explains: one damaged byte must never look like a tail that was not acknowledged.
HOLE_BYTES = 16


class Damage(NamedTuple):
    """A place that does not check."""

    offset: int  #: in bytes
    what: str


class Damaged(Exception):
    """The first damage found."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(f"byte {damage.offset}: {damage.what}")
        self.damage = damage


class Content(NamedTuple):
    """What a file holds."""

    table: Table
    snapshot_bytes: int  #: of header, records and history
    torn: bytes = b""  #: the torn tail, to be kept aside
    whole: bool = True  #: False: the last line lacks its newline, or a tail is torn: write the file anew
    damages: tuple[Damage, ...] = ()  #: lines left out; only when salvaging
    readable_lines: int = 0


class _Line(msgspec.Struct, tag_field="line", forbid_unknown_fields=True):
    """Any line."""


class _Value(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A record: *text* for what is UTF-8, else *base64*."""

    key: str
    text: str | None = None
    base64: bytes | None = None
    created: int = 0
    modified: int = 0  #: 0: by the transaction it stands in
    lease: int | None = None

    @classmethod
    def of(cls, record: Record, *, within: int = 0) -> _Value:
        try:
            text, binary = record.value.decode(), None
        except UnicodeDecodeError:
            text, binary = None, record.value
        modified = 0 if record.mod_revision == within else record.mod_revision
        return cls(record.key, text, binary, record.create_revision, modified, record.lease)

    def record(self, *, within: int = 0) -> Record:
        value = self.text.encode() if self.text is not None else self.base64 or b""
        return Record(self.key, value, self.created, self.modified or within, self.lease)


class _Written(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """A transaction."""

    revision: int
    at: float
    put: tuple[_Value, ...] = ()
    delete: tuple[str, ...] = ()

    @classmethod
    def of(cls, transaction: Transaction) -> _Written:
        revision, at, written, deleted = transaction
        return cls(revision, at, tuple(_Value.of(record, within=revision) for record in written), deleted)

    def transaction(self) -> Transaction:
        written = tuple(value.record(within=self.revision) for value in self.put)
        return Transaction(self.revision, self.at, written, self.delete)


class _Header(_Line, tag="header"):
    records: int
    history: int
    revision: int
    at: float
    format: Literal["txdirector-store"] = "txdirector-store"
    version: int = VERSION


class _RecordLine(_Line, tag="record"):
    record: _Value


class _HistoryLine(_Line, tag="history"):
    transaction: _Written


class _CommitLine(_Line, tag="commit"):
    transactions: tuple[_Written, ...]


_AnyLine: TypeAlias = _Header | _RecordLine | _HistoryLine | _CommitLine
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[_AnyLine] = msgspec.json.Decoder(_AnyLine)


# --- writing ----------------------------------------------------------------------------------------------


def compacted(revision: int, records: Sequence[Record], past: Sequence[Transaction], *, at: float) -> Iterator[bytes]:
    """The lines that a file starts with. Leased records die with their process, so they are left out."""
    kept = [record for record in records if record.lease is None]
    yield _line(_Header(len(kept), len(past), revision, at))
    for record in kept:
        yield _line(_RecordLine(_Value.of(record)))
    for transaction in past:
        yield _line(_HistoryLine(_Written.of(transaction)))


def group(transactions: Iterable[Transaction]) -> bytes:
    """The line of transactions written together."""
    return _line(_CommitLine(tuple(map(_Written.of, transactions))))


def _line(content: _AnyLine) -> bytes:
    text = _encoder.encode(content)
    return b"%08x %b\n" % (crc32(text), text)


# --- reading ----------------------------------------------------------------------------------------------


def read(data: bytes, *, history_limit: int = HISTORY_LIMIT) -> Content:
    """Read a whole file.

    :raises Damaged: unless everything that was ever acknowledged is there.
    """
    lines = _split(data)
    torn, whole = b"", True
    if not lines or lines[-1].start + len(lines[-1].text) == len(data):  # no newline at the end
        whole = False
        if lines:
            last = lines.pop()
            candidates = [text for text in (last.text, last.text[:-1]) if _checks(text)]
            if candidates:
                lines.append(_Raw(last.start, candidates[0]))
            else:
                torn = last.text
    elif lines and not _checks(lines[-1].text) and b"\0" * HOLE_BYTES in lines[-1].text:
        whole, torn = False, data[lines.pop().start:]
    reader = _Reader(history_limit)
    for line in lines:
        reader.take(line.start, _decode(line))
    return reader.content(len(data) - len(torn), torn=torn, whole=whole)


def salvage(data: bytes, *, history_limit: int = HISTORY_LIMIT) -> Content:
    """Keep every line that checks, in order, and say which do not: the newest readable value of every key."""
    reader, damages = _Reader(history_limit, strict=False), []
    for line in _split(data):
        try:
            reader.take(line.start, _decode(line))
        except Damaged as damaged:
            damages.append(damaged.damage)
    content = reader.content(len(data), torn=b"", whole=False)
    return content._replace(damages=tuple(damages))


class _Raw(NamedTuple):
    start: int
    text: bytes  #: without its newline


def _split(data: bytes) -> list[_Raw]:
    start, lines = 0, []
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        lines.append(_Raw(start, data[start:end]))
        start = end + 1
    return lines


def _checks(line: bytes) -> bool:
    return line[:9] == b"%08x " % crc32(line[9:])


def _decode(line: _Raw) -> _AnyLine:
    if not _checks(line.text):
        raise Damaged(Damage(line.start, "the checksum of the line does not match"))
    try:
        content = _decoder.decode(line.text[9:])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Damaged(Damage(line.start, f"written by a newer release or by hand: {error}")) from None
    if isinstance(content, _Header) and content.version != VERSION:
        raise Damaged(Damage(line.start, f"this release reads version {VERSION}, the file is of {content.version}"))
    return content


class _Reader:
    """Collects lines; when *strict*, also that none is missing, doubled or out of place."""

    def __init__(self, history_limit: int, *, strict: bool = True) -> None:
        self._strict = strict
        self._table = Table(history_limit=history_limit)
        self._header: _Header | None = None
        self._records: list[Record] = []
        self._past: list[Transaction] = []
        self._lines = 0
        self._snapshot_bytes: int | None = None  # None: not yet complete

    def take(self, offset: int, line: _AnyLine) -> None:
        self._lines += 1
        if isinstance(line, _Header):
            self._expect(self._header is None and not offset, offset, "a header in the middle")
            self._header = line
        elif isinstance(line, _CommitLine):
            self._finish_snapshot(offset)
            for written in line.transactions:
                follows = written.revision == self._table.revision + 1
                self._expect(follows, offset, f"revision {written.revision} follows {self._table.revision}")
                if written.revision > self._table.revision:
                    self._table.apply(written.transaction())
        else:
            self._expect(self._snapshot_bytes is None and self._header is not None, offset, "a line out of place")
            if isinstance(line, _RecordLine):
                self._records.append(line.record.record())
            else:
                self._past.append(line.transaction.transaction())

    def content(self, end: int, *, torn: bytes, whole: bool) -> Content:
        self._finish_snapshot(end)
        self._table.drop_leased()
        assert self._snapshot_bytes is not None
        return Content(self._table, self._snapshot_bytes, torn, whole, readable_lines=self._lines)

    def _finish_snapshot(self, offset: int) -> None:
        if self._snapshot_bytes is not None:
            return
        self._expect(self._header is not None, 0, "there is no header: not a store's file, or emptied")
        if self._header is not None:
            counts = self._header.records, self._header.history
            complete = counts == (len(self._records), len(self._past))
            self._expect(complete, offset, f"the snapshot of {counts[0]} records and {counts[1]} transactions has only "
                         f"{len(self._records)} and {len(self._past)}")
        revisions = [record.mod_revision for record in self._records] + [past.revision for past in self._past]
        self._table.restore(self._header.revision if self._header else max(revisions, default=0),
                            self._records, self._past)
        self._snapshot_bytes = offset

    def _expect(self, fine: bool, offset: int, otherwise: str) -> None:
        if self._strict and not fine:
            raise Damaged(Damage(offset, otherwise))
