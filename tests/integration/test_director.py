"""A whole director with real clients and real backends: what clients see."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from agent.config import AgentConfig
from agent.service import LoadReporter
from cluster.address import Address
from cluster.model import AdminState, HostRef, HostState, Reason
from director.config.files import checked
from director.core.proxy_protocol import encode
from director.engine.errors import NotFound
from director.ports.binding import BindError
from director.service import StartError, make_service
from tests.integration.kit import DirectorTestCase, closed_port, reactor, service, until

A = HostRef("web", "main", "a")


class RelayingTests(DirectorTestCase):
    async def test_bytes_go_both_ways(self) -> None:
        """A client hears the backend's banner and its answer; the end is counted once, with its reason."""
        backend = await self.backend("a")
        director = await self.director(service({"a": backend.address}))
        client = await self.client(director)
        client.send(b"hello")
        await until(lambda: client.received == b"a\nHELLO")
        client.close()
        await until(lambda: self.ended(director, "client_closed") == 1)
        self.assertEqual(director.node.inventory.hosts[A].host.in_flight, 0)

    async def test_dead_host_is_never_seen_by_clients(self) -> None:
        """A refused connect goes to another host, with the client's bytes kept; the dead host is soon out."""
        backend = await self.backend("b")
        director = await self.director(service(
            {"a": f"127.0.0.1:{closed_port()}", "b": backend.address}, group={"scheduler": "roundrobin"}
        ))
        for _ in range(6):
            self.assertEqual(await self.served_by(director), "b")
        retries = director.registry.get_sample_value("txdirector_connection_retries_total", {"service": "web"})
        self.assertGreaterEqual(retries or 0, 3)
        entry = director.node.inventory.hosts[A]
        await until(lambda: entry.health.state is HostState.DOWN, "eviction after the grace")
        self.assertFalse(entry.host.eligible)

    async def test_nobody_left_closes_the_client(self) -> None:
        """When every try was refused the client is closed and counted as such."""
        director = await self.director(service({"a": f"127.0.0.1:{closed_port()}"}))
        self.assertEqual(await self.served_by(director), "")
        self.assertEqual(self.ended(director, "connect_failed"), 1)

    async def test_half_close_keeps_the_answer(self) -> None:
        """A client that finished sending still gets the whole answer."""
        backend = await self.backend("a")
        director = await self.director(service({"a": backend.address}))
        client = await self.client(director)
        client.send(b"x" * 300_000)
        client.transport.loseWriteConnection()  # type: ignore[union-attr]
        await until(lambda: client.lost, "the close")
        self.assertEqual(len(client.received), 300_002)

    async def test_ipv6_and_unix_sockets(self) -> None:
        """Listeners and hosts may be IPv6 or UNIX sockets."""
        path = f"{self.mktemp()[:20]}.sock"
        backend = await self.backend("a")
        inner = await self.director(service({"a": backend.address}, listen=["[::1]:0", f"unix:/tmp/{path}"]))
        v6, unix = inner.node.listeners.addresses("web")
        outer = await self.director(service({"v6": v6}))
        self.assertEqual(await self.served_by(outer), "a")
        outer = await self.director(service({"unix": unix}))
        self.assertEqual(await self.served_by(outer), "a")

    async def test_bind_error_names_the_address(self) -> None:
        """A taken address fails the start, named; nothing else is left listening."""
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        made = make_service(checked(service({"a": "127.0.0.1:1"}, listen=[address])), reactor=reactor)
        self.addCleanup(made.stopService)
        made.startService()
        with self.assertRaises(StartError) as caught:
            await made.ready
        self.assertIn(f"cannot listen on {address}: Address already in use", str(caught.exception))
        self.assertTrue(issubclass(BindError, Exception))


class LimitTests(DirectorTestCase):
    async def test_queue_serves_in_order_and_times_out(self) -> None:
        """A full service queues up to its bound; the queue is served as places come free; late ones are closed."""
        backend = await self.backend("a")
        director = await self.director(service(
            {"a": {"address": backend.address, "max_connections": 1}}, limits={"queue": 2, "queue_timeout_s": 1.0}
        ))
        first = await self.client(director)
        await until(lambda: first.received)
        second, third = await self.client(director), await self.client(director)
        await until(lambda: director.node.inventory.services["web"].admission.queued == 2)
        fourth = await self.client(director)
        await until(lambda: fourth.lost, "refusal")
        first.close()
        await until(lambda: second.received, "the queue's first")
        await until(lambda: third.lost, "the queue's timeout")
        self.assertEqual((self.ended(director, "queue_full"), self.ended(director, "queue_timeout")), (1, 1))

    async def test_service_maximum_refuses(self) -> None:
        """Without a queue a client beyond the maximum is closed at once."""
        backend = await self.backend("a")
        director = await self.director(service({"a": backend.address}, limits={"max_connections": 1}))
        first = await self.client(director)
        await until(lambda: first.received)
        second = await self.client(director)
        await until(lambda: second.lost)
        self.assertEqual(self.ended(director, "service_full"), 1)

    async def test_access_list_denies(self) -> None:
        """A denied client is closed without a host being asked."""
        backend = await self.backend("a")
        director = await self.director(service({"a": backend.address}, access={"deny": ["127.0.0.0/8"]}))
        self.assertEqual(await self.served_by(director), "")
        self.assertEqual(self.ended(director, "denied"), 1)
        self.assertEqual(director.node.inventory.hosts[A].host.picks, 0)

    async def test_maximum_age_ends_connections(self) -> None:
        """A long-lived connection is ended at its maximum age."""
        backend = await self.backend("a")
        director = await self.director(service({"a": backend.address}, timeouts={"max_age_s": 0.5}))
        client = await self.client(director)
        await until(lambda: client.lost, "the maximum age")
        await until(lambda: self.ended(director, "max_age") == 1, "its reason")

    async def test_descriptors_run_out_and_come_back(self) -> None:
        """Without descriptors accepting pauses and nobody is refused; with them again, everyone is served."""
        import resource

        backend = await self.backend("a")
        director = await self.director(service({"a": backend.address}))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        clients = [socket.socket() for _ in range(5)]
        for each in clients:
            self.addCleanup(each.close)
            each.setblocking(False)
        host, port = director.node.listeners.addresses("web")[0].rsplit(":", 1)
        spare = socket.socket()
        used = spare.fileno()
        spare.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        try:
            for each in clients:
                each.connect_ex((host, int(port)))
            await deferLater(reactor, 0.3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        banners: list[bytes] = []

        def all_served() -> bool:
            for each in clients:
                try:
                    banners.append(each.recv(10))
                except BlockingIOError:
                    continue
            return banners.count(b"a\n") == len(clients)

        await until(all_served, "service after the shortage")


class ProxyProtocolTests(DirectorTestCase):
    async def test_header_reaches_the_host_before_the_clients_bytes(self) -> None:
        """Version 1 and 2 out: the host reads the header first, then what the client sent."""
        for version, start in (("v1", b"PROXY TCP4 127.0.0.1 127.0.0.1 "), ("v2", b"\r\n\r\n\0\r\nQUIT\n")):
            backend = await self.backend("a")
            director = await self.director(service({"a": backend.address}, proxy={"send": version}))
            client = await self.client(director)
            client.send(b"payload")
            await until(lambda site=backend: site.connections and site.connections[-1].received.endswith(b"payload"))
            self.assertTrue(backend.connections[-1].received.startswith(start))

    async def test_trusted_header_is_the_clients_address(self) -> None:
        """In from a trusted network: the header is taken off, access lists and the next header go by its source."""
        backend = await self.backend("a")
        director = await self.director(service(
            {"a": backend.address},
            proxy={"accept_from": ["127.0.0.0/8"], "send": "v1"}, access={"deny": ["192.0.2.66"]},
        ))
        client = await self.client(director)
        for piece in (b"PROXY TCP4 192.0.2.1 ", b"198.51.100.7 5000 80", b"\r\nhi"):
            client.send(piece)
            await deferLater(reactor, 0.05)
        await until(lambda: backend.connections and backend.connections[0].received.endswith(b"hi"))
        self.assertEqual(backend.connections[0].received, b"PROXY TCP4 192.0.2.1 198.51.100.7 5000 80\r\nhi")
        denied = await self.client(director)
        denied.send(b"PROXY TCP4 192.0.2.66 198.51.100.7 5000 80\r\n")
        await until(lambda: denied.lost)
        garbage = await self.client(director)
        garbage.send(b"GET / HTTP/1.0\r\n\r\n")
        await until(lambda: garbage.lost)
        silent = await self.client(director)
        silent.send(b"PROXY")
        silent.transport.loseWriteConnection()  # type: ignore[union-attr]
        await until(lambda: silent.lost)
        self.assertEqual((self.ended(director, "denied"), self.ended(director, "bad_proxy_header")), (1, 2))

    async def test_a_check_of_the_proxy_is_no_bad_header(self) -> None:
        """A proxy that only looks whether the director is there resets before its header, or anything, is read."""
        director = await self.director(service({"a": f"127.0.0.1:{closed_port()}"}, proxy={"accept_from": ["127.0.0.0/8"]}))
        host, port = director.node.listeners.addresses("web")[0].rsplit(":", 1)
        for said in (b"", encode("v1", None, None), encode("v2", None, None)):
            with socket.create_connection((host, int(port))) as proxy:
                proxy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                proxy.sendall(said)
        await until(lambda: self.ended(director, "client_reset") == 3)
        self.assertEqual(self.ended(director, "bad_proxy_header"), 0)


    async def test_extensions(self) -> None:
        """What a proxy says besides is passed on; a header with a wrong checksum, or a broken one, is refused."""
        backend = await self.backend("a")
        director = await self.director(service(
            {"a": backend.address}, proxy={"accept_from": ["127.0.0.0/8"], "send": "v2"}))
        ends = Address("192.0.2.1", 5000), Address("198.51.100.7", 80)
        said = encode("v2", *ends, extensions=b"\x02\0\x07example")
        for sums, refused in ((b"", 0), (b"\x03\0\x04abcd", 1), (b"\x03\0\x05abcd", 2)):
            client = await self.client(director)
            client.send(encode("v2", *ends, extensions=b"\x02\0\x07example" + sums) + b"hi")
            if not refused:
                await until(lambda: backend.connections and backend.connections[0].received.endswith(b"hi"))
                self.assertEqual(backend.connections[0].received, said + b"hi")
            else:
                await until(lambda: client.lost, "the refusal")  # noqa: B023
            self.assertEqual(self.ended(director, "bad_proxy_header"), refused)


class OrderTests(DirectorTestCase):
    async def order(self, director: Any, state: AdminState, **more: Any) -> None:
        await director.operations.order(A, state, who="ann", why="test", **more)

    async def test_drain_lets_open_connections_finish_and_takes_no_new(self) -> None:
        """A drained host keeps its connection and gets no new one; up brings it back."""
        a, b = await self.backend("a"), await self.backend("b")
        director = await self.director(service({"a": a.address, "b": b.address}, group={"scheduler": "roundrobin"}))
        client = await self.client(director)
        await until(lambda: client.received == b"a\n")
        await self.order(director, AdminState.DRAIN)
        self.assertEqual({await self.served_by(director) for _ in range(4)}, {"b"})
        client.send(b"still here")
        await until(lambda: client.received.endswith(b"STILL HERE"))
        await self.order(director, AdminState.UP)
        self.assertIn("a", {await self.served_by(director) for _ in range(4)})

    async def test_drain_deadline_cuts(self) -> None:
        """What is open at the drain's deadline is cut, and counted as such."""
        a, b = await self.backend("a"), await self.backend("b")
        director = await self.director(service({"a": a.address, "b": b.address}, group={"scheduler": "roundrobin"}))
        client = await self.client(director)
        await until(lambda: client.received == b"a\n")
        await self.order(director, AdminState.DRAIN, deadline_s=0.5)
        await until(lambda: client.lost, "the deadline")
        self.assertEqual(self.ended(director, "drain_deadline"), 1)

    async def test_orders_and_weights_survive_a_restart(self) -> None:
        """With a file store, what was ordered through the admin holds after a restart with the same file."""
        a = await self.backend("a")
        data = service({"a": a.address, "b": a.address}) | {"node": {"store": f"file:{Path(self.mktemp()).absolute()}"}}
        director = await self.director(data)
        await self.order(director, AdminState.DRAIN)
        await director.operations.set_weight(A._replace(host="b"), 3.5, who="ann")
        await director.stopService()
        again = await self.director(data)
        self.assertIs(again.node.inventory.hosts[A].admin, AdminState.DRAIN)
        self.assertEqual(again.node.inventory.hosts[A._replace(host="b")].spec.weight, 3.5)

    async def test_file_that_changed_wins_over_the_store(self) -> None:
        """A service that the operator edited in the file is taken from the file at the next start."""
        a = await self.backend("a")
        node = {"node": {"store": f"file:{Path(self.mktemp()).absolute()}"}}
        director = await self.director(service({"a": a.address}) | node)
        await director.operations.set_weight(A, 3.5, who="ann")
        await director.stopService()
        again = await self.director(service({"a": {"address": a.address, "weight": 2.0}}) | node)
        self.assertEqual(again.node.inventory.hosts[A].spec.weight, 2.0)

    async def test_kill_by_host_resets_its_connections_only(self) -> None:
        """Cutting one host's connections leaves the others alone."""
        a, b = await self.backend("a"), await self.backend("b")
        director = await self.director(service({"a": a.address, "b": b.address}, group={"scheduler": "roundrobin"}))
        first, second = await self.client(director), await self.client(director)
        await until(lambda: first.received == b"a\n" and second.received == b"b\n")
        director.node.cut_host(director.node.inventory.hosts[A], Reason.KILLED)
        await until(lambda: first.lost)
        second.send(b"hi")
        await until(lambda: second.received.endswith(b"HI"))


class AgentTests(DirectorTestCase):
    async def reporter(self, director: Any, **more: Any) -> LoadReporter:
        fields = {"name": "app", "directors": (str(director.agents.ports[0].address),), "hosts": (str(A),),
                  "interval_s": 0.1, "leave_deadline_s": 0.0, **more}
        reporter = LoadReporter(AgentConfig(**fields), reactor=reactor)
        reporter.startService()
        self.addCleanup(lambda: reporter.stopService() if reporter.running else None)
        return reporter

    def with_agents(self, data: dict[str, Any]) -> dict[str, Any]:
        return data | {"node": {"agents": {"listen": ["127.0.0.1:0"], "interval_s": 0.1}}}

    async def test_agent_leaves_and_comes_back(self) -> None:
        """An agent's farewell drains its host; its next start clears that."""
        a, b = await self.backend("a"), await self.backend("b")
        director = await self.director(self.with_agents(service({"a": a.address, "b": b.address})))
        entry = director.node.inventory.hosts[A]
        reporter = await self.reporter(director)
        await until(lambda: entry.report is not None, "the first report")
        await reporter.stopService()
        await until(lambda: entry.admin is AdminState.DRAIN, "the farewell")
        await until(lambda: entry.agent is None)
        self.assertEqual({await self.served_by(director) for _ in range(3)}, {"b"})
        await self.reporter(director)
        await until(lambda: entry.admin is AdminState.UP, "the return")

    async def test_host_joins_by_registration(self) -> None:
        """With registration on, a host that its agent announces takes clients; an operator's drain reaches the agent."""
        n = await self.backend("n")
        data = self.with_agents(service({}, group={"registration": {"mode": "auto"}}))
        director = await self.director(data)
        ref = A._replace(host="n")
        ordered: list[Any] = []
        fields = AgentConfig(name="n", directors=(str(director.agents.ports[0].address),), hosts=(str(ref),),
                             register=n.address, interval_s=0.1, leave_deadline_s=0.0)
        reporter = LoadReporter(fields, reactor=reactor, ordered=ordered.append)
        reporter.startService()
        self.addCleanup(reporter.stopService)
        await until(lambda: ref in director.node.inventory.hosts, "registration")
        self.assertEqual(await self.served_by(director), "n")
        entry = director.node.inventory.hosts[ref]
        await until(lambda: entry.report is not None, "reports of the registered host")
        await director.operations.order(ref, AdminState.DRAIN, who="ann", why="test")
        await until(lambda: ordered, "the order")

    async def test_registered_host_waits_for_approval(self) -> None:
        """Where registrations need approval, the host takes clients once an operator approved it, and not before."""
        n = await self.backend("n")
        director = await self.director(self.with_agents(service({}, group={"registration": {"mode": "approve"}})))
        ref = A._replace(host="n")
        with self.assertRaises(NotFound):
            await director.operations.approve(ref, who="ann")
        await self.reporter(director, name="n", hosts=(str(ref),), register=n.address)
        await until(lambda: director.node.inventory.registered(ref), "registration")
        self.assertEqual(await self.served_by(director), "")
        await director.operations.approve(ref, who="ann")
        self.assertEqual(await self.served_by(director), "n")
        entry = director.node.inventory.hosts[ref]
        await until(lambda: entry.report is not None, "reports of the approved host")

    async def test_broken_agent_connection_is_suspicion_only(self) -> None:
        """An agent that vanishes makes its host suspect within a moment; a probe that passes keeps it in rotation."""
        a = await self.backend("a")
        director = await self.director(self.with_agents(service({"a": a.address})))
        entry = director.node.inventory.hosts[A]
        with socket.create_connection(_pair(str(director.agents.ports[0].address))) as agent:
            agent.sendall(b'{"type":"hello","version":1,"agent":"x","boot_id":"1","hosts":[{"host":"web/main/a"}]}\n')
            agent.sendall(b'{"type":"report","seq":1,"load":{}}\n')
            await until(lambda: entry.report is not None, "the report")
            agent.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: entry.health.state is HostState.SUSPECT, "suspicion")
        await until(lambda: entry.health.last_check is not None and entry.health.last_check.ok)
        self.assertEqual(await self.served_by(director), "a")


def _pair(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)


class ShutdownTests(DirectorTestCase):
    async def test_open_connections_finish_before_the_stop(self) -> None:
        """Stopping takes no new clients, lets open ones finish, and then ends."""
        a = await self.backend("a")
        director = await self.director(service({"a": a.address}))
        client = await self.client(director)
        await until(lambda: client.received)
        stopped = director.stopService()
        done: list[object] = []
        stopped.addBoth(done.append)
        client.send(b"more")
        await until(lambda: client.received.endswith(b"MORE"))
        self.assertEqual(done, [])
        client.close()
        await until(lambda: done, "the stop")

    async def test_drain_deadline_ends_the_wait(self) -> None:
        """Connections that do not finish in time are cut as `shutdown`."""
        a = await self.backend("a")
        director = await self.director(service({"a": a.address}, timeouts={"drain_s": 0.3}))
        client = await self.client(director)
        await until(lambda: client.received)
        await director.stopService()
        await until(lambda: client.lost)
        self.assertEqual(self.ended(director, "shutdown"), 1)
