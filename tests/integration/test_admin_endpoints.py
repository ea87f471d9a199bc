"""The admin's endpoints: http and https at once, with an operator's certificate or one made on request; and its log."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from prometheus_client import generate_latest
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher

from agent.config import AgentConfig
from agent.service import LoadReporter
from director.config.files import checked
from director.service import DirectorService
from tests.integration.kit import DirectorTestCase, closed_port, reactor, service, until
from tests.integration.pki import Authority
from tests.unit.admin.small_director import USERS
from tests.unit.admin.test_running import is_running_text

USERS_DATA = {name: {"password": user.password, "role": user.role} for name, user in USERS.items()}


def addresses(running: DirectorService) -> list[str]:
    """Where the admin listens, in the order of its configuration."""
    return [str(endpoint.address) for endpoint in running.admin if hasattr(endpoint, "address")]


def get(address: str, path: str, context: ssl.SSLContext | None = None, user: str = "ada:engine") -> tuple[int, bytes]:
    host, port = address.rsplit(":", 1)
    connection = (
        HTTPConnection(host, int(port), timeout=20) if context is None
        else HTTPSConnection(host, int(port), timeout=20, context=context)
    )
    try:
        secret = base64.b64encode(user.encode()).decode()
        connection.request("GET", path, headers={"Authorization": f"Basic {secret}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def shaken(address: str, version: int) -> str:
    """Shake hands with this version of TLS only; answers its name. Raises `SSL.Error` with the server's alert."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")  # else the library here would not even offer the old versions
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    with socket.create_connection(_pair(address), timeout=20) as sock:
        sock.settimeout(None)  # pyOpenSSL wants a blocking socket
        connection = SSL.Connection(context, sock)
        connection.set_connect_state()
        connection.do_handshake()
        return connection.get_protocol_version_name()


class EndpointCase(DirectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    async def start(self, *endpoints: dict[str, Any], **node: Any) -> list[str]:
        """A director with these endpoints and the users ada and bob; answers where it listens."""
        data = service({"a": f"127.0.0.1:{closed_port()}"}, group={"health": {"probe": {"kind": "none"}}})
        data["node"] = {"admin": {"endpoints": list(endpoints), "users": USERS_DATA}, **node}
        self.running = await self.director(data)
        return addresses(self.running)

    async def command(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", f"from director.{name} import main; main()", *words]
        done: subprocess.CompletedProcess[str] = await deferToThread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False, cwd=self.folder,
            env={"TXDIRECTOR_PASSWORD": "engine", "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        return done


class ExpiryTests(EndpointCase):
    def test_the_certificate_for_etcd(self) -> None:
        """Its end is among the metrics, and told when it is near, as that of every port's own."""
        certificate, key = Authority(self.folder).issue("d1", days=3)
        director = DirectorService(checked({"node": {"store": "etcd:", "etcd": {
            "endpoints": ["127.0.0.1:1"], "ca": certificate, "certificate": certificate, "key": key}}}), reactor=reactor)
        expires = director.registry.get_sample_value("txdirector_certificate_expires_timestamp_seconds", {"place": "node.etcd"})
        assert expires is not None
        self.assertLess(abs(expires - time.time() - 3 * 86400), 3600)
        self.assertIn("node.etcd: the certificate expires in", director.certificates.problems[0])


class HttpsTests(EndpointCase):
    async def test_http_and_https_at_once(self) -> None:
        """Each endpoint serves the same admin; https shows the operator's own certificate."""
        authority = Authority(self.folder)
        certificate, key = authority.issue("127.0.0.1")
        plain, secure = await self.start(
            {"listen": "127.0.0.1:0"}, {"listen": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}}
        )
        context = ssl.create_default_context(cafile=authority.path)
        for address, with_tls in ((plain, None), (secure, context)):
            status, body = await deferToThread(get, address, "/api/v1/status", with_tls)
            self.assertEqual((status, json.loads(body)["services"][0]["name"]), (200, "web"))
        shown = await deferToThread(ssl.get_server_certificate, _pair(secure))
        self.assertEqual(ssl.PEM_cert_to_DER_cert(shown), ssl.PEM_cert_to_DER_cert(Path(certificate).read_text()))
        with self.assertRaises(ssl.SSLCertVerificationError):
            await deferToThread(get, secure, "/api/v1/status", ssl.create_default_context())

    async def test_a_renewed_certificate_is_shown_at_once_after_a_reload(self) -> None:
        """And by itself soon; one that is of no use is told, as a problem and to the reload, and the old one stays."""
        authority = Authority(self.folder)
        certificate, key = authority.issue("127.0.0.1")
        (secure,) = await self.start({"listen": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}})
        renewal = self.running.certificates

        async def shown() -> str:
            pem: str = await deferToThread(ssl.get_server_certificate, _pair(secure))
            return pem.strip()

        authority.issue("127.0.0.1")
        new, place = Path(certificate).read_text(), "node.admin.endpoints[0].tls"
        self.assertNotEqual(await shown(), new.strip())
        self.assertEqual(renewal.again(), ([place], []))
        self.assertEqual(await shown(), new.strip())

        Path(certificate).write_text("rubbish")
        renewal.look()
        ((problem,), (broken,)) = self.running.operations.picture().problems, renewal.again()[1]
        self.assertIn("what was read before stays in use", problem)
        self.assertEqual(problem, broken)
        self.assertEqual(await shown(), new.strip())
        told = generate_latest(self.running.registry).decode()
        self.assertIn(f'txdirector_certificate_problem{{place="{place}"}} 1.0', told)
        self.assertRegex(told, r"txdirector_certificate_expires_timestamp_seconds\{.*\} 1\.\d+e\+09")

    async def test_old_tls_is_refused(self) -> None:
        """TLS 1.2 and 1.3 get in; TLS 1.1 and 1.0 are turned away by the director, not by the client."""
        authority = Authority(self.folder)
        certificate, key = authority.issue("127.0.0.1")
        (secure,) = await self.start({"listen": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}})

        for version, name in ((SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")):
            self.assertEqual(await deferToThread(shaken, secure, version), name)
        for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            with self.assertRaises(SSL.Error) as refused:
                await deferToThread(shaken, secure, version)
            self.assertIn("tlsv1 alert protocol version", str(refused.exception))

    async def test_self_signed_on_request(self) -> None:
        """`director self-signed` makes what an endpoint takes; directorctl trusts it by --ca, and nothing trusts it else."""
        made = await self.command("cli", "self-signed", "127.0.0.1", "localhost")
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        key, certificate = self.folder / "admin.key.pem", self.folder / "admin.crt.pem"
        self.assertEqual(stat.S_IMODE(key.stat().st_mode), 0o600)
        self.assertIn(f'certificate = "{certificate}", key = "{key}"', made.stdout)
        (secure,) = await self.start({"listen": "127.0.0.1:0", "tls": {"certificate": str(certificate), "key": str(key)}})
        trusting = await self.command("ctl", "--url", f"https://{secure}", "--user", "ada", "--ca", str(certificate), "hosts")
        self.assertEqual(trusting.returncode, 0, trusting.stderr)
        doubting = await self.command("ctl", "--url", f"https://{secure}", "--user", "ada", "hosts")
        self.assertEqual((doubting.returncode, "certificate verify failed" in doubting.stderr), (3, True))
        again = await self.command("cli", "self-signed", "127.0.0.1")
        self.assertEqual((again.returncode, again.stderr), (1, "director: admin.key.pem is there already\n"))

    async def test_running_text_of_a_whole_director(self) -> None:
        """The page of a real director, with a host that is ordered down, is of the documented grammar."""
        (plain,) = await self.start({"listen": "127.0.0.1:0"})
        proxy = xmlrpc.client.ServerProxy(f"http://ada:engine@{plain}/RPC2")
        status, before = await deferToThread(get, plain, "/running.txt")
        await deferToThread(proxy.order, "web", "main", "a", "down", "new\nkernel")
        _, after = await deferToThread(get, plain, "/running.txt", None, "bob:looking")
        await deferToThread(proxy("close"))
        self.assertEqual(status, 200)
        for text in (before.decode(), after.decode()):
            self.assertTrue(is_running_text(text), text)
        self.assertRegex(before.decode(), r"\nhost a 127\.0\.0\.1:\d+ 0 -\n\Z")
        self.assertRegex(after.decode(), r"\ndisabled a 127\.0\.0\.1:\d+ down, ordered by operator ada: new kernel -\n\Z")


class SecretTests(EndpointCase):
    async def test_no_secret_is_ever_logged(self) -> None:
        """Right and wrong passwords and tokens, by every way in, leave no trace in any event of any level."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        token = "token-4711"
        (plain,) = await self.start({"listen": "127.0.0.1:0"}, agents={
            "listen": ["127.0.0.1:0"],
            "identities": {"good": {"hosts": ["web/main/a"], "token_sha256": hashlib.sha256(token.encode()).hexdigest()}},
        })

        def script() -> None:
            for user in ("ada:engine", "ada:wrong-4711", "eve:wrong-4712", "ada:engine"):
                for path in ("/api/v1/status", "/running.txt", "/metrics", "/nowhere"):
                    get(plain, path, user=user)
                with xmlrpc.client.ServerProxy(f"http://{user}@{plain}/RPC2") as director:
                    try:
                        director.weight("web", "main", "a", 2.0)
                        director.weight("web", "main", "a", "x")
                    except (xmlrpc.client.Fault, xmlrpc.client.ProtocolError):
                        pass

        await deferToThread(script)
        ports = tuple(str(each.address) for each in self.running.agents.ports)
        for sent, told in ((token, "agent app .* speaks for web/main/a"), ("token-4712", "refuse")):
            reporter = LoadReporter(
                AgentConfig(name="app", directors=ports, hosts=("web/main/a",), token=sent, leave_deadline_s=0.0),
                reactor=reactor,
            )
            reporter.startService()
            self.addCleanup(lambda running=reporter: running.stopService() if running.running else None)
            await until(_saw(events, told), told)
            await reporter.stopService()
        self.running.log.debug("the end")  # the observer hears every level
        self.assertTrue(_saw(events, "the end")())
        text = "\n".join(f"{formatEvent(event)} {event!r}" for event in events).replace("director.engine.", "")
        self.assertIn("ada", text)
        for secret in ("engine", "wrong-4711", "wrong-4712", "token-4711", "token-4712",
                       base64.b64encode(b"ada:engine").decode(), base64.b64encode(b"ada:wrong-4711").decode()):
            self.assertNotIn(secret, text)


def _saw(events: list[Any], pattern: str) -> Callable[[], bool]:
    return lambda: any(re.search(pattern, formatEvent(event)) for event in events)


def _pair(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)


class UnixTests(DirectorTestCase):
    async def test_unix_socket(self) -> None:
        """A UNIX endpoint answers, only its owner and group may open it, and its file is gone with the director."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "admin"
            data = {"node": {"admin": {"endpoints": [{"listen": f"unix:{path}"}]}}} | service({"a": "127.0.0.1:9"})
            running = await self.director(data)
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o660)

            def ask() -> bytes:
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(10)
                    sock.connect(str(path))
                    sock.sendall(b"GET /api/v1/status HTTP/1.0\r\n\r\n")
                    return sock.makefile("rb").readline()

            self.assertIn(b"200", await deferToThread(ask))
            await running.stopService()
            self.assertFalse(path.exists())
