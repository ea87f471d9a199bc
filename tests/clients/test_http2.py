"""curl speaks HTTP/2 with nginx through a director that passes TLS on: its window updates come amid the download."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess

from tests.clients.kit import Clients, free_ports, on_both_relays
from tests.integration.pki import Authority

#: ``HTTP2_DOWNLOADS=50 make test-clients`` for an answer that one can rely on.
DOWNLOADS = int(os.environ.get("HTTP2_DOWNLOADS") or 4)
FILE_BYTES = 100 << 20
#: curl gives up when for so long less than a kilobyte a second has come.
STUCK_S = 10

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

    def test_downloads(self) -> None:
        """100 MB come whole, every time."""
        self.needs("nginx", "curl")
        whole = self.serve_a_file()
        director = self.director({"nginx": self.address})
        for number in range(DOWNLOADS):
            self.assertEqual(self.download(director.port), whole, f"download {number}")

    def serve_a_file(self) -> str:
        """Start nginx; returns the file's SHA-256."""
        www = self.directory / "www"
        www.mkdir()
        content = random.Random(self.relay).randbytes(FILE_BYTES)
        (www / "big").write_bytes(content)
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        certificate, key = Authority(self.directory).issue("nginx")
        configuration = self.directory / "nginx.conf"
        configuration.write_text(NGINX.format(directory=self.directory, port=port, certificate=certificate, key=key))
        self.server(["nginx", "-e", "/dev/null", "-p", str(self.directory), "-c", str(configuration)], port)
        return hashlib.sha256(content).hexdigest()

    def download(self, port: int) -> str:
        """The SHA-256 of what curl received; and it must have been HTTP/2."""
        target = self.directory / "received"
        done = subprocess.run(
            ["curl", "--http2", "--silent", "--show-error", "--insecure", "--speed-time", str(STUCK_S), "--speed-limit",
             "1000", "--output", str(target), "--write-out", "%{http_version} %{http_code}",
             f"https://127.0.0.1:{port}/big"],
            capture_output=True, text=True, check=False,
        )
        self.assertEqual((done.returncode, done.stdout), (0, "2 200"), done.stderr)
        with target.open("rb") as received:
            return hashlib.file_digest(received, "sha256").hexdigest()


PythonHttp2Tests, NativeHttp2Tests = on_both_relays(Http2)
