"""The composition root: from a configuration to the tree of services that is a director.

    DirectorService
      ├─ node        listeners, relay, prober, resolver
      ├─ sync, swapping  the store's content into the node, and changes of it
      ├─ audit       who changed what
      ├─ agents      where agents connect
      ├─ admin       one child for each endpoint
      ├─ metrics     where they are without a password
      ├─ hooks       who is told of transitions
      ├─ side doors  control socket and manhole, where they are configured
      └─ clustering  membership, leadership, virtual addresses, the snapshot on disk
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import Counter, GCCollector, PlatformCollector
from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster import wire
from cluster.clock import run_on_monotonic
from cluster.errors import ConfigError, Problem, StoreUnavailable
from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import AdminState, Configuration, HostRef, Manhole, Order
from cluster.renewal import Renewed
from cluster.store import Store
from director.admin.auth import Foreign
from director.admin.control import Audit, Caller, Control, Role
from director.admin.gate import Gate
from director.admin.offers import Process
from director.admin.scraping import metrics_service
from director.admin.site import AdminListener, admin_service
from director.admin.userbook import UserBook
from director.doors.control_socket import ControlSocket
from director.engine.node import Node
from director.engine.swapping import Swapping
from director.engine.sync import Sync, seed
from director.ha.clustering import Clustering, etcd_certificates
from director.ha.forgetting import Forgetting
from director.ha.leases import Leases
from director.ha.membership import NameTaken
from director.ha.stores import Inherited, make_store
from director.hooks import records as told
from director.hooks.hooks import Hooks
from director.metrics.carried import CarryingRegistry
from director.metrics.certificates import CertificateCollector
from director.metrics.counters import Metrics
from director.metrics.gauges import SnapshotCollector
from director.metrics.vips import VipCollector
from director.operations.audit import AuditTrail
from director.operations.node import NodeOperations
from director.operations.previous import Previous
from director.operations.users import UserChanges
from director.ports.binding import BindError
from director.ports.tls import Renewal
from director.relay import make_relay
from director.relay.choice import native_missing
from director.relay.interface import Relay
from director.reports.agents import AgentListener
from director.reports.attendance import Attendance
from director.reports.http import ReportResource
from director.reports.releases import ReleaseCollector
from director.reports.responders import Responders
from director.resources.backlog import BacklogCollector
from director.resources.descriptors import pipes_for
from director.resources.own_process import OwnProcess
from director.resources.places import soft_limit
from director.resources.usage import ResourceCollector
from director.traffic.connection import Closed

#: An embedded store is one cluster of one director.
CLUSTER = "default"
ETCD = "etcd:"
#: Between two attempts to reach a store that was away at the start.
RECONNECT_S = 1.0
#: How the process before this one is called among the directors whose connections a drain waits for.
PREVIOUS = "before the upgrade"


class StartError(Exception):
    """The director can't start; says every reason in a sentence."""


class DirectorService(MultiService):
    """A whole director.

    :param credentials: another authority on operators' names and passwords, asked for names that are no user's here.
    :param own_process: what the admin may order of the process, where this director is one of its own.
    :param inherits: what another process of this director has, which serves until this one is told to (`join_after`).
    :ivar ready: fires when everything listens; fails with `StartError`, or with what the store failed with. Silent
        when the director is stopped before.
    """

    log = Logger()

    def __init__(
        self, configuration: Configuration, *, reactor: Any, on_closed: Closed | None = None,
        credentials: Foreign | None = None, own_process: Process | None = None, inherits: Inherited | None = None,
    ) -> None:
        super().__init__()
        self.setName("director")
        run_on_monotonic(reactor)
        self._reactor = reactor
        self._credentials = credentials
        self.configuration = configuration
        self._inherits = inherits
        self._retired = False  # another process serves
        self._connected = False
        self._previous: Previous | None = None
        self.registry = CarryingRegistry()
        self.metrics = Metrics(self.registry)
        node = configuration.node
        shared = node.store == ETCD
        self.keys = Keys(node.etcd.cluster if shared else CLUSTER)
        self.store: Store = make_store(node, reactor=reactor, inherited=None if inherits is None else inherits.store)
        self.node = Node(
            configuration, make_relays(configuration.node.relay_threads, reactor=reactor), self.metrics,
            reactor=reactor, random=random.random, on_closed=on_closed, on_order=self._tell_agent,
            elsewhere=self._elsewhere,
        )
        self.users = UserBook(node.admin.users, required=node.admin.htpasswd is not None)
        self.sync = Sync(
            self.store, self.keys, self.node, self.users.set_stored, user_unreadable=self.users.require
        )
        self.swapping = Swapping(self.store, self.sync, reactor=reactor, on_settled=self._settled)
        self.attendance = Attendance(self.node, self.swapping, self.keys, self.metrics)
        self.clustering = Clustering(
            configuration, self.store, self.keys, self.sync, self.node, self.attendance, reactor=reactor,
            boot_id=None if inherits is None else inherits.boot_id,
        )
        self.audit = AuditTrail(
            self.store, self.keys, director=configuration.node.name, wall=self.node.wall, monotonic=self.node.monotonic,
            refused=Counter("txdirector_admin_refusals", "Changes refused to users.", registry=self.registry).inc,
        )
        self._etcd_certificates = etcd_certificates(node.etcd) if shared else []
        self.certificates = Renewal(self._certificates, reactor=reactor)
        self.certificates.setServiceParent(self)
        self.operations = NodeOperations(
            self.node, self.store, self.sync, self.keys, self.clustering, boot=configuration, audit=self.audit,
            users=UserChanges(self.users, self.swapping, self.keys, in_thread=self._in_thread),
            swapping=self.swapping, certificates=self.certificates, reactor=reactor, own_process=own_process,
            previous=lambda: self._previous,
        )
        self.control = Control(self.operations, audit=self.audit.record)
        for collector in (SnapshotCollector(self.operations.picture, self.node.counters), OwnProcess(),
                          ResourceCollector(self.node.inventory, self.node.descriptors, self.node.shortages),
                          BacklogCollector(self.node.listeners.queues), CertificateCollector(self.certificates),
                          VipCollector(self.operations.vips, node.name)):
            self.registry.register(collector)
        for of_python in (GCCollector, PlatformCollector):
            of_python(registry=self.registry)
        self.agents = AgentListener(
            configuration.node.agents, self.attendance, reactor=reactor, name=configuration.node.name,
            monotonic=self.node.monotonic, wall=self.node.wall,
        )
        self.hooks = Hooks(
            node.hooks, director=node.name, names=self.node.resolver, leads=self._leads_or_alone, reactor=reactor,
            monotonic=self.node.monotonic, wall=self.node.wall,
        )
        self.registry.register(self.hooks)
        self._tell_hooks()
        self.registry.register(ReleaseCollector(self.agents.releases))
        self.responders = Responders(self.node, reactor=reactor, random=random.random)
        self.forgetting = Forgetting(
            self.node, self.swapping, self.keys, claimed=self.agents.roster.claimed, reactor=reactor,
            leads=self._leads_or_alone,
        )
        reports = ReportResource(self.agents.roster, self.metrics.rejected, monotonic=self.node.monotonic)
        self.admin = admin_service(
            node.admin, self.users, self.control, self.registry, in_thread=self._in_thread, credentials=credentials,
            reactor=reactor,
            exact={b"/api/v1/report": reports},
        )
        self.metrics_port = metrics_service(node.metrics, self.registry, reactor=reactor, ready=self.operations.unready)
        self.side_doors = MultiService()
        self.side_doors.setName("side doors")
        if self.node.origins is not None and configuration.node.control_socket is not None:
            ControlSocket(configuration.node.control_socket, self.node.origins, reactor=reactor).setServiceParent(
                self.side_doors
            )
        if configuration.node.manhole.listen is not None:
            self._manhole(configuration.node.manhole, reactor).setServiceParent(self.side_doors)
        self.ready: Deferred[None] = Deferred()
        self._starting: Deferred[None] | None = None
        self._reconnecting: Deferred[None] | None = None
        self._stopped: Deferred[None] | None = None

    def _leads_or_alone(self) -> bool:
        return self.clustering.leading.leads if self.clustering.shared else True

    def _tell_hooks(self) -> None:
        tell, leading, vips = self.hooks.tell, self.clustering.leading, self.clustering.vips
        self.node.on_moved.append(lambda entry, transition: tell(told.moved(entry, transition)))
        self.node.on_ordered.append(lambda entry, before: tell(told.ordered(entry, before)))
        leading.on_gained.append(lambda term: tell(told.gained(term)))
        leading.on_lost.append(lambda: tell(told.lost()))
        vips.on_taken.append(lambda addresses: tell(told.vips(addresses, taken=True)))
        vips.on_released.append(lambda addresses: tell(told.vips(addresses, taken=False)))

    def _elsewhere(self, ref: HostRef) -> dict[str, int | None]:
        before = 0 if self._previous is None else self._previous.in_flight.get(str(ref), 0)
        return {**self.clustering.elsewhere(ref), **({PREVIOUS: before} if before else {})}

    def _certificates(self) -> Iterable[Renewed[Any]]:
        """Of every port with TLS, and of the store."""
        yield from self._etcd_certificates
        for port in (self.agents, *self.admin, *self.metrics_port, self.clustering.peers, *self.node.frontends.values()):
            yield from getattr(port, "certificates", ())

    def _manhole(self, manhole: Manhole, reactor: Any) -> Service:
        """:raises ConfigError: the extra is not installed, or the host key is of no use."""
        try:
            from director.doors.manhole import ManholeListener
        except ImportError as error:
            hint = "pip install 'txdirector[manhole]'"
            raise ConfigError([Problem("node.manhole", f"needs more than is installed here ({error})", hint)]) from error
        namespace = {"director": self, "node": self.node, "control": self.control, "reactor": reactor}
        gate = Gate(
            lambda: self.users.users, lambda: self.users.required, clock=reactor, in_thread=self._in_thread,
            credentials=self._credentials,
        )
        return ManholeListener(manhole, namespace, gate, reactor=reactor)

    def startService(self) -> None:
        """Once: a director that was stopped stays so."""
        if self.running or self._starting is not None or self._stopped is not None:
            return
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(self.ready.callback, self._not_ready)

    def _not_ready(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.ready.errback(failure)

    async def _start(self) -> None:
        connected = await self._connect()
        if connected and self._inherits is None:
            try:
                await self.clustering.claim()
            except NameTaken as error:
                raise StartError(str(error)) from error
        self.node.setServiceParent(self)
        self.sync.setServiceParent(self)
        self.swapping.setServiceParent(self)
        self.forgetting.setServiceParent(self)
        if connected:
            self._follow()
        else:
            self.sync.assume(self.clustering.last_known)
        await self.node.discovering.known_after(self.sync.synced)
        problems = [str(error) for error in self.node.listeners.errors.values()]
        for child in (self.agents, self.responders, self.admin, self.metrics_port, self.side_doors):
            try:
                child.setServiceParent(self)
            except BindError as error:
                problems.append(f"{child.name}: {error}")
        if problems:
            raise StartError("\n".join(problems))
        self.node.descriptors.count_own()
        self._connected = connected
        if self._inherits is None:
            self._go_on()

    def _go_on(self) -> None:
        self.hooks.setServiceParent(self)
        if self._connected:
            self._join()
        else:
            self._reconnecting = Deferred.fromCoroutine(self._reconnect())
            self._reconnecting.addErrback(self._not_reconnected)

    # --- from one process to the next (`director.handover`)

    async def join_after(self, leases: Leases | None) -> None:
        """Take the place of the process that this one inherits from."""
        self.clustering.adopt(leases)
        self._go_on()

    @property
    def connected(self) -> bool:
        """Whether the store answered at the start."""
        return self._connected

    async def own_store(self, ordered_by: str) -> None:
        """A store of this director's own is this process's now: what its file says anew of services goes into it, and into
        its audit what the process before could not write any more."""
        if isinstance(self.store, MemoryStore):
            self.store.release()
            self.audit.record(Audit(Caller(ordered_by, Role.FULL), "upgrade", {}, "ok"))
            await seed(self.store, self.keys, self.configuration.services)

    def follow_previous(self, previous: Previous | None) -> None:
        """How the process before this one gets on; None: it has ended."""
        self._previous = previous

    def retire(self) -> None:
        """Another process of this director serves: this one changes nothing and says nothing from now on, and only ends what
        is open."""
        self._retired = True
        Deferred.fromCoroutine(self.clustering.let_go()).addErrback(
            lambda failure: self.log.failure("the cluster could not be let go", failure))
        if isinstance(self.store, MemoryStore):
            self.store.give_up()
            if self.audit.parent is not None:
                self.audit.disownServiceParent()
        for part in (self.hooks, self.forgetting):
            if part.parent is not None:
                part.disownServiceParent()
        self.agents.move()
        self.node.expect_no_agents()
        for part in [*self.admin, *self.metrics_port]:
            if isinstance(part, AdminListener):
                part.retire()
            else:  # pages that are kept up to date; whoever looks at one asks the other process
                part.disownServiceParent()

    def _join(self) -> None:
        """Become one of the directors: last, since whoever cannot serve must not lead."""
        try:
            self.clustering.setServiceParent(self)
        except BindError as error:
            raise StartError(f"{self.clustering.name}: {error}") from error

    async def _connect(self) -> bool:
        """Start the store. False: it is away, but what it last said is known."""
        if not self.clustering.shared:
            await self.store.start()
            if self._inherits is None:
                await seed(self.store, self.keys, self.configuration.services)
            return True
        while True:
            try:
                await self.store.start()
            except StoreUnavailable as error:
                if self.clustering.remember():
                    self.log.warn("starting without the store, from the snapshot: {why}", why=str(error))
                    return False
                self.log.warn("waiting for the store: {why}; {missing}", why=str(error), missing=self.clustering.missing)
                await deferLater(self._reactor, RECONNECT_S)
            else:
                return True

    async def _reconnect(self) -> None:
        """The store was away at the start: try until it is there."""
        while True:
            await deferLater(self._reactor, RECONNECT_S)
            try:
                await self.store.start()
            except StoreUnavailable:
                continue
            self.log.info("the store is there")
            self._follow()
            await self._claim()
            self._join()
            return

    async def _claim(self) -> None:
        """Clients are served already, and go on being served, but this director does not join under another's name."""
        while True:
            try:
                await self.clustering.claim()
                return
            except NameTaken as error:
                self.log.critical("serving from the snapshot and not joining the others: {why}", why=error)
            await deferLater(self._reactor, RECONNECT_S)

    def _follow(self) -> None:
        """The store runs now: mirror it, and write the audit into it."""
        self.sync.follow()
        self.audit.setServiceParent(self)

    def _settled(self, key: str, outcome: str) -> None:
        """What became of a change that was told as unknown belongs beside its entry."""
        self.audit.record(Audit(Caller(self.configuration.node.name, Role.FULL), "looked_up", {"key": key}, outcome))

    def _not_reconnected(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("the store cannot be followed", failure)

    def _in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)

    def _tell_agent(self, ref: HostRef, order: Order | None) -> None:
        """The host's own agent hears of an operator's order, so that its application can prepare."""
        draining = order is not None and order.state is not AdminState.UP
        deadline_s = order.deadline_s if order is not None else None
        self.agents.order(ref, wire.Instruction(order="drain" if draining else "up", deadline_s=deadline_s))

    def stopService(self) -> Deferred[None]:
        """However far the start came; every call's Deferred fires when all is over."""
        if self._stopped is None:
            self._stopped = Deferred.fromCoroutine(self._stop())
        over: Deferred[None] = Deferred()
        self._stopped.addBoth(lambda _: over.callback(None))
        return over

    async def _stop(self) -> None:
        """Leadership first, so that another takes new clients; then clients: while they finish, agents report and
        operators can look."""
        for under_way in (self._starting, self._reconnecting):
            if under_way is not None:
                under_way.cancel()
        if not self._retired:
            await self._ended("the hand-over", lambda: Deferred.fromCoroutine(self.clustering.hand_over()))
        if self._retired:
            await self._ended("the agents' move", lambda: Deferred.fromCoroutine(self.agents.let_go()))
        for child in (self.responders, self.node, self.agents, self.side_doors, self.admin, self.swapping, self.audit,
                      self.sync, self.clustering, self.hooks):
            if child.parent is not None:
                await self._ended(str(child.name), child.disownServiceParent)
        await self._ended("director", super().stopService)
        await self._ended("store", self.store.stop)

    async def _ended(self, what: str, stop: Callable[[], Any]) -> None:
        """One that cannot be stopped must not keep the others from it."""
        try:
            await maybeDeferred(stop)
        except Exception:
            self.log.failure("stopping {what} failed", what=what)


def make_relays(threads: int, *, reactor: Any) -> dict[str, Relay]:
    """Every relay there is, by name; the best one first."""
    pipes = pipes_for(soft_limit())
    relays = {"python": make_relay("python", reactor=reactor, pipes=pipes), "tls": make_relay("tls", reactor=reactor)}
    if not native_missing():
        relays = {"native": make_relay("native", reactor=reactor, threads=threads, pipes=pipes), **relays}
    return relays


def make_service(
    configuration: Configuration, *, reactor: Any, on_closed: Closed | None = None, credentials: Foreign | None = None,
    own_process: Process | None = None, inherits: Inherited | None = None,
) -> DirectorService:
    """A director's service tree, ready to be given a parent. Parameters: see `DirectorService`."""
    return DirectorService(
        configuration, reactor=reactor, on_closed=on_closed, credentials=credentials, own_process=own_process,
        inherits=inherits,
    )
