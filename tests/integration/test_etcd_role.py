"""An etcd user with the role that docs/questions.md gives it can do all that a director does: no right beyond its own keys."""

from __future__ import annotations

import re
from pathlib import Path

from director.ctl.client import Client
from tests.etcd_server import EtcdCluster, free_port
from tests.integration.test_cli import CliTestCase, until

PAGE = Path(__file__).parents[2] / "docs/questions.md"


class RoleTests(CliTestCase):
    def test_as_printed(self) -> None:
        """Services are put there, the director leads, a change and an order are taken, and told by the history."""
        etcd = EtcdCluster().start()
        self.addCleanup(etcd.stop)
        for command in re.findall(r"^ +etcdctl (.+)$", PAGE.read_text(), flags=re.M):
            etcd.etcdctl(*command.replace("user add txdirector", "user add txdirector:s3cret").split())
        etcd.enable_auth("root", "r00t")
        (self.directory / "password").write_text("s3cret\n")
        admin = f"127.0.0.1:{free_port()}"
        path = self.write(f"""
            [node]
            store = "etcd:"
            [node.etcd]
            endpoints = ["{etcd.endpoints[0]}"]
            user = "txdirector"
            password_file = "{self.directory}/password"
            [node.admin]
            endpoints = [{{ listen = "{admin}" }}]
        """)
        services = self.directory / "services.toml"
        services.write_text('[services.web]\nlisten = ["127.0.0.1:0"]\n[services.web.groups.main.hosts]\na = "127.0.0.1:1"\n')
        self.start("-m", "director", "bootstrap", "--config", path, str(services)).says("are in cluster main")
        director = self.start("-m", "director", "run", path)
        director.says("leads, term")
        client = Client(f"http://{admin}")
        client.put("services", "web", "groups", "main", "hosts", "a", "weight", weight=2.0)
        client.put("services", "web", "groups", "main", "hosts", "a", "state", state="drain")
        until(lambda: {"drain", "weight changed"} <= set(re.findall("drain|weight changed", str(client.get("history")))))
        self.assertEqual(client.get("status")["problems"], [])
