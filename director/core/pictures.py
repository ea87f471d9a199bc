"""Drawing the typed snapshot (`director.core.snapshot`) from the inventory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from cluster.model import AdminState
from director.core.entries import GroupEntry, HostEntry, ServiceEntry
from director.core.inventory import Inventory
from director.core.orders import LOCAL, counting
from director.core.snapshot import (
    CheckPicture,
    GroupPicture,
    HostPicture,
    OrderPicture,
    RateOf,
    ResponderPicture,
    SeenPicture,
    ServicePicture,
    TransitionPicture,
    WaitingPicture,
)
from director.core.weights import slow_start

T = TypeVar("T")


def picture_services(
    inventory: Inventory, now: float, epoch: float, listening: Callable[[str], tuple[str, ...]],
    service: str | None = None, group: str | None = None, host: str | None = None,
) -> tuple[ServicePicture, ...]:
    """Every service with its groups and hosts; or of these only the named one, where there is one.

    :param now: monotonic seconds.
    :param epoch: what turns monotonic into POSIX seconds when added.
    :param listening: a service's addresses as bound.
    """
    waiting: dict[tuple[str, str], list[WaitingPicture]] = {}
    for ref, record in inventory.registrations().items():
        if not record.approved:
            waiting.setdefault((ref.service, ref.group), []).append(
                WaitingPicture(name=ref.host, address=record.host.address, agent=record.agent, since=record.at)
            )
    return tuple(
        _service(inventory, each, now, epoch, listening(each.name), waiting, group, host)
        for each in _only(inventory.services, service)
    )


def _only(things: Mapping[str, T], name: str | None) -> Iterable[T]:
    """All, or the one that is called *name*, if any."""
    if name is None:
        return things.values()
    return (things[name],) if name in things else ()


def _service(
    inventory: Inventory, service: ServiceEntry, now: float, epoch: float, listen: tuple[str, ...],
    waiting: Mapping[tuple[str, str], Sequence[WaitingPicture]], group: str | None, host: str | None,
) -> ServicePicture:
    sticky = service.spec.sticky
    return ServicePicture(
        name=service.name,
        listen=listen or service.spec.listen,
        enabled=service.spec.enabled_group,
        connections=service.admission.connections,
        max_connections=service.spec.limits.max_connections,
        queued=service.admission.queued,
        queue=service.spec.limits.queue,
        sticky=sticky.mode if sticky is not None else "off",
        sticky_entries=sum(each.pool.scheduler.entries for each in service.groups.values()),
        groups=tuple(
            _group(inventory, service, each, now, epoch, tuple(waiting.get((service.name, each.name), ())), host)
            for each in _only(service.groups, group)
        ),
        share=service.share,
        split=service.spec.split,
    )


def _group(
    inventory: Inventory, service: ServiceEntry, group: GroupEntry, now: float, epoch: float,
    waiting: tuple[WaitingPicture, ...], host: str | None,
) -> GroupPicture:
    pool = group.pool
    shares = pool.shares(now, inventory.walk)
    return GroupPicture(
        service=service.name,
        name=group.name,
        enabled=group.name == service.spec.enabled_group,
        scheduler=scheduler_of(group),
        available=pool.available,
        failing_open=pool.failing_open,
        backups_in_use=pool.backups_in_use,
        in_flight=pool.in_flight,
        hosts=tuple(
            picture_host(group, entry, now, epoch, shares.get(entry.host, 0.0), _seen_by_others(inventory, entry),
                         _elsewhere(inventory, entry))
            for entry in inventory.walk(_only(group.hosts, host))
        ),
        waiting=waiting,
        share=service.spec.shares.get(group.name, 0.0),
        strayed=service.strayed[group.name],
    )


def scheduler_of(group: GroupEntry) -> str:
    """The group's scheduler, and what it has chosen to be: ``auto (loadaware)``."""
    resolved = group.pool.scheduler.resolved
    return f"{group.spec.scheduler} ({resolved})" if resolved else group.spec.scheduler


def _seen_by_others(inventory: Inventory, entry: HostEntry) -> tuple[SeenPicture, ...]:
    return tuple(
        SeenPicture(director=name, state=each.state, why=each.why, since=each.since, blind=each.blind)
        for name, each in inventory.others.records(entry.ref)
    )


def why_not(group: GroupEntry, entry: HostEntry, now: float) -> str:
    """Why a host takes no new connection, in an operator's words; empty when it does."""
    if entry.admin is not AdminState.UP and not entry.host.eligible:
        by, order = max(counting(entry.orders).items(), key=lambda item: item[1].state.severity)
        verb = "draining" if order.state is AdminState.DRAIN else "down"
        author = "operator, here only," if by == LOCAL else by
        return f"{verb}, ordered by {author} {order.who}" + (f": {order.why}" if order.why else "")
    if entry.verdict.down and not entry.host.eligible:
        return entry.verdict.why or entry.health.why
    if entry.conduct.ejected and not entry.host.eligible:
        return f"ejected for another {max(0.0, entry.conduct.until - now):.0f} s: {entry.conduct.why}"
    return group.pool.why_not(entry.host)


def _elsewhere(inventory: Inventory, entry: HostEntry) -> Mapping[str, int | None]:
    return inventory.elsewhere(entry.ref) if entry.admin is AdminState.DRAIN else {}


def picture_host(
    group: GroupEntry, entry: HostEntry, now: float, epoch: float, share: float = 0.0,
    seen_by_others: tuple[SeenPicture, ...] = (), in_flight_elsewhere: Mapping[str, int | None] = MappingProxyType({}),
) -> HostPicture:
    health, host = entry.health, entry.host
    check, totals, seen = health.last_check, entry.totals, group.seen.window(entry.ref)
    reported = entry.report.rate if entry.report is not None else None
    turnaround_s = totals.seconds / totals.turnarounds if totals.turnarounds else None
    rate_of: RateOf = "agent" if reported is not None else seen.source if seen is not None else ""
    next_probe = health.next_probe_at
    return HostPicture(
        service=entry.ref.service,
        group=entry.ref.group,
        name=entry.ref.host,
        address=entry.spec.address,
        backup=entry.spec.backup,
        registered=entry.registered,
        discovered=entry.origin == "discovered",
        state=health.state,
        admin=entry.admin,
        orders=tuple(
            OrderPicture(by=by, state=order.state, who=order.who, why=order.why, at=order.at)
            for by, order in entry.orders.items()
        ),
        in_rotation=host.eligible,
        why_not=why_not(group, entry, now),
        since=epoch + health.since,
        why=health.why,
        configured_weight=entry.spec.weight,
        capacity=group.capacity.factor(entry.ref, now),
        slow_start=slow_start(now - entry.up_since, group.spec.health.slow_start_s),
        agent_weight=entry.agent_weight,
        weight=host.weight,
        in_flight=host.in_flight,
        max_connections=host.max_connections,
        picks=host.picks,
        connect_failures=entry.connect_failures,
        agent_connected=entry.agent is not None,
        heartbeat_age_s=health.heartbeat_age(now),
        report=entry.report,
        in_flight_elsewhere=dict(in_flight_elsewhere),
        report_age_s=None if entry.report is None else now - entry.report_at,
        check=CheckPicture(
            at=epoch + check.at if check is not None else None,
            ok=check.ok if check is not None else None,
            detail=check.detail if check is not None else "",
            duration_s=check.duration_s if check is not None else None,
            next_at=epoch + next_probe if next_probe is not None else None,
        ),
        history=tuple(
            TransitionPicture(at=epoch + each.at, before=each.before, after=each.after, why=each.why)
            for each in health.history
        ),
        overruled=entry.verdict.why,
        seen_by_others=seen_by_others,
        responder=None if entry.responder is None else ResponderPicture(
            answers=entry.responder.answers,
            said=entry.responder.said,
            said_at=None if entry.responder.at is None else epoch + entry.responder.at,
            problem=entry.responder.problem,
        ),
        probed_weight=group.probed.factor(entry.ref, now),
        ejected_s=max(0.0, entry.conduct.until - now) if entry.conduct.ejected else None,
        ejections=entry.conduct.times(now, group.spec.health.outliers),
        turnarounds=totals.turnarounds,
        turnaround_s=turnaround_s if seen is None or seen.turnaround_s is None else seen.turnaround_s,
        rate=reported if reported is not None else seen.rate if seen is not None else None,
        rate_of=rate_of,
        rate_scale=group.seen.scale(entry.ref) if seen is not None and reported is None else 1.0,
        rate_doubt=group.seen.why,
        share=share,
    )
