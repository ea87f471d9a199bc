"""The resolver against a real DNS server on loopback."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, protocol, reactor
from twisted.internet.task import deferLater
from twisted.names import common, dns, server
from twisted.trial.unittest import TestCase

from director.checks import nameservers
from director.checks.nameservers import LookupFailed, NameServers
from director.checks.resolver import Known, Resolver, Unresolvable
from tests.etcd_server import free_port

DEADLINE_S = 10.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for *condition*, within a deadline."""
    end = reactor.seconds() + DEADLINE_S
    while not condition():
        if reactor.seconds() > end:
            raise AssertionError("the condition did not come true in time")
        await deferLater(reactor, 0.005)


class Zone(common.ResolverBase):
    """Records that a test can change; with *error* set, every question fails with it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[bytes, list[Any]] = {}
        self.error: type[Exception] | None = None
        self.asked: list[bytes] = []

    def set(self, name: str, *records: Any, ttl: int = 60) -> None:
        for record in records:
            record.ttl = ttl
        self.records[name.encode()] = list(records)

    def _lookup(self, name: bytes, cls: int, kind: int, timeout: Any) -> Any:
        self.asked.append(name)
        if self.error is not None:
            return defer.fail(self.error())
        if name not in self.records:
            return defer.fail(dns.DomainError(name))
        answers, seen = [], name
        for record in self.records[name]:
            if record.TYPE == dns.CNAME:
                answers.append(dns.RRHeader(seen, dns.CNAME, ttl=record.ttl, payload=record))
                seen = record.name.name
                answers += [dns.RRHeader(seen, each.TYPE, ttl=each.ttl, payload=each)
                            for each in self.records[seen] if kind == each.TYPE]
            elif kind == record.TYPE:
                answers.append(dns.RRHeader(name, kind, ttl=record.ttl, payload=record))
        return defer.succeed((answers, [], []))


class Cutting(server.DNSServerFactory):
    """Sends nothing but "ask by TCP" in datagrams."""

    def sendReply(self, protocol: Any, message: Any, address: Any) -> None:
        if address is not None:
            message.trunc, message.answers = 1, []
        super().sendReply(protocol, message, address)


class Silent(protocol.DatagramProtocol):
    """A server that hangs."""

    def __init__(self) -> None:
        self.asked = 0

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.asked += 1


class Forger(protocol.DatagramProtocol):
    """A server that sends garbage and answers to other questions."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        for data in (b"", b"\xff" * 40, datagram, datagram[:2] + b"\x80\x00" + b"\xff" * 30,
                     bytes([datagram[0] ^ 1]) + datagram[1:2] + b"\x84" + datagram[3:]):
            self.transport.write(data, addr)


class Base(TestCase):
    def setUp(self) -> None:
        self.zone = Zone()
        self.factory = server.DNSServerFactory(authorities=[self.zone])
        self.port = self.listen(dns.DNSDatagramProtocol(self.factory))
        self.empty = self.mktemp()
        open(self.empty, "w").close()
        self.patch(nameservers, "TRY_TIMEOUTS_S", (0.5, 0.5))

    def listen(self, protocol_: Any, port: int = 0, interface: str = "127.0.0.1") -> Any:
        listening = reactor.listenUDP(port, protocol_, interface=interface)
        self.addCleanup(lambda: listening.stopListening())
        return listening

    def address(self, port: Any = None) -> str:
        host = (port or self.port).getHost()
        return f"[{host.host}]:{host.port}" if ":" in host.host else f"{host.host}:{host.port}"

    def servers(self, *servers: str, search: str = "") -> NameServers:
        with open(self.empty, "w") as file:
            file.write(search)
        return NameServers(reactor=reactor, servers=servers or (self.address(),), resolv_conf=self.empty)

    def resolver(self, *servers: str) -> Resolver:
        made = Resolver(reactor=reactor, lookup=self.servers(*servers).lookup, hosts_file=self.empty + ".hosts")
        made.startService()
        self.addCleanup(lambda: made.stopService() if made.running else None)
        return made


class NameServersTests(Base):
    async def test_both_families(self) -> None:
        """A and AAAA records with the smallest TTL, whatever the case of the name."""
        self.zone.set("app.example", dns.Record_A("192.0.2.1", 0), dns.Record_A("192.0.2.2", 0),
                      dns.Record_AAAA("2001:db8::1", 0), ttl=7)
        answer = await self.servers().lookup("App.Example")
        self.assertEqual(set(answer.v4 or ()), {"192.0.2.1", "192.0.2.2"})
        self.assertEqual((answer.v6, answer.ttl_s), (("2001:db8::1",), 7))

    async def test_alias(self) -> None:
        """An alias is followed, and its TTL counts."""
        self.zone.set("real.example", dns.Record_A("192.0.2.1", 0), ttl=60)
        self.zone.set("app.example", dns.Record_CNAME("real.example", 0), ttl=5)
        answer = await self.servers().lookup("app.example")
        self.assertEqual((answer.v4, answer.v6, answer.ttl_s), (("192.0.2.1",), (), 5))

    async def test_names_without_addresses(self) -> None:
        """A missing name, one without addresses and an impossible one are answers with a reason."""
        self.zone.set("text.example", dns.Record_TXT(b"x", ttl=5))
        for name, why in (("none.example", "no such name"), ("text.example", "the name has no addresses"),
                          ("x" * 64, "no such name"), ("a..b", "no such name"), ("ä.example", "no such name")):
            answer = await self.servers().lookup(name)
            self.assertEqual((answer.v4, answer.v6, answer.why), ((), (), why))

    async def test_search(self) -> None:
        """Short names try the search domains in order."""
        self.zone.set("app.b.example", dns.Record_A("192.0.2.1", 0))
        servers = self.servers(search="search a.example b.example")
        self.assertEqual((await servers.lookup("app")).v4, ("192.0.2.1",))
        self.assertEqual((await servers.lookup("app.")).v4, ())

    async def test_cut_answer_over_tcp(self) -> None:
        """An answer too long for a datagram is asked for again over TCP."""
        addresses = {f"192.0.2.{number}" for number in range(1, 200)}
        self.zone.set("big.example", *(dns.Record_A(address, 0) for address in addresses))
        factory = Cutting(authorities=[self.zone])
        listening = reactor.listenTCP(free_port(), factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        port = self.listen(dns.DNSDatagramProtocol(factory), listening.getHost().port)
        answer = await self.servers(self.address(port)).lookup("big.example")
        self.assertEqual(set(answer.v4 or ()), addresses)
        await until(lambda: not factory.connections)

    async def test_cut_answer_without_tcp(self) -> None:
        """A server that cuts its answer and refuses TCP is a failed lookup."""
        self.zone.set("app.example", dns.Record_A("192.0.2.1", 0))
        port = self.listen(dns.DNSDatagramProtocol(Cutting(authorities=[self.zone])))
        error = await self.assertFailure(self.servers(self.address(port)).lookup("app.example"), LookupFailed)
        self.assertIn("can't be reached: Connection refused", str(error))

    async def test_next_server(self) -> None:
        """A dead server costs nothing, and one that answers with an error or garbage is passed over."""
        self.zone.set("app.example", dns.Record_A("192.0.2.1", 0))
        dead = self.listen(Silent())
        dead_address = self.address(dead)
        await dead.stopListening()
        broken = Zone()
        broken.error = RuntimeError  # which twisted.names answers with SERVFAIL
        broken_port = self.listen(dns.DNSDatagramProtocol(server.DNSServerFactory(authorities=[broken])))
        forger = self.listen(Forger())
        answer = await self.servers(dead_address, self.address(broken_port), self.address(forger),
                                    self.address()).lookup("app.example")
        self.assertEqual(answer.v4, ("192.0.2.1",))
        self.assertTrue(broken.asked)
        self.flushLoggedErrors()

    async def test_scoped_servers(self) -> None:
        """Link-local servers that cannot be asked cost nothing, and no deferred is left with their error."""
        self.zone.set("app.example", dns.Record_A("192.0.2.1", 0))
        for bad in ("[fe80::1%lo]:53", "[fe80::1%nowhere]:53"):
            answer = await self.servers(bad, self.address()).lookup("app.example").addTimeout(1.0, reactor)
            self.assertEqual(answer.v4, ("192.0.2.1",))
            await self.assertFailure(self.servers(bad).lookup("app.example").addTimeout(1.0, reactor), LookupFailed)
            gc.collect()
            self.assertEqual(self.flushLoggedErrors(), [])

    async def test_dead_server_has_a_reason(self) -> None:
        """With the only server dead the failure comes at once and names it."""
        servers, address = self.servers(), self.address()
        await self.port.stopListening()
        error = await self.assertFailure(servers.lookup("app.example"), LookupFailed)
        self.assertEqual(str(error), f"DNS server {address} can't be reached: refused")

    async def test_hanging_server_times_out(self) -> None:
        """A server that never answers fails the lookup after its time; it was asked for each family in each round."""
        silent = Silent()
        port = self.listen(silent)
        error = await self.assertFailure(self.servers(self.address(port)).lookup("app.example"), LookupFailed)
        self.assertEqual(str(error), f"DNS server {self.address(port)} did not answer in 0.5 s")
        self.assertEqual(silent.asked, 4)

    async def test_ipv6_server(self) -> None:
        """Servers can be reached by IPv6."""
        self.zone.set("app.example", dns.Record_A("192.0.2.1", 0))
        port = self.listen(dns.DNSDatagramProtocol(self.factory), interface="::1")
        self.assertEqual((await self.servers(self.address(port)).lookup("app.example")).v4, ("192.0.2.1",))


class ResolverTests(Base):
    async def test_change_is_noticed(self) -> None:
        """A watch hears of the first addresses and, after the TTL, of the changed ones."""
        self.zone.set("app.example", dns.Record_A("192.0.2.1", 0), ttl=1)
        resolver = self.resolver()
        seen: list[Known] = []
        resolver.watch("app.example", seen.append)
        await until(lambda: len(seen) == 1)
        self.zone.set("app.example", dns.Record_A("192.0.2.2", 0), ttl=60)
        await until(lambda: len(seen) == 2)
        self.assertEqual(seen, [("192.0.2.1",), ("192.0.2.2",)])
        self.assertEqual(await resolver.resolve("app.example"), ("192.0.2.2",))

    async def test_dead_server_leaves_stale(self) -> None:
        """When the server dies, the addresses it gave stay in use."""
        self.zone.set("app.example", dns.Record_A("192.0.2.1", 0), ttl=1)
        resolver = self.resolver()
        await resolver.resolve("app.example")
        await self.port.stopListening()
        name = resolver._names["app.example"]
        resolver.watch("app.example", lambda known: None)
        await until(lambda: name.failing)
        self.assertEqual(resolver.addresses("app.example"), ("192.0.2.1",))
        self.assertEqual(await resolver.resolve("app.example"), ("192.0.2.1",))

    async def test_hanging_server(self) -> None:
        """A hanging server is a reason in the end, and the reactor never waits for it."""
        resolver = self.resolver(self.address(self.listen(Silent())))
        self.assertEqual(resolver.addresses("app.example"), ())
        error = await self.assertFailure(resolver.resolve("app.example"), Unresolvable)
        self.assertIn("did not answer", str(error))
        self.assertIn("did not answer", resolver.reason("app.example"))

    async def test_stop_during_a_lookup(self) -> None:
        """A stop in the middle of a question closes its sockets and timers: trial would complain about any left."""
        silent = Silent()
        resolver = self.resolver(self.address(self.listen(silent)))
        waiting = resolver.resolve("app.example")
        await until(lambda: silent.asked == 2)
        failed = self.assertFailure(waiting, Unresolvable)
        await resolver.stopService()
        await failed
