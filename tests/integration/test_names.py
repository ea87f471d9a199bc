"""Hosts that are found by names: of several addresses, and of addresses that change."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.names import dns, server

from cluster.model import HostRef, HostState
from director.checks.resolver import DOUBT_S
from director.service import DirectorService
from tests.integration.kit import BackendSite, DirectorTestCase, service, until
from tests.integration.test_resolver import Zone

REF = HostRef("web", "main", "a")


class NameTests(DirectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.zone = Zone()
        udp = reactor.listenUDP(0, dns.DNSDatagramProtocol(server.DNSServerFactory(authorities=[self.zone])),
                                interface="127.0.0.1")
        self.addCleanup(udp.stopListening)
        self.node = {"node": {"resolvers": [f"127.0.0.1:{udp.getHost().port}"]}}

    def at(self, *addresses: str) -> None:
        """Where the name leads."""
        self.zone.set("app.example", *(dns.Record_A(each) for each in addresses), ttl=3600)

    async def site(self, interface: str, name: str = "a", port: int = 0) -> Any:
        """A backend on *interface*; its port."""
        site = BackendSite(name)
        await site.stop()
        site._port = reactor.listenTCP(port, site, interface=interface)
        self.addCleanup(site.stop)
        return site, site._port.getHost().port

    async def named(self, address: str, **health: Any) -> DirectorService:
        return await self.director(self.node | service({"a": address}, group={"health": {
            "interval_s": 0.2, "suspect_interval_s": 0.1, **health}}))

    def state(self, director: DirectorService) -> HostState:
        return director.node.inventory.hosts[REF].health.state

    def passed(self, director: DirectorService) -> bool:
        check = director.node.inventory.hosts[REF].health.last_check
        return check is not None and check.ok

    async def test_localhost_on_ipv6_only(self) -> None:
        """Of two addresses only the second is listened on: all clients are served, and the host stays up, probed or not."""
        _, port = await self.site("::1")
        for probe in ({"kind": "none"}, {"kind": "tcp"}):
            director = await self.named(f"localhost:{port}", probe=probe)
            for _ in range(5):
                self.assertEqual(await self.served_by(director), "a")
            if probe["kind"] == "tcp":
                await until(lambda director=director: self.passed(director), "a probe")
            self.assertIs(self.state(director), HostState.UP)
            self.assertEqual(director.node.inventory.hosts[REF].connect_failures, 0)

    async def test_the_one_that_works_is_kept(self) -> None:
        """Another address that comes first in order is not taken while the one in use works; when it fails, it is."""
        self.at("127.0.0.2", "127.0.0.3")
        third, port = await self.site("127.0.0.3", "third")
        director = await self.named(f"app.example:{port}")
        await until(lambda: self.passed(director), "a probe")
        await self.site("127.0.0.2", "second", port)
        for _ in range(3):
            self.assertEqual(await self.served_by(director), "third")
        await third.stop()
        for _ in range(3):
            self.assertEqual(await self.served_by(director), "second")
        self.assertEqual(self.ended(director, "connect_failed"), 0)

    async def test_a_move(self) -> None:
        """The record has moved, its TTL is an hour, the old server is gone: a failure asks anew, and the host is back soon."""
        for probe in ({"kind": "none"}, {"kind": "tcp"}):
            self.at("127.0.0.2")
            old, port = await self.site("127.0.0.2", "old")
            director = await self.named(f"app.example:{port}", probe=probe, down_interval_s=60)
            await until(lambda director=director: director.node.inventory.hosts[REF].target, "an address")
            self.assertEqual(await self.served_by(director), "old")
            new, _ = await self.site("127.0.0.3", "new", port)
            self.at("127.0.0.3")
            await old.stop()
            served = ""
            while served != "new":
                served = await self.served_by(director)
            await new.stop()
            await self.stop(director)

    async def test_retry_asks_anew(self) -> None:
        """An operator's retry finds the new address at once, though nothing has failed yet."""
        self.at("127.0.0.2")
        _, port = await self.site("127.0.0.2", "old")
        director = await self.named(f"app.example:{port}", interval_s=60)
        await until(lambda: self.passed(director), "a probe")
        await self.site("127.0.0.3", "new", port)
        self.at("127.0.0.3")
        await deferLater(reactor, DOUBT_S)  # which is how long an answer is beyond doubt
        await director.node.probing.retry(REF)
        self.assertEqual(await self.served_by(director), "new")

    async def test_a_probe_elsewhere_by_name(self) -> None:
        """A probe's own address may be a name."""
        _, port = await self.site("127.0.0.1")
        director = await self.named(f"127.0.0.1:{port}", probe={"kind": "tcp", "address": f"localhost:{port}"})
        await until(lambda: self.passed(director), "a probe")

    async def test_doubts_are_limited(self) -> None:
        """However often a host fails, its name is asked once a second at most."""
        self.at("127.0.0.2")
        _, port = await self.site("127.0.0.9")
        director = await self.named(f"app.example:{port}", probe={"kind": "none"})
        await until(lambda: director.node.inventory.hosts[REF].target, "an address")
        began, asked = reactor.seconds(), len(self.zone.asked)
        for _ in range(20):
            client = await self.client(director)
            await until(lambda client=client: client.lost, "the end")
        self.assertLessEqual(len(self.zone.asked) - asked, 2 * (2 + reactor.seconds() - began))
