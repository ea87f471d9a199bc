"""Between etcd's messages and the store's records. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from cluster.etcd.client import rpc
from cluster.store import Changes, Compare, Operation, Put, Record


class Page(NamedTuple):
    """Part of a listing."""

    records: tuple[Record, ...]
    more: bool
    revision: int


class Heard(NamedTuple):
    """One answer of a watch stream."""

    watch: int  #: etcd's number of the watch
    created: bool
    cancelled: bool
    why: str  #: it was cancelled
    compacted: int  #: the revision of the compaction that cancelled it; 0 for other reasons
    changes: tuple[Changes, ...]


def range_end(prefix: bytes) -> bytes:
    """The first key after all that begin with *prefix*; ``NUL`` when there is none, as etcd wants it."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else b"\0"


def range_request(prefix: str, *, after: str | None = None, **more: Any) -> Any:
    """Everything under *prefix*, or what follows the key *after*."""
    start = prefix.encode() or b"\0"
    return rpc.RangeRequest(key=start if after is None else _encoded(after) + b"\0",
                            range_end=range_end(prefix.encode()), **more)


def watch_request(prefix: str, revision: int) -> Any:
    """Every change under *prefix* from *revision* on."""
    create = rpc.WatchCreateRequest(key=prefix.encode() or b"\0", range_end=range_end(prefix.encode()),
                                    start_revision=revision)
    return rpc.WatchRequest(create_request=create)


def transaction(operations: Sequence[Operation], when: Sequence[Compare]) -> Any:
    return rpc.TxnRequest(compare=[_compare(each) for each in when],
                          success=[_operation(each) for each in operations])


def page(answer: Any) -> Page:
    return Page(tuple(map(record, answer.kvs)), answer.more, answer.header.revision)


def record(kv: Any) -> Record:
    return Record(_decoded(kv.key), kv.value, kv.create_revision, kv.mod_revision, kv.lease or None)


def heard(answer: Any) -> Heard:
    """etcd never splits a transaction over two answers, but puts several into one."""
    return Heard(answer.watch_id, answer.created, answer.canceled, answer.cancel_reason, answer.compact_revision,
                 tuple(_changes(answer.events)))


def _changes(events: Iterable[Any]) -> Iterable[Changes]:
    for revision, together in groupby(events, key=lambda event: event.kv.mod_revision):
        written, deleted = [], []
        for event in together:
            if event.type == event.PUT:
                written.append(record(event.kv))
            else:
                deleted.append(_decoded(event.kv.key))
        yield Changes(tuple(written), tuple(deleted), revision)


def _compare(compare: Compare) -> Any:
    """etcd's revisions of an absent key are 0."""
    key = compare.key.encode()
    if compare.created:
        return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.CREATE, key=key,
                           create_revision=compare.mod_revision)
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=key, mod_revision=compare.mod_revision)


def _operation(operation: Operation) -> Any:
    key = operation.key.encode()
    if isinstance(operation, Put):
        return rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=operation.value, lease=operation.lease or 0))
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))


def _decoded(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")  # somebody else's key must not stop ours


def _encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")
