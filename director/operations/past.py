"""The store's history in words: which order, which service, which director, when. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress

from cluster.keys import (
    AdminKey,
    AuditKey,
    DirectorKey,
    Keys,
    LeaderKey,
    ObservedKey,
    Place,
    RegisteredKey,
    ServiceKey,
    VipKey,
)
from cluster.model import AuditEntry, HostRef, Leader, Member, Observed, Order, Registered, Service, VipOwner
from cluster.store import PastWrite
from cluster.validate import join
from cluster.view import Unreadable, decode
from director.core.plan import plan, values
from director.core.snapshot import PastPicture

#: Differences of a service that are told one by one.
MAX_DIFFERENCES = 5
#: A change between two whose times are known and no further apart than this happened when the later one did.
NEAR_S = 60.0
#: Revisions after a change within which its entry of the audit is looked for: the audit is written right after, and other
#: directors write too.
AUDIT_REVISIONS = 20


def told(changes: Sequence[PastWrite], keys: Keys, ref: HostRef | None, limit: int) -> tuple[PastPicture, ...]:
    """The newest *limit* of *changes* (newest first) that concern host *ref*; None: all that people ask about."""
    times, before = _Times(changes, keys), _before(changes)
    found = []
    for change in changes:
        place = keys.parse(change.key)
        if place is None or not _concerns(place, ref):
            continue
        what, at = _words(place, change.value, before.get((change.key, change.revision)))
        if at is None:
            at = change.at if change.at is not None else times.of(change.revision, place)
        found.append(PastPicture(
            revision=change.revision, at=at, key=change.key, what=what,
            value=change.value.decode(errors="replace") if change.value is not None else None,
        ))
        if len(found) == limit:
            break
    return tuple(found)


def _before(changes: Sequence[PastWrite]) -> dict[tuple[str, int], PastWrite]:
    """The change before each of the same key, by key and revision."""
    last: dict[str, PastWrite] = {}
    found = {}
    for change in reversed(changes):
        if change.key in last:
            found[change.key, change.revision] = last[change.key]
        last[change.key] = change
    return found


class _Times:
    """When revisions were, by what carries a time and is written as it happens. etcd itself keeps none."""

    def __init__(self, changes: Sequence[PastWrite], keys: Keys) -> None:
        self._known: list[tuple[int, float]] = []
        self._audit: list[tuple[int, AuditEntry]] = []
        for change in reversed(changes):
            place = keys.parse(change.key)
            if change.value is None or place is None:
                continue
            with suppress(Unreadable):
                match place:
                    case AuditKey():
                        entry = decode(change.value, AuditEntry)
                        self._audit.append((change.revision, entry))
                        self._known.append((change.revision, entry.at))
                    case AdminKey():
                        self._known.append((change.revision, decode(change.value, Order).at))
                    case LeaderKey():
                        self._known.append((change.revision, decode(change.value, Leader).since))
                    case VipKey():
                        self._known.append((change.revision, decode(change.value, VipOwner).since))

    def of(self, revision: int, place: Place) -> float | None:
        """None where nothing tells."""
        if isinstance(place, ServiceKey):
            start = bisect_left(self._audit, revision, key=_revision)
            for written, entry in self._audit[start:]:
                if written > revision + AUDIT_REVISIONS:
                    break
                if entry.arguments.get("service") == place.service and not entry.refused:
                    return entry.at
        after = bisect_left(self._known, revision, key=_revision)
        if 0 < after < len(self._known) and abs(self._known[after][1] - self._known[after - 1][1]) <= NEAR_S:
            return self._known[after][1]
        return None


def _revision(known: tuple[int, object]) -> int:
    return known[0]


def _concerns(place: Place, ref: HostRef | None) -> bool:
    if ref is None:
        return isinstance(place, AdminKey | RegisteredKey | ObservedKey | ServiceKey | DirectorKey | LeaderKey | VipKey)
    if isinstance(place, ServiceKey):
        return place.service == ref.service
    return isinstance(place, AdminKey | RegisteredKey | ObservedKey) and place.ref == ref


def _words(place: Place, value: bytes | None, before: PastWrite | None) -> tuple[str, float | None]:
    """What happened, and when as the value itself says."""
    try:
        if isinstance(place, ServiceKey) and value is not None and before is not None:
            return _changed(place.service, before.value, value), None
        return next(_told(place, value))
    except (Unreadable, StopIteration):
        return "written" if value is not None else "deleted", None


def _changed(name: str, before: bytes | None, after: bytes) -> str:
    """What is different in a service. Raises `Unreadable`."""
    if before is None:
        return f"service {name} added"
    steps = plan({name: decode(before, Service)}, {name: decode(after, Service)})
    texts = [
        f"{join('', *change.path)} {_VERBS[change.kind]} {values(change)}" for step in steps for change in step.changes
    ]
    if not texts:
        return f"service {name} written as it was"
    more = f"; and {len(texts) - MAX_DIFFERENCES} more" if len(texts) > MAX_DIFFERENCES else ""
    return f"service {name}: {'; '.join(texts[:MAX_DIFFERENCES])}{more}"


_VERBS = {"add": "added:", "remove": "removed:", "change": "changed:", "order": "in another order:"}


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
            yield f"director {leader.name} leads", leader.since
        case VipKey(address) if value is None:
            yield f"{address} was given up", None
        case VipKey(address):
            owner = decode(value or b"", VipOwner)
            yield f"{address} is taken by {owner.owner}", owner.since
