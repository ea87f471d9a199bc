"""A whole director in virtual time: the real node, frontends and attendance, on a world that a test decides about.

Only what would leave the process is a model: a connect or a probe asks the `World` whether the host answers, and the relay
holds handles instead of descriptors.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from cluster.address import Address, parse_address
from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Configuration, HostRef, Probe, Reason
from cluster.model import Node as NodeConfiguration
from director.checks.probes import ProbeResult
from director.checks.resolver import Resolver
from director.core.entries import HostEntry
from director.core.host import Host
from director.core.inventory import Inventory
from director.engine.node import Node
from director.metrics.counters import Metrics
from director.relay.interface import Counters, Limits, Progress, RelayEvents
from director.relay.turnarounds import Turnarounds
from director.reports.attendance import Attendance
from director.traffic.connection import Connection
from director.traffic.target import Target, Targets

#: A probe's round trip.
PROBE_S = 0.05


class World:
    """Which addresses answer.

    :ivar unreachable: connects fail, and probes.
    :ivar at_once: of these, connects that fail before connect(2) returns.
    :ivar unhealthy: connects succeed, probes fail.
    """

    def __init__(self) -> None:
        self.unreachable: set[str] = set()
        self.at_once: set[str] = set()
        self.unhealthy: set[str] = set()

    def heal(self, address: str) -> None:
        for bad in (self.unreachable, self.at_once, self.unhealthy):
            bad.discard(address)


class ModelRelay:
    """Holds connections until the test lets something happen to them. Keeps the contract of `director.relay.interface`."""

    name = "model"

    def __init__(self, world: World, addresses: list[str]) -> None:
        self.pending: dict[int, tuple[Any, str]] = {}  #: connects under way: token and address
        self.open: dict[int, Any] = {}
        self.limits: dict[int, Limits] = {}  #: by handle, those of ended connections too
        self._killed: dict[int, Reason] = {}
        self._world = world
        self._addresses = addresses
        self._handles = 0

    def start(self, events: RelayEvents) -> None:
        self._events = events

    def relay(
        self, token: object, client: int, host: int, limits: Limits, preface: bytes = b"", tally: int = 0
    ) -> int:
        assert limits.connect_s > 0
        self._handles += 1
        self.pending[self._handles] = (token, self._addresses[host])
        self.limits[self._handles] = limits
        return self._handles

    def tally(self) -> int:
        return 0

    def owes_s(self) -> float:
        return 0.0

    def free_tally(self, number: int) -> None: ...

    def turnarounds(self, number: int) -> Turnarounds:
        return Turnarounds()

    def kill(self, handle: int, reason: Reason) -> None:
        if handle in self.pending or handle in self.open:
            self._killed[handle] = reason

    def progress(self, handle: int) -> Progress | None:
        return Progress(0, 0, 0.0) if handle in self.open else None

    def tokens(self) -> list[object]:
        return [*(token for token, _ in self.pending.values()), *self.open.values()]

    def counters(self) -> Counters:
        return Counters(len(self.pending) + len(self.open), len(self.pending), 0, 0, 0, 0, 0)

    def stop(self) -> None:
        for handle in [*self.pending, *self.open]:
            self.close(handle, Reason.SHUTDOWN)

    def close(self, handle: int, reason: Reason, to_client: int = 2) -> None:
        token = self.pending.pop(handle)[0] if handle in self.pending else self.open.pop(handle)
        self._events.closed(token, reason, 1, to_client)

    def turn(self) -> bool:
        """Every connect under way is decided, every order to kill is followed; whether there was anything."""
        killed, self._killed = self._killed, {}
        for handle, reason in killed.items():
            if handle in self.pending or handle in self.open:
                self.close(handle, reason)
        pending, self.pending = self.pending, {}
        for handle, (token, address) in pending.items():
            if address in self._world.unreachable:
                self._events.connect_failed(token, -1, errno.ECONNREFUSED)
            else:
                self.open[handle] = token
                self._events.connected(token)
        return bool(killed or pending)


class ModelProber:
    """Answers after `PROBE_S`, by how the world is then."""

    def __init__(self, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock

    def probe(self, address: Address, spec: Probe, sources: tuple[str, ...] = (), *,
              others: tuple[Address, ...] = (), preface: bytes = b"") -> Deferred[ProbeResult]:
        result: Deferred[ProbeResult] = Deferred()
        self._clock.callLater(PROBE_S, lambda: result.callback(self._result(str(address))))
        return result

    def _result(self, address: str) -> ProbeResult:
        ok = address not in self._world.unreachable | self._world.unhealthy
        return ProbeResult(ok, "200" if ok else "refused", PROBE_S)


class _Targets(Targets):
    """The world's."""

    def __init__(self, director: VirtualDirector, inventory: Inventory, resolver: Resolver) -> None:
        super().__init__(inventory, resolver)
        self._director = director
        self._hosts = inventory

    def add(self, entry: HostEntry) -> None:
        address = entry.spec.address
        self._hosts.resolved(entry, Target(lambda: self._director.connect(address), parse_address(address)))


    def reconfigure(self, service: str) -> None:
        """The world is the same."""


class _Node(Node):
    """Its targets are the world's."""

    def __init__(self, director: VirtualDirector) -> None:
        super().__init__(
            Configuration(node=NodeConfiguration(name="d1", store="etcd:")), {"model": director.relay},
            director.metrics, reactor=director.clock, random=random.Random(7).random,
            monotonic=director.clock.seconds, wall=director.clock.seconds, on_closed=director.closed,
        )
        self._targets = self.probing._targets = _Targets(director, self.inventory, self.resolver)


class VirtualDirector:
    """Running from `START_S` on. Agents speak through `attendance`, clients come by `arrive`."""

    START_S = 100.0

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(self.START_S)
        self.world = World()
        self._addresses: list[str] = []
        self.relay = ModelRelay(self.world, self._addresses)
        self.metrics = Metrics(CollectorRegistry())
        self.clients: dict[Connection, None] = {}  #: that have not ended
        self.ended: Counter[Connection] = Counter()
        self.hosts: set[Host] = set()  #: every one that ever was
        self.node = _Node(self)
        self.node.probing.prober = ModelProber(self.world, self.clock)  # type: ignore[assignment]
        self.node.startService()
        store = MemoryStore(clock=self.clock, wall=self.clock.seconds)
        self.attendance = Attendance(self.node, store, Keys("c"), self.metrics)

    @property
    def now(self) -> float:
        return self.clock.seconds()

    def connect(self, address: str) -> int:
        """As a target's: a descriptor, or an error below 0."""
        if address in self.world.unreachable and address in self.world.at_once:
            return -errno.ECONNREFUSED
        self._addresses.append(address)
        return len(self._addresses) - 1

    def arrive(self, service: str, client: int) -> Connection:
        frontend = self.node.frontends[service]
        connection = Connection(frontend, -1, client.to_bytes(4, "big") + b"\0\1", self.now)
        self.clients[connection] = None
        frontend.arrived(connection)
        return connection

    def closed(self, connection: Connection, reason: Reason, to_host: int, to_client: int, now: float) -> None:
        del self.clients[connection]
        self.ended[connection] += 1

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, each timer in its time; without *seconds* the timers that are due ring."""
        end = self.now + seconds
        while (due := min((call.getTime() for call in self.clock.getDelayedCalls()), default=end)) <= end:
            self.clock.advance(max(0.0, due - self.now))
        self.clock.advance(max(0.0, end - self.now))

    def entry(self, ref: HostRef) -> HostEntry:
        return self.node.inventory.hosts[ref]

    def close(self) -> None:
        self.node.cut()
        for call in self.clock.getDelayedCalls():
            call.cancel()
