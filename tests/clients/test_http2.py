"""curl and h2load speak HTTP/2 with nginx through a director that passes TLS on: curl's window updates come amid the
download."""

from __future__ import annotations

import os
import re
from typing import ClassVar

from tests.clients.kit import Clients, free_ports, on_both_relays, random_file, run, sha256
from tests.integration.pki import Authority

#: ``HTTP2_DOWNLOADS=50 make test-clients`` for an answer that one can rely on.
DOWNLOADS = int(os.environ.get("HTTP2_DOWNLOADS") or 4)
FILE_BYTES = 100 << 20
#: curl gives up when for so long less than a kilobyte a second has come.
STUCK_S = 10
#: h2load's: of a file of that many bytes, over so many connections with ten streams each.
REQUESTS, SMALL_BYTES, CONNECTIONS = 5000, 10_000, 20

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
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        root {directory}/www;
    }}
}}
"""


class Http2(Clients):
    __test__ = False
    needs = ("nginx", "curl", "h2load")
    whole: ClassVar[str]

    @classmethod
    def serve(cls) -> None:
        www = cls.directory / "www"
        www.mkdir()
        cls.whole = random_file(www / "big", FILE_BYTES)
        random_file(www / "small", SMALL_BYTES)
        (port,) = free_ports(1)
        certificate, key = Authority(cls.directory).issue("nginx")
        configuration = cls.directory / "nginx.conf"
        configuration.write_text(NGINX.format(directory=cls.directory, port=port, certificate=certificate, key=key))
        cls.server("nginx", "-e", "/dev/null", "-p", cls.directory, "-c", configuration, port=port)
        cls.director = cls.direct(port)

    def test_downloads(self) -> None:
        """100 MB come whole, every time."""
        target = self.directory / "received"
        for number in range(DOWNLOADS):
            said = run("curl", "--http2", "--silent", "--show-error", "--insecure", "--speed-time", STUCK_S, "--speed-limit",
                       1000, "--output", target, "--write-out", "%{http_version} %{http_code}",
                       f"https://127.0.0.1:{self.director.port}/big")
            self.assertEqual((said, sha256(target)), ("2 200", self.whole), f"download {number}")

    def test_streams(self) -> None:
        """h2load gets every answer, whole, over few connections."""
        before = self.director.accepted
        said = run("h2load", "-n", REQUESTS, "-c", CONNECTIONS, "-m", 10, f"https://127.0.0.1:{self.director.port}/small")
        self.assertIn(f"{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout", said)
        self.assertIn("Application protocol: h2\n", said)
        self.assertEqual(re.findall(r"\((\d+)\) data", said), [str(REQUESTS * SMALL_BYTES)], said)
        self.assertEqual(self.director.accepted - before, CONNECTIONS)


PythonHttp2Tests, NativeHttp2Tests = on_both_relays(Http2)
