"""The record and the beat key in the store, as the machine has them and as they are written."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cluster.keys import Keys
from cluster.model import Leader
from cluster.store import Compare, Operation, Put, Record
from cluster.takeover.words import Kind, Reign, Seen, Transaction
from cluster.view import Unreadable, decode


def sighted(records: Sequence[Record], keys: Keys, *, together: bool = False) -> tuple[Seen, str]:
    """What *records*, all of one revision, say; and what is wrong with the record, empty when nothing is.

    A record that cannot be read, or that leads by a lease, is nobody's by promises: nobody may follow it, and an owner that
    sees it steps down, since its term is new.

    :param together: so it is for a record that says that addresses are spread: who looks would take all of them.
    """
    by_key = {record.key: record for record in records}
    record, beat = by_key.get(keys.leader()), by_key.get(keys.leader_beat())
    beaten = 0 if beat is None else beat.mod_revision
    if record is None:
        return Seen(None, 0, beaten), ""
    why = ""
    leader = Leader(name="-", boot_id="", since=0.0)
    try:
        leader = decode(record.value, Leader)
        if leader.kind == "lease":
            why = "it leads by a lease, not by promises"
        elif together and leader.spread:
            why = "each virtual address has an owner of its own there, and node.vips.spread is off here"
    except Unreadable as error:
        why = str(error)
    mod = record.mod_revision
    if why:
        return Seen(Reign(leader.name, "", frozenset(), Kind.FIRST, 0, mod), mod, beaten), why
    reign = Reign(leader.name, leader.boot_id, frozenset(leader.electors), Kind(leader.kind), leader.counts_ns,
                  leader.term or mod)
    return Seen(reign, mod, beaten), ""


def comparisons(transaction: Transaction, keys: Keys) -> list[Compare]:
    compared = [Compare(keys.leader(), transaction.mod)]
    if transaction.beat is not None:
        compared.append(Compare(keys.leader_beat(), transaction.beat))
    return compared


def operations(transaction: Transaction, keys: Keys, since: float, *, spread: bool = False) -> list[Operation]:
    """Of a transaction; the beat's value is for people.

    :param since: POSIX seconds.
    :param spread: see `cluster.model.Leader`.
    """
    written: list[Operation] = [Put(keys.leader_beat(), f"{since:.3f}".encode())]
    if transaction.reign is not None:
        written.append(Put(keys.leader(), as_written(transaction.reign, since, spread=spread)))
    return written


def as_written(reign: Reign, since: float, *, spread: bool = False) -> bytes:
    return msgspec.json.encode(Leader(
        name=reign.owner, boot_id=reign.incarnation, since=since, kind=reign.kind.value,
        electors=tuple(sorted(reign.electors)), counts_ns=reign.counts_ns, term=reign.term, spread=spread,
    ))
