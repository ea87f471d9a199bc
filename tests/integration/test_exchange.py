"""Two whole directors and their peer link: what one hears, the other knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from cluster import wire
from cluster.model import AdminState, HostRef, HostState, LoadReport, Member, Order
from cluster.model import Peers as Config
from director.ha.exchange import Exchange
from director.ha.peers import Peers
from director.service import DirectorService
from tests.integration.kit import Client, DirectorTestCase, reactor, service, until

REF = HostRef("web", "main", "app")


class Side:
    """A director with its half of the link."""

    def __init__(self, director: DirectorService, name: str, secret: str) -> None:
        self.director = director
        self.store = True
        self.peers = Peers(Config(listen="127.0.0.1:0", secret_file=secret), cluster="c", director=name, boot_id=name,
                           reactor=reactor)
        self.exchange = Exchange(self.peers, director.node, director.attendance, store_answers=lambda: self.store)
        self.peers.startService()

    @property
    def entry(self) -> Any:
        return self.director.node.inventory.hosts[REF]


class ExchangeTestCase(DirectorTestCase):
    async def sides(self, data: dict[str, Any]) -> tuple[Side, Side]:
        secret = Path(self.mktemp())
        secret.write_text("a secret of these tests only")
        secret.chmod(0o600)
        sides = []
        for name in ("d1", "d2"):
            side = Side(await self.director({"node": {"agents": {"listen": ["127.0.0.1:0"]}}, **data}), name, str(secret))
            self.addCleanup(lambda side=side: side.peers.stopService() if side.peers.running else None)
            sides.append(side)
        members = {side.peers.director: Member(name=side.peers.director, boot_id="b", version="1", started=0.0,
                                               peers=str(side.peers.address)) for side in sides}
        for side in sides:
            side.peers.set_members(members)
        await until(lambda: all(side.exchange.alive for side in sides), "linked")
        return sides[0], sides[1]

    async def agent(self, side: Side) -> Agent:
        address = side.director.agents.ports[0].address
        agent: Agent = await connectProtocol(HostnameEndpoint(reactor, address.host, address.port), Agent())
        self.clients.append(agent)
        await until(lambda: agent.received, "a welcome")
        return agent


class Agent(Client):
    """Speaks for the host, to one director only."""

    def connectionMade(self) -> None:
        self.wire = wire.Conversation(wire.Role.AGENT)
        self.seq = 0
        self.send(self.wire.send(wire.Hello(version=1, agent="a", boot_id="b", hosts=[wire.HostClaim(host=str(REF))])))

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.wire.receive_data(data)
        self.wire.next_message()

    def report(self, **load: Any) -> None:
        self.seq += 1
        self.send(self.wire.send(wire.Report(seq=self.seq, load=LoadReport(**load))))


class ReportTests(ExchangeTestCase):
    async def test_agent_that_reaches_one_director(self) -> None:
        """The other director has its load, weight and state, and how old that is; it does not count as heard here."""
        backend = await self.backend("app")
        one, two = await self.sides(service({"app": backend.address}))
        agent = await self.agent(one)
        agent.report(utilisation=0.25, weight=0.5)
        await until(lambda: two.entry.report is not None, "forwarded")
        self.assertEqual(two.entry.report, one.entry.report)
        self.assertEqual(two.entry.agent_weight, 0.5)
        self.assertIsNone(two.entry.health.heartbeat_age(two.director.node.monotonic()))
        self.assertLess(two.director.node.monotonic() - two.entry.report_at, 3.0)
        agent.report(state="drain")
        await until(lambda: two.entry.admin is AdminState.DRAIN, "the agent's drain")
        agent.report(utilisation=0.5)
        await until(lambda: two.entry.admin is AdminState.UP, "and its end")

    async def test_own_ears(self) -> None:
        """A director that hears the agent itself is not told: nothing is forwarded at steady state."""
        backend = await self.backend("app")
        one, two = await self.sides(service({"app": backend.address}))
        agents = [await self.agent(side) for side in (one, two)]
        for agent in agents:
            agent.report(utilisation=0.25)
        await until(lambda: one.entry.report and two.entry.report, "both hear")
        await until(lambda: not one.exchange._forwarding._wanted["d2"], "and say so")
        forwarded = []
        two.director.attendance.relayed = lambda ref, report, age_s: forwarded.append(ref)  # type: ignore[method-assign]
        beats = []
        two.exchange.on_alive.append(beats.append)
        while len(beats) < 3:
            for agent in agents:
                agent.report(utilisation=0.5)
            seen = len(beats)
            await until(lambda seen=seen: len(beats) > seen, "a beat")
        self.assertEqual(forwarded, [])


class TableTests(ExchangeTestCase):
    async def test_clients_stay_over_a_change_of_director(self) -> None:
        """Clients keep their host when they come to the other director, those from before the link as well."""
        backends = [await self.backend(name) for name in ("b1", "b2", "b3")]
        data = service({each.name: each.address for each in backends}, sticky={"mode": "table"},
                       proxy={"accept_from": ["127.0.0.1/32"]}, group={"scheduler": "roundrobin"})
        one, two = await self.sides(data)
        hosts = {n: await self.served(one, n) for n in range(9)}
        self.assertEqual(len(set(hosts.values())), 3)
        table = two.director.node.inventory.services["web"].groups["main"].pool.scheduler
        await until(lambda: table.entries == 9, "told")
        self.assertEqual({n: await self.served(two, n) for n in range(9)}, hosts)

    async def served(self, side: Side, client: int) -> str:
        """Which host serves the client with this number, who comes through a proxy."""
        connection = await self.client(side.director)
        connection.send(f"PROXY TCP4 192.0.2.{client} 192.0.2.99 1 80\r\n".encode())
        await until(lambda: connection.received.endswith(b"\n"), "a banner")
        connection.close()
        return connection.received.decode().strip()


class AliveTests(ExchangeTestCase):
    async def test_what_peers_say(self) -> None:
        """Each knows whether the other reaches the store, and the open connections of its draining hosts; of a peer that
        says nothing of a host it is unknown, not 0."""
        backend = await self.backend("app")
        one, two = await self.sides(service({"app": backend.address}))
        client = await self.client(one.director)
        await until(lambda: client.received, "connected")
        self.assertEqual(two.exchange.in_flight(REF), {"d1": None})
        order = Order(state=AdminState.DRAIN, who="test", at=0.0)
        one.director.node.set_order(REF, "operator", order)
        await until(lambda: two.exchange.in_flight(REF) == {"d1": 1}, "counted")
        client.close()
        await until(lambda: two.exchange.in_flight(REF) == {"d1": 0}, "down to 0")
        self.assertTrue(two.exchange.alive["d1"].store)
        one.store = False
        await until(lambda: not two.exchange.alive["d1"].store, "away")
        self.assertIs(one.entry.health.state, HostState.UP)

    async def test_peer_that_leaves(self) -> None:
        """What a peer said is forgotten with it."""
        one, two = await self.sides(service({"app": "127.0.0.1:1"}))
        await two.peers.stopService()
        await until(lambda: not one.exchange.alive, "forgotten")
        self.assertEqual(one.exchange.in_flight(REF), {})
