"""The running director: owns the inventory, feeds it, and acts on what it answers.

Here the loops of different speeds meet and stay apart: connections go through the frontends straight to the pools; a
report only marks its group, whose weights follow at most every 50 ms; time is looked at when the earliest deadline is
due. Everything runs on the reactor's thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_interface
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from cluster.address import Address
from cluster.model import AdminState, Caps, Configuration, HostRef, Observed, Order, Reason, Registered, Service
from director.checks.resolver import Resolver
from director.config.files import is_ours
from director.core import events as happened
from director.core.entries import HostEntry
from director.core.inventory import Inventory
from director.core.loops import reaches
from director.core.transitions import Transition
from director.engine.cutting import why_cut
from director.engine.discovering import Discovering
from director.engine.probing import Probing, unprobed
from director.engine.telling import tell_each
from director.metrics.counters import Metrics
from director.relay.interface import Counters, Relay
from director.resources.descriptors import Descriptors
from director.resources.shortages import Shortages
from director.resources.usage import PortWatch
from director.timing.alarm import Alarm
from director.timing.courtesy import politely
from director.traffic.connection import Closed, Connection, Router
from director.traffic.departures import Departures
from director.traffic.frontend import Frontend
from director.traffic.listening import Listening
from director.traffic.origins import Origins
from director.traffic.secure_frontend import SecureFrontend
from director.traffic.target import Targets

#: Drain deadlines and sticky tables are looked at this often: nobody waits for less than a second of either.
HOUSEKEEPING_S = 1.0
#: A shutdown asks this often whether the last connection has gone.
SHUTDOWN_POLL_S = 0.05
#: For a handshake that the kernel has answered to end, and to be accepted: the round trip of most clients. Until then nobody
#: knows of the client.
HANDSHAKE_S = 0.2


class Node(MultiService):
    """Children: the listeners, the prober and the resolver.

    :param relays: by name; ``relay = "auto"`` takes the first.
    :param monotonic: seconds; the clock of all decisions.
    :param wall: POSIX seconds, for people.
    :param on_order: told of operators' orders.
    :param elsewhere: open connections of a draining host at the other directors (`Inventory.elsewhere`).
    """

    log = Logger()

    def __init__(
        self, configuration: Configuration, relays: Mapping[str, Relay], metrics: Metrics, *, reactor: Any,
        random: Callable[[], float], monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time, on_closed: Closed | None = None,
        on_order: Callable[[HostRef, Order | None], None] = lambda ref, order: None,
        elsewhere: Callable[[HostRef], dict[str, int | None]] = lambda ref: {},
    ) -> None:
        super().__init__()
        self.setName("node")
        node = configuration.node
        self.director = node.name
        self.metrics = metrics
        self.relays = relays
        self.monotonic = monotonic
        self.wall = wall
        self.on_host: list[Callable[[HostRef], None]] = []  #: told of a host that came, went or is seen differently
        self.on_moved: list[Callable[[HostEntry, Transition], None]] = []  #: told of changes of operational states
        self.on_ordered: list[Callable[[HostEntry, AdminState], None]] = []  #: and of ordered ones, with the one before
        self._on_order = on_order
        self.started_at = wall()
        self._balances, self._manages = "balance" in node.roles, "manage" in node.roles
        self.inventory = Inventory(
            now=monotonic(), random=random, panic_fraction=node.panic_fraction,
            director=node.name if node.store == "etcd:" else None, walk=politely,
            on_news=self._settle_soon, elsewhere=elsewhere,
        )
        self.frontends: dict[str, Frontend] = {}
        self._retired: list[Frontend] = []  # of deleted services, until their last connection ends
        self._removed: list[HostEntry] = []  # hosts whose connections are to be cut, until the last has ended
        self.origins = Origins() if node.control_socket is not None else None
        self._departures = Departures(reactor)
        self._on_closed = on_closed
        self._random = random
        self._reactor = reactor
        self._tick = Alarm(self._ticked, reactor=reactor, monotonic=monotonic)
        self._news = Alarm(self.settle, reactor=reactor, monotonic=monotonic)
        self._recompute = Alarm(self._recomputed, reactor=reactor, monotonic=monotonic)
        self._housekeeping = Alarm(self._housekept, reactor=reactor, monotonic=monotonic)
        self.shortages = Shortages(monotonic=monotonic)
        self.descriptors = Descriptors(relays, lambda: len(self.inventory.hosts) if node.agents.listen else 0,
                                       node.limits, now=reactor.seconds())
        self.listeners = Listening(
            (ip_interface(text).ip for text in node.vips.addresses), reactor=reactor, places=self.descriptors.places,
            shortages=self.shortages, hellos=metrics.hellos,
        )
        self._ports = PortWatch(self.inventory, monotonic=monotonic)
        self.resolver = Resolver(reactor=reactor, servers=node.resolvers, hold_s=node.resolver_hold_s,
                                 shortages=self.shortages)
        self.discovering = Discovering(self.inventory, self.resolver, self.settle, node, reactor=reactor,
                                       monotonic=monotonic, shortages=self.shortages)
        self._targets = Targets(self.inventory, self.resolver, on_moved=self._moved, circle=self._circle)
        self.probing = Probing(
            self.inventory, self._targets, self.resolver, metrics, self.settle, reactor=reactor, monotonic=monotonic,
            shortages=self.shortages, scripts=node.scripts, passwords=node.probe_passwords,
        )
        self._stopping = False  #: no new clients
        self._over = False  #: no connections and no timers any more
        for child in (self.listeners, self.resolver, self.discovering, self.probing):
            child.setServiceParent(self)

    # --- running

    def startService(self) -> None:
        """Once: what was stopped stays stopped."""
        if self.running or self._stopping:
            return
        router = Router()
        for relay in self.relays.values():
            relay.start(router)
        self.descriptors.resize()
        super().startService()
        self._housekeeping.at(self.monotonic() + HOUSEKEEPING_S)

    def expect_no_agents(self) -> None:
        """They report to another process: their silence here says nothing."""
        for ref in list(self.inventory.hosts):
            self.inventory.agent_left(ref, self.monotonic())
        self.settle()

    @property
    def open_connections(self) -> int:
        return sum(frontend.open for frontend in self.every_frontend()) + self.listeners.waiting

    @property
    def longest_drain_s(self) -> float:
        """How long a stop waits for them."""
        return max((each.service.spec.timeouts.drain_s for each in self.every_frontend()), default=0.0)

    async def turn_away(self, seconds: float) -> None:
        """Before another director takes this one's address: new clients are left unanswered, so that they try again there,
        and those that are here, or on their way through the handshake, have *seconds* to finish."""
        self.listeners.turn_away()
        end = self.monotonic() + seconds
        await deferLater(self._reactor, min(seconds, HANDSHAKE_S))
        await self._drained(end)

    async def _drained(self, deadline: float) -> None:
        while self.open_connections and self.monotonic() < deadline:
            await deferLater(self._reactor, SHUTDOWN_POLL_S)

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let open connections finish up to the longest ``drain_s``, cut the rest."""
        self._stopping = True
        self.probing.begin_no_more()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self.listeners.end()
        longest, open_now = self.longest_drain_s, self.open_connections
        if open_now:
            self.log.info("waiting up to {seconds:g} s for {count} connections", seconds=longest, count=open_now)
        await self._drained(self.monotonic() + longest)
        self.cut()
        await maybeDeferred(super().stopService)

    def cut(self) -> None:
        """End every connection and every timer now."""
        self.settle()  # clients whose turn in a queue has just come are to end, too
        self._over = True
        self.probing.hear_no_more()
        for alarm in (self._tick, self._news, self._recompute, self._housekeeping):
            alarm.cancel()
        self.listeners.cut()
        everybody = self.every_frontend()
        for frontend in everybody:
            frontend.kill(lambda connection: connection.handle == 0, Reason.SHUTDOWN)
        for relay in self.relays.values():
            relay.stop()
        for frontend in everybody:
            frontend.stop()
        self._departures.stop()

    def every_frontend(self) -> list[Frontend]:
        """Those of deleted services included, until their last connection ends."""
        return [*self.frontends.values(), *self._retired]

    def frontends_of(self, service: str) -> list[Frontend]:
        """That of a service, and those of services of this name that were deleted while clients were served."""
        return [frontend for frontend in self.every_frontend() if frontend.service.name == service]

    def retired_connections(self) -> dict[str, int]:
        """Open connections of deleted services."""
        counts: Counter[str] = Counter()
        for frontend in self._retired:
            counts[frontend.service.name] += frontend.open
        return dict(+counts)

    def _forget_retired(self) -> None:
        """Deleted services are counted until their last connection has ended."""
        over = [frontend for frontend in self._retired if not frontend.open]
        self._retired = [frontend for frontend in self._retired if frontend.open]
        for frontend in over:
            if not self.frontends_of(frontend.service.name):
                self.metrics.forget_service(frontend.service.name)

    # --- configuration (from `director.engine.sync`)

    def apply_service(self, name: str, spec: Service | None) -> None:
        """Make the service what the store says; a listener that can't be bound is logged and tried again later.

        Of a deleted service's clients, those who wait for a host are closed; those who are served go on.
        """
        if spec is not None and not self._manages:
            spec = unprobed(spec)
        self.settle()  # what happened before was about the service as it was
        now = self.monotonic()
        self.inventory.apply_service(name, spec, now)
        self.inventory.set_observed({}, now)  # whose "down" is believed depends on how many hosts there are
        if spec is None:
            self.listeners.drop(name)
            self._retire(name)
            self._forget_retired()
        else:
            kind = SecureFrontend if spec.has_tls else Frontend
            if type(self.frontends.get(name)) is not kind:
                self._retire(name)
                self.frontends[name] = kind(
                    self.inventory.services[name], self.inventory, self.relay_for(spec), self.metrics.service(name),
                    reactor=self._reactor, monotonic=self.monotonic, random=self._random, on_closed=self._on_closed,
                    origins=self.origins, shortages=self.shortages, places=self.descriptors.places,
                    departures=self._departures, unreached=self._targets.unreached,
                )
            else:
                self.frontends[name].reconfigure()
            if self._balances:
                self.listeners.apply(name, self.frontends[name], spec)
            self._targets.reconfigure(name)
        self.discovering.apply(name, spec)
        self.settle()

    def relay_for(self, spec: Service) -> Relay:
        """TLS has a relay of its own; else ``auto`` takes the best there is."""
        return self.relays.get("tls" if spec.has_tls else spec.relay) or next(iter(self.relays.values()))

    def _retire(self, name: str) -> None:
        """Its clients have another frontend from now on, or none; how those end that are served, the old one is told."""
        frontend = self.frontends.pop(name, None)
        if frontend is not None:
            frontend.kill(lambda connection: connection.handle == 0, Reason.NO_HOST)
            frontend.stop()
            self._retired.append(frontend)
            for ref, entry in self.inventory.hosts.items():
                if ref.service == name and entry.tally is not None:  # of its relay
                    entry.tally.free()
                    self.inventory.tallied(entry, None)

    def _circle(self, service: str, address: Address) -> str:
        """Why a client connected to *address* would come back to *service*; empty: it would not."""
        for listening in self.listeners.at(service):
            if reaches(address, listening, is_ours):
                return f"{address} is this service's own listener: clients would be connected in a circle"
        return ""

    def set_caps(self, service: str, caps: Caps | None) -> None:
        self.inventory.set_caps(service, caps, self.monotonic())
        self.settle()

    def set_registered(self, ref: HostRef, registered: Registered | None) -> None:
        self.inventory.set_registered(ref, registered, self.monotonic())
        self.inventory.set_observed({}, self.monotonic())  # as in `apply_service`
        self.settle()

    def set_order(self, ref: HostRef, by: str, order: Order | None) -> None:
        self.inventory.set_order(ref, by, order, self.monotonic())
        if by == "operator":
            self._on_order(ref, order)
        self.settle()
        if ref in self.inventory.hosts:
            self._cut_if_out(self.inventory.hosts[ref])

    def drop_local_orders(self) -> None:
        """The store is back: what it says of orders replaces what was ordered here alone."""
        for ref in self.inventory.drop_local_orders(self.monotonic()):
            self.log.info("the local order about {host} has ended: the store was read anew", host=str(ref))
        self.settle()

    def set_observed(self, records: Mapping[tuple[str, HostRef], Observed | None]) -> None:
        self.inventory.set_observed(records, self.monotonic())
        self.settle()

    def set_directors(self, others: Iterable[str]) -> None:
        self.inventory.set_directors(others, self.monotonic())
        self.settle()

    def leader_changed(self) -> None:
        self.inventory.leader_changed(self.monotonic())
        self.settle()

    # --- what follows from an input

    def settle(self) -> None:
        """Act on the inventory's events and set the alarms; after every input but a connection's."""
        self._news.cancel()
        events = self.inventory.drain()
        while events and not self._over:  # the end of probes and agents at a stop says nothing about hosts
            for event in events:
                try:
                    self._act(event)
                except Exception:  # what cannot be followed costs itself, not those after it
                    self.log.failure("{event} could not be followed", event=type(event).__name__)
            events = self.inventory.drain()
        if not self._over:
            self._tick.at(self.inventory.next_deadline())
            self._recompute.at(self.inventory.next_recompute())

    def _settle_soon(self) -> None:
        """Whoever gives an input may settle at once. A connection may not: it may be amid a redispatch."""
        if not self._over:
            self._news.at(self.monotonic())

    def _act(self, event: happened.Event) -> None:
        match event:
            case happened.HostAdded(entry):
                self._tell_of(entry)
                self._targets.add(entry)
                self.probing.schedule(entry)
            case happened.HostRemoved(entry, cut):
                self._tell_of(entry)
                self.probing.forget(entry.ref)
                self._targets.drop(entry)
                self.metrics.forget_host(entry.ref)
                if entry.tally is not None:
                    entry.tally.free()
                if cut:
                    self._removed.append(entry)
                    self._cut_removed()
            case happened.HostMoved(entry, transition):
                self.metrics.transition(entry.ref, transition.after)
                self.log.info(
                    "{host} is {after}, was {before}: {why}", host=str(entry.ref), after=transition.after.value,
                    before=transition.before.value, why=transition.why,
                )
                self._tell_of(entry)
                tell_each(self.on_moved, entry, transition)
                self.probing.schedule(entry)
            case happened.HostOrdered(entry, admin):
                tell_each(self.on_ordered, entry, admin)
            case happened.HostJudged(entry, before):
                if entry.verdict.why != before.why:
                    self.log.info("{host} is {place} rotation: {why}", host=str(entry.ref),
                                  place="out of" if entry.verdict.down else "in",
                                  why=entry.verdict.why or "as this director sees it")
                self._tell_of(entry)
                self._cut_if_out(entry)
            case happened.HostEjected(entry, why, for_s):
                self.metrics.ejection(entry.ref)
                self.log.warn("{host} is ejected for {for_s} s: {why}", host=str(entry.ref), for_s=round(for_s), why=why)
                self._tell_of(entry)
            case happened.HostReturned(entry):
                self.log.info("{host} is back from its ejection", host=str(entry.ref))
                self._tell_of(entry)
            case happened.Served(service, clients):
                self.frontends[service].serve(clients)
            case happened.IsolationChanged(isolated):
                self.log.warn(
                    "agents fell silent in bulk: taken for this director's own isolation"
                    if isolated else "the isolation is over"
                )

    def _tell_of(self, entry: HostEntry) -> None:
        tell_each(self.on_host, entry.ref)

    def _moved(self, entry: HostEntry) -> None:
        """DNS leads somewhere else now: what was found at the old place says little."""
        self.inventory.moved(entry, self.monotonic())
        self.probing.schedule(entry)

    # --- time

    def _ticked(self) -> None:
        self.inventory.tick(self.monotonic())
        self.settle()

    def _recomputed(self) -> None:
        self.inventory.recompute(self.monotonic())
        self.settle()

    def _housekept(self) -> None:
        now = self.monotonic()
        self._housekeeping.at(now + HOUSEKEEPING_S)  # first, whatever becomes of this turn
        self.inventory.clean_up(now)
        self._forget_retired()
        for entry, deadline in self.inventory.drains():
            if now >= deadline:
                self.cut_host(entry, Reason.DRAIN_DEADLINE)
        for entry in self.inventory.hosts.values():
            if entry.host.in_flight:  # clients that were on their way when it was cut, or a group that says so only now
                self._cut_if_out(entry)
        self._cut_removed()
        for service in self.listeners.retry():
            self._targets.reconfigure(service)
        self.descriptors.resize()
        self._ports.look()
        self.settle()

    def _cut_if_out(self, entry: HostEntry) -> None:
        if self.inventory.hosts.get(entry.ref) is entry:
            reason = why_cut(self.inventory.services[entry.ref.service].groups[entry.ref.group], entry)
            if reason is not None and entry.host.in_flight:
                self._cut_established(entry, reason)

    def _cut_removed(self) -> None:
        for entry in self._removed:
            self._cut_established(entry, Reason.HOST_REMOVED)
        self._removed = [entry for entry in self._removed if entry.host.in_flight]

    def _cut_established(self, entry: HostEntry, reason: Reason) -> None:
        """Clients on their way to the host are spared: another one may take them."""
        count = self.cut_host(entry, reason, chosen=lambda connection: connection.established)
        if count:
            self.log.info("{host}: {count} connections are cut: {reason}", host=str(entry.ref), count=count,
                          reason=reason.value)

    def cut_host(self, entry: HostEntry, reason: Reason, chosen: Callable[[Connection], bool] = lambda _: True) -> int:
        """End the connections to one host that are *chosen*; returns how many."""
        host = entry.host
        return sum(frontend.kill(lambda connection: connection.host is host and chosen(connection), reason)
                   for frontend in self.frontends_of(entry.ref.service))

    def counters(self) -> dict[str, Counters]:
        return {name: relay.counters() for name, relay in self.relays.items()}
