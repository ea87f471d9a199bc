"""Probes of real sockets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import SkipTest

from twisted.internet import defer, reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cluster.address import Address
from cluster.model import HostRef, HostState, Probe
from director.checks.probes import Prober, ProbeResult
from director.service import DirectorService
from tests.integration.kit import DirectorTestCase, closed_port, service

DEADLINE_S = 10.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for *condition*, within a deadline."""
    end = reactor.seconds() + DEADLINE_S
    while not condition():
        if reactor.seconds() > end:
            raise AssertionError("the condition did not come true in time")
        await deferLater(reactor, 0.005)


def listens_at(port: int) -> bool:
    with socket.socket() as sock:
        return not sock.connect_ex(("127.0.0.1", port))


class Host(Protocol):
    """Says *banner*, answers the first bytes with *reply*, and remembers how its visitors left."""

    def connectionMade(self) -> None:
        self.factory.visitors.append(self)
        self.transport.write(self.factory.banner)

    def dataReceived(self, data: bytes) -> None:
        self.factory.received += data
        if self.factory.reply is not None:
            self.transport.write(self.factory.reply)

    def connectionLost(self, reason: Any) -> None:
        self.factory.left.append(reason.type.__name__)


class HostFactory(Factory):
    protocol = Host
    noisy = False

    def __init__(self, reply: bytes | None = None, banner: bytes = b"") -> None:
        self.reply = reply
        self.banner = banner
        self.received = b""
        self.left: list[str] = []
        self.visitors: list[Host] = []


class ProbeTests(TestCase):
    def setUp(self) -> None:
        self.prober = Prober(reactor=reactor)
        self.prober.startService()
        self.addCleanup(lambda: self.prober.stopService())

    def listen(self, factory: HostFactory, interface: str = "127.0.0.1") -> Address:
        port = reactor.listenTCP(0, factory, interface=interface)
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: [visitor.transport.abortConnection() for visitor in factory.visitors])
        return Address(interface, port.getHost().port)

    def http(self, target: Address, **spec: Any) -> defer.Deferred[ProbeResult]:
        return self.prober.probe(target, Probe(kind="http", **spec))

    async def test_tcp(self) -> None:
        """Connecting passes over IPv4 and IPv6, a hundred times, and the host's program never gets a client."""
        for interface in ("127.0.0.1", "::1"):
            listener = socket.create_server((interface, 0), family=socket.AF_INET6 if ":" in interface else socket.AF_INET)
            self.addCleanup(listener.close)
            listener.setblocking(False)
            target = Address(interface, listener.getsockname()[1])
            for _ in range(5):
                for result in await defer.gatherResults([self.prober.probe(target, Probe()) for _ in range(20)]):
                    self.assertTrue(result.ok, result)
                    self.assertRegex(result.detail, r"^connected in \d+ ms$")
                self.assertRaises(BlockingIOError, listener.accept)

    async def test_tcp_from_sources(self) -> None:
        """A TCP probe comes from the addresses configured, and one that cannot be had is a shortage, not a failed probe."""
        target = self.listen(HostFactory())
        self.assertTrue((await self.prober.probe(target, Probe(), ["127.0.0.2"])).ok)
        result = await self.prober.probe(target, Probe(), ["192.0.2.1"])
        self.assertIsNone(result.ok, result)

    async def test_tcp_full_backlog(self) -> None:
        """A host whose backlog is full does not pass, and a stop in the middle leaves nothing on the reactor."""
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.create_connection(listener.getsockname(), timeout=5)]
        for each in waiting:
            self.addCleanup(each.close)
        target = Address("127.0.0.1", listener.getsockname()[1])
        result = await self.prober.probe(target, Probe(timeout_s=0.2))
        self.assertEqual((result.ok, result.detail), (False, "timed out after 0.2 s"))
        under_way = self.prober.probe(target, Probe(timeout_s=30))
        await deferLater(reactor, 0)
        await self.prober.stopService()
        self.assertEqual((await under_way).detail, "cancelled")
        self.assertEqual(reactor.getWriters(), [])

    async def test_unix(self) -> None:
        """UNIX sockets, abstract ones too, are probed by TCP's and by HTTP's rules."""
        directory = tempfile.mkdtemp(dir="/tmp")  # a short path: trial's may be longer than a socket's can be
        self.addCleanup(os.rmdir, directory)
        for path in (f"{directory}/s", f"@txdirector-test-{os.getpid()}"):
            host = HostFactory(b"HTTP/1.1 200 OK\r\n\r\n")
            port = reactor.listenUNIX("\0" + path[1:] if path.startswith("@") else path, host)
            try:
                target = Address("", 0, path)
                self.assertTrue((await self.prober.probe(target, Probe())).ok)
                self.assertTrue((await self.http(target)).ok)
                self.assertIn(b"Host: localhost\r\n", host.received)
            finally:
                await port.stopListening()
            self.assertFalse((await self.prober.probe(target, Probe())).ok)
        missing = await self.prober.probe(Address("", 0, f"{directory}/none"), Probe())
        self.assertEqual((missing.ok, missing.detail), (False, "no such file or directory"))

    async def test_refused(self) -> None:
        """A closed port is refused, for either kind, at once."""
        unused = socket.socket()
        unused.bind(("127.0.0.1", 0))
        self.addCleanup(unused.close)
        target = Address("127.0.0.1", unused.getsockname()[1])
        for result in (await self.prober.probe(target, Probe(timeout_s=5)), await self.http(target, timeout_s=5)):
            self.assertEqual((result.ok, result.detail), (False, "refused"))
            self.assertLess(result.duration_s, 5)

    async def test_statuses(self) -> None:
        """Any 2xx or 3xx passes unless statuses are expected; what comes after the status doesn't matter."""
        for status, expect, ok in ((200, (), True), (302, (), True), (404, (), False), (503, (), False),
                                   (503, (503,), True), (200, (204,), False)):
            host = HostFactory(b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 %d x\r\nContent-Length: 5\r\n\r\nhello" % status)
            result = await self.http(self.listen(host), expect=expect, path="/up", host_header="app.example")
            self.assertEqual(result.ok, ok, (status, expect))
            self.assertRegex(result.detail, rf"^HTTP {status}( in \d+ ms)?$")
            self.assertTrue(host.received.startswith(b"GET /up HTTP/1.1\r\nHost: app.example\r\n"))
            self.assertIn(b"\r\nConnection: close\r\n", host.received)

    async def test_weights(self) -> None:
        """Where a weight is asked for, the headers are waited for; one that is missing, or that never ends, is no failure."""
        name = b"X-Load-Balancing-Endpoint-Weight"
        begin = b"HTTP/1.1 103 Hints\r\n" + name + b": 9\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\n"
        for answer, asked, weight, words in (
            (begin + name + b": 30\r\n\r\n", True, 30.0, ", weight 30"), (begin + name + b": 30\r\n\r\n", False, None, ""),
            (begin + b"X-Mine: 0\r\n\r\n" + name + b": 3\r\n\r\n", "x-mine", 0.0, ", weight 0"),
            (begin + b"\r\n" + name + b": 3\r\n\r\n", True, None, ", no weight"),
            (begin + name + b": much\r\n\r\n", True, None, ", a weight that is none"),
            (b"HTTP/1.0 200\n" + name + b": 2\n\n", True, 2.0, ", weight 2"), (b"HTTP/1.0 200\r\n\r\n", True, None, ", no weight"),
            (begin + b"X: " + b"x" * 20_000, True, None, ", no weight"),
        ):
            result = await self.http(self.listen(HostFactory(answer)), weight_header=asked)
            self.assertEqual((result.ok, result.weight), (True, weight), answer[-60:])
            self.assertRegex(result.detail, rf"^HTTP 200{words} in \d+ ms$")
        result = await self.http(self.listen(HostFactory(b"HTTP/1.1 503 x\r\n" + name + b": 3\r\n\r\n")), weight_header=True)
        self.assertEqual((result.ok, result.detail, result.weight), (False, "HTTP 503", None))

    async def test_weights_in_pieces(self) -> None:
        """Headers may come byte by byte; a host that closes amid them has passed, for its status had come."""
        for end, weight in ((b"\r\n", 7.0), (b"", None)):
            host = HostFactory()
            waiting = self.http(self.listen(host), weight_header=True, timeout_s=DEADLINE_S)
            await until(lambda host=host: bool(host.received))
            for byte in b"HTTP/1.1 200 OK\r\nX-Load-Balancing-Endpoint-Weight: 7\r\n" + end:
                host.visitors[0].transport.write(bytes([byte]))
                await deferLater(reactor, 0)
            host.visitors[0].transport.loseConnection()
            result = await waiting
            self.assertEqual((result.ok, result.weight), (True, weight))

    async def test_bad_answers(self) -> None:
        """Another protocol, and a host that closes instead of answering, fail with what was seen."""
        result = await self.http(self.listen(HostFactory(b"SSH-2.0-x\r\n")))
        self.assertEqual((result.ok, result.detail), (False, "not HTTP"))
        host = HostFactory()
        waiting = self.http(self.listen(host))
        await until(lambda: bool(host.received))
        host.visitors[0].transport.loseConnection()
        result = await waiting
        self.assertEqual((result.ok, result.detail), (False, "closed before it answered"))

    async def test_silent_host(self) -> None:
        """A host that accepts and then says nothing fails in time, and its connection is closed."""
        host = HostFactory()
        result = await self.http(self.listen(host), timeout_s=0.2)
        self.assertEqual((result.ok, result.detail), (False, "timed out after 0.2 s"))
        await until(lambda: bool(host.left))

    async def test_endless_answer(self) -> None:
        """A host that never stops sending has passed with its status, and is left after the grace."""
        host = HostFactory(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(10_000_000))
        self.assertTrue((await self.http(self.listen(host))).ok)
        await until(lambda: bool(host.left))

    async def test_host_that_keeps_its_side_open(self) -> None:
        """A host that ignores the end of the probe's side is left after the grace."""
        name = f"txdirector-test-{os.getpid()}-keeps"
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind("\0" + name)
        listener.listen()
        target = Address("", 0, "@" + name)
        self.assertTrue((await self.prober.probe(target, Probe())).ok)
        await until(lambda: not self.prober._running)

    async def test_names_are_resolved(self) -> None:
        """With a resolver, a host name is probed at its first address; without an answer the probe says so."""
        port = self.listen(HostFactory()).port

        def resolve(name: str) -> defer.Deferred[tuple[str, ...]]:
            return defer.succeed(("127.0.0.1",)) if name == "app" else defer.fail(ValueError("no such name"))

        prober = Prober(reactor=reactor, resolve=resolve)
        prober.startService()
        self.addCleanup(prober.stopService)
        self.assertTrue((await prober.probe(Address("app", port), Probe())).ok)
        result = await prober.probe(Address("none", port), Probe())
        self.assertEqual((result.ok, result.detail), (False, "no such name"))

    async def test_stop_closes_everything(self) -> None:
        """A stop in the middle of a probe closes its connection: trial would complain about any left."""
        host = HostFactory()
        waiting = self.http(self.listen(host), timeout_s=30)
        await until(lambda: bool(host.received))
        await self.prober.stopService()
        self.assertEqual((await waiting).detail, "cancelled")
        await until(lambda: bool(host.left))


class NodeTests(DirectorTestCase):
    """What a whole director probes."""

    def health(self, director: DirectorService, host: str) -> Any:
        return director.node.inventory.hosts[HostRef("web", "main", host)].health

    async def test_ports(self) -> None:
        """Hosts are probed at the group's port of their own addresses, but one that has its own; clients are no check of it."""
        backend = await self.backend("a")
        checks = [reactor.listenTCP(0, HostFactory(b"HTTP/1.1 200 OK\r\n\r\n"), interface=each)
                  for each in ("127.0.0.1", "127.0.0.2")]
        for each in checks:
            self.addCleanup(each.stopListening)
        group, own = (each.getHost().port for each in checks)
        director = await self.director(service(
            {"a": backend.address, "b": {"address": "127.0.0.2:1", "probe_port": own}, "c": "127.0.0.3:1"},
            group={"health": {"interval_s": 0.1, "probe": {"kind": "http", "port": group}}}))
        await until(lambda: all(self.health(director, each).last_check is not None for each in "abc"))
        self.assertEqual([self.health(director, each).last_check.ok for each in "abc"], [True, True, False])
        await checks[0].stopListening()
        await until(lambda: self.health(director, "a").state is HostState.DOWN)

    async def test_weights(self) -> None:
        """What hosts say of their weight is how clients are shared out, and is explained."""
        answers = [HostFactory(b"HTTP/1.1 200 OK\r\nX-Load-Balancing-Endpoint-Weight: %d\r\n\r\n" % weight) for weight in (1, 3)]
        checks = [reactor.listenTCP(0, each, interface="127.0.0.1") for each in answers]
        for each in checks:
            self.addCleanup(each.stopListening)
        hosts = {name: {"address": (await self.backend(name)).address, "probe_port": check.getHost().port}
                 for name, check in zip("ab", checks, strict=True)}
        director = await self.director(service(hosts, group={
            "scheduler": "weightedroundrobin",
            "health": {"interval_s": 0.1, "slow_start_s": 0, "probe": {"kind": "http", "weight_header": True}}}))
        await until(lambda: [candidate.factors.get("probed_weight") for candidate in
                             director.operations.explain("web", "192.0.2.1").candidates] == [0.5, 1.5])
        await until(lambda: [host.host.weight for host in director.node.inventory.hosts.values()] == [0.5, 1.5])
        self.assertEqual(Counter([await self.served_by(director) for _ in range(20)]), {"a": 5, "b": 15})
        answers[1].reply = b"HTTP/1.1 200 OK\r\nX-Load-Balancing-Endpoint-Weight: 0\r\n\r\n"
        await until(lambda: not director.node.inventory.hosts[HostRef("web", "main", "b")].host.eligible)
        self.assertEqual({await self.served_by(director) for _ in range(6)}, {"a"})

    async def nginx(self, *listens: str) -> None:
        """nginx that listens so; 200 to everybody."""
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
        if nginx is None:
            raise SkipTest("needs nginx: apt-get install nginx-light")
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        with open(f"{directory}/conf", "w") as file:
            file.write(f"""daemon off; master_process off; pid {directory}/pid; error_log stderr;
events {{ }}
http {{ access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
server {{ {" ".join(f"listen {each};" for each in listens)} return 200 ok; }} }}""")
        process = subprocess.Popen([nginx, "-c", f"{directory}/conf", "-p", directory], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for each in listens:
            port = int(each.split()[0].rpartition(":")[2])
            await until(lambda port=port: listens_at(port))

    async def test_proxy_headers(self) -> None:
        """Where clients' connections have a PROXY header, HTTP probes have one; elsewhere only when they are told to."""
        port, other = closed_port(), closed_port()
        await self.nginx(f"127.0.0.1:{port} proxy_protocol", f"127.0.0.1:{other}")
        for send in ("v1", "v2"):
            for probe, ok in (({}, True), ({"send_proxy": "off"}, False), ({"port": other}, True),
                              ({"port": other, "send_proxy": send}, False), ({"send_proxy": send}, True)):
                director = await self.director(service(
                    {"a": f"127.0.0.1:{port}"}, proxy={"send": send}, group={"health": {"probe": {"kind": "http", **probe}}}))
                await until(lambda director=director: self.health(director, "a").last_check is not None)
                self.assertEqual(self.health(director, "a").last_check.ok, ok, (send, probe))
                await self.stop(director)
