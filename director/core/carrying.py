"""What one process of a director knows of hosts and clients, for the one that follows it on the same machine.

Records of plain values; times are seconds of the monotonic clock, which the processes share. What is not carried is learnt
anew within seconds: when the next probe is due, the window in which hosts are compared, whose turn it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from cluster.model import HostRef, HostState, LoadReport, Order
from director.core.entries import GroupEntry, HostEntry
from director.core.inventory import Inventory
from director.core.orders import LOCAL
from director.core.schedulers.sticky import StickyTable
from director.core.transitions import Check, Transition

R = TypeVar("R", bound=msgspec.Struct)


class HealthRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Of a `director.core.health.HostHealth`, whose names these are."""

    state: HostState
    since: float
    why: str
    fresh_until: float
    verified: bool
    last_check: Check | None
    expected: bool
    lost: str
    last_heard: float | None
    silent_from: float
    beats: int
    by_silence: bool
    held_until: float
    probe_failures: int
    probe_passes: int
    back_off: float
    connect_failures: int
    connect_detail: str
    refused_at: float
    reset_until: float
    connected_at: float
    trial: int
    trial_at: float


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """Of a host that failed its probe, when that is all that is known."""

    state: HostState
    why: str


class FlappingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Of a `director.core.flapping.Flapping`."""

    penalty_s: float
    back_since: float


class ConductRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Of a `director.core.outliers.Conduct`."""

    ejections: int
    until: float
    why: str
    counted_until: float


class HostRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One host. It is carried to the same host at the same address only."""

    ref: HostRef
    address: str
    health: HealthRecord
    flapping: FlappingRecord
    conduct: ConductRecord
    history: tuple[Transition, ...]
    capacity: dict[str, Any] | None  #: of `director.core.capacity.Capacity`
    probed: tuple[float, float] | None  #: the weight it told a probe, and when
    report: LoadReport | None
    report_at: float
    up_since: float


class StickyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The sticky table of one group: clients, their hosts' names, until when."""

    service: str
    group: str
    entries: list[tuple[bytes, str, float]]


class LocalOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order that only this director knows."""

    ref: HostRef
    order: Order


def hosts(inventory: Inventory) -> list[HostRecord]:
    """Everything known of every host."""
    return [
        HostRecord(
            ref=ref, address=entry.spec.address, health=_record(HealthRecord, entry.health),
            flapping=_record(FlappingRecord, entry.health.flapping), conduct=_record(ConductRecord, entry.conduct),
            history=tuple(entry.health.history), capacity=group.capacity.known(ref), probed=group.probed.said(ref),
            report=entry.report, report_at=entry.report_at, up_since=entry.up_since,
        )
        for group in _groups(inventory) for ref, entry in ((each.ref, each) for each in group.hosts.values())
    ]


def recall_hosts(inventory: Inventory, records: Iterable[HostRecord], now: float) -> int:
    """Know of the hosts what *records* say; returns of how many. Others, and those at another address, stay as they are."""
    found = []
    for record in records:
        entry = inventory.hosts.get(record.ref)
        if entry is not None and entry.spec.address == record.address:
            group = inventory.services[record.ref.service].groups[record.ref.group]
            _recall(group, entry, record)
            found.append((entry, record.history))
    inventory.recalled(found, now)
    return len(found)


def doubt_hosts(inventory: Inventory, now: float) -> None:
    """What another process knew cannot be read: hosts whose probe failed here take no clients until one passes."""
    why = "its probe failed, and what the process before this one knew of it is not known"
    found = [entry for entry in inventory.hosts.values() if entry.health.last_check and not entry.health.last_check.ok]
    for entry in found:
        _give(entry.health, Doubt(state=HostState.DOWN, why=why))
    inventory.recalled([(entry, ()) for entry in found], now)


def sticky(inventory: Inventory) -> list[StickyRecord]:
    return [StickyRecord(service=group.service, group=group.name, entries=table.everything())
            for group, table in _tables(inventory)]


def recall_sticky(inventory: Inventory, records: Iterable[StickyRecord], now: float) -> None:
    """Remember those clients, in groups that have a table still."""
    tables = {(group.service, group.name): table for group, table in _tables(inventory)}
    for record in records:
        table = tables.get((record.service, record.group))
        if table is not None:
            table.learn(((client, host, until - now) for client, host, until in record.entries), now)


def local_orders(inventory: Inventory) -> list[LocalOrder]:
    return [LocalOrder(ref=ref, order=entry.orders[LOCAL])
            for ref, entry in inventory.hosts.items() if LOCAL in entry.orders]


# --- inside


def _recall(group: GroupEntry, entry: HostEntry, record: HostRecord) -> None:
    health = entry.health
    _give(health, record.health)
    _give(health.flapping, record.flapping)
    _give(entry.conduct, record.conduct)
    if entry.conduct.ejected:
        group.comparison.ejected.add(entry.conduct)
    if record.capacity is not None:
        group.capacity.recall(entry.ref, record.capacity)
    if record.probed is not None:
        group.probed.answered(entry.ref, record.probed[0], record.probed[1])
    if record.report is not None:
        entry.remember(record.report, record.report_at)
    entry.rise(record.up_since)


def _groups(inventory: Inventory) -> Iterator[GroupEntry]:
    for service in inventory.services.values():
        yield from service.groups.values()


def _tables(inventory: Inventory) -> Iterator[tuple[GroupEntry, StickyTable]]:
    for group in _groups(inventory):
        if isinstance(group.pool.scheduler, StickyTable):
            yield group, group.pool.scheduler


def _slot(thing: Any, name: str) -> str:
    return f"_{name}" if f"_{name}" in type(thing).__slots__ else name


def _record(kind: type[R], thing: Any) -> R:
    return kind(**{name: getattr(thing, _slot(thing, name)) for name in kind.__struct_fields__})


def _give(thing: Any, record: msgspec.Struct) -> None:
    for name in record.__struct_fields__:
        setattr(thing, _slot(thing, name), getattr(record, name))
