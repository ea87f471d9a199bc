"""Which services, groups and hosts there are: what the configuration and the registrations say, made true.

A part of the inventory, which concludes after each of these. Only what differs is touched: a host whose address stays keeps
what was observed about it, and a pool keeps its scheduler's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster.model import Caps, Group, HostRef, Registered, Service
from cluster.model import Host as HostSpec
from director.core.access import AccessList
from director.core.caps import share_of
from director.core.entries import GroupEntry, HostEntry, Origin, ServiceEntry, policy_of
from director.core.events import Event, HostAdded, HostRemoved
from director.core.health import HostHealth
from director.core.host import Host
from director.core.judging import Judging
from director.core.orders import Orders
from director.core.pool import Pool
from director.core.schedulers import Scheduler, make_scheduler
from director.core.schedulers.sticky import with_sticky

#: Hosts that are known so soon after the start were there before this director: they need no easing in.
SETTLE_S = 2.0


class Placing:
    """Times are monotonic seconds.

    :param hosts: the inventory's, which is written here alone.
    :param events: what happens is appended here.
    :param grace_until: until when nothing is evicted from a group.
    :param random: uniform in [0, 1).
    :param director: this director's name, where it shares the services' maxima with others.
    :param now: the start.
    """

    def __init__(self, hosts: dict[HostRef, HostEntry], judging: Judging, orders: Orders, events: list[Event], *,
                 grace_until: Callable[[GroupEntry], float], random: Callable[[], float], director: str | None,
                 now: float) -> None:
        self.services: dict[str, ServiceEntry] = {}
        self.by_host: dict[Host, HostEntry] = {}
        self.registered: dict[HostRef, Registered] = {}  #: also of groups that are not there
        self.discovered: dict[tuple[str, str], dict[str, HostSpec]] = {}  #: by service and group, which may not be there
        self.caps: dict[str, Caps] = {}  #: by service, also of those that are not there
        # what is to be done at the end of an input: each puts itself in
        self.stale: dict[HostEntry, None] = {}  #: whose pool is to be told anew
        self.waiting: dict[ServiceEntry, None] = {}  #: services with a queue
        self.due: dict[GroupEntry, None] = {}  #: groups whose weights are to be brought up to date
        self._hosts = hosts
        self._judging = judging
        self._orders = orders
        self._events = events
        self._grace_until = grace_until
        self._random = random
        self._director = director
        self._settled_at = now + SETTLE_S

    def apply_service(self, name: str, spec: Service | None, now: float) -> None:
        """Make *name* what *spec* says (None: gone)."""
        service = self.services.get(name)
        if spec is None:
            if service is not None:
                self._drop_groups(service, tuple(service.groups), now)
                service.admission.switch(None)
                del self.services[name]
            return
        if service is None:
            service = self.services[name] = ServiceEntry(name, spec, self.waiting)
        resticky = service.spec.sticky != spec.sticky
        if service.spec.access != spec.access:
            service.access = AccessList(spec.access)
        service.spec = spec
        self._limit(service)
        self._drop_groups(service, [group for group in service.groups if group not in spec.groups], now)
        for group_name, group_spec in spec.groups.items():
            self._apply_group(service, group_name, group_spec, now, resticky=resticky)
        service.admission.switch(service.answering())

    def set_caps(self, name: str, caps: Caps | None) -> None:
        """How the maximum of the service *name* is shared out among directors."""
        if caps is None:
            self.caps.pop(name, None)
        else:
            self.caps[name] = caps
        service = self.services.get(name)
        if service is not None:
            self._limit(service)

    def set_registered(self, ref: HostRef, registered: Registered | None, now: float) -> None:
        """A host joined by its agent, changed, or left (None)."""
        if registered is None:
            self.registered.pop(ref, None)
        else:
            self.registered[ref] = registered
        service = self.services.get(ref.service)
        group = service.groups.get(ref.group) if service is not None else None
        if group is not None:
            self._place_hosts(group, now)

    def set_discovered(self, service: str, group: str, hosts: dict[str, HostSpec], now: float) -> None:
        """What DNS says the group has."""
        if hosts:
            self.discovered[service, group] = hosts
        else:
            self.discovered.pop((service, group), None)
        there = self.services.get(service)
        if there is not None and group in there.groups:
            self._place_hosts(there.groups[group], now)

    def _limit(self, service: ServiceEntry) -> None:
        limits = service.spec.limits
        share = None
        if self._director is not None and limits.max_connections:
            share = share_of(self.caps.get(service.name), self._director, limits.max_connections)
        service.share = share
        service.admission.set_limits(limits, share)

    # --- groups

    def _scheduler(self, service: Service, group: Group, previous: Scheduler | None = None) -> Scheduler:
        scheduler = make_scheduler(group.scheduler, group.parameters, random=self._random)
        return scheduler if service.sticky is None else with_sticky(scheduler, service.sticky, previous=previous)

    def _apply_group(self, service: ServiceEntry, name: str, spec: Group, now: float, *, resticky: bool) -> None:
        group = service.groups.get(name)
        fail_open = spec.health.fail_open == "all"
        if group is None:
            pool = Pool(self._scheduler(service.spec, spec), fail_open=fail_open)
            group = service.groups[name] = GroupEntry(service.name, name, spec, pool, self.due, now)
        else:
            before, group.spec = group.spec, spec
            if resticky or (before.scheduler, before.parameters) != (spec.scheduler, spec.parameters):
                group.pool.replace_scheduler(self._scheduler(service.spec, spec, group.pool.scheduler))
            group.pool.set_fail_open(fail_open)
            if before.health != spec.health:
                for entry in group.hosts.values():
                    self._judging.moved(entry, entry.health.reconfigure(policy_of(spec, entry.spec), now), now)
                    self.stale[entry] = None
        self._place_hosts(group, now)

    def _drop_groups(self, service: ServiceEntry, names: Iterable[str], now: float) -> None:
        for name in names:
            group = service.groups.pop(name)
            for entry in list(group.hosts.values()):
                self._drop_host(group, entry, now)
            group.pool.configured()
            self.due.pop(group, None)

    # --- hosts

    def _place_hosts(self, group: GroupEntry, now: float) -> None:
        """Configured hosts, approved registered ones that no configured host hides, and discovered ones that none of these
        hides, by name or by address."""
        wanted: dict[str, tuple[HostSpec, Origin]] = {
            ref.host: (registered.host, "registered")
            for ref, registered in self.registered.items()
            if (ref.service, ref.group) == (group.service, group.name) and registered.approved
        }
        wanted.update((name, (spec, "configured")) for name, spec in group.spec.hosts.items())
        if discovered := self.discovered.get((group.service, group.name)):
            taken = {spec.address for spec, _ in wanted.values()}
            wanted.update((name, (spec, "discovered")) for name, spec in discovered.items()
                          if name not in wanted and spec.address not in taken)
        for name in [name for name in group.hosts if name not in wanted]:
            self._drop_host(group, group.hosts[name], now)
        for name, (spec, origin) in wanted.items():
            entry = group.hosts.get(name)
            if entry is not None and entry.spec.address != spec.address:
                self._drop_host(group, entry, now)  # another backend: what was observed is not about it
                entry = None
            if entry is None:
                self._add_host(group, name, spec, now, origin=origin)
            elif entry.spec != spec or entry.origin != origin:
                if entry.spec.probe_port != spec.probe_port:
                    self._judging.moved(entry, entry.health.reconfigure(policy_of(group.spec, spec), now), now)
                entry.spec, entry.origin = spec, origin
                group.pool.put(entry.ref, weight=spec.weight, max_connections=spec.max_connections, backup=spec.backup)
                self.stale[entry] = None
        group.pool.configured()
        self.stale.update((group.hosts[each.host.name], None) for each in group.comparison.ejected)  # may be the last now

    def _add_host(self, group: GroupEntry, name: str, spec: HostSpec, now: float, *, origin: Origin) -> None:
        ref = HostRef(group.service, group.name, name)
        host = group.pool.put(ref, weight=spec.weight, max_connections=spec.max_connections, backup=spec.backup)
        health = HostHealth(
            policy_of(group.spec, spec), now=now, grace_until=self._grace_until(group), random=self._random
        )
        entry = HostEntry(ref, spec, host, health, group.comparison.add(host, now), origin=origin)
        group.hosts[name] = self._hosts[ref] = self.by_host[host] = entry
        if now > self._settled_at:
            entry.up_since = now
        self.stale[entry] = None
        entry.ordered(self._orders.of(ref), now)
        self._events.append(HostAdded(entry))
        self._judging.added(entry, now)

    def _drop_host(self, group: GroupEntry, entry: HostEntry, now: float) -> None:
        group.pool.discard(entry.ref.host)
        group.capacity.discard(entry.ref)
        group.seen.discard(entry.ref)
        group.probed.discard(entry.ref)
        group.comparison.discard(entry.host)
        group.ramping.discard(entry)
        self.stale.pop(entry, None)
        self._judging.removed(entry, now)
        del group.hosts[entry.ref.host], self._hosts[entry.ref], self.by_host[entry.host]
        self._events.append(HostRemoved(entry, group.spec.on_down == "cut"))
