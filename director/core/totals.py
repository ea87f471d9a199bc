"""What can be said of all hosts without a picture of each: sums, who is bad, and what happened last.

A picture of ten thousand hosts takes some tenths of a second, these a few milliseconds.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator

from cluster.model import HostRef, HostState
from director.core.inventory import Inventory
from director.core.snapshot import NotablePicture, TotalsPicture, TransitionPicture


def totals(inventory: Inventory) -> TotalsPicture:
    hosts = inventory.hosts.values()
    services = inventory.services.values()
    waiting = Counter((ref.service, ref.group) for ref, record in inventory.registrations().items() if not record.approved)
    return TotalsPicture(
        services=tuple(service.name for service in services),
        hosts=len(hosts),
        in_rotation=sum(entry.host.eligible for entry in hosts),
        connections=sum(service.admission.connections for service in services),
        queued=sum(service.admission.queued for service in services),
        connect_failures=sum(entry.connect_failures for entry in hosts),
        notable=tuple(
            NotablePicture(service=group.service, name=group.name, failing_open=group.pool.failing_open,
                           backups_in_use=group.pool.backups_in_use, waiting=waiting[group.service, group.name])
            for service in services for group in service.groups.values()
            if group.pool.failing_open or group.pool.backups_in_use or (group.service, group.name) in waiting
        ),
    )


def bad(inventory: Inventory, unused: bool) -> Iterator[HostRef]:
    """Hosts that are suspect or down; with *unused*, those that take no new connections instead."""
    for ref, entry in inventory.hosts.items():
        if not entry.host.eligible if unused else entry.health.state is not HostState.UP:
            yield ref


def happened(inventory: Inventory, epoch: float, limit: int, *, downs: bool) -> list[tuple[HostRef, TransitionPicture]]:
    """The newest *limit* changes of state of all hosts, the newest first; with *downs*, those to down.

    :param epoch: what turns monotonic into POSIX seconds when added.
    """
    every = ((each.at, ref, each) for ref, entry in inventory.hosts.items() for each in entry.health.history
             if not downs or each.after is HostState.DOWN)
    newest = heapq.nlargest(limit, every, key=lambda one: one[0])
    return [(ref, TransitionPicture(at=epoch + at, before=each.before, after=each.after, why=each.why))
            for at, ref, each in newest]
