"""Probes of hosts that speak TLS: who passes is who should be there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from cluster.address import Address
from cluster.model import TLS as ServerTLS
from cluster.model import Probe, ProbeTLS
from director.checks.probes import Prober, ProbeResult
from director.config.files import checked
from director.core.proxy_protocol import encode
from director.ports.tls import server_options
from director.tls.dialling import MAX_CONTEXTS, Contexts, file_problems
from tests.integration.pki import Authority
from tests.integration.test_probes import Host, HostFactory, until


class ProbeTLSTests(TestCase):
    def setUp(self) -> None:
        self.prober = Prober(reactor=reactor)
        self.prober.startService()
        self.addCleanup(lambda: self.prober.stopService())
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority(self.folder)

    def serve(self, *names: str, reply: bytes = b"", client_ca: str | None = None, days: float = 1.0,
              authority: Authority | None = None) -> tuple[Address, HostFactory]:
        """A host with a certificate for *names*."""
        certificate, key = (authority or self.authority).issue(*names, days=days)
        factory = HostFactory(reply)
        options = server_options(ServerTLS(certificate=certificate, key=key, client_ca=client_ca), place="host")
        port = reactor.listenSSL(0, factory, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        gone = lambda: len(factory.left) == len(factory.visitors)  # noqa: E731
        self.addCleanup(lambda: Deferred.fromCoroutine(until(gone)))  # a probe leaves by itself
        return Address("127.0.0.1", port.getHost().port), factory

    def probe(self, target: Address, *, tls: dict[str, Any] | None = None, preface: bytes = b"", **spec: Any) -> Any:
        files = {"ca": self.authority.path, **(tls or {})}
        return self.prober.probe(target, Probe(timeout_s=5.0, tls=ProbeTLS(**files), **spec), preface=preface)

    async def refused(self, target: Address, why: str, **more: Any) -> None:
        result: ProbeResult = await self.probe(target, **more)
        self.assertEqual((result.ok, result.detail), (False, why))

    async def test_handshake(self) -> None:
        """A TCP probe passes when the handshake has ended, by the IP address in the certificate or the name asked for; the
        host sees an orderly end."""
        target, factory = self.serve("host.example", "127.0.0.1")
        for tls in ({}, {"server_name": "host.example"}, {"server_name": "HOST.example"}):
            result = await self.probe(target, tls=tls)
            self.assertTrue(result.ok, result)
            self.assertRegex(result.detail, r"^TLSv1\.3 in \d+ ms$")
        await until(lambda: factory.left == ["ConnectionDone"] * 3)

    async def test_http(self) -> None:
        """An HTTP probe asks over TLS, by the server's name, and reads the answer's status and weight."""
        answer = b"HTTP/1.1 200 OK\r\nX-Load-Balancing-Endpoint-Weight: 30\r\n\r\n"
        target, factory = self.serve("host.example", reply=answer)
        result = await self.probe(target, kind="http", path="/up", weight_header=True, tls={"server_name": "host.example"})
        self.assertEqual((result.ok, result.weight), (True, 30.0))
        self.assertTrue(factory.received.startswith(b"GET /up HTTP/1.1\r\nHost: host.example\r\n"), factory.received)
        bad, _ = self.serve("bad.example", reply=b"HTTP/1.1 503 No\r\n\r\n")
        await self.refused(bad, "HTTP 503", kind="http", tls={"server_name": "bad.example"})

    async def test_whom_not_to_trust(self) -> None:
        """Another name, another authority, an expired certificate: nothing is asked of any. Unverified, all pass."""
        folder = self.folder / "other"
        folder.mkdir()
        for names, more, why in (
            (("other.example",), {}, "its certificate is not for host.example"),
            (("host.example",), {"authority": Authority(folder)}, "TLS: certificate verify failed"),
            (("host.example",), {"days": -0.5}, "TLS: certificate verify failed"),
        ):
            target, factory = self.serve(*names, **more)  # type: ignore[arg-type]
            for kind in ("tcp", "http"):
                await self.refused(target, why, kind=kind, tls={"server_name": "host.example"})
            self.assertEqual(factory.received, b"")
            self.assertTrue((await self.probe(target, tls={"verify": False})).ok)
        target, _ = self.serve("127.0.0.2")
        await self.refused(target, "its certificate is not for 127.0.0.1")

    async def test_no_tls(self) -> None:
        """A host that speaks something else, or hangs up, does not pass; one that is silent runs out of time."""
        plain = HostFactory(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        port = reactor.listenTCP(0, plain, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(lambda: [visitor.transport.abortConnection() for visitor in plain.visitors])
        target = Address("127.0.0.1", port.getHost().port)
        result = await self.probe(target)
        self.assertFalse(result.ok)
        self.assertTrue(result.detail.startswith("TLS: "), result)
        plain.protocol = _HangsUp
        await self.refused(target, "closed before it answered")
        plain.protocol, plain.reply = Host, None
        result = await self.prober.probe(target, Probe(timeout_s=0.2, tls=ProbeTLS(verify=False)))
        self.assertEqual((result.ok, result.detail), (False, "timed out after 0.2 s"))

    async def test_client_certificate(self) -> None:
        """A host that asks for a certificate is shown one; without, it refuses the probe's question."""
        answer = b"HTTP/1.1 200 OK\r\n\r\n"
        target, _ = self.serve("host.example", reply=answer, client_ca=self.authority.path)
        certificate, key = self.authority.issue("director.example")
        tls = {"server_name": "host.example", "certificate": certificate, "key": key}
        self.assertTrue((await self.probe(target, kind="http", tls=tls)).ok)
        self.assertFalse((await self.probe(target, kind="http", tls={"server_name": "host.example"})).ok)

    async def test_proxy_header_first(self) -> None:
        """A PROXY header goes before the handshake, in plain."""
        header, seen = encode("v2", None, None, local=True), []
        certificate, key = self.authority.issue("127.0.0.1")
        factory = Factory()
        factory.protocol = lambda: _StartsLater(header, server_options(
            ServerTLS(certificate=certificate, key=key), place="host"), seen)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        result = await self.probe(Address("127.0.0.1", port.getHost().port), preface=header)
        self.assertTrue(result.ok, result)
        self.assertEqual(b"".join(seen), header)

    async def test_files(self) -> None:
        """What cannot be read is no host's failure, and is told; files that change are read again."""
        target, _ = self.serve("127.0.0.1")
        missing = str(self.folder / "missing.pem")
        result = await self.probe(target, tls={"ca": missing})
        self.assertIsNone(result.ok)
        self.assertIn("missing.pem", result.detail)
        os.link(self.authority.path, missing)
        self.assertTrue((await self.probe(target, tls={"ca": missing})).ok)

    def test_bounds(self) -> None:
        """However often the configuration changes, few contexts are kept; one way to probe has one."""
        contexts, target = Contexts("nothing is done"), Address("127.0.0.1", 1)
        for number in range(2 * MAX_CONTEXTS):
            contexts.dialling(ProbeTLS(ca=self.authority.path, server_name=f"host{number}"), target)
        self.assertLessEqual(len(contexts._of), MAX_CONTEXTS)
        again = ProbeTLS(ca=self.authority.path)
        one, other = (contexts.dialling(again, target) for _ in range(2))
        self.assertIs(one._context, other._context)

    def test_configuration(self) -> None:
        """What makes no sense is refused with its place, what is of no use here is told."""
        def problems(probe: dict[str, Any], address: str = "10.0.0.1:443") -> list[str]:
            group = {"hosts": {"a": address}, "health": {"probe": probe}}
            try:
                checked({"services": {"web": {"listen": ["127.0.0.1:1"], "groups": {"main": group}}}})
            except Exception as error:
                return re.findall(r"groups\.main\.([\w.]+): ", str(error))
            return []

        self.assertEqual(problems({"kind": "none", "tls": {}}), ["health.probe.tls"])
        self.assertEqual(problems({"tls": {"key": "/k"}}), ["health.probe.tls.certificate"])
        self.assertEqual(problems({"tls": {"certificate": "/c"}}), ["health.probe.tls.key"])
        self.assertEqual(problems({"tls": {}}, "unix:/run/a"), ["hosts.a.address"])
        self.assertEqual(problems({"tls": {}, "address": "unix:/run/a"}), ["health.probe.address"])
        for good in ({"tls": {}}, {"kind": "http", "tls": {"server_name": "a.example"}}):
            self.assertEqual(problems(good), [])
        self.assertEqual(problems({"tls": {"verify": False}}, "unix:/run/a"), [])
        [problem] = file_problems("here", ProbeTLS(ca="/nonexistent/ca.pem"))
        self.assertEqual(problem.place, "here.ca")


class _HangsUp(Host):
    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.loseConnection()


class _StartsLater(Host):
    """Speaks TLS after a header."""

    def __init__(self, header: bytes, options: Any, seen: list[bytes]) -> None:
        self.header = header
        self.options = options
        self.seen = seen
        self.started = False

    def connectionMade(self) -> None: ...

    def connectionLost(self, reason: Any) -> None: ...

    def dataReceived(self, data: bytes) -> None:
        if self.started:
            return
        self.started = True
        self.seen.append(data[: len(self.header)])
        self.transport.startTLS(self.options)
        if rest := data[len(self.header) :]:
            self.transport.protocol.dataReceived(rest)
