"""The store's history in words: which order, which service, which director, when. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.keys import (
    AdminKey,
    DirectorKey,
    Keys,
    LeaderKey,
    ObservedKey,
    Place,
    RegisteredKey,
    ServiceKey,
    VipKey,
)
from cluster.model import HostRef, Leader, Member, Observed, Order, Registered, VipOwner
from cluster.store import Change
from cluster.view import Unreadable, decode
from director.core.snapshot import PastPicture


def told(changes: Sequence[Change], keys: Keys, ref: HostRef | None, limit: int) -> tuple[PastPicture, ...]:
    """The newest *limit* of *changes* (newest first) that concern host *ref*; None: all that people ask about."""
    found = []
    for change in changes:
        place = keys.parse(change.key)
        if place is None or not _concerns(place, ref):
            continue
        what, at = _words(place, change.value)
        found.append(PastPicture(
            revision=change.revision, at=at if at is not None else change.at, key=change.key, what=what,
            value=change.value.decode(errors="replace") if change.value is not None else None,
        ))
        if len(found) == limit:
            break
    return tuple(found)


def _concerns(place: Place, ref: HostRef | None) -> bool:
    if ref is None:
        return isinstance(place, AdminKey | RegisteredKey | ObservedKey | ServiceKey | DirectorKey | LeaderKey | VipKey)
    if isinstance(place, ServiceKey):
        return place.service == ref.service
    return isinstance(place, AdminKey | RegisteredKey | ObservedKey) and place.ref == ref


def _words(place: Place, value: bytes | None) -> tuple[str, float | None]:
    """What happened, and when as the value itself says."""
    try:
        return next(_told(place, value))
    except (Unreadable, StopIteration):
        return "written" if value is not None else "deleted", None


def _told(place: Place, value: bytes | None) -> Iterator[tuple[str, float | None]]:
    match place:
        case AdminKey(ref, by) if value is None:
            yield f"{ref}: the {by}'s order is lifted", None
        case AdminKey(ref, by):
            order = decode(value or b"", Order)
            why = f": {order.why}" if order.why else ""
            yield f"{ref}: {order.state.value} by {order.who} ({by}){why}", order.at
        case RegisteredKey(ref) if value is None:
            yield f"{ref}: its registration is gone", None
        case RegisteredKey(ref):
            registered = decode(value or b"", Registered)
            waits = "" if registered.approved else ", waits for approval"
            yield f"{ref}: registered at {registered.host.address} by {registered.agent}{waits}", registered.at
        case ObservedKey(director, ref):
            state = decode(value, Observed).state.value if value is not None else "up"
            yield f"{ref}: {state} as {director} sees it", None
        case ServiceKey(service):
            yield f"service {service} {'changed' if value is not None else 'deleted'}", None
        case DirectorKey(director) if value is None:
            yield f"director {director} is gone", None
        case DirectorKey(director):
            member = decode(value or b"", Member)
            yield f"director {director} joined, {member.version}", member.started
        case LeaderKey() if value is None:
            yield "nobody leads", None
        case LeaderKey():
            leader = decode(value or b"", Leader)
            yield f"director {leader.name} leads", None
        case VipKey(address) if value is None:
            yield f"{address} was given up", None
        case VipKey(address):
            owner = decode(value or b"", VipOwner)
            yield f"{address} is taken by {owner.owner}", owner.since
