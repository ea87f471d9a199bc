"""The control socket: backends learn who the client behind a connection is."""

from __future__ import annotations

import os
import stat
import tempfile
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.protocols import amp
from twisted.trial.unittest import TestCase

from director.doors.control_socket import GetClientAddress, UnknownPort
from director.relay.choice import native_missing
from tests.integration.kit import Client, DirectorTestCase, closed_port, reactor, service, until

#: As any AMP implementation would send it: the question is a published protocol, not whatever Twisted makes of ours.
QUESTION = b"\0\4_ask\0\x01" b"1" b"\0\x08_command\0\x10GetClientAddress" b"\0\4host\0\x09127.0.0.1" b"\0\4port\0%c%s\0\0"


class ControlSocketTests(DirectorTestCase):
    async def start(self, hosts: dict[str, str], **more: Any) -> None:
        """A director whose backends see clients' connections only: no probes."""
        data = service(hosts, group={"scheduler": "roundrobin", "health": {"probe": {"kind": "none"}}}, **more)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = f"{directory.name}/control"
        data["node"] = {"control_socket": self.path}
        self.running = await self.director(data)

    async def asking(self) -> amp.AMP:
        asking: amp.AMP = await connectProtocol(UNIXClientEndpoint(reactor, self.path), amp.AMP())
        self.addCleanup(asking.transport.abortConnection)  # type: ignore[union-attr]
        return asking

    async def who(self, asking: amp.AMP, host: str, port: int) -> tuple[str, int]:
        answer = await asking.callRemote(GetClientAddress, host=host.encode(), port=port)
        return answer["host"].decode(), answer["port"]

    async def connected(self, site: Any) -> tuple[Client, Any]:
        """A client of the director, and its address as the backend sees it."""
        before = len(site.connections)
        client = await self.client(self.running)
        await until(lambda: len(site.connections) > before and client.received, "the connection through to the backend")
        return client, site.connections[-1].transport.getPeer()

    def check(self, told: tuple[str, int], client: Client) -> None:
        local = client.transport.getHost()  # type: ignore[union-attr]
        self.assertEqual(told, (local.host, local.port))

    async def test_each_client(self) -> None:
        """Each connection's client is told apart, at once, and with either relay; many may be asked for in one go."""
        for relay in ["python", *([] if native_missing() else ["native"])]:
            site = await self.backend("a")
            await self.start({"a": site.address}, relay=relay)
            asking = await self.asking()
            pairs = [await self.connected(site) for _ in range(20)]
            told = await gatherResults([asking.callRemote(GetClientAddress, host=b"127.0.0.1", port=peer.port)
                                        for _, peer in pairs])
            for (client, _), answer in zip(pairs, told, strict=True):
                self.check((answer["host"].decode(), answer["port"]), client)

    async def test_mapped_address(self) -> None:
        """A server that listens for both families asks with an IPv4 address in an IPv6 one."""
        site = await self.backend("a")
        await self.start({"a": site.address})
        client, peer = await self.connected(site)
        self.check(await self.who(await self.asking(), "::ffff:127.0.0.1", peer.port), client)

    async def test_over(self) -> None:
        """A connection that has ended is forgotten; a port that never was ours, and nonsense, are unknown too."""
        site = await self.backend("a")
        await self.start({"a": site.address})
        asking = await self.asking()
        client, peer = await self.connected(site)
        client.close()
        await until(lambda: not self.running.node.frontends["web"].open, "the end")
        for host, port in (("127.0.0.1", peer.port), ("127.0.0.1", 1), ("nonsense", 1), ("127.0.0.1", -5)):
            await self.assertFailure(asking.callRemote(GetClientAddress, host=host.encode(), port=port), UnknownPort)

    async def test_second_try(self) -> None:
        """After a host refused, the connection to the next one is known."""
        site = await self.backend("a")
        await self.start({"dead": f"127.0.0.1:{closed_port()}", "a": site.address})
        asking = await self.asking()
        for _ in range(2):
            client, peer = await self.connected(site)
            self.check(await self.who(asking, "127.0.0.1", peer.port), client)

    async def test_proxied(self) -> None:
        """Behind a trusted proxy the client is the one that the proxy names."""
        site = await self.backend("a")
        await self.start({"a": site.address}, proxy={"accept_from": ["127.0.0.1"]})
        client = await self.client(self.running)
        client.send(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n")
        await until(lambda: site.connections, "the connection at the backend")
        peer: Any = site.connections[0].transport.getPeer()  # type: ignore[union-attr]
        self.assertEqual(await self.who(await self.asking(), peer.host, peer.port), ("192.0.2.7", 4711))

    async def test_bytes(self) -> None:
        """The question and its answer, byte by byte, as servers written for the ancestors send and read them."""
        site = await self.backend("a")
        await self.start({"a": site.address})
        client, peer = await self.connected(site)
        raw: Client = await connectProtocol(UNIXClientEndpoint(reactor, self.path), Client())
        self.clients.append(raw)
        port = str(peer.port).encode()
        raw.send(QUESTION % (len(port), port))
        await until(lambda: raw.received.endswith(b"\0\0"), "the answer")
        local = str(client.transport.getHost().port).encode()  # type: ignore[union-attr]
        self.assertEqual(raw.received, b"\0\x07_answer\0\x01" b"1" b"\0\4host\0\x09127.0.0.1" b"\0\4port\0%c%s\0\0"
                         % (len(local), local))

    async def test_mode_and_end(self) -> None:
        """Only the director's user and group may ask; nothing is left behind when it stops."""
        site = await self.backend("a")
        await self.start({"a": site.address})
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o660)
        asking = await self.asking()
        await self.stop(self.running)
        await until(lambda: asking.transport is None or asking.transport.disconnected, "the hang-up")  # type: ignore[attr-defined]
        self.assertFalse(os.path.exists(self.path))


class OffTests(TestCase):
    def test_off(self) -> None:
        """Without a control socket nothing is kept about connections."""
        from director.builder import Director

        tree = Director().service_tree(reactor)
        self.assertIsNone(tree.node.origins)
        self.assertEqual(list(tree.side_doors), [])
