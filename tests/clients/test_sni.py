"""curl and openssl ask for names of nginx's servers behind one listener, which their services share; TLS ends at nginx."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from typing import ClassVar

from tests.clients.kit import (
    CLIENT_S,
    ENVIRONMENT,
    PATIENCE_S,
    Clients,
    command,
    free_ports,
    on_both_relays,
    random_file,
    run,
    sha256,
    wait_until,
)
from tests.integration.pki import Authority

FILE_BYTES = 30 << 20
#: By service: its names, with a certificate for them, and the protocols that it has.
SERVICES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": (("a.example.org",), ()), "h2": (("A.example.org",), ("h2",)), "b": (("*.b.example.org", "b.example.org"), ()),
}

NGINX = """
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log /dev/null;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    ssl_session_cache shared:all:1m;
    ssl_protocols TLSv1.2 TLSv1.3;
    {servers}
}}
"""
SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location = /who {{ return 200 "{name} $server_protocol $ssl_server_name"; }}
        error_page 497 =400 "/who";
        root {directory}/www;
    }}
"""
SERVICE = """
[services.{name}]
listen = ["127.0.0.1:%PORT%"]
relay = "{relay}"
sni = {{ names = {names}, alpn = {protocols} }}
[services.{name}.groups.main]
health.probe = {{ kind = "http", path = "/who", tls = {{ ca = "{ca}", server_name = "{asked}" }} }}
hosts.one = "127.0.0.1:{port}"
"""


class Sni(Clients):
    __test__ = False
    needs = ("nginx", "curl", "openssl")
    whole: ClassVar[str]
    authority: ClassVar[Authority]

    @classmethod
    def serve(cls) -> None:
        www = cls.directory / "www"
        www.mkdir()
        cls.whole = random_file(www / "big", FILE_BYTES)
        cls.authority = Authority(cls.directory)
        *ports, rest = free_ports(len(SERVICES) + 1)
        servers, services = cls.nginx("rest", rest, "other.example.org"), ""
        for (name, (names, protocols)), port in zip(SERVICES.items(), ports, strict=True):
            servers += cls.nginx(name, port, *names)
            services += SERVICE.format(name=name, relay=cls.relay, port=port, names=list(names), protocols=list(protocols),
                                       ca=cls.authority.path, asked=names[-1])
        configuration = cls.directory / "nginx.conf"
        configuration.write_text(NGINX.format(directory=cls.directory, servers=servers))
        cls.server("nginx", "-e", "/dev/null", "-p", cls.directory, "-c", configuration, port=rest)
        cls.director = cls.direct(rest, service="rest", more=services)

    @classmethod
    def nginx(cls, name: str, port: int, *names: str) -> str:
        certificate, key = cls.authority.issue(*names)
        return SERVER.format(directory=cls.directory, name=name, port=port, certificate=certificate, key=key)

    def curl(self, name: str, path: str, *more: object) -> str:
        """What the server of that name answers, which its certificate must be for."""
        port = self.director.port
        return run("curl", "--silent", "--show-error", "--cacert", self.authority.path, "--resolve",
                   f"{name}:{port}:127.0.0.1", *more, f"https://{name}:{port}{path}")

    def openssl(self, *more: object) -> str:
        """What s_client tells of a handshake."""
        done = subprocess.run(
            command(("openssl", "s_client", "-connect", f"127.0.0.1:{self.director.port}", *more)), input=b"Q\n",
            capture_output=True, env=ENVIRONMENT, timeout=CLIENT_S, check=False)
        return done.stdout.decode("utf-8", "replace")

    def outcome(self, outcome: str) -> float:
        return self.director.total("txdirector_client_hellos_total", f'outcome="{outcome}"')

    def test_names(self) -> None:
        """Each name gets its server, whose certificate curl verifies; HTTP/2 has one of its own."""
        for name, more, expected in (
            ("a.example.org", "--http1.1", "plain HTTP/1.1 a.example.org"), ("a.example.org", "--http2", "h2 HTTP/2.0 a.example.org"),
            ("b.example.org", "--http2", "b HTTP/2.0 b.example.org"), ("x.b.example.org", "--http2", "b HTTP/2.0 x.b.example.org"),
            ("x.b.example.org", "--tlsv1.2", "b HTTP/2.0 x.b.example.org"),
            ("other.example.org", "--http1.1", "rest HTTP/1.1 other.example.org"),
        ):
            self.assertEqual(self.curl(name, "/who", more), expected)

    def test_probes(self) -> None:
        """The director asks each nginx over TLS, and by its name."""
        wait_until(lambda: self.director.total("txdirector_host_probes_total", 'result="success"') >= len(SERVICES), "probes")
        self.assertEqual(self.director.total("txdirector_host_probes_total", 'result="failure"'), 0)

    def test_download(self) -> None:
        """30 MB come whole."""
        target = self.directory / "received"
        for name in ("a.example.org", "x.b.example.org"):
            self.curl(name, "/big", "--output", target)
            self.assertEqual(sha256(target), self.whole, name)

    def test_no_name(self) -> None:
        """Who asks for none, or speaks no TLS, gets the default service."""
        before = self.outcome("default")
        self.assertIn("CN = other.example.org", self.openssl("-noservername"))
        self.assertIn("rest HTTP/1.1", run("curl", "--silent", f"http://127.0.0.1:{self.director.port}/who"))
        self.assertEqual(self.outcome("default") - before, 2)

    def test_resumption(self) -> None:
        """A session is resumed: its server sees the very bytes that its client sends."""
        session = self.directory / "session"
        for version in ("-tls1_2", "-tls1_3"):
            asked = ("-servername", "a.example.org", version, "-ign_eof")
            request = b"GET /who HTTP/1.0\r\n\r\n"
            told = [subprocess.run(
                command(("openssl", "s_client", "-connect", f"127.0.0.1:{self.director.port}", *asked, option, session)),
                input=request, capture_output=True, env=ENVIRONMENT, timeout=CLIENT_S, check=True).stdout
                for option in ("-sess_out", "-sess_in")]
            self.assertEqual([b"\nReused, TLS" in each for each in told], [False, True], version)
            self.assertTrue(all(b"plain HTTP/1.0 a.example.org" in each for each in told), version)

    def test_in_pieces(self) -> None:
        """A hello that comes byte by byte is a hello; the handshake with nginx ends well."""
        context = ssl.create_default_context(cafile=self.authority.path)
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(received, sent, server_hostname="x.b.example.org")
        with socket.create_connection(("127.0.0.1", self.director.port)) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            for byte in sent.read():
                raw.sendall(bytes((byte,)))
            raw.settimeout(PATIENCE_S)
            while not self.established(tls):
                data = raw.recv(65536)
                self.assertTrue(data, "nginx hung up")
                received.write(data)
            self.assertIn((("DNS", "*.b.example.org"),), [tls.getpeercert()["subjectAltName"][:1]])  # type: ignore[index]

    @staticmethod
    def established(tls: ssl.SSLObject) -> bool:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True


PythonSniTests, NativeSniTests = on_both_relays(Sni)
