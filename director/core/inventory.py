"""All that one director knows of services, groups and hosts, and how it decides about them.

Inputs: configuration (`apply_service`), registrations, admin orders, heartbeats and reports, probe and connect results,
what other directors see, time (`tick`, `recompute`). Outputs: the pools' rotation, at once; and `events`, which the
caller drains after each input. The inventory owns every `HostEntry`; others read.

A host takes new connections when its admin state is up, the merged verdict on its health (`director.core.merge`, with
this director's own first) is not down, its effective weight is above 0 and it
is below its maximum. Effective weight = configured x capacity (from reports) x slow start x what the agent asked.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping

from cluster.model import AdminState, Caps, Group, HostRef, LoadReport, Observed, Order, Registered, Service
from cluster.model import Host as HostSpec
from director.core.access import AccessList
from director.core.caps import share_of
from director.core.entries import GroupEntry, HostEntry, ServiceEntry
from director.core.events import Event, HostAdded, HostJudged, HostMoved, HostRemoved, IsolationChanged, Served
from director.core.health import HostHealth, Transition
from director.core.host import Host
from director.core.isolation import Isolation
from director.core.merge import merge
from director.core.orders import LOCAL, Orders
from director.core.others import Others
from director.core.pool import Pool
from director.core.schedulers import Scheduler, make_scheduler
from director.core.schedulers.sticky import with_sticky
from director.core.weighing import Walk, weigh, weigh_all, weigh_news, weighing_is_due

#: Hosts that are known so soon after the start were there before this director: they need no easing in.
SETTLE_S = 2.0


class Inventory:
    """See the module.

    :param random: uniform in [0, 1).
    :param director: this director's name, where it shares the services' maxima with others.
    :param walk: goes through many hosts in its own time, maybe pausing; nothing must change meanwhile.
    :param now: monotonic seconds at the start; nothing is evicted for one heartbeat timeout from then.
    """

    def __init__(self, *, now: float, random: Callable[[], float], panic_fraction: float = 0.5,
                 director: str | None = None, walk: Walk = iter) -> None:
        self.services: dict[str, ServiceEntry] = {}
        self.hosts: dict[HostRef, HostEntry] = {}
        self.started = now
        self.isolation = Isolation(panic_fraction)
        self.others = Others(panic_fraction)
        self.on_client_news: Callable[[], None] = lambda: None  #: a client's connect left something to act upon
        self.walk = walk
        self._random = random
        self._by_host: dict[Host, HostEntry] = {}
        self._orders = Orders()
        self._registered: dict[HostRef, Registered] = {}
        self.elsewhere: Callable[[HostRef], dict[str, int | None]] = lambda ref: {}
        """Open connections of a draining host at the other directors, None where unknown; set by whoever knows."""
        self._caps: dict[str, Caps] = {}
        self._director = director
        self._deadlines: list[tuple[float, int, HostEntry]] = []
        self._sequence = 0
        self._events: list[Event] = []

    def drain(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def entry_of(self, host: Host) -> HostEntry | None:
        """The entry behind a ticket's host; None once the host was removed."""
        return self._by_host.get(host)

    def in_grace(self, now: float) -> bool:
        """Just started: nothing is evicted yet, in one group at least."""
        return any(now < self.started + group.spec.health.timeout_s for group in self._groups())

    # --- configuration

    def apply_service(self, name: str, spec: Service | None, now: float) -> None:
        """Make *name* what *spec* says (None: gone), touching only what differs."""
        service = self.services.get(name)
        if spec is None:
            if service is not None:
                for group in list(service.groups.values()):
                    self._drop_group(service, group, now)
                service.admission.switch(None)
                del self.services[name]
            return
        if service is None:
            service = self.services[name] = ServiceEntry(name, spec)
        resticky = service.spec.sticky != spec.sticky
        if service.spec.access != spec.access:
            service.access = AccessList(spec.access)
        service.spec = spec
        self._limit(service)
        for group_name in [group_name for group_name in service.groups if group_name not in spec.groups]:
            self._drop_group(service, service.groups[group_name], now)
        for group_name, group_spec in spec.groups.items():
            self._apply_group(service, group_name, group_spec, now, resticky=resticky)
        enabled = service.enabled
        service.admission.switch(enabled.pool if enabled is not None else None)
        self._serve(service, now)

    def set_caps(self, name: str, caps: Caps | None, now: float) -> None:
        """How the maximum of the service *name* is shared out among directors."""
        if caps is None:
            self._caps.pop(name, None)
        else:
            self._caps[name] = caps
        service = self.services.get(name)
        if service is not None:
            self._limit(service)
            self._serve(service, now)

    def caps(self, name: str) -> Caps | None:
        return self._caps.get(name)

    def capped(self) -> tuple[str, ...]:
        """Services whose maximum is shared out, those that are no more included."""
        return tuple(self._caps)

    def _limit(self, service: ServiceEntry) -> None:
        limits = service.spec.limits
        share = None
        if self._director is not None and limits.max_connections:
            share = share_of(self._caps.get(service.name), self._director, limits.max_connections)
        service.share = share
        service.admission.set_limits(limits, share)

    def set_registered(self, ref: HostRef, registered: Registered | None, now: float) -> None:
        """A host joined by its agent, changed, or left (None)."""
        if registered is None:
            self._registered.pop(ref, None)
        else:
            self._registered[ref] = registered
        service = self.services.get(ref.service)
        group = service.groups.get(ref.group) if service is not None else None
        if service is not None and group is not None:
            self._place_hosts(service, group, now)
            self._serve(service, now)

    def registered(self, ref: HostRef) -> Registered | None:
        return self._registered.get(ref)

    def registrations(self) -> dict[HostRef, Registered]:
        return dict(self._registered)

    def set_order(self, ref: HostRef, by: str, order: Order | None, now: float) -> None:
        """An order by ``operator``, ``agent`` or ``local`` stands, or (None) stands no more."""
        self._orders.set(ref, by, order)
        entry = self.hosts.get(ref)
        if entry is not None:
            self._order_entry(entry, now)

    def drop_local_orders(self, now: float) -> list[HostRef]:
        """The store was read anew: what was ordered here alone ends. Returns the hosts it was about."""
        found = self._orders.local
        for ref in found:
            self.set_order(ref, LOCAL, None, now)
        return found

    def _order_entry(self, entry: HostEntry, now: float) -> None:
        before = entry.admin
        entry.orders = self._orders.of(entry.ref)
        if entry.admin is before:
            return
        entry.drain_seen = now if entry.admin is AdminState.DRAIN else None
        if entry.admin is AdminState.UP:
            entry.up_since = now
        self._refresh(entry, now)

    def _scheduler(self, service: Service, group: Group, previous: Scheduler | None = None) -> Scheduler:
        scheduler = make_scheduler(group.scheduler, group.parameters, random=self._random)
        return scheduler if service.sticky is None else with_sticky(scheduler, service.sticky, previous=previous)

    def _apply_group(self, service: ServiceEntry, name: str, spec: Group, now: float, *, resticky: bool) -> None:
        group = service.groups.get(name)
        fail_open = spec.health.fail_open == "all"
        if group is None:
            pool = Pool(self._scheduler(service.spec, spec), fail_open=fail_open)
            group = service.groups[name] = GroupEntry(service.name, name, spec, pool)
        else:
            before, group.spec = group.spec, spec
            if resticky or (before.scheduler, before.parameters) != (spec.scheduler, spec.parameters):
                group.pool.replace_scheduler(self._scheduler(service.spec, spec, group.pool.scheduler))
            group.pool.set_fail_open(fail_open)
            if before.health != spec.health:
                for entry in group.hosts.values():
                    entry.health.reconfigure(spec.health, now)
                    self._watch(entry, now)
        self._place_hosts(service, group, now)

    def _place_hosts(self, service: ServiceEntry, group: GroupEntry, now: float) -> None:
        """Configured hosts, and the approved registered ones that no configured host hides."""
        wanted: dict[str, tuple[HostSpec, bool]] = {
            ref.host: (registered.host, True)
            for ref, registered in self._registered.items()
            if (ref.service, ref.group) == (service.name, group.name) and registered.approved
        }
        wanted.update((name, (spec, False)) for name, spec in group.spec.hosts.items())
        fresh: list[HostEntry] = []
        for name in [name for name in group.hosts if name not in wanted]:
            self._drop_host(group, group.hosts[name], now)
        for name, (spec, registered) in wanted.items():
            entry = group.hosts.get(name)
            if entry is not None and entry.spec.address != spec.address:
                self._drop_host(group, entry, now)  # another backend: what was observed is not about it
                entry = None
            if entry is None:
                fresh.append(self._add_host(group, name, spec, now, registered=registered))
            elif entry.spec != spec or entry.registered != registered:
                entry.spec, entry.registered = spec, registered
                group.pool.put(entry.ref, weight=spec.weight, max_connections=spec.max_connections, backup=spec.backup)
                self._refresh(entry, now)
        group.pool.configured()
        for entry in fresh:
            self._order_entry(entry, now)
            self._judge(entry, now)
            self._refresh(entry, now)

    def _add_host(self, group: GroupEntry, name: str, spec: HostSpec, now: float, *, registered: bool) -> HostEntry:
        ref = HostRef(group.service, group.name, name)
        host = group.pool.put(ref, weight=spec.weight, max_connections=spec.max_connections, backup=spec.backup)
        health = HostHealth(
            group.spec.health, now=now, grace_until=self.started + group.spec.health.timeout_s, random=self._random
        )
        entry = HostEntry(ref, spec, host, health, registered=registered)
        group.hosts[name] = self.hosts[ref] = self._by_host[host] = entry
        if now > self.started + SETTLE_S:
            entry.up_since = now
        self._watch(entry, now)
        self._events.append(HostAdded(entry))
        return entry

    def _drop_host(self, group: GroupEntry, entry: HostEntry, now: float) -> None:
        group.pool.discard(entry.ref.host)
        group.capacity.discard(entry.ref)
        group.ramping.discard(entry)
        self._judge_isolation(self.isolation.gone(entry.ref, now), now)
        del group.hosts[entry.ref.host], self.hosts[entry.ref], self._by_host[entry.host]
        self._events.append(HostRemoved(entry))

    def _drop_group(self, service: ServiceEntry, group: GroupEntry, now: float) -> None:
        for entry in list(group.hosts.values()):
            self._drop_host(group, entry, now)
        group.pool.configured()
        del service.groups[group.name]

    # --- what agents say

    def agent_connected(self, ref: HostRef, agent: str, boot_id: str, now: float) -> None:
        """An agent that may speak for *ref* said hello. A new boot id clears what the former one ordered."""
        entry = self.hosts.get(ref)
        if entry is None:
            return
        entry.agent, entry.boot_id = agent, boot_id
        standing = entry.orders.get("agent")
        if standing is not None and standing.boot_id != boot_id:
            self.set_order(ref, "agent", None, now)
        self._heard(entry, now)

    def reported(self, ref: HostRef, report: LoadReport, now: float) -> None:
        """A heartbeat with its load report; unknown hosts are ignored."""
        entry = self.hosts.get(ref)
        if entry is not None:
            entry.reported_at = now
            self._heard(entry, now)
            self._take(entry, report, now, now)

    def relayed(self, ref: HostRef, report: LoadReport, age_s: float, now: float) -> None:
        """The report of an agent that only another director hears, who had it *age_s* ago: load, and no heartbeat. That
        the other sees the host up is its own record's to say."""
        entry = self.hosts.get(ref)
        if entry is not None:
            self._take(entry, report, now - age_s, now)

    def _take(self, entry: HostEntry, report: LoadReport, at: float, now: float) -> None:
        ref, entry.report, entry.report_at = entry.ref, report, at
        group = self.services[ref.service].groups[ref.group]
        group.capacity.reported(ref, report, now)
        group.pool.reported(entry.host, report, now)
        entry.agent_weight = 1.0 if report.weight is None else report.weight
        maximum = _lower(entry.spec.max_connections, report.max_connections or 0)
        if maximum != entry.host.max_connections:
            group.pool.set_maximum(entry.host, maximum)
        weighing_is_due(group, now)

    def agent_lost(self, ref: HostRef, why: str, now: float) -> None:
        """The agent's connection broke: news at once, but suspicion only."""
        entry = self.hosts.get(ref)
        if entry is not None:
            entry.agent = None
            self._moved(entry, entry.health.agent_lost(now, why), now)
            self._fell_silent(entry, now)

    def agent_left(self, ref: HostRef, now: float) -> None:
        """The agent said goodbye: its silence means nothing from now on."""
        entry = self.hosts.get(ref)
        if entry is not None:
            entry.agent = None
            self._moved(entry, entry.health.agent_left(now), now)
            self._judge_isolation(self.isolation.gone(ref, now), now)

    def _heard(self, entry: HostEntry, now: float) -> None:
        self._moved(entry, entry.health.heartbeat(now), now)
        self._judge_isolation(self.isolation.heard(entry.ref, now), now)

    # --- what this director sees itself

    def probe_result(self, entry: HostEntry, ok: bool, detail: str, duration_s: float, now: float) -> None:
        """A probe ended, or (not ok) could not begin because the name does not resolve."""
        self._moved(entry, entry.health.probe_result(ok, detail, duration_s, now), now)
        self._judge_isolation(self.isolation.probed(entry.ref, ok, now), now)

    def connect_failed(self, host: Host, why: str, now: float) -> None:
        entry = self._by_host.get(host)
        if entry is not None:
            entry.connect_failures += 1
            self._moved(entry, entry.health.connect_result(False, why, now), now)
            self.on_client_news()

    def connect_succeeded(self, host: Host, monotonic: Callable[[], float]) -> None:
        """Per connection, so the usual case is one look: news only to a host that is in doubt."""
        entry = self._by_host.get(host)
        if entry is not None and entry.health.in_doubt:
            now = monotonic()
            self._moved(entry, entry.health.connect_result(True, "connected", now), now)
            if self._events:
                self.on_client_news()

    def retry(self, ref: HostRef, now: float) -> None:
        """An operator wants the host probed now."""
        entry = self.hosts[ref]
        self._moved(entry, entry.health.retry(now), now)

    # --- what other directors see

    def set_observed(self, records: Mapping[tuple[str, HostRef], Observed | None], now: float) -> None:
        """What others have written, by director and host; None: no more, the director sees the host up."""
        for (director, ref), record in records.items():
            self.others.put(director, ref, record)
        everything = self.others.judge_cut_off(len(self.hosts))
        for ref in self.hosts if everything else dict.fromkeys(ref for _, ref in records):
            entry = self.hosts.get(ref)
            if entry is not None:
                self._watch(entry, now)
                self._judge(entry, now)

    def set_directors(self, names: Iterable[str], now: float) -> None:
        """The other directors that live."""
        self.others.set_live(names)
        for entry in self.hosts.values():
            self._judge(entry, now)

    # --- time

    def next_deadline(self) -> float:
        """When `tick` may have something to do; inf: never, as things stand."""
        return self._deadlines[0][0] if self._deadlines else math.inf

    def tick(self, now: float) -> None:
        """Let time pass: silences, ends of grace."""
        while self._deadlines and self._deadlines[0][0] <= now:
            due, _, entry = heapq.heappop(self._deadlines)
            if due != entry.watched_at or self.hosts.get(entry.ref) is not entry:
                continue  # superseded by an earlier look, or gone
            entry.watched_at = math.inf
            if now >= entry.health.overdue_at:
                self._fell_silent(entry, now)  # first, so that silence in bulk is recognised before it is acted upon
            self._moved(entry, entry.health.tick(now, self.isolation.isolated), now)

    def next_recompute(self) -> float:
        return min((group.recompute_at for group in self._groups()), default=math.inf)

    def recompute(self, now: float) -> None:
        """Bring effective weights up to date in each due group: of who reported, and of who is in its slow start."""
        for group in self._groups():
            weigh_news(group, self.walk, now)

    def drains(self) -> list[tuple[HostEntry, float]]:
        """Hosts under a drain, each with the monotonic time at which its open connections are to be cut."""
        found = []
        for ref in self._orders.hosts:
            entry = self.hosts.get(ref)
            order = entry.drain_order if entry is not None else None
            if entry is not None and order is not None and entry.drain_seen is not None:
                default = self.services[ref.service].spec.timeouts.drain_s
                found.append((entry, entry.drain_seen + (default if order.deadline_s is None else order.deadline_s)))
        return found

    def clean_up(self, now: float) -> None:
        """Every second or so: forget what has run out of sticky tables, let the age of reports tell on weights."""
        for group in self._groups():
            group.pool.scheduler.cleanup(now)
            weigh_all(group, self.walk, now)

    # --- inside

    def _groups(self) -> Iterable[GroupEntry]:
        for service in self.services.values():
            yield from service.groups.values()

    def _moved(self, entry: HostEntry, transition: Transition | None, now: float) -> None:
        """Follow a health machine's step."""
        self._watch(entry, now)
        if transition is not None:
            self._events.append(HostMoved(entry, transition))
        if transition is not None or not entry.verdict.mine or entry.ref in self.others:
            self._judge(entry, now)

    def _judge(self, entry: HostEntry, now: float) -> None:
        """Bring the merged verdict up to date, and what follows from it."""
        before = entry.verdict
        entry.verdict = merge(entry.health.evidence(now), self.others.about(entry.ref), self.others.cut_off)
        if entry.verdict != before:
            self._events.append(HostJudged(entry, before))
        if entry.verdict.down != before.down:
            if before.down:
                entry.up_since = now
            self._refresh(entry, now)

    def _watch(self, entry: HostEntry, now: float) -> None:
        """See that the machine is looked at by its deadline. Heartbeats move deadlines later, which is noticed when the
        earlier one comes up: one heap entry a host, whatever the heartbeats."""
        deadline = entry.health.deadline()
        if self.isolation.isolated and not self.isolation.is_silent(entry.ref):
            # the machine expects nothing of silence now, but the isolation's end depends on knowing who is silent
            deadline = min(deadline, max(now, entry.health.overdue_at))
        if now < entry.health.fresh_until and entry.ref in self.others:
            deadline = min(deadline, entry.health.fresh_until)
        if deadline < entry.watched_at:
            self._sequence += 1
            heapq.heappush(self._deadlines, (deadline, self._sequence, entry))
            entry.watched_at = deadline

    def _refresh(self, entry: HostEntry, now: float) -> None:
        """Availability, maximum and weight of one host, after anything about it changed."""
        service = self.services[entry.ref.service]
        group = service.groups[entry.ref.group]
        admissible = entry.admin is AdminState.UP
        asked = entry.report.max_connections if entry.report is not None else None
        group.pool.set_maximum(entry.host, _lower(entry.spec.max_connections, asked or 0))
        weigh(group, entry, group.capacity.factor(entry.ref, now), now)
        group.pool.set_available(entry.host, admissible and not entry.verdict.down, admissible)
        self._serve(service, now)

    def _serve(self, service: ServiceEntry, now: float) -> None:
        clients = service.admission.serve(now)
        if clients:
            self._events.append(Served(service.name, clients))

    def _fell_silent(self, entry: HostEntry, now: float) -> None:
        age = entry.health.heartbeat_age(now)
        if age is not None:
            self._judge_isolation(self.isolation.fell_silent(entry.ref, now - age, now), now)

    def _judge_isolation(self, changed: bool, now: float) -> None:
        """Where isolation began or ended, every host is looked at again."""
        if changed:
            self._events.append(IsolationChanged(self.isolation.isolated))
            for entry in self.hosts.values():
                self._moved(entry, entry.health.tick(now, self.isolation.isolated), now)


def _lower(configured: int, asked: int) -> int:
    """The lower of two maxima, where 0 means none."""
    return min(configured, asked) if configured and asked else configured or asked
