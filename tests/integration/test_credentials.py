"""A director and an agent with credentials as systemd gives them: a directory, and a variable that names it."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.integration.pki import Authority
from tests.integration.test_cli import DEADLINE_S, CliTestCase, Running

CONFIG = """
[[node.admin.endpoints]]
listen = "127.0.0.1:0"
tls = {{ certificate = "{certificate}", key = "credential:key" }}
[node.peers]
listen = "127.0.0.1:0"
advertise = "127.0.0.1:7"
secret_file = "credential:peers"
"""


class CredentialTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.credentials = self.directory / "credentials"
        self.credentials.mkdir(0o700)
        self.authority = Authority(self.directory)
        self.certificate, key = self.authority.issue("127.0.0.1")
        self.give("key", Path(key).read_text())
        self.give("peers", "x" * 40)
        self.config = self.write(CONFIG.format(certificate=self.certificate))

    def give(self, name: str, text: str, mode: int = 0o400) -> None:
        path = self.credentials / name
        path.unlink(missing_ok=True)
        path.touch(mode)
        path.chmod(mode)
        path.write_text(text)

    def checked(self, command: str = "check", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "director", command, self.config], capture_output=True, text=True, timeout=60,
                              check=False, env={**os.environ, **environment})

    def test_a_director(self) -> None:
        """Serves by a key that only its credentials have."""
        self.assertEqual(self.checked(CREDENTIALS_DIRECTORY=str(self.credentials)).returncode, 0)
        running = Running("-m", "director", "run", self.config, env={"CREDENTIALS_DIRECTORY": str(self.credentials)})
        self.addCleanup(running.end)
        url = running.says(r"admin at (https://\S+)")[1]
        running.says("ready\n")
        context = ssl.create_default_context(cafile=self.authority.path)
        with urllib.request.urlopen(f"{url}/api/v1/status", timeout=DEADLINE_S, context=context) as answer:
            self.assertEqual(answer.status, 200)

    def test_without(self) -> None:
        """Each is told once, with its line; `run` refuses too."""
        for command in ("check", "run"):
            done = self.checked(command)
            self.assertEqual(done.returncode, 2)
            lines = done.stderr.splitlines()
            self.assertEqual(len(lines), 2, done.stderr)
            for line, (number, place, name) in zip(lines, ((4, "node.admin.endpoints[0].tls.key", "key"),
                                                           (8, "node.peers.secret_file", "peers")), strict=True):
                self.assertIn(f":{number}: {place}: credential:{name}: this process has no credentials", line)

    def test_rules_of_files_hold(self) -> None:
        """One that everybody may read, that is too short, or that is not there."""
        for text, mode, words in (("x" * 40, 0o444, "everybody on this machine"), ("short", 0o400, "at least")):
            self.give("peers", text, mode)
            done = self.checked(CREDENTIALS_DIRECTORY=str(self.credentials))
            self.assertEqual(done.returncode, 2)
            self.assertIn(words, done.stderr)
        (self.credentials / "peers").unlink()
        done = self.checked(CREDENTIALS_DIRECTORY=str(self.credentials))
        self.assertIn("credentials/peers: No such file or directory", done.stderr)

    def test_an_agent(self) -> None:
        """Tells where it would look, and what it lacks."""
        command = [sys.executable, "-m", "agent.cli", "--director", "127.0.0.1:1", "--host", "web/main/a", "--token-file", "credential:t"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("credential:t: this process has no credentials", done.stdout + done.stderr)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                              env={**os.environ, "CREDENTIALS_DIRECTORY": str(self.credentials)})
        self.assertIn(f"{self.credentials}/t", done.stdout + done.stderr)
