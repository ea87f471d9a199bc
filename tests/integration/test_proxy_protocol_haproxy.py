"""The PROXY protocol's codec against HAProxy, both ways."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from director.core.proxy_protocol import Header, Version, decode, encode
from tests.etcd_server import free_port

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
DEADLINE_S = 10.0

CONFIG = """
global
    stats socket {directory}/stats
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
listen sends-v1
    bind 127.0.0.1:{sends_v1}
    bind [::1]:{sends_v1}
    server host 127.0.0.1:{host} send-proxy
listen sends-v2
    bind 127.0.0.1:{sends_v2}
    bind [::1]:{sends_v2}
    server host 127.0.0.1:{host} send-proxy-v2 proxy-v2-options unique-id,crc32c
    unique-id-format txdirector-%ci
listen checks
    bind 127.0.0.1:{checks}
    server host 127.0.0.1:{check_host} send-proxy-v2 check inter 100ms
frontend accepts
    mode http
    timeout http-request 5s
    bind 127.0.0.1:{accepts} accept-proxy
    bind {directory}/accepts accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


class HAProxyTests(SynchronousTestCase):
    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    host: socket.socket
    check_host: socket.socket

    @classmethod
    def setUpClass(cls) -> None:
        if HAPROXY is None:
            raise SkipTest("needs HAProxy: apt-get install haproxy")
        cls.directory = tempfile.mkdtemp(dir="/tmp")  # a short path: UNIX sockets live in it
        cls.host = socket.create_server(("127.0.0.1", 0))
        cls.check_host = socket.create_server(("127.0.0.1", 0))
        for listener in (cls.host, cls.check_host):
            listener.settimeout(DEADLINE_S)
        names = ("sends_v1", "sends_v2", "checks", "accepts")
        cls.ports = dict(zip(names, free_ports(len(names)), strict=True))
        with open(f"{cls.directory}/haproxy.cfg", "w") as file:
            file.write(CONFIG.format(directory=cls.directory, host=cls.host.getsockname()[1],
                                     check_host=cls.check_host.getsockname()[1], **cls.ports))
        cls.process = subprocess.Popen([HAPROXY, "-db", "-f", file.name], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        end = time.monotonic() + DEADLINE_S
        while True:  # HAProxy listens a moment after its start
            try:
                socket.create_connection(("127.0.0.1", cls.ports["accepts"]), 1).close()
                return
            except OSError:
                if cls.process.poll() is not None or time.monotonic() > end:
                    cls.tearDownClass()
                    raise

    @classmethod
    def tearDownClass(cls) -> None:
        cls.process.kill()
        cls.process.wait()
        cls.host.close()
        cls.check_host.close()
        shutil.rmtree(cls.directory)

    def read_header(self, listener: socket.socket) -> tuple[Header, bytes]:
        """Take the next connection's header the way the director does: peek, then consume; and what follows it."""
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE_S)
            data = b""
            while (header := decode(data)) is None:
                before = len(data)
                data = connection.recv(8192, socket.MSG_PEEK)
                self.assertGreater(len(data), before, "the header did not come whole")
            self.assertEqual(connection.recv(header.consumed), data[:header.consumed])
            return header, b"" if header.local else connection.recv(100)

    def test_sent_headers_decode(self) -> None:
        """What HAProxy sends in either version and family decodes to the client's two ends, and the bytes after it
        are the client's."""
        for service in ("sends_v1", "sends_v2"):
            for host in ("127.0.0.1", "::1"):
                with socket.create_connection((host, self.ports[service]), DEADLINE_S) as client:
                    client.sendall(b"hello")
                    header, rest = self.read_header(self.host)
                    source, destination = (Address(*end[:2]) for end in (client.getsockname(), client.getpeername()))
                self.assertEqual((header.source, header.destination, header.local), (source, destination, False))
                self.assertEqual(rest, b"hello")

    def test_checks_are_local(self) -> None:
        """HAProxy's own health checks come as local headers."""
        header, _ = self.read_header(self.check_host)
        self.assertEqual((header.source, header.destination, header.local), (None, None, True))

    def accepted(self, client: socket.socket, header: bytes) -> str:
        """What HAProxy says about who we are after *header*."""
        with client:
            client.settimeout(DEADLINE_S)
            client.sendall(header + b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while data := client.recv(4096):
                answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "), answer)
        return body.decode()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.ports["accepts"]), DEADLINE_S)

    def test_encoded_headers_are_accepted(self) -> None:
        """HAProxy takes the addresses from what is encoded, in either version and family."""
        versions: tuple[Version, ...] = ("v1", "v2")
        for version in versions:
            for source, destination in ((Address("192.0.2.1", 1000), Address("192.0.2.2", 443)),
                                        (Address("2001:db8::1", 65535), Address("2001:db8::2", 1)),
                                        (Address("::ffff:192.0.2.1", 1000), Address("192.0.2.2", 443))):
                body = self.accepted(self.connect(), encode(version, source, destination))
                expected = f"{source.host.removeprefix('::ffff:')} {source.port} {destination.host} {destination.port}"
                self.assertEqual(body, expected, version)

    def test_headers_without_addresses_are_accepted(self) -> None:
        """After unknown headers HAProxy goes by the connection's own ends."""
        for header in (encode("v1", None, None), encode("v2", None, None)):
            client = self.connect()
            host, port = client.getsockname()
            self.assertEqual(self.accepted(client, header), f"{host} {port} 127.0.0.1 {self.ports['accepts']}")
