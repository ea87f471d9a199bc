"""Services that share a listener: each client gets to the one that it asks for, with every byte that it has sent."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from typing import Any
from unittest.mock import patch

import msgspec
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.task import deferLater

from cluster.address import Address, parse_address
from cluster.model import Service, Sni
from director.core.proxy_protocol import encode
from director.service import DirectorService
from director.traffic import sni_router
from tests.etcd_server import free_port
from tests.integration.kit import BackendSite, Client, DirectorTestCase, reactor, until
from tests.unit.core.client_hellos import message, records, server_name, written_by_openssl

A, B, NONE = written_by_openssl("a.example.org"), written_by_openssl("x.b.example.org", ["h2"]), written_by_openssl(None)


class SniTestCase(DirectorTestCase):
    listen = ""

    def setUp(self) -> None:
        super().setUp()
        self.counted: dict[str, int] = {}

    async def serve(self, *, default: bool = True, **more: Any) -> DirectorService:
        """A director where ``a`` and ``b`` have names, and ``c`` none; no time runs out unless a test says so."""
        more = {"timeouts": {"hello_s": 60.0}, **more}
        self.listen = self.listen or f"127.0.0.1:{free_port()}"
        self.sites = {name: await self.backend(name) for name in "abc"}
        names = {"a": ["a.example.org"], "b": ["*.b.example.org", "b.example.org"]}
        services = {}
        for name, site in self.sites.items():
            if default or name in names:
                services[name] = {"listen": [self.listen], "groups": {"main": {"hosts": {"one": site.address}}}, **more}
            if name in names:
                services[name]["sni"] = {"names": names[name]}
        return await self.director({"services": services})

    async def connect(self) -> Client:
        address = parse_address(self.listen)
        endpoint = UNIXClientEndpoint(reactor, address.path) if address.path else \
            HostnameEndpoint(reactor, address.host, address.port)
        client: Client = await connectProtocol(endpoint, Client())
        self.clients.append(client)
        return client

    async def say(self, *pieces: bytes) -> Client:
        """Connect, and send one after the other."""
        client = await self.connect()
        for piece in pieces:
            client.send(piece)
            await deferLater(reactor, 0)
        return client

    async def reaches(self, client: Client, name: str, sent: bytes) -> None:
        """The client is served by that backend, which has got just what was sent."""
        await until(lambda: client.received.startswith(name.encode() + b"\n"), f"a word of {name}")
        site: BackendSite = self.sites[name]
        await until(lambda: any(each.received == sent for each in site.connections), "all that was sent")
        client.transport.abortConnection()  # type: ignore[union-attr]
        await until(lambda: not site.connections, "the end")

    async def refused(self, director: DirectorService, client: Client, outcome: str) -> None:
        self.counted[outcome] = self.counted.get(outcome, 0) + 1
        await until(lambda: client.lost, f"the refusal: {outcome}")
        await until(lambda: self.outcome(director, outcome) == self.counted[outcome], outcome)

    def outcome(self, director: DirectorService, outcome: str) -> float:
        return director.registry.get_sample_value(
            "txdirector_client_hellos_total", {"listener": self.listen, "outcome": outcome}) or 0.0

    async def balanced(self, director: DirectorService) -> None:
        await until(lambda: director.node.descriptors.places.taken == 0, "every place is given back")
        self.assertEqual((director.node.listeners.waiting, director.node.open_connections), (0, 0))


class RoutingTests(SniTestCase):
    async def test_by_name(self) -> None:
        """Whole, byte by byte, in many records: the client comes to its name's service, with every byte."""
        director = await self.serve()
        for hello, name in ((A, "a"), (B, "b"), (NONE, "c"), (b"GET / HTTP/1.0\r\n\r\n", "c"), (b"\x16\x02", "c")):
            pieces = [(hello,), tuple(bytes((byte,)) for byte in hello), (hello[:1], hello[1:7], hello[7:])]
            if hello in (A, B):
                pieces.append((records(hello[5:], 50),))
            for sent in pieces:
                client = await self.say(*sent)
                await self.reaches(client, name, b"".join(sent))
        self.assertEqual((self.outcome(director, "named"), self.outcome(director, "default")), (8, 9))
        await self.balanced(director)

    async def test_almost_tls(self) -> None:
        """What began like TLS and is none is relayed byte by byte from then on."""
        director = await self.serve()
        client = await self.connect()
        for byte, answer in ((b"\x16", b""), (b"x", b"c\n\x16X"), (b"y", b"c\n\x16XY")):
            client.send(byte)
            if answer:
                await until(lambda: client.received == answer, f"the answer {answer!r}")  # noqa: B023
            else:
                await until(lambda: director.node.listeners.waiting, "the first byte is looked at")
        client.transport.abortConnection()  # type: ignore[union-attr]
        await self.balanced(director)

    async def test_more_than_the_hello(self) -> None:
        """Early data behind the hello goes along, as much as there may be."""
        director = await self.serve()
        early = A + b"\x17\x03\x03" + bytes(200_000)
        await self.reaches(await self.say(early), "a", early)
        await self.balanced(director)

    async def test_silence_is_for_the_default_service(self) -> None:
        """A client that waits for its server to speak first gets one, after the time for a hello; so does one that is done."""
        director = await self.serve(timeouts={"hello_s": 0.2})
        await self.reaches(await self.connect(), "c", b"")
        client = await self.connect()
        client.transport.loseWriteConnection()  # type: ignore[union-attr]
        await until(lambda: client.received == b"c\n" and client.lost, "the banner and the end")
        await self.balanced(director)

    async def test_after_a_proxy_header(self) -> None:
        """The header is consumed, the hello is not; the client's address is the header's word, and its service's list asked."""
        director = await self.serve(proxy={"accept_from": ["127.0.0.0/8"], "send": "v1", "timeout_s": 60.0}, access={"deny": ["192.0.2.66"]})
        for version in ("v1", "v2"):
            header = encode(version, Address("192.0.2.1", 5000), Address("192.0.2.2", 443))  # type: ignore[arg-type]
            passed_on = encode("v1", Address("192.0.2.1", 5000), Address("192.0.2.2", 443))
            for sent in ((header + A,), (header[:9], header[9:] + A[:20], A[20:])):
                await self.reaches(await self.say(*sent), "a", passed_on + A)
        denied = await self.say(encode("v1", Address("192.0.2.66", 5000), Address("192.0.2.2", 443)) + B)
        await until(lambda: denied.lost, "the denial")
        self.assertEqual(self.ended(director, "denied", "b"), 1)
        await self.refused(director, await self.say(A), "bad_proxy_header")
        await self.balanced(director)

    async def test_unix_socket(self) -> None:
        """A UNIX listener is shared likewise."""
        folder = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, folder)
        self.listen = f"unix:{folder}/all"
        director = await self.serve(proxy={"accept_from": ["unix"], "timeout_s": 60.0})
        header = encode("v2", None, None)
        for pieces in ((header, A), (header + A,), (header[:5], header[5:] + A[:99], A[99:])):
            await self.reaches(await self.say(*pieces), "a", A)
        await self.balanced(director)


class RefusalTests(SniTestCase):
    async def test_reasons(self) -> None:
        """Without a default service, who has none is closed, for a reason that is counted; no service counts them."""
        director = await self.serve(default=False, timeouts={"hello_s": 0.3})
        for sent, outcome in (
            (written_by_openssl("other.example.org"), "no_service"), (NONE, "no_service"), (b"SSH-2.0-x\r\n", "no_service"),
            (b"", "no_service"), (A[:100], "timeout"), (A[:5] + b"\2", "bad_hello"),
            (records(message([server_name(b"a.example.org"), server_name(b"b")])), "bad_hello"),
        ):
            await self.refused(director, await self.say(sent), outcome)
        self.assertEqual([director.metrics.service(name).accepted for name in "ab"], [0, 0])
        await self.balanced(director)

    async def test_half(self) -> None:
        """A client that ends amid its hello is closed."""
        director = await self.serve()
        half = await self.say(A[:100])
        half.transport.loseWriteConnection()  # type: ignore[union-attr]
        await self.refused(director, half, "client_closed")
        await self.balanced(director)

    async def test_reset(self) -> None:
        """A client that resets amid its hello is gone at once, and is nobody's fault."""
        director = await self.serve()
        with socket.create_connection(("127.0.0.1", int(self.listen.rsplit(":", 1)[1]))) as client:
            client.sendall(A[:50])
            await until(lambda: director.node.listeners.waiting, "the hello is waited for")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: self.outcome(director, "client_reset") == 1, "the reset")
        await self.balanced(director)

    async def test_crowd(self) -> None:
        """When too many say nothing the oldest goes; who speaks is served meanwhile."""
        with patch.object(sni_router, "MAX_WAITING", 5):
            director = await self.serve()
            silent = [await self.connect() for _ in range(5)]
            await until(lambda: director.node.listeners.waiting == 5, "five are waited for")
            await self.reaches(await self.say(A), "a", A)
            sixth = await self.connect()
            await until(lambda: any(each.lost for each in silent), "the oldest is closed, in the order of the kernel's")
            self.assertFalse(sixth.lost)
            self.assertEqual(director.registry.get_sample_value(
                "txdirector_client_hellos_waiting", {"listener": self.listen}), 5)
            self.assertEqual(self.outcome(director, "crowded_out"), 1)

    async def test_crowd_of_one(self) -> None:
        """Who opens too many closes his own: an older client of another address may go on being slow."""
        with patch.object(sni_router, "MAX_WAITING", 5):
            director = await self.serve()
            slow = await self.say(A[:50])
            await until(lambda: director.node.listeners.waiting == 1, "the hello is waited for")
            port = parse_address(self.listen).port
            for _ in range(20):
                stranger = socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.9", 0))
                self.addCleanup(stranger.close)
                stranger.send(A[:1])
            await until(lambda: self.outcome(director, "crowded_out") == 16, "the stranger's first ones are closed")
            slow.send(A[50:])
            await self.reaches(slow, "a", A)

    async def test_stop(self) -> None:
        """A stop closes who has not said where to."""
        director = await self.serve(timeouts={"hello_s": 60.0, "drain_s": 0.05})
        client = await self.say(A[:50])
        await until(lambda: director.node.listeners.waiting == 1, "the hello is waited for")
        await director.stopService()
        await until(lambda: client.lost, "the end")
        await self.balanced(director)


class ChangeTests(SniTestCase):
    def service_of(self, director: DirectorService, name: str) -> Service:
        return director.node.inventory.services[name].spec

    async def apply(self, director: DirectorService, name: str, spec: Service | None) -> None:
        """As an operator's change, with all its checks."""
        await director.operations.change(name, lambda before: spec)

    async def test_names_move(self) -> None:
        """A name goes to another service, for those too who are in the midst of their hello; nobody is refused meanwhile."""
        director = await self.serve(default=False)
        client = await self.say(A[:50])
        await until(lambda: director.node.listeners.waiting == 1, "the hello is waited for")
        a, b = self.service_of(director, "a"), self.service_of(director, "b")
        await self.apply(director, "a", msgspec.structs.replace(a, sni=Sni(names=("z.example.org",))))
        await self.apply(director, "b", msgspec.structs.replace(b, sni=Sni(names=("a.example.org",))))
        client.send(A[50:])
        await self.reaches(client, "b", A)

    async def test_coming_and_going(self) -> None:
        """Services come to a listener and leave it, the first that had it included, and its socket stays the same."""
        director = await self.serve()
        listening = [each.fileno() for listeners in director.node.listeners for each in listeners]
        self.assertEqual(len(listening), 1)
        a, c = self.service_of(director, "a"), self.service_of(director, "c")
        await self.apply(director, "a", None)
        await self.reaches(await self.say(A), "c", A)
        await self.apply(director, "b", None)
        await self.reaches(await self.say(B), "c", B)
        self.assertEqual(await self.banner(), "c")  # at once: nobody waits for a hello any more
        await self.apply(director, "a", a)
        await self.reaches(await self.say(A), "a", A)
        await self.apply(director, "c", msgspec.structs.replace(c, listen=()))
        await self.refused(director, await self.say(B), "no_service")
        await self.apply(director, "c", c)
        await self.reaches(await self.say(B), "c", B)
        self.assertEqual([each.fileno() for listeners in director.node.listeners for each in listeners], listening)
        self.assertEqual(director.node.listeners.errors, {})
        await self.balanced(director)

    async def banner(self) -> str:
        client = await self.connect()
        await until(lambda: client.received, "the banner")
        client.transport.abortConnection()  # type: ignore[union-attr]
        return client.received.decode().strip()

    async def test_both_without_names(self) -> None:
        """What a shared store may come to: the listener stays with the first, the other is told, and gets it with names."""
        director = await self.serve()
        c = self.service_of(director, "c")
        d = msgspec.structs.replace(c, sni=None)
        director.node.apply_service("d", d)
        self.assertEqual(list(director.node.listeners.errors), [("d", self.listen)])
        await self.reaches(await self.say(NONE), "c", NONE)
        director.node.apply_service("d", msgspec.structs.replace(d, sni=Sni(names=("d.example.org",))))
        self.assertEqual(director.node.listeners.errors, {})
        hello = written_by_openssl("d.example.org")
        await self.reaches(await self.say(hello), "c", hello)  # whose host d's is
        self.assertEqual(director.metrics.service("d").accepted, 1)
