"""TLS with a service's clients: who sees which certificate, who is turned away, and what becomes of open connections."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLServerConnectionCreator
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from cluster.model import TLS, Reason
from director.config.files import checked
from director.core.proxy_protocol import Header, decode
from director.ports.tls import ServerTLS, server_options
from director.service import DirectorService
from tests.contract.relay_kit import receive, receive_until_reset
from tests.contract.tls_kit import TLSPeer
from tests.etcd_server import free_port
from tests.integration.kit import DEADLINE_S, Backend, BackendSite, DirectorTestCase, reactor, until
from tests.integration.pki import Authority


@implementer(IHandshakeListener)
class SecureBackend(Backend):
    """A `Backend` that speaks TLS."""

    site: SecureSite

    def connectionMade(self) -> None:
        self.site.connections.append(self)
        self.transport.startTLS(self.site)  # type: ignore[union-attr]

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        connection = transport.protocol._tlsConnection
        self.site.names.append(connection.get_servername())
        self.site.agreed.append(connection.get_alpn_proto_negotiated())
        transport.write(self.site.name.encode() + b"\n")


@implementer(IOpenSSLServerConnectionCreator)
class SecureSite(BackendSite):
    def __init__(self, name: str, options: ServerTLS) -> None:
        super().__init__(name)
        self._options = options
        self.names: list[bytes | None] = []  #: that were asked for
        self.agreed: list[bytes | None] = []  #: protocols

    def buildProtocol(self, addr: Any) -> Backend:
        return SecureBackend(self)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return self._options.serverConnectionForTLS(tlsProtocol)

    def choose(self, *protocols: bytes) -> None:
        """Before the first connection."""
        self._options.files.current().set_alpn_select_callback(
            lambda _, theirs: next(each for each in theirs if each in protocols))


class TLSTestCase(DirectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.authority = Authority(self.folder)
        self.issued: dict[str, tuple[str, str]] = {}

    def pairs(self, *names: str) -> list[dict[str, str]]:
        """A certificate for each name, and for all that a comma separates."""
        found = []
        for each in names:
            self.issued[each] = certificate, key = self.authority.issue(*each.split(","))
            found.append({"certificate": certificate, "key": key})
        return found

    async def serve(self, *names: str, service: dict[str, Any] | None = None, **tls: Any) -> DirectorService:
        self.site = await self.backend("one")
        tls = {"certificates": self.pairs(*names or ("a.example.org",)), **tls}
        web = {"listen": ["127.0.0.1:0"], "groups": {"main": {"hosts": {"one": self.site.address}}}, "tls": tls}
        director = await self.director({"services": {"web": {**web, **(service or {})}}})
        self.port = int(director.node.listeners.addresses("web")[0].rpartition(":")[2])
        return director

    def openssl(self, *options: str, name: str = "a.example.org", until: str = "\n---\n", said: str = "") -> Any:
        """What ``openssl s_client`` prints up to some words, or its end; then it is stopped."""
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.port}", "-CAfile", self.authority.path,
                   "-servername", name, "-verify_return_error", *options]

        def run() -> str:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
                assert client.stdin is not None and client.stdout is not None
                client.stdin.write(said.encode())
                client.stdin.flush()
                printed = b""
                while until.encode() not in printed and select.select([client.stdout], [], [], DEADLINE_S)[0]:
                    piece = os.read(client.stdout.fileno(), 65536)
                    if not piece:
                        break
                    printed += piece
                client.kill()
            return printed.decode("ascii", "replace")

        return deferToThread(run)

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port))
        self.addCleanup(sock.close)
        return sock

    def peer(self, name: str = "a.example.org") -> TLSPeer:
        """A client that has done its handshake; for other threads than the reactor's."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        peer = TLSPeer(self.connect(), context)
        peer.sock.settimeout(20)
        peer.tls.set_connect_state()
        peer.tls.set_tlsext_host_name(name.encode())
        peer._until_done("do_handshake")
        return peer

    def ended(self, director: DirectorService, reason: Reason) -> int:
        return int(director.metrics.service("web").ended[reason])

    async def balanced(self, director: DirectorService) -> None:
        await until(lambda: director.node.descriptors.places.taken == 0, "every place is given back")
        self.assertEqual(director.node.open_connections, 0)


class ListenerTests(TLSTestCase):
    async def test_names(self) -> None:
        """A client sees the certificate of its name: an exact one, a wildcard for one label, or the first."""
        director = await self.serve("a.example.org", "*.b.example.org", "c.b.example.org,d.example.org")
        seen = {
            "a.example.org": "a.example.org", "x.b.example.org": "*.b.example.org", "C.b.example.org": "c.b.example.org",
            "d.example.org": "c.b.example.org", "x.y.b.example.org": "a.example.org", "nobody.test": "a.example.org",
        }
        for name, subject in seen.items():
            printed = await self.openssl(name=name, said="hello\n", until="\nHELLO\n")
            self.assertIn(f"subject=CN = {subject}\n", printed, name)
            self.assertIn("\none\nHELLO\n", printed, name)
        await self.balanced(director)

    async def test_versions_and_protocols(self) -> None:
        """TLS 1.2 and 1.3, no older; a protocol that both have, the director's first choice, or none."""
        director = await self.serve(alpn=["h2", "http/1.1"])
        for version, protocol in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            printed = await self.openssl(version, "-alpn", "http/1.1,h2", until="ALPN protocol: h2")
            self.assertIn("ALPN protocol: h2", printed)
            self.assertIn(f"New, {protocol}", printed)
        self.assertIn("No ALPN negotiated", await self.openssl("-alpn", "spdy/3", until="No ALPN"))
        self.assertIn("alert protocol version", await self.openssl("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"))
        await until(lambda: self.ended(director, Reason.BAD_HANDSHAKE) == 1, "the count")
        await self.balanced(director)

    async def test_resumption(self) -> None:
        """Sessions are resumed, with either version."""
        director = await self.serve()
        for version in ("-tls1_2", "-tls1_3"):
            session = str(self.folder / "session")
            await self.openssl(version, "-sess_out", session, until="\none\n")  # which comes after a ticket
            await until(lambda: os.path.exists(session), "the session")  # noqa: B023
            printed = await self.openssl(version, "-sess_in", session, until="Reused, TLS")
            self.assertIn("Reused, TLS", printed)
            os.unlink(session)
        await self.balanced(director)

    async def test_no_renegotiation(self) -> None:
        """A client that asks for it under TLS 1.2 is refused that, not served less."""
        director = await self.serve()
        self.assertIn("no renegotiation", await self.openssl("-tls1_2", said="R\n", until="no renegotiation"))
        await self.balanced(director)

    async def test_turned_away(self) -> None:
        """Who speaks no TLS, goes, or says nothing in time, is counted by why and costs no host anything."""
        director = await self.serve(handshake_s=0.3)
        plain = self.connect()
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        await until(lambda: self.ended(director, Reason.BAD_HANDSHAKE) == 1, "no TLS")
        self.connect().close()
        await until(lambda: self.ended(director, Reason.CLIENT_RESET) == 1, "gone")
        self.connect().sendall(b"\x16")
        await until(lambda: self.ended(director, Reason.HANDSHAKE_TIMEOUT) == 1, "silent")
        self.assertEqual(self.site.connections, [])
        await self.balanced(director)

    async def test_too_many(self) -> None:
        """The oldest handshake makes room."""
        director = await self.serve(handshake_s=60, max_handshakes=3)
        clients = [self.connect() for _ in range(4)]
        for client in clients:
            client.sendall(b"\x16")  # the kernel hands over who has said something
        await until(lambda: self.ended(director, Reason.HANDSHAKE_TIMEOUT) == 1, "one is closed")
        self.assertEqual((await deferToThread(receive_until_reset, clients[0]))[0], b"")
        frontend = director.node.frontends["web"]
        self.assertEqual((frontend.open, len(frontend.connections())), (3, 3))
        self.assertEqual(director.registry.get_sample_value("txdirector_client_handshakes", {"service": "web"}), 3)
        self.assertEqual(frontend.kill(lambda connection: True, Reason.KILLED), 3)
        await self.balanced(director)

    async def test_denied(self) -> None:
        """The access list comes before the handshake."""
        director = await self.serve(service={"access": {"deny": ["127.0.0.0/8"]}})
        self.connect()
        await until(lambda: self.ended(director, Reason.DENIED) == 1, "denied")
        await self.balanced(director)

    async def test_another_host(self) -> None:
        """A connect that fails is tried elsewhere, with the client's TLS untouched."""
        closed = await self.backend("closed")
        await closed.stop()
        director = await self.serve()
        both = {"two": closed.address, "one": self.site.address}
        for _ in range(4):
            director.node.apply_service("web", checked({"services": {"web": {
                "listen": ["127.0.0.1:0"], "groups": {"main": {"hosts": both}},
                "tls": {"certificates": [dict(zip(("certificate", "key"), self.issued["a.example.org"], strict=True))]},
            }}}).services["web"])
            self.assertIn("\none\nHI\n", await self.openssl(said="hi\n", until="\nHI\n"))
        await self.balanced(director)

    async def test_beside_sni_routing(self) -> None:
        """Services may share a listener, of which one ends TLS and another passes it on untouched."""
        port = free_port()
        rest = await self.backend("rest")
        shared = {"listen": [f"127.0.0.1:{port}"], "sni": {"names": ["a.example.org"]}}
        director = await self.serve(service=shared)
        passing = checked({"services": {"rest": {
            "listen": shared["listen"], "groups": {"main": {"hosts": {"one": rest.address}}}}}}).services["rest"]
        director.node.apply_service("rest", passing)
        peer = await deferToThread(self.peer)
        self.assertEqual(await deferToThread(peer.recv, 100), b"one\n")
        other = self.connect()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        hello = SSL.Connection(context, None)
        hello.set_connect_state()
        with contextlib.suppress(SSL.WantReadError):
            hello.do_handshake()
        said = hello.bio_read(65536)
        other.sendall(said)
        await until(lambda: rest.connections and rest.connections[0].received == said, "the hello, untouched")
        for client in (peer, other):
            client.close()
        await self.balanced(director)

    async def test_turning_it_on_and_off(self) -> None:
        """A service gets TLS, or loses it: who is served goes on as they began, new ones find it changed."""
        director = await self.serve()
        secure = director.node.inventory.services["web"].spec
        plain = checked({"services": {"web": {"listen": list(secure.listen), "groups": {
            "main": {"hosts": {"one": self.site.address}}}}}}).services["web"]
        first = await deferToThread(self.peer)
        self.assertEqual(await deferToThread(first.recv, 100), b"one\n")
        director.node.apply_service("web", plain)
        second = self.connect()
        self.assertEqual(await deferToThread(second.recv, 100), b"one\n")
        director.node.apply_service("web", secure)
        third = await deferToThread(self.peer)
        for client in (first, second, third):
            await deferToThread(client.sendall, b"still")
        self.assertEqual(await deferToThread(third.recv, 100), b"one\n")
        for client in (first, second, third):
            self.assertEqual(await deferToThread(client.recv, 100), b"STILL")
            client.close()
        await self.balanced(director)

    async def test_certificates_renewed(self) -> None:
        """Files that change are read again, broken ones are told and change nothing; open connections go on."""
        director = await self.serve()
        certificate, _ = self.issued["a.example.org"]
        before = await deferToThread(self.peer)
        old = before.tls.get_peer_certificate().get_serial_number()  # type: ignore[union-attr]
        [watched] = [each for each in director.certificates.watched if each.place == "services.web.tls"]
        Path(certificate).write_text("nonsense")
        watched.look()
        self.assertIn("services.web.tls.certificates[0].certificate", watched.problem)
        self.flushLoggedErrors()
        still = await deferToThread(self.peer)
        self.assertEqual(still.tls.get_peer_certificate().get_serial_number(), old)  # type: ignore[union-attr]
        self.authority.issue("a.example.org", days=30)
        self.assertTrue(watched.look())
        self.assertEqual(watched.problem, "")
        after = await deferToThread(self.peer)
        self.assertNotEqual(after.tls.get_peer_certificate().get_serial_number(), old)  # type: ignore[union-attr]
        for peer in (before, still, after):
            self.assertEqual(await deferToThread(peer.recv, 100), b"one\n")
            peer.close()
        await self.balanced(director)

    async def test_no_certificates(self) -> None:
        """A director that has no such files closes the service's clients, says so, and serves them once it has."""
        certificate, key = self.authority.issue("late.example.org")
        os.rename(certificate, certificate + ".away")
        tls = {"certificates": [{"certificate": certificate, "key": key}]}
        director = await self.serve(service={"tls": tls})
        self.connect()
        await until(lambda: self.ended(director, Reason.BAD_HANDSHAKE) == 1, "closed")
        self.flushLoggedErrors()
        os.rename(certificate + ".away", certificate)
        frontend: Any = director.node.frontends["web"]
        frontend._files._retry_at = 0.0
        peer = await deferToThread(self.peer)
        self.assertEqual(await deferToThread(peer.recv, 100), b"one\n")
        peer.close()
        await deferLater(reactor, 0)
        await self.balanced(director)


class ClientCertificateTests(TLSTestCase):
    async def told(self, *options: str, **tls: Any) -> Header:
        """The PROXY header that a host gets for an openssl client with *options*."""
        director = await self.serve(client_ca=self.authority.path, service={"proxy": {"send": "v2"}}, **tls)
        made: list[Any] = []
        build = self.site.buildProtocol
        self.patch(self.site, "buildProtocol", lambda address: made.append(build(address)) or made[-1])
        await self.openssl(*options, until="\none\n")
        await until(lambda: made and decode(made[0].received), "the header")
        header = decode(made[0].received)
        assert header is not None
        await self.balanced(director)
        return header

    def shown(self, *, authority: Authority | None = None, days: float = 1.0) -> tuple[str, ...]:
        certificate, key = (authority or self.authority).issue("client.example", days=days)
        return "-cert", certificate, "-key", key

    async def test_required(self) -> None:
        """Who shows no certificate, or one of a stranger's or of yesterday, is turned away; of the others hosts get the name."""
        header = await self.told(*self.shown(), "-alpn", "h2", alpn=["h2"])
        self.assertIn(b"\x01\x00\x02h2\x02\x00\x0da.example.org\x20", header.extensions)
        self.assertIn(b"\x07\0\0\0\0\x21\x00\x07TLSv1.3", header.extensions)
        self.assertIn(b"\x22\x00\x0eclient.example", header.extensions)
        director = await self.serve(client_ca=self.authority.path)
        stranger = Authority(self.folder, "stranger")
        for options in ((), self.shown(authority=stranger), self.shown(days=-0.5)):
            before = self.ended(director, Reason.BAD_HANDSHAKE)
            self.assertRegex(await self.openssl(*options, until="alert number"), "alert (number|certificate)")
            await until(lambda: self.ended(director, Reason.BAD_HANDSHAKE) == before + 1, "the count")  # noqa: B023
        await self.balanced(director)

    async def test_optional(self) -> None:
        """Who shows none is served, and known as such."""
        header = await self.told(client_certificate="optional")
        self.assertIn(b"\x01\0\0\0\1\x21\x00\x07TLSv1.3", header.extensions)

    async def test_expiry(self) -> None:
        """The end of the certificate that ends first is a metric; from 14 days before it on the operator is told."""
        near = self.authority.issue("near.example", days=5)
        far = self.authority.issue("far.example", days=50)
        pairs = [dict(zip(("certificate", "key"), each, strict=True)) for each in (far, near)]
        director = await self.serve(service={"tls": {"certificates": pairs}})
        place = {"place": "services.web.tls"}
        expires = director.registry.get_sample_value("txdirector_certificate_expires_timestamp_seconds", place)
        assert expires is not None
        self.assertTrue(4.9 < (expires - time.time()) / 86400 < 5.1)
        self.assertEqual(director.registry.get_sample_value("txdirector_certificate_problem", place), 1)
        self.assertIn("services.web.tls: the certificate expires in 5.0 days", director.certificates.problems)


class HostTests(TLSTestCase):
    """TLS with hosts."""

    def listen(self, *names: str, client_ca: str | None = None) -> SecureSite:
        """A backend with a certificate."""
        certificate, key = self.authority.issue(*names)
        site = SecureSite("one", server_options(TLS(certificate=certificate, key=key, client_ca=client_ca), place="host"))
        self.addCleanup(lambda: Deferred.fromCoroutine(site.stop()))
        return site

    async def relay(self, site: BackendSite, *, probe: dict[str, Any] | None = None,
                    listener: dict[str, Any] | None = None, **tls: Any) -> DirectorService:
        """A service whose host is *site*; clients speak TLS where *listener* says so."""
        group = {"hosts": {"one": site.address}, "tls": {"ca": self.authority.path, **tls},
                 "health": {"probe": probe or {"kind": "none"}}}
        web: dict[str, Any] = {"listen": ["127.0.0.1:0"], "groups": {"main": group}}
        if listener is not None:
            web["tls"] = {"certificates": self.pairs("a.example.org"), **listener}
        director = await self.director({"services": {"web": web}})
        self.port = int(director.node.listeners.addresses("web")[0].rpartition(":")[2])
        return director

    async def answers(self, client: Any) -> None:
        await deferToThread(client.sendall, b"hi")
        self.assertEqual(await deferToThread(receive, client, 6), b"one\nHI")
        client.close()

    async def test_plain_and_secure_clients(self) -> None:
        """A host with TLS serves clients with and without it, and sees the name of its address, or the one configured."""
        site = self.listen("127.0.0.1", "host.example")
        director = await self.relay(site)
        await self.answers(self.connect())
        await self.balanced(director)
        other = await self.relay(site, server_name="host.example", listener={})
        await self.answers(await deferToThread(self.peer))
        await self.balanced(other)
        self.assertEqual(site.names, [None, b"host.example"])

    async def test_refused(self) -> None:
        """A host whose certificate is another's, or of nobody whom we trust, gets nobody, and the reason is told."""
        ways: list[tuple[str, dict[str, Any], str]] = [
            ("other.example", {}, "TLS: its certificate is not for 127.0.0.1"),
            ("127.0.0.1", {"ca": Authority(self.folder, "stranger").path}, "TLS: certificate verify failed"),
        ]
        for name, tls, why in ways:
            site = self.listen(name)
            director = await self.relay(site, **tls)
            self.connect()
            await until(lambda: self.ended(director, Reason.CONNECT_FAILED) == 1, "the end")  # noqa: B023
            [entry] = director.node.inventory.hosts.values()
            self.assertIn(why, entry.health._connect_detail)
            await self.balanced(director)
            await self.relay(site, verify=False)
            await self.answers(self.connect())

    async def test_client_certificate(self) -> None:
        """Shown to a host that asks for one."""
        certificate, key = self.authority.issue("director.example")
        site = self.listen("127.0.0.1", client_ca=self.authority.path)
        director = await self.relay(site, certificate=certificate, key=key)
        await self.answers(self.connect())
        await self.balanced(director)

    async def test_watched(self) -> None:
        """What is configured now is watched, under its place, and nothing of before."""
        site = self.listen("127.0.0.1")
        director = await self.relay(site)
        await self.answers(self.connect())
        frontend: Any = director.node.frontends["web"]
        self.assertEqual([each.place for each in frontend.certificates], ["services.web.groups.main.tls"])
        spec = director.node.inventory.services["web"].spec
        group = spec.groups["main"]
        assert group.tls is not None
        changed = replace(group, tls=replace(group.tls, server_name="127.0.0.1"))
        director.node.apply_service("web", replace(spec, groups={"main": changed}))
        self.assertEqual(frontend.certificates, ())
        await self.balanced(director)

    async def test_files_that_cannot_be_read(self) -> None:
        """That is no host's failure: clients end as for any other shortage of ours."""
        site = self.listen("127.0.0.1")
        director = await self.relay(site, ca="/nonexistent")
        self.connect()
        await until(lambda: self.ended(director, Reason.OUT_OF_RESOURCES) == 1, "the end")
        await self.balanced(director)

    async def test_protocols(self) -> None:
        """What client and director have agreed on is what the host is offered; else what is configured."""
        site = self.listen("127.0.0.1")
        site.choose(b"h2", b"http/1.1")
        director = await self.relay(site, alpn=["h2"], listener={"alpn": ["http/1.1", "h2"]})
        for options in (("-alpn", "http/1.1"), ("-alpn", "h2"), ()):
            await self.openssl(*options, until="\none\n")
        self.assertEqual(site.agreed, [b"http/1.1", b"h2", b"h2"])
        await self.balanced(director)

    async def test_probes(self) -> None:
        """A probe of the same port does the same, without being told."""
        director = await self.relay(self.listen("127.0.0.1"), probe={"kind": "tcp"})
        [entry] = director.node.inventory.hosts.values()
        await until(lambda: entry.health.last_check is not None, "a probe")
        stranger = await self.relay(self.listen("other.example"), probe={"kind": "tcp"})
        [entry] = stranger.node.inventory.hosts.values()
        await until(lambda: "its certificate is not for 127.0.0.1" in str(entry.health.last_check), "a failed one")
