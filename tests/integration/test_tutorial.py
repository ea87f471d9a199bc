"""The tutorial works as printed, on other ports: each command of its blocks, in order; then those of the REST reference."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.integration.test_cli import DEADLINE_S, CliTestCase, Running, address, listening

DOCS = Path(__file__).parents[2] / "docs"
PORTS = ("7401", "7946", "8001", "8002", "8080")


class TutorialTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        with contextlib.ExitStack() as taken:
            free = [taken.enter_context(listening()) for _ in PORTS]
            self.ports = {port: address(sock).rpartition(":")[2] for port, sock in zip(PORTS, free, strict=True)}
        commands = Path(sys.executable).parent
        self.env = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "COLUMNS": "120", "NO_COLOR": "1",
                    "TXDIRECTOR_URL": f"http://127.0.0.1:{self.ports['7401']}"}
        self.groups: list[int] = []
        self.addCleanup(self.end)

    def end(self) -> None:
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def page(self, name: str) -> str:
        return re.sub(r":(\d{4})\b|\b(800[12])\b", self.moved, (DOCS / name).read_text())

    def moved(self, found: re.Match[str]) -> str:
        port = found[1] or found[2]
        return found[0].replace(port, self.ports.get(port, port))

    def typed(self, text: str) -> str:
        """What *text*, typed into a shell, says; every command of it succeeds."""
        output = self.directory / f"output{len(self.groups)}"  # those in the background go on writing
        with output.open("w+") as file:  # no pipe: what runs on in the background has it, too
            shell = subprocess.Popen(["bash", "-euo", "pipefail", "-c", text], cwd=self.directory, env=self.env,
                                     stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
            self.groups.append(shell.pid)
            code = shell.wait(DEADLINE_S * 2)
        said = output.read_text()
        self.assertEqual(code, 0, f"{text}\n{said}")
        return said

    def test_as_printed(self) -> None:
        """Servers, director, a look, a drain, agents, metrics."""
        tutorial = self.page("tutorials/one-node.md")
        (configuration,) = re.findall(r"```toml\n(.*?)```", tutorial, flags=re.S)
        self.write(configuration)
        blocks = re.findall(r"```sh\n(.*?)```", tutorial, flags=re.S)
        blocks = [block for block in blocks if "pip install" not in block]  # it is installed
        servers, run, ask, steer, agents, watch = blocks
        self.typed(servers)
        check, _, rest = run.partition("\n")
        self.assertIn("OK\n", self.typed(check))
        self.assertEqual(rest.strip(), "director run director.toml")
        director = Running("-m", "director", "run", str(self.directory / "director.toml"))
        self.addCleanup(director.end)
        director.says("ready\n")
        answers = "".join(self.typed(f"curl --retry 9 --retry-all-errors -sS {ask.split()[-1]}") for _ in range(6))
        self.assertEqual(set(answers.split("\n")), {"hello from a", "hello from b", ""})
        said = self.typed(steer)
        self.assertIn("hello from b", said)
        self.assertNotIn("hello from a", said)
        self.assertIn("weight", said)
        self.typed(agents.replace("directorctl top", "directorctl top --once"))
        self.assertIn("txdirector_connections_ended_total", self.typed(watch))
        for block in re.findall(r"```sh\n(.*?)```", self.page("reference/rest.md"), flags=re.S):
            said = self.typed(block.replace("curl ", "curl -sS --fail-with-body "))
            self.assertIn('"drain"', said)
