"""curl, h2load and openssl speak TLS with a director, and it with nginx and HAProxy."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from pathlib import Path
from typing import ClassVar

from tests.clients.kit import Clients, Director, free_ports, random_file, run, sha256, wait_until
from tests.integration.pki import Authority

FILE_BYTES = 30 << 20
NAME = "www.example.org"

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
    root {directory}/www;
    server {{
        listen 127.0.0.1:{plain};
        location = /who {{ return 200 "plain $server_protocol"; }}
    }}
    server {{
        listen 127.0.0.1:{secure} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location = /who {{ return 200 "secure $server_protocol $ssl_server_name"; }}
    }}
}}
"""
HAPROXY = """
defaults
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    mode http
frontend strict
    bind 127.0.0.1:{port} accept-proxy ssl crt {pem} ca-file {ca} verify required
    http-request return status 200 content-type text/plain lf-string "%[src] %[ssl_c_s_dn(cn)] %[ssl_fc_sni] %[ssl_fc_protocol]"
"""
#: What it shows of a PROXY header: the client's address, and the name that the client asked the director for.
RECEIVER = """
frontend receiver
    bind 127.0.0.1:{port} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[fc_pp_authority]"
"""
LISTENER = """
[services.all.tls]
alpn = {protocols}
[[services.all.tls.certificates]]
certificate = "{certificate}"
key = "{key}"
"""


class TLSTests(Clients):
    relay = "auto"
    needs = ("nginx", "haproxy", "curl", "h2load", "openssl")
    whole: ClassVar[str]
    authority: ClassVar[Authority]
    front: ClassVar[Director]
    both: ClassVar[Director]
    back: ClassVar[Director]
    mutual: ClassVar[Director]

    @classmethod
    def serve(cls) -> None:
        www = cls.directory / "www"
        www.mkdir()
        cls.whole = random_file(www / "big", FILE_BYTES)
        cls.authority = Authority(cls.directory)
        certificate, key = cls.authority.issue(NAME, "localhost")
        pem = cls.directory / "haproxy.pem"
        pem.write_text(Path(certificate).read_text() + Path(key).read_text())
        own, own_key = cls.authority.issue("director.example.org")
        plain, secure, strict, receiver = free_ports(4)
        configuration = cls.directory / "nginx.conf"
        configuration.write_text(NGINX.format(directory=cls.directory, plain=plain, secure=secure, certificate=certificate,
                                              key=key))
        cls.server("nginx", "-e", "/dev/null", "-p", cls.directory, "-c", configuration, port=plain)
        configuration = cls.directory / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(port=strict, pem=pem, ca=cls.authority.path) + RECEIVER.format(port=receiver))
        cls.server("haproxy", "-q", "-db", "-f", configuration, port=strict)
        listener = LISTENER.format(certificate=certificate, key=key, protocols='["h2", "http/1.1"]')
        asks = f'client_ca = "{cls.authority.path}"\n'
        tls = f'tls = {{ ca = "{cls.authority.path}", server_name = "{NAME}" '
        cls.front = cls.direct(plain, more=listener.replace('"h2", ', ""))
        cls.both = cls.direct(secure, more=listener, group=f'{tls}}}\nhealth.probe = {{ kind = "http", path = "/who" }}')
        cls.back = cls.direct(strict, more='proxy.send = "v2"', group=f"""
            {tls}, certificate = "{own}", key = "{own_key}" }}
            health.probe = {{ kind = "http" }}""")
        cls.mutual = cls.direct(receiver, more=f'proxy.send = "v2"\n{listener.replace("[[", f"{asks}[[")}')
        cls.director = cls.front

    def curl(self, director: Director, path: str, *options: object) -> str:
        return run("curl", "-sS", "--fail", "--cacert", self.authority.path, "--connect-to", f"{NAME}::127.0.0.1:{director.port}",
                   *options, f"https://{NAME}/{path}")

    def test_terminated(self) -> None:
        """What curl asks for over either version of TLS comes whole from a host without TLS."""
        for version in (("--tlsv1.2", "--tls-max", "1.2"), ("--tlsv1.3",)):
            self.assertEqual(self.curl(self.front, "who", *version), "plain HTTP/1.1")
            target = self.directory / "got"
            run("curl", "-sS", "--cacert", self.authority.path, "--connect-to", f"{NAME}::127.0.0.1:{self.front.port}", *version,
                f"https://{NAME}/big", target=target)
            self.assertEqual(sha256(target), self.whole)

    def test_both_ways(self) -> None:
        """The host is offered the protocol that the client has got, and asked for the name configured; its probes pass."""
        self.assertEqual(self.curl(self.both, "who", "--http2"), f"secure HTTP/2.0 {NAME}")
        self.assertEqual(self.curl(self.both, "who", "--http1.1"), f"secure HTTP/1.1 {NAME}")
        target = self.directory / "got"
        run("curl", "-sS", "--http2", "--cacert", self.authority.path, "--connect-to", f"{NAME}::127.0.0.1:{self.both.port}",
            f"https://{NAME}/big", target=target)
        self.assertEqual(sha256(target), self.whole)
        wait_until(lambda: self.both.total("txdirector_host_probes_total", 'result="success"') > 0, "a probe has passed")

    def test_to_a_strict_host(self) -> None:
        """HAProxy sees the client's address before TLS, and the director's certificate in it; so does a probe's."""
        said = run("curl", "-sS", "--fail", f"http://127.0.0.1:{self.back.port}/")
        self.assertEqual(said, f"127.0.0.1 director.example.org {NAME} TLSv1.3")
        wait_until(lambda: self.back.total("txdirector_host_probes_total", 'result="success"') > 0, "a probe has passed")

    def test_told_by_extensions(self) -> None:
        """HAProxy takes a header with all that is told of a client with a certificate; without one nobody gets there."""
        certificate, key = self.authority.issue("client.example.org")
        said = self.curl(self.mutual, "", "--http1.1", "--cert", certificate, "--key", key)
        self.assertEqual(said, f"127.0.0.1 {NAME}")
        with self.assertRaisesRegex(AssertionError, "alert|SSL|reset|not connected"):
            self.curl(self.mutual, "")

    def test_many(self) -> None:
        """h2load's requests are all answered, by HTTP/1.1 and HTTP/2."""
        for director, options in ((self.front, ("--h1",)), (self.both, ())):
            said = run("h2load", "-n", 2000, "-c", 50, *options, f"https://127.0.0.1:{director.port}/who")
            self.assertRegex(said, r"2000 succeeded, 0 failed, 0 errored")

    def test_resumption(self) -> None:
        """Python's own client resumes a session, at the same name."""
        context = ssl.create_default_context(cafile=self.authority.path)
        session = None
        for turn in range(3):
            with socket.create_connection(("127.0.0.1", self.front.port)) as sock, \
                    context.wrap_socket(sock, server_hostname=NAME, session=session) as client:
                client.sendall(b"GET /who HTTP/1.0\r\n\r\n")
                self.assertIn(b"plain HTTP/1.0", b"".join(iter(lambda: client.recv(4096), b"")))
                self.assertEqual(client.session_reused, turn > 0)
                session = client.session

    def test_early_close(self) -> None:
        """Clients that go in mid-transfer leave nothing behind, whether they say goodbye or not."""
        for orderly in (True, False):
            context = ssl.create_default_context(cafile=self.authority.path)
            sock = socket.create_connection(("127.0.0.1", self.front.port))
            client = context.wrap_socket(sock, server_hostname=NAME, suppress_ragged_eofs=False)
            client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
            self.assertTrue(re.match(rb"HTTP/1.1 200", client.recv(4096)))
            if orderly:
                client.settimeout(1)
                with contextlib.suppress(OSError, ValueError):  # what it does not want to read is still coming
                    client.unwrap()
            client.close()
