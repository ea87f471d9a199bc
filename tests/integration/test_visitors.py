"""Clients are listed and cut one by one, and a director within another program keeps its process to itself."""

from __future__ import annotations

from typing import Any

from director.admin.control import Caller, Role
from director.engine.errors import Conflict, Invalid, NotFound
from director.service import DirectorService
from tests.integration.kit import Client, DirectorTestCase, service, until

ADA = Caller("ada", Role.FULL, "test")


class VisitorsCase(DirectorTestCase):
    async def do(self, director: DirectorService, name: str, **arguments: object) -> Any:
        return await director.control.call(ADA, name, arguments)


class ConnectionTests(VisitorsCase):
    async def test_list_and_kill(self) -> None:
        """Open connections are listed, the oldest first, with their bytes; the one that is named is cut, and counted
        as killed, and no other."""
        site = await self.backend("a")
        director = await self.director(service({"a": site.address}))
        clients: list[Client] = []
        for _ in range(3):
            clients.append(await self.client(director))
            await until(lambda: clients[-1].received == b"a\n")
        clients[0].send(b"hello")
        await until(lambda: clients[0].received == b"a\nHELLO")
        listed = await self.do(director, "connections", service="web", limit=2)
        self.assertEqual((listed.total, len(listed.connections)), (3, 2))
        first = listed.connections[0]
        host = clients[0].transport.getHost()  # type: ignore[union-attr]
        self.assertEqual(first.client, f"{host.host}:{host.port}")
        self.assertEqual((first.group, first.host, first.to_host, first.to_client), ("main", "a", 5, 7))
        self.assertGreaterEqual(first.age_s, listed.connections[1].age_s)
        killed = await self.do(director, "kill_connection", service="web", client=first.client)
        self.assertEqual(killed.killed, 1)
        await until(lambda: clients[0].lost)
        await until(lambda: self.ended(director, "killed") == 1)
        self.assertEqual((await self.do(director, "connections", service="web")).total, 2)
        self.assertIsNone(clients[1].lost)

    async def test_queued(self) -> None:
        """A client in the queue is listed without a host, and can be cut there."""
        site = await self.backend("a")
        director = await self.director(service({"a": site.address}, limits={"max_connections": 1, "queue": 5}))
        served = await self.client(director)
        await until(lambda: served.received == b"a\n")
        waiting = await self.client(director)
        await until(lambda: director.node.open_connections == 2)
        queued = (await self.do(director, "connections", service="web")).connections[1]
        self.assertEqual((queued.host, queued.idle_s), (None, None))
        await self.do(director, "kill_connection", service="web", client=queued.client)
        await until(lambda: waiting.lost)
        self.assertEqual(director.node.open_connections, 1)

    async def test_deleted_service(self) -> None:
        """Clients of a deleted service are served on, listed under its name, counted, and can be cut; so are those of a new
        service of that name; and with the last one the name is gone."""
        site = await self.backend("a")
        director = await self.director(service({"a": site.address}))
        clients = [await self.client(director) for _ in range(3)]
        await until(lambda: all(client.received == b"a\n" for client in clients))
        spec = director.node.inventory.services["web"].spec
        await self.do(director, "del_service", service="web")
        clients[0].send(b"hello")
        await until(lambda: clients[0].received == b"a\nHELLO", "the answer")
        listed = await self.do(director, "connections", service="web")
        self.assertEqual((listed.total, len(listed.connections)), (3, 3))
        self.assertEqual(director.operations.picture().retired, {"web": 3})
        value = director.registry.get_sample_value
        self.assertEqual(value("txdirector_deleted_service_connections", {"service": "web"}), 3)
        await self.do(director, "kill_connection", service="web", client=listed.connections[0].client)
        await until(lambda: clients[0].lost and self.ended(director, "killed") == 1, "the cut")
        director.node.apply_service("web", spec)
        clients.append(await self.client(director))
        await until(lambda: clients[3].received == b"a\n")
        self.assertEqual((await self.do(director, "connections", service="web")).total, 3)
        director.node.apply_service("web", None)
        for client in clients[1:]:
            client.close()
        await until(lambda: not director.operations.picture().retired, "the last one's end")
        await until(lambda: value("txdirector_connections_accepted_total", {"service": "web"}) is None, "the counters' end")
        with self.assertRaises(NotFound):
            await self.do(director, "connections", service="web")

    async def test_nobody(self) -> None:
        """A client that is not there, or cannot be told from others, is refused."""
        director = await self.director(service({}))
        for client, kind in (("127.0.0.1:1", NotFound), ("unix", Invalid), ("unix:/x", Invalid), ("a.b:1", Invalid)):
            with self.assertRaises(kind):
                await self.do(director, "kill_connection", service="web", client=client)
        with self.assertRaises(NotFound):
            await self.do(director, "connections", service="nothing")


class BadHostsTests(VisitorsCase):
    async def test_current_and_historic(self) -> None:
        """A host that fails its checks is bad now; once it passes again, its failure is history."""
        site = await self.backend("a")
        health = {"interval_s": 0.05, "suspect_interval_s": 0.05, "down_interval_s": 0.05, "jitter": 0.0, "fall": 1,
                  "rise": 1, "suspect_after_s": 0.1, "timeout_s": 0.2}
        director = await self.director(service({"a": site.address}, group={"health": health}))
        self.assertEqual((await self.do(director, "bad_hosts")).current, ())
        port = int(site.address.rpartition(":")[2])
        await site.stop()
        await until(lambda: director.operations.picture().host("web", "main", "a").state.value == "down")
        bad = await self.do(director, "bad_hosts")
        self.assertEqual([host.name for host in bad.current], ["a"])
        await self.backend("a", port)
        await until(lambda: director.operations.picture().host("web", "main", "a").state.value == "up")
        bad = await self.do(director, "bad_hosts")
        self.assertEqual(bad.current, ())
        self.assertEqual((bad.historic[0].host, bad.historic[0].transition.after.value), ("a", "down"))


class EmbeddedTests(VisitorsCase):
    async def test_no_process_of_its_own(self) -> None:
        """A director within another program neither stops it nor touches its log."""
        director = await self.director(service({}))
        for name in ("reopen_logs", "reload", "shutdown"):
            with self.assertRaises(Conflict):
                await self.do(director, name)
