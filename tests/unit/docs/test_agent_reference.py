"""docs/reference/agent.md tells of every key of the agent's file and every option, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec
from twisted.trial.unittest import SynchronousTestCase

from agent.cli import main
from agent.config import AgentConfig, AgentTLS, configure

PAGE = (Path(__file__).parents[3] / "docs/reference/agent.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]
#: Tables of the file that have a page of their own (`docs/reference/load.md`).
ELSEWHERE = {"prometheus", "agent_check"}


class ReferenceTests(SynchronousTestCase):
    def test_every_key(self) -> None:
        """With its default; and no other."""
        rows = {key: row for row in ROWS if len(row) == 4 for key in re.findall(r"`([\w.*]+)`", row[0])}
        wanted = {field.name for field in msgspec.structs.fields(AgentConfig)} - ELSEWHERE - {"tls"}
        wanted |= {f"tls.{field.name}" for field in msgspec.structs.fields(AgentTLS)}
        self.assertEqual({key for key in rows if key.partition(".")[0] not in ELSEWHERE}, wanted)
        for field in msgspec.structs.fields(AgentConfig):
            if field.name in rows and field.name != "name":
                default = field.default
                shown = "required" if field.required else "–" if default is None else f"`{msgspec.json.encode(default).decode()}`"
                self.assertEqual(rows[field.name][2], shown, field.name)

    def test_every_option(self) -> None:
        for parameter in main.params:
            if isinstance(parameter, click.Option) and parameter.name not in ("version", "completion", "config", "help"):
                self.assertIn(f"`{parameter.opts[0]}`", PAGE)

    def test_the_file(self) -> None:
        """What the page has as a file is one."""
        (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.M | re.S)
        path = Path(self.mktemp())
        path.write_text(text)
        self.assertEqual(configure(str(path), {}).hosts, ("web/main/app1",))

    def test_in_the_process(self) -> None:
        """What the page has in Python is what there is."""
        (text,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
        from twisted.application.service import MultiService
        from twisted.internet.task import Clock

        clock = Clock()
        served: list[str] = []
        text = text.replace('("10.0.0.11:7946",)', '("127.0.0.1:7946",)')  # beyond loopback it takes TLS
        exec(text, {"reactor": clock, "application": MultiService(), "serve": served.append, "request": "one"})
        self.assertEqual(served, ["one"])
