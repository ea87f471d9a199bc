"""The composition root: from a configuration to the tree of services that is a director.

    DirectorService
      ├─ node        listeners, relay, prober, resolver
      ├─ sync        the store's content into the node
      ├─ agents      where agents connect
      ├─ admin       one child for each endpoint
      ├─ leading     campaigns for the leadership; with virtual addresses only
      └─ vips        the addresses that the leader owns
"""

from __future__ import annotations

import random
import time
import uuid
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from cluster import wire
from cluster.file import FileStore
from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import AdminState, Configuration, HostRef, Order
from cluster.store import Store
from director.admin.control import Control
from director.admin.site import admin_service
from director.agents import AgentListener
from director.attendance import Attendance
from director.frontend import Closed
from director.gauges import SnapshotCollector
from director.leading import Leading
from director.listener import BindError
from director.metrics import Metrics
from director.node import Node
from director.operations import NodeOperations
from director.relay import make_relay
from director.relay.choice import native_missing
from director.relay.interface import Relay
from director.reports_http import ReportResource
from director.sync import Sync, seed
from director.vips import Vips

#: An embedded store is one cluster of one director.
CLUSTER = "default"


class StartError(Exception):
    """The director can't start; says every reason in a sentence."""


class DirectorService(MultiService):
    """A whole director.

    :ivar ready: fires when everything listens; fails with `StartError`, or with what the store failed with.
    """

    log = Logger()

    def __init__(self, configuration: Configuration, *, reactor: Any, on_closed: Closed | None = None) -> None:
        super().__init__()
        self.setName("director")
        self.configuration = configuration
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.keys = Keys(CLUSTER)
        self.store: Store = make_store(configuration.node.store, reactor=reactor)
        self.node = Node(
            configuration, make_relays(configuration.node.relay_threads, reactor=reactor), self.metrics,
            reactor=reactor, random=random.random, on_closed=on_closed,
        )
        self.sync = Sync(self.store, self.keys, self.node)
        self.operations = NodeOperations(
            self.node, self.store, self.sync, self.keys, store_name=configuration.node.store
        )
        self.control = Control(self.operations)
        self.registry.register(SnapshotCollector(self.operations.snapshot, self.node.counters))
        self.attendance = Attendance(self.node, self.store, self.keys, self.metrics)
        self.agents = AgentListener(
            configuration.node.agents, self.attendance, reactor=reactor, name=configuration.node.name,
            monotonic=self.node.monotonic, wall=self.node.wall,
        )
        self.node.on_order = self._tell_agent
        reports = ReportResource(self.agents.roster, self.metrics.rejected, monotonic=self.node.monotonic)
        self.admin = admin_service(
            configuration.node.admin, self.control, self.registry, reactor=reactor,
            exact={b"/api/v1/report": reports},
        )
        self.boot_id = uuid.uuid4().hex
        self.leading = Leading(
            self.store, self.keys, director=configuration.node.name, boot_id=self.boot_id, reactor=reactor,
            ttl_s=configuration.node.leader_lease_s,
        )
        self.vips = Vips(configuration.node.vips, self.leading, self.store, self.keys, reactor=reactor)
        self.ready: Deferred[None] = Deferred()
        self._reactor = reactor
        self._starting: Deferred[None] | None = None

    def startService(self) -> None:
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(self.ready.callback, self.ready.errback)

    async def _start(self) -> None:
        await self.store.start()
        await seed(self.store, self.keys, self.configuration.services)
        self.node.setServiceParent(self)
        self.sync.setServiceParent(self)
        await self.sync.synced
        problems = [str(error) for error in self.node.bind_errors.values()]
        for child in (self.agents, self.admin):
            try:
                child.setServiceParent(self)
            except (BindError, CannotListenError) as error:
                problems.append(f"{child.name}: {error}")
        if problems:
            raise StartError("\n".join(problems))
        if self.configuration.node.vips.addresses:  # last: whoever cannot serve must not lead
            self.vips.setServiceParent(self)
            self.leading.setServiceParent(self)

    def _tell_agent(self, ref: HostRef, order: Order | None) -> None:
        """The host's own agent hears of an operator's order, so that its application can prepare."""
        draining = order is not None and order.state is not AdminState.UP
        deadline_s = order.deadline_s if order is not None else None
        self.agents.order(ref, wire.Order(order="drain" if draining else "up", deadline_s=deadline_s))

    def stopService(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """Leadership first, so that another takes new clients; then clients: while they finish, agents report and
        operators can look."""
        if self._starting is not None:
            self._starting.cancel()
        for child in (self.leading, self.vips, self.node, self.agents, self.admin, self.sync):
            if child.parent is not None:
                await maybeDeferred(child.disownServiceParent)
        await maybeDeferred(super().stopService)
        await self.store.stop()


def make_relays(threads: int, *, reactor: Any) -> dict[str, Relay]:
    """Every relay there is, by name; the best one first."""
    relays: dict[str, Relay] = {"python": make_relay("python", reactor=reactor)}
    if not native_missing():
        relays = {"native": make_relay("native", reactor=reactor, threads=threads), **relays}
    return relays


def make_store(where: str, *, reactor: Any) -> Store:
    """``memory:``, or ``file:/path``."""
    kind, _, path = where.partition(":")
    if kind == "memory":
        return MemoryStore(clock=reactor, wall=time.time)
    return FileStore(
        path, clock=reactor, wall=time.time,
        threads=lambda work: deferToThreadPool(reactor, reactor.getThreadPool(), work),
    )


def make_service(configuration: Configuration, *, reactor: Any, on_closed: Closed | None = None) -> DirectorService:
    """A director's service tree, ready to be given a parent."""
    return DirectorService(configuration, reactor=reactor, on_closed=on_closed)
