"""sslyze finds that every port of a director with TLS is as Mozilla's intermediate configuration says.

The peers' port listens only beside etcd: it is another director's.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.kit import CLIENT_S, PATIENCE_S, free_ports, go_without, is_listened_at, wait_until
from tests.etcd_server import EtcdCluster
from tests.integration.pki import Authority

ROOT = Path(__file__).parents[2]
#: What `make build/sslyze/bin/sslyze` makes, or what there is.
SSLYZE = str(ROOT / "build/sslyze/bin/sslyze") if (ROOT / "build/sslyze/bin/sslyze").exists() else shutil.which("sslyze")

CONFIGURATION = """
[node]
name = "d1"
log.level = "error"
agents = {{ listen = ["127.0.0.1:{agents}"], tls = {{ {files} }} }}
metrics = {{ listen = "127.0.0.1:{metrics}", tls = {{ {files}, client_ca = "{ca}" }} }}
[[node.admin.endpoints]]
listen = "127.0.0.1:{admin}"
tls = {{ {files} }}
[services.web]
listen = ["127.0.0.1:{web}"]
tls.certificates = [{{ {files} }}]
[services.mutual]
listen = ["127.0.0.1:{mutual}"]
tls = {{ client_ca = "{ca}", client_certificate = "optional", certificates = [{{ {files} }}] }}
[services.web.groups.main.hosts]
silent = "127.0.0.1:{host}"
[services.mutual.groups.main.hosts]
silent = "127.0.0.1:{host}"
"""
PORTS = ("agents", "metrics", "admin", "web", "mutual")
BESIDE_ETCD = """
[node]
name = "d1"
store = "etcd:"
log.level = "error"
admin.endpoints = []
[node.etcd]
endpoints = ["{etcd}"]
[node.peers]
listen = "127.0.0.1:{peers}"
certificate_domain = "example"
tls = {{ {files}, client_ca = "{ca}" }}
"""


class SslyzeTests(SynchronousTestCase):
    ports: ClassVar[dict[str, int]]
    authority: ClassVar[Authority]

    @classmethod
    def setUpClass(cls) -> None:
        if SSLYZE is None:
            go_without("sslyze is not installed: make build/sslyze/bin/sslyze")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.authority = Authority(Path(folder.name))
        certificate, key = cls.authority.issue("localhost", "d1.example", days=30)
        host = socket.create_server(("127.0.0.1", 0), backlog=512)  # who connects there waits
        cls.addClassCleanup(host.close)
        cls.ports = dict(zip((*PORTS, "peers"), free_ports(len(PORTS) + 1), strict=True))
        etcd = EtcdCluster()
        cls.addClassCleanup(etcd.stop)
        etcd.start()
        files = f'certificate = "{certificate}", key = "{key}"'
        for name, text in (("all", CONFIGURATION), ("beside-etcd", BESIDE_ETCD)):
            path = Path(folder.name) / f"{name}.toml"
            path.write_text(text.format(files=files, ca=cls.authority.path, host=host.getsockname()[1],
                                        etcd=etcd.endpoints[0], **cls.ports))
            process = subprocess.Popen([sys.executable, "-m", "director", "run", str(path)])
            cls.addClassCleanup(process.wait, PATIENCE_S)
            cls.addClassCleanup(process.terminate)
        wait_until(lambda: all(map(is_listened_at, cls.ports.values())), "the director listens")

    def test_every_port(self) -> None:
        """Clients', agents', operators' and other directors': nothing weaker is spoken."""
        targets = [f"localhost:{port}" for port in self.ports.values()]
        certificate, key = self.authority.issue("client.example")
        options = ("--cert", certificate, "--key", key, "--mozilla_config", "intermediate", "--certinfo_ca_file", self.authority.path)
        done = subprocess.run([str(SSLYZE), *options, *targets],
                              capture_output=True, text=True, timeout=CLIENT_S, check=False)
        verdict = done.stdout.partition("COMPLIANCE AGAINST TLS CONFIGURATION")[2]
        for name, target in zip(self.ports, targets, strict=True):
            self.assertIn(f"{target}: OK - Compliant.", verdict, f"{name}: {done.stdout}")
        self.assertEqual(done.returncode, 0, done.stdout)
