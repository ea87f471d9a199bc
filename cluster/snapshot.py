"""What the store last said, as one document on disk: for a start without the store.

Pure: records in, bytes out, and back. A document that is torn, of another cluster or of another version is refused whole:
starting with half a configuration would look like an order to drop the rest.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from cluster.store import Record

#: Raised when the meaning of a document changes.
VERSION = 1


class Unusable(Exception):
    """The document does not do; says why."""


class Snapshot(NamedTuple):
    """Records by key, as of *revision*; *saved*: POSIX seconds."""

    cluster: str
    saved: float
    revision: int
    records: tuple[Record, ...]


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    key: str
    value: str
    create_revision: int
    mod_revision: int


class _Document(msgspec.Struct, frozen=True):
    version: int
    cluster: str
    saved: float
    revision: int
    records: tuple[_Entry, ...]


def encode(snapshot: Snapshot) -> bytes:
    """Two lines: the document, and its SHA-256. What is no text is no record of ours, and is left out."""
    entries = tuple(_Entry(each.key, each.value.decode(), each.create_revision, each.mod_revision)
                    for each in snapshot.records if _is_text(each))
    document = _Document(VERSION, snapshot.cluster, snapshot.saved, snapshot.revision, entries)
    body = msgspec.json.encode(document)
    return body + b"\n" + hashlib.sha256(body).hexdigest().encode() + b"\n"


def _is_text(record: Record) -> bool:
    try:
        record.value.decode()
        record.key.encode()  # what etcd had that is no UTF-8 has become lone surrogates
    except UnicodeError:
        return False
    return True


def decode(data: bytes, cluster: str) -> Snapshot:
    """:raises Unusable: torn or changed, of another cluster, or of another version."""
    body, _, digest = data.rstrip(b"\n").rpartition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise Unusable("the file is torn or was changed")
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable(f"the file cannot be read: {error}") from error
    if document.version != VERSION:
        raise Unusable(f"the file is of version {document.version}, not {VERSION}")
    if document.cluster != cluster:
        raise Unusable(f"the file is of cluster {document.cluster!r}, not {cluster!r}")
    records = tuple(Record(each.key, each.value.encode(), each.create_revision, each.mod_revision)
                    for each in document.records)
    return Snapshot(document.cluster, document.saved, document.revision, records)
