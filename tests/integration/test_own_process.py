"""What the admin may order of a director's own process, through REST."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import bcrypt

from director.ctl.client import CallFailed, Client
from tests.integration.pki import Authority
from tests.integration.test_cli import SERVICE, CliTestCase, Running, address, listening, until
from tests.unit.admin.small_director import HASHER

#: Where the admin is, in the log.
ADMIN = r"admin at (http://127\.0\.0\.1:\d+)"


class OwnProcessTests(CliTestCase):
    def begin(self, host: str, log: str = "") -> tuple[Running, Path]:
        """A director with an admin and a service; its file."""
        head = f"[[node.admin.endpoints]]\nlisten = '127.0.0.1:0'\n[node.log]\n{log}\n"
        path = Path(self.write(head + SERVICE.format(port=0, host=host)))
        return self.start("-m", "director", "run", str(path)), path

    def test_shutdown_drains(self) -> None:
        """The order is answered, new clients are refused, the open connection goes on, and with it ends the process."""
        with listening() as backend:
            running, _ = self.begin(address(backend))
            client = Client(running.says(ADMIN)[1])
            running.says("ready\n")
            port = int(running.says(r"web listens on 127\.0\.0\.1:(\d+)")[1])
            visitor, host = self.relayed(backend, port)
            self.assertEqual(client.post("process", "shutdown"), {"connections": 1, "at_most_s": 300.0})
            running.says(r"ordered by local: stopping.*\n(.*\n)*.*waiting up to 300 s for 1 connections")
            host.sendall(b"pong")
            self.assertEqual(visitor.recv(4), b"pong")
            visitor.close()
            host.close()
            self.assertEqual(running.ended(), 0)

    def test_certificates(self) -> None:
        """A reload reads certificates that have changed at once; a broken one is refused, and nothing else is reloaded."""
        authority = Authority(self.directory)
        certificate, key = authority.issue("d1.example")
        agents = f"[node.agents]\nlisten = ['127.0.0.1:0']\ntls = {{ certificate = '{certificate}', key = '{key}' }}\n"
        running, path = self.begin("127.0.0.1:1", f"level = 'info'\n{agents}")
        client = Client(running.says(ADMIN)[1])
        running.says("ready\n")
        authority.issue("d1.example")
        self.assertEqual(client.post("process", "reload"), {"reloaded": ["node.agents.tls"], "restart": []})
        Path(key).write_text("no key")
        path.write_text(path.read_text().replace("info", "debug"))
        with self.assertRaises(CallFailed) as refused:
            client.post("process", "reload")
        self.assertIn("node.agents.tls.key", str(refused.exception))
        authority.issue("d1.example")
        self.assertEqual(client.post("process", "reload"), {"reloaded": ["node.log.level", "node.agents.tls"], "restart": []})

    def test_logs(self) -> None:
        """After the log's file was moved away, reopening makes a new one."""
        log = self.directory / "log"
        self.begin("127.0.0.1:1", f"target = '{log}'")
        until(lambda: log.exists() and "ready\n" in log.read_text())
        found = re.search(ADMIN, log.read_text())
        assert found is not None
        client = Client(found[1])
        log.rename(self.directory / "log.1")
        client.post("process", "reopen_logs")
        until(lambda: "local from 127.0.0.1: reopen_logs" in log.read_text())

    def test_reload(self) -> None:
        """By the admin or by SIGHUP, the log's level follows the file; what does not is told; a bad file changes
        nothing."""
        running, path = self.begin("127.0.0.1:1", "level = 'info'")
        client = Client(running.says(ADMIN)[1])
        text = path.read_text()

        def reload() -> Any:
            return client.post("process", "reload")

        self.assertEqual(reload(), {"reloaded": [], "restart": []})
        path.write_text(text.replace("info", "debug") + 'app2 = "127.0.0.1:2"\n')
        self.assertEqual(reload(), {"reloaded": ["node.log.level"], "restart": ["services.web"]})
        running.says(r"node\.log\.level was reloaded from ")
        running.says(r"services\.web differs in \S+, and waits for a restart, or for `directorctl apply ")
        path.write_text(text.replace("info", "loud"))
        with self.assertRaises(CallFailed) as refused:
            reload()
        self.assertIn("node.log.level", str(refused.exception))
        running.tell(signal.SIGHUP)
        running.says(r"error .*nothing was reloaded: .*node\.log\.level")
        path.write_text(text.replace("info", "error"))
        self.assertEqual(reload(), {"reloaded": ["node.log.level"], "restart": []})
        running.tell(signal.SIGTERM)
        self.assertEqual(running.ended(), 0)
        self.assertNotIn("stopping", running.output)

    def test_users(self) -> None:
        """A user of the reloaded file gets in, and nobody without one any more; so it is with the htpasswd file as soon
        as it changes."""
        htpasswd = self.directory / "htpasswd"
        htpasswd.write_text("")
        running, path = self.begin("127.0.0.1:1")
        text = path.read_text().replace("[[node", f"node.admin.htpasswd = '{htpasswd}'\n[[node", 1)
        path.write_text(text)
        running.tell(signal.SIGTERM)
        running.ended()
        running = self.start("-m", "director", "run", str(path))
        url = running.says(ADMIN)[1]
        ada = HASHER.hash("analytical")
        path.write_text(f"{text}[node.admin.users.ada]\npassword = '{ada}'\nrole = 'full'\n")
        with self.assertRaises(CallFailed):  # an htpasswd file without a user lets nobody in
            Client(url).get("status")
        running.tell(signal.SIGHUP)
        running.says(r"node\.admin\.users was reloaded")
        with self.assertRaises(CallFailed):
            Client(url).get("status")
        Client(url, user="ada", password="analytical").get("status")
        htpasswd.write_text(f"bob:{bcrypt.hashpw(b'looking on', bcrypt.gensalt(4)).decode()}\n")
        running.says(r"htpasswd: 1 users")
        bob = Client(url, user="bob", password="looking on")
        bob.get("status")
        with self.assertRaises(CallFailed):
            bob.post("process", "reopen_logs")
