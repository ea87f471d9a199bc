"""What the admin may order of a director's own process, through REST."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from director.ctl.client import CallFailed, Client
from tests.integration.kit import closed_port
from tests.integration.test_cli import SERVICE, CliTestCase, Running, address, listening, until


class OwnProcessTests(CliTestCase):
    def begin(self, host: str, extra: str = "") -> tuple[Running, Client, Path]:
        """A director with an admin; its file."""
        port = closed_port()
        head = f"[[node.admin.endpoints]]\nlisten = '127.0.0.1:{port}'\n[node.log]\n{extra}\n"
        path = Path(self.write(head + SERVICE.format(port=0, host=host)))
        running = self.start("-m", "director", "run", str(path))
        return running, Client(f"http://127.0.0.1:{port}"), path

    def test_shutdown_drains(self) -> None:
        """The order is answered, new clients are refused, the open connection goes on, and with it ends the process."""
        with listening() as backend:
            running, client, _ = self.begin(address(backend))
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

    def test_logs(self) -> None:
        """After the log's file was moved away, reopening makes a new one."""
        log = self.directory / "log"
        _, client, _ = self.begin("127.0.0.1:1", f"target = '{log}'")
        until(lambda: log.exists() and "ready\n" in log.read_text())
        log.rename(self.directory / "log.1")
        client.post("process", "reopen_logs")
        self.assertIn("local from 127.0.0.1: reopen_logs", log.read_text())

    def test_reload(self) -> None:
        """By the admin or by SIGHUP, the log's level follows the file; what does not is told; a bad file changes
        nothing."""
        running, client, path = self.begin("127.0.0.1:1", "level = 'warn'")
        text = path.read_text()

        def reload() -> Any:
            return client.post("process", "reload")

        until(lambda: self.answers(client))
        self.assertEqual(reload(), {"reloaded": [], "restart": []})
        path.write_text(text.replace("warn", "info") + 'app2 = "127.0.0.1:2"\n')
        self.assertEqual(reload(), {"reloaded": ["node.log.level"], "restart": ["services.web"]})
        running.says("local from 127.0.0.1: reload")
        path.write_text(text.replace("warn", "loud"))
        with self.assertRaises(CallFailed) as refused:
            reload()
        self.assertIn("node.log.level", str(refused.exception))
        running.tell(signal.SIGHUP)
        running.says(r"nothing was reloaded: .*node\.log\.level")
        path.write_text(text.replace("warn", "debug"))
        running.tell(signal.SIGHUP)
        running.says(r"node\.log\.level was reloaded from ")

    def answers(self, client: Client) -> bool:
        try:
            client.get("status")
        except CallFailed:
            return False
        return True
