"""A director with an admin, and ``directorctl`` as an operator types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from director.service import DirectorService
from tests.integration.kit import DirectorTestCase

MAIN = "from director.ctl import main; main(prog_name='directorctl')"


class CtlTestCase(DirectorTestCase):
    timeout = 300  # each command is a process of its own, of which a test starts twenty

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.environment = {"TERM": "dumb"}

    async def start(self, data: dict[str, Any]) -> DirectorService:
        node = data.setdefault("node", {})
        node.setdefault("admin", {})["endpoints"] = [{"listen": "127.0.0.1:0"}]
        self.running = await self.director(data)
        endpoint: Any = next(iter(self.running.admin))
        self.url = f"http://{endpoint.address}"
        return self.running

    def write(self, text: str, name: str = "services.toml") -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    async def ctl(self, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return await self.run_command(sys.executable, "-c", MAIN, "--url", self.url, *words, typed=typed)

    async def ok(self, *words: str) -> str:
        """What a command that succeeds prints."""
        done = await self.ctl(*words)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    async def json(self, *words: str) -> Any:
        return json.loads(await self.ok(*words, "--json"))

    async def run_command(self, *command: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        environment = os.environ | self.environment | {"TXDIRECTOR_URL": getattr(self, "url", "")}
        done: subprocess.CompletedProcess[str] = await deferToThread(
            subprocess.run, command, input=typed, capture_output=True, text=True, timeout=60, check=False, env=environment,
        )
        return done
