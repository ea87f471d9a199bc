"""All that one director knows of services, groups and hosts, and how it decides about them.

Inputs: configuration (`apply_service`), registrations, admin orders, heartbeats and reports, probe and connect results,
what other directors see, time (`tick`, `recompute`). Outputs: the pools' rotation, at once; and events, which the
caller drains after each input. The inventory owns every `HostEntry` and its health machine; others read.

Every input ends in `Inventory._conclude`, which judges, brings the pools up to date and serves the queues. So an input's own
code says only what it is about, and none can forget those who wait.

A host takes new connections when its admin state is up, the merged verdict on its health (`director.core.merge`, with
this director's own first) is not down, its effective weight is above 0 and it
is below its maximum. Effective weight = configured x capacity (from reports) x slow start x what the agent asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cluster.model import Caps, HostRef, LoadReport, Observed, Order, Reason, Registered, Service
from cluster.model import Host as HostSpec
from director.core.ejecting import Ejecting
from director.core.entries import GroupEntry, HostEntry
from director.core.events import Event, HostOrdered, Served
from director.core.host import Host
from director.core.judging import Judging
from director.core.orders import LOCAL, Orders
from director.core.outliers import ENDED_BY_HOST
from director.core.placing import Placing
from director.core.responders import Responder
from director.core.seen import Tallied
from director.core.transitions import Transition
from director.core.weighing import Walk, look_at_turns, refresh, take, told, weigh_all, weigh_news


class Inventory:
    """See the module.

    :param random: uniform in [0, 1).
    :param director: this director's name, where it shares the services' maxima with others.
    :param walk: goes through many hosts in its own time, maybe pausing; nothing must change meanwhile.
    :param now: monotonic seconds at the start; nothing is evicted for one heartbeat timeout from then.
    :param on_news: called when there is something to act upon: an event, or another deadline.
    :param elsewhere: open connections of a draining host at the other directors, None where unknown.
    """

    def __init__(self, *, now: float, random: Callable[[], float], panic_fraction: float = 0.5,
                 director: str | None = None, walk: Walk = iter, on_news: Callable[[], None] = lambda: None,
                 elsewhere: Callable[[HostRef], dict[str, int | None]] = lambda ref: {}) -> None:
        self.grace_from = now
        self.walk = walk
        self.elsewhere = elsewhere
        self._on_news = on_news
        self._orders = Orders()
        self._events: list[Event] = []
        self.hosts: dict[HostRef, HostEntry] = {}
        self._judging = judging = Judging(self.hosts, self._events, panic_fraction)
        self._ejecting = Ejecting(self._events)
        self.isolation, self.others = judging.isolation, judging.others
        self.resetting = judging.resetting
        self._placing = placing = Placing(
            self.hosts, judging, self._orders, self._events, grace_until=self._grace_until, random=random,
            director=director, now=now,
        )
        self.services, self._by_host = placing.services, placing.by_host
        self._stale, self._waiting, self._due = placing.stale, placing.waiting, placing.due
        self._told_deadline = math.inf

    def drain(self) -> list[Event]:
        """What happened since the last call."""
        if not self._events:
            return []
        events = self._events[:]
        self._events.clear()
        return events

    def entry_of(self, host: Host) -> HostEntry | None:
        """The entry behind a ticket's host; None once the host was removed."""
        return self._by_host.get(host)

    def in_grace(self, now: float) -> bool:
        """Just started, or under a new leader: nothing is evicted yet, in one group at least."""
        return any(now < self._grace_until(group) for group in self._groups())

    def _grace_until(self, group: GroupEntry) -> float:
        return self.grace_from + group.spec.health.timeout_s

    # --- configuration

    def apply_service(self, name: str, spec: Service | None, now: float) -> None:
        """Make *name* what *spec* says (None: gone), touching only what differs."""
        self._placing.apply_service(name, spec, now)
        self._conclude(now)

    def set_caps(self, name: str, caps: Caps | None, now: float) -> None:
        """How the maximum of the service *name* is shared out among directors."""
        self._placing.set_caps(name, caps)
        self._conclude(now)

    def caps(self, name: str) -> Caps | None:
        return self._placing.caps.get(name)

    def capped(self) -> tuple[str, ...]:
        """Services whose maximum is shared out, those that are no more included."""
        return tuple(self._placing.caps)

    def set_registered(self, ref: HostRef, registered: Registered | None, now: float) -> None:
        """A host joined by its agent, changed, or left (None)."""
        self._placing.set_registered(ref, registered, now)
        self._conclude(now)

    def set_discovered(self, service: str, group: str, hosts: dict[str, HostSpec], now: float) -> None:
        """What DNS says the group has, beside what is configured and registered."""
        self._placing.set_discovered(service, group, hosts, now)
        self._conclude(now)

    def registered(self, ref: HostRef) -> Registered | None:
        return self._placing.registered.get(ref)

    def registrations(self) -> dict[HostRef, Registered]:
        return dict(self._placing.registered)

    def set_order(self, ref: HostRef, by: str, order: Order | None, now: float) -> None:
        """An order by ``operator``, ``agent`` or ``local`` stands, or (None) stands no more."""
        self._order(ref, by, order, now)
        self._conclude(now)

    def drop_local_orders(self, now: float) -> list[HostRef]:
        """The store was read anew: what was ordered here alone ends. Returns the hosts it was about."""
        found = self._orders.local
        for ref in found:
            self._order(ref, LOCAL, None, now)
        self._conclude(now)
        return found

    def _order(self, ref: HostRef, by: str, order: Order | None, now: float) -> None:
        self._orders.set(ref, by, order)
        entry = self.hosts.get(ref)
        if entry is not None:
            before = entry.admin
            if entry.ordered(self._orders.of(ref), now):
                self._stale[entry] = None
                self._events.append(HostOrdered(entry, before))

    # --- what agents say

    def agent_connected(self, ref: HostRef, agent: str, boot_id: str, now: float) -> None:
        """An agent that may speak for *ref* said hello. A new boot id clears what the former one ordered."""
        entry = self.hosts.get(ref)
        if entry is None:
            return
        entry.agent, entry.boot_id = agent, boot_id
        standing = entry.orders.get("agent")
        if standing is not None and standing.boot_id != boot_id:
            self._order(ref, "agent", None, now)
        self._heard(entry, now)
        self._conclude(now)

    def reported(self, ref: HostRef, report: LoadReport, now: float) -> None:
        """A heartbeat with its load report; unknown hosts are ignored."""
        entry = self.hosts.get(ref)
        if entry is not None:
            entry.reported_at = now
            self._heard(entry, now)
            take(self._group_of(entry), entry, report, now, now)
            self._conclude(now)

    def relayed(self, ref: HostRef, report: LoadReport, age_s: float, now: float) -> None:
        """The report of an agent that only another director hears, who had it *age_s* ago: load, and no heartbeat. That
        the other sees the host up is its own record's to say."""
        entry = self.hosts.get(ref)
        if entry is not None:
            take(self._group_of(entry), entry, report, now - age_s, now)
            self._conclude(now)

    def responder(self, entry: HostEntry, state: Responder | None) -> None:
        """How it goes with the host's agent-check responder, for people; None: it has none."""
        entry.responder = state

    def agent_lost(self, ref: HostRef, why: str, now: float) -> None:
        """The agent's connection broke: news at once, but suspicion only."""
        entry = self.hosts.get(ref)
        if entry is not None:
            entry.agent = None
            self._judging.moved(entry, entry.health.agent_lost(now, why), now)
            self._judging.fell_silent(entry, now)
            self._conclude(now)

    def agent_left(self, ref: HostRef, now: float) -> None:
        """The agent said goodbye: its silence means nothing from now on."""
        entry = self.hosts.get(ref)
        if entry is not None:
            entry.agent = None
            self._judging.moved(entry, entry.health.agent_left(now), now)
            self.isolation.gone(ref, now)
            self._conclude(now)

    def _heard(self, entry: HostEntry, now: float) -> None:
        self._judging.moved(entry, entry.health.heartbeat(now), now)
        self._release(entry, now)
        self.isolation.heard(entry.ref, now)

    # --- what this director sees itself

    def resolved(self, entry: HostEntry, target: Any, why_not: str = "") -> None:
        """Where to connect to the host; None: its name has no address, for a reason."""
        entry.target, entry.address_error = target, why_not

    def tallied(self, entry: HostEntry, tally: Tallied | None) -> None:
        """Where its turnarounds are counted from now on; None: nowhere yet."""
        entry.tally = tally

    def moved(self, entry: HostEntry, now: float) -> None:
        """The host is at another address than it was: a probe is due."""
        entry.health.moved(now)
        self._conclude(now)

    def probe_started(self, entry: HostEntry, now: float) -> None:
        """A probe is under way."""
        entry.health.probe_started(now)

    def probe_void(self, entry: HostEntry, now: float) -> None:
        """A probe could not be made, for a reason of this director's own: no result."""
        entry.health.probe_void(now)
        self._conclude(now)

    def probe_result(self, entry: HostEntry, ok: bool, detail: str, duration_s: float, now: float,
                     weight: float | None = None) -> None:
        """A probe ended, or (not ok) could not begin because the name does not resolve. *weight*: as the host says."""
        if ok:
            told(self._group_of(entry), entry, weight, now)
        self._judging.moved(entry, entry.health.probe_result(ok, detail, duration_s, now), now)
        self._release(entry, now)
        self.isolation.probed(entry.ref, ok, now)
        self._conclude(now)

    def _release(self, entry: HostEntry, now: float) -> None:
        """A flapping host is kept out only while its group has others."""
        if now < entry.health.held_until and not self._group_of(entry).pool.available:
            self._judging.moved(entry, entry.health.release(now), now)

    def connect_failed(self, host: Host, why: str, now: float, *, refused: bool = False) -> None:
        """A client's connect failed; *refused*: because nobody listens. The caller serves the queue, after the client that
        this happened to."""
        entry = self._by_host.get(host)
        if entry is not None:
            entry.connect_failures += 1
            self._judging.moved(entry, entry.health.connect_result(False, why, now, refused=refused), now)
            self._failed(entry, now)
            self._conclude(now, serve=False)

    def connect_succeeded(self, host: Host, picked_at: float, now: float) -> None:
        """Per connection, so the usual case is one look and two sums: news only to a host that is in doubt."""
        entry = self._by_host.get(host)
        if entry is None:
            return
        conduct = entry.conduct
        conduct.connects += 1
        conduct.connect_s += now - picked_at
        if entry.health.in_doubt and not entry.health.resets(now):
            self._judging.moved(entry, entry.health.connect_result(True, "connected", now), now)
            self._conclude(now)

    def client_ended(self, host: Host, reason: Reason, to_client: int, after_s: float, now: float) -> bool:
        """A client that was connected has ended, *after_s* from its pick.

        :returns: whether that counts as a failed connect: a host that resets clients at once does not serve.
        """
        entry = self._by_host.get(host)
        if entry is None:
            return False
        policy = self._group_of(entry).spec.health
        at_once = to_client <= policy.early_reset_bytes and after_s < policy.early_reset_s
        reset = at_once and reason is Reason.HOST_RESET
        if reset:
            self.resetting.add(host)
            entry.connect_failures += 1
            self._judging.moved(entry, entry.health.reset_at_once(now), now)
        elif not at_once and host in self.resetting:
            self.resetting.discard(host)
            self._judging.moved(entry, entry.health.served(now), now)
        if at_once and reason in ENDED_BY_HOST:
            self._failed(entry, now)
        self._conclude(now, serve=False)
        return reset

    def _failed(self, entry: HostEntry, now: float) -> None:
        """The host failed a client, which tells when others' do not."""
        group = self._group_of(entry)
        self._ejecting.failed(group, entry, now, grace=now < self._grace_until(group))

    def retry(self, ref: HostRef, now: float) -> None:
        """An operator asks: a probe is due now, and one passed is enough; without probes a down host is on trial. An
        ejected one is back."""
        entry = self.hosts[ref]
        self._judging.moved(entry, entry.health.retry(now), now)
        self._ejecting.release(self._group_of(entry), entry, now)
        self._conclude(now)

    def recalled(self, known: Iterable[tuple[HostEntry, Iterable[Transition]]], now: float) -> None:
        """Another process has known these, with their histories (`director.core.carrying`): judge them by that."""
        for entry, history in known:
            entry.health.recalled(history, now)
            self._judging.added(entry, now)
            self._stale[entry] = None
            self._group_of(entry).weigh_by(now)
        self._conclude(now)

    # --- what other directors see

    def set_observed(self, records: Mapping[tuple[str, HostRef], Observed | None], now: float) -> None:
        """What others have written, by director and host; None: no more, the director sees the host up."""
        self._judging.observed(records)
        self._conclude(now)

    def set_directors(self, names: Iterable[str], now: float) -> None:
        """The other directors that live."""
        self._judging.directors(names)
        self._conclude(now)

    def leader_changed(self, now: float) -> None:
        """Another director leads: nothing is evicted for one heartbeat timeout."""
        self.grace_from = now
        for group in self._groups():
            for entry in group.hosts.values():
                entry.health.extend_grace(self._grace_until(group))
        self._conclude(now)

    # --- time

    def next_deadline(self) -> float:
        """When `tick` may have something to do; inf: never, as things stand."""
        return self._judging.next_deadline()

    def tick(self, now: float) -> None:
        """Let time pass: silences, ends of grace."""
        self._judging.tick(now)
        self._conclude(now)

    def next_recompute(self) -> float:
        return min((group.recompute_at for group in self._due), default=math.inf) if self._due else math.inf

    def recompute(self, now: float) -> None:
        """Bring effective weights up to date in each due group: of who reported, and of who is in its slow start."""
        for group in [group for group in self._due if group.recompute_at <= now]:
            del self._due[group]  # it joins again where its weights go on changing
            weigh_news(group, self.walk, now)
        self._conclude(now)

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
        """Every second or so: forget what has run out of sticky tables, tell schedulers of turnarounds, let the age of
        reports tell on weights."""
        for group in self._groups():
            group.pool.scheduler.cleanup(now)
            look_at_turns(group, self.walk, now)
            weigh_all(group, self.walk, now)
            self._ejecting.tick(group, self.walk, now, grace=now < self._grace_until(group))
        self._conclude(now)

    # --- inside

    def _groups(self) -> Iterable[GroupEntry]:
        for service in self.services.values():
            yield from service.groups.values()

    def _group_of(self, entry: HostEntry) -> GroupEntry:
        return self.services[entry.ref.service].groups[entry.ref.group]

    def _conclude(self, now: float, *, serve: bool = True) -> None:
        """Where every mutation ends: judge whom it bears upon, bring the pools up to date, and let in who waits.

        Those who wait are asked for, and not what may have made room, so that nothing is served too late whatever
        happened. When nothing did, this is a few looks: every report ends here.
        """
        for entry in self._judging.conclude(now):
            self._stale[entry] = None
        if self._stale:
            stale = tuple(self._stale)
            self._stale.clear()
            for entry in stale:
                refresh(self._group_of(entry), entry, now)
            for entry in stale:
                self._ejecting.relieve(self._group_of(entry), now)
        if self._waiting and serve:
            for service in list(self._waiting):
                clients = service.admission.serve(now)
                if clients:
                    self._events.append(Served(service.name, clients))
                if not service.admission.queued:
                    del self._waiting[service]
        deadline = self._judging.next_deadline()
        if self._events or deadline != self._told_deadline:
            self._told_deadline = deadline
            self._on_news()
