"""Groups whose hosts a real DNS server says."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.internet import reactor
from twisted.names import dns, server

from cluster.model import AdminState, Discover, Host
from director.checks import resolver
from director.service import DirectorService
from tests.integration.kit import BackendSite, DirectorTestCase, until
from tests.integration.test_resolver import Zone

SRV = "_http._tcp.app.example"


class DiscoveringTests(DirectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.zone = Zone()
        self.serve(0)
        self.addCleanup(lambda: self.udp.stopListening())
        self.resolver = f"127.0.0.1:{self.udp.getHost().port}"

    def serve(self, port: int) -> None:
        self.udp = reactor.listenUDP(port, dns.DNSDatagramProtocol(server.DNSServerFactory(authorities=[self.zone])),
                                     interface="127.0.0.1")

    def at(self, *addresses: str) -> None:
        self.zone.set("app.example", *(dns.Record_A(each) for each in addresses), ttl=1)

    def services(self, *records: tuple[int, int, int, str]) -> None:
        self.zone.set(SRV, *(dns.Record_SRV(*each) for each in records), ttl=1)

    async def site(self, interface: str, port: int = 0) -> int:
        """A backend that says its address; its port."""
        site = BackendSite(interface)
        await site.stop()
        site._port = reactor.listenTCP(port, site, interface=interface)
        self.addCleanup(site.stop)
        return int(site._port.getHost().port)

    async def found(self, discover: dict[str, Any], hold_s: float = 0.0, **group: Any) -> DirectorService:
        web = {"listen": ["127.0.0.1:0"], "groups": {"main": {"discover": discover, **group}}}
        return await self.director({"node": {"resolvers": [self.resolver], "resolver_hold_s": hold_s}, "services": {"web": web}})

    def hosts(self, director: DirectorService) -> set[str]:
        return {ref.host for ref in director.node.inventory.hosts}

    async def test_addresses(self) -> None:
        """Each is a host from the start, is ordered like others, and goes and comes with the name."""
        self.at("127.0.0.2", "127.0.0.3")
        port = await self.site("127.0.0.2")
        for interface in ("127.0.0.3", "127.0.0.4"):
            await self.site(interface, port)
        director = await self.found({"name": "app.example", "port": port})
        self.assertEqual(self.hosts(director), {"127.0.0.2", "127.0.0.3"})
        self.assertEqual({await self.served_by(director) for _ in range(8)}, {"127.0.0.2", "127.0.0.3"})
        [picture, _] = director.operations.picture().services[0].groups[0].hosts
        self.assertEqual((picture.discovered, picture.registered), (True, False))
        [ref] = [ref for ref in director.node.inventory.hosts if ref.host == "127.0.0.2"]
        await director.operations.order(ref, AdminState.DRAIN, who="ann", why="", deadline_s=None)
        self.assertEqual({await self.served_by(director) for _ in range(4)}, {"127.0.0.3"})
        self.at("127.0.0.2", "127.0.0.4")
        await until(lambda: self.hosts(director) == {"127.0.0.2", "127.0.0.4"}, "the change")
        self.assertEqual({await self.served_by(director) for _ in range(4)}, {"127.0.0.4"})

    async def test_services(self) -> None:
        """Targets by their names, with weights; those of a higher priority are backups."""
        for number in (2, 3, 4):
            self.zone.set(f"a{number}.example", dns.Record_A(f"127.0.0.{number}"))
        ports = [await self.site(f"127.0.0.{number}") for number in (2, 3, 4)]
        self.services((10, 3, ports[0], "a2.example"), (10, 1, ports[1], "a3.example"), (20, 0, ports[2], "a4.example"),
                      (10, 1, 80, ""))  # the root: there is no such service
        director = await self.found({"name": SRV}, scheduler="weightedroundrobin")
        names = [f"a{number + 2}.example-{port}" for number, port in enumerate(ports)]
        self.assertEqual(self.hosts(director), set(names))
        hosts = {ref.host: entry for ref, entry in director.node.inventory.hosts.items()}
        self.assertEqual([(hosts[name].spec.weight, hosts[name].spec.backup) for name in names],
                         [(3.0, False), (1.0, False), (1.0, True)])
        served = [await self.served_by(director) for _ in range(8)]
        self.assertEqual((served.count("127.0.0.2"), served.count("127.0.0.3")), (6, 2))
        self.services((10, 1, ports[2], "A4.example"))
        await until(lambda: self.hosts(director) == {names[2]}, "the change")
        self.assertEqual(await self.served_by(director), "127.0.0.4")

    async def test_failures(self) -> None:
        """Hosts stay while the server does not answer, and for the time of holding after it says that there are none."""
        self.patch(resolver, "RETRY_S", 0.2)
        self.services((1, 1, 80, "127.0.0.1"))
        director = await self.found({"name": SRV}, hold_s=1.0)
        [name] = director.node.discovering.records._names.values()
        port = self.udp.getHost().port
        await self.udp.stopListening()
        await until(lambda: name.failing, "a question without an answer")
        self.assertEqual(self.hosts(director), {"127.0.0.1-80"})
        self.services()
        self.serve(port)
        began = reactor.seconds()
        await until(lambda: not self.hosts(director), "nobody to be left")
        self.assertGreater(reactor.seconds() - began, 0.9)

    async def test_reconfigured(self) -> None:
        """Another name's hosts take the place of those of the first; without discovery they are gone. Configured ones hide
        discovered ones."""
        self.at("127.0.0.2")
        self.zone.set("other.example", dns.Record_A("127.0.0.3"), dns.Record_A("127.0.0.4"))
        director = await self.found({"name": "app.example", "port": 80})
        node, spec = director.node, director.node.inventory.services["web"].spec
        group = spec.groups["main"]
        self.assertEqual(self.hosts(director), {"127.0.0.2"})

        def change(**changes: Any) -> None:
            node.apply_service("web", replace(spec, groups={"main": replace(group, **changes)}))

        change(discover=Discover(name="other.example", port=80))
        await until(lambda: self.hosts(director) == {"127.0.0.3", "127.0.0.4"}, "the other name's")
        change(discover=Discover(name="other.example", port=80), hosts={"x": Host(address="127.0.0.3:80")})
        self.assertEqual(self.hosts(director), {"x", "127.0.0.4"})
        change(discover=None)
        self.assertEqual(self.hosts(director), set())

    async def test_no_server(self) -> None:
        """A start does not wait for ever."""
        await self.udp.stopListening()
        director = await self.found({"name": "app.example", "port": 80})
        self.assertEqual(self.hosts(director), set())
