"""A whole director in this process, real backends, and conditions to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from cluster.model import Configuration
from director.config.files import checked
from director.service import DirectorService, make_service
from tests.etcd_server import free_port

reactor: Any = _reactor

#: A condition that does not hold by then never will; far beyond what a loaded machine needs.
DEADLINE_S = 20.0


@implementer(IHalfCloseableProtocol)
class Backend(Protocol):
    """Says its name and then what it receives, upper-cased; closes once the client finished and all was answered."""

    def __init__(self, site: BackendSite) -> None:
        self.site = site
        self.received = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.site.connections.append(self)
        self.transport.write(self.site.name.encode() + b"\n")

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.received += data
        self.transport.write(data.upper())

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        """`connectionLost` follows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.connections.remove(self)


class BackendSite(Factory[Backend]):
    """A listening backend."""

    noisy = False

    def __init__(self, name: str, port: int = 0) -> None:
        self.name = name
        self.connections: list[Backend] = []
        self._port: Any = reactor.listenTCP(port, self, interface="127.0.0.1")
        self.address = f"127.0.0.1:{self._port.getHost().port}"

    def buildProtocol(self, addr: Any) -> Backend:
        return Backend(self)

    async def stop(self) -> None:
        if self._port is not None:
            port, self._port = self._port, None
            await port.stopListening()
        for connection in list(self.connections):
            connection.transport.abortConnection()  # type: ignore[union-attr]


class Client(Protocol):
    """Collects what it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def close(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]


def closed_port() -> int:
    """A port nobody listens on."""
    return free_port()


async def until(holds: Callable[[], object], what: str = "") -> None:
    """Wait for a condition."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > DEADLINE_S:
            raise AssertionError(f"not within {DEADLINE_S:g} s: {what or holds}")
        await deferLater(reactor, 0.01)


class DirectorTestCase(TestCase):
    """Starts what a test asks for; stops everything after it."""

    timeout = 60

    def setUp(self) -> None:
        self.clients: list[Client] = []

    async def backend(self, name: str, port: int = 0) -> BackendSite:
        site = BackendSite(name, port)
        self.addCleanup(lambda: Deferred.fromCoroutine(site.stop()))
        return site

    async def director(self, data: dict[str, Any] | Configuration) -> DirectorService:
        """Start a director; *data* is a configuration as TOML would give it."""
        configuration = data if isinstance(data, Configuration) else checked(data)
        service = make_service(configuration, reactor=reactor)
        self.addCleanup(lambda: self.stop(service))
        service.startService()
        await service.ready
        return service

    def stop(self, service: DirectorService) -> Any:
        for client in self.clients:
            if client.lost is None:
                client.transport.abortConnection()  # type: ignore[union-attr]
        return service.stopService() if service.running else None

    async def client(self, director: DirectorService, service: str = "web") -> Client:
        """Connect to a service's first listener."""
        host, port = director.node.listeners.addresses(service)[0].rsplit(":", 1)
        client: Client = await connectProtocol(HostnameEndpoint(reactor, host, int(port)), Client())
        self.clients.append(client)
        return client

    async def served_by(self, director: DirectorService, service: str = "web") -> str:
        """Which backend answers a new client; the connection is closed again."""
        client = await self.client(director, service)
        await until(lambda: client.received.endswith(b"\n") or client.lost, "a banner")
        client.close()
        await until(lambda: client.lost, "the close")
        return client.received.decode().strip()

    def ended(self, director: DirectorService, reason: str, service: str = "web") -> float:
        """How many clients ended under *reason*."""
        labels = {"service": service, "reason": reason}
        return director.registry.get_sample_value("txdirector_connections_ended_total", labels) or 0.0


def service(hosts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A service ``web`` with one group ``main``, as TOML would give it."""
    group = more.pop("group", {})
    web = {"listen": ["127.0.0.1:0"], "groups": {"main": {"hosts": hosts, **group}}, **more}
    return {"services": {"web": web}}


