"""docs/migrating.md names only what there is."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from director.admin.control import OPERATIONS
from director.core.schedulers import SCHEDULERS
from director.ctl.main import main

PAGE = Path(__file__).parents[3] / "docs" / "migrating.md"


def section(title: str) -> Iterator[list[str]]:
    """The rows of a section's table, cell by cell."""
    text = PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for row in rows[2:]:
        yield [cell.strip() for cell in row.split(" | ")]


class NameTests(SynchronousTestCase):
    def test_schedulers(self) -> None:
        """Every old name that is taken is said to mean what it means; every name on the page is taken."""
        meant = {old: name for name, kind in SCHEDULERS.items() for old in kind.aliases}
        said = {}
        for there, here in section("Schedulers"):
            name = re.search(r"`([^`]+)`", here)
            assert name is not None
            said |= dict.fromkeys(re.findall(r"`(\w+)`", there), name[1])
        self.assertEqual(said.pop("sticky"), "[services.NAME.sticky]")
        self.assertEqual({old: name for old, name in said.items() if old != name}, meant)

    def test_operations_and_commands(self) -> None:
        """Every operation is one of the control interface's, every command one of directorctl's."""
        rows = list(section("The web API"))
        self.assertTrue(rows)
        for _, operation, command in rows:
            if operation.startswith("`"):
                self.assertIn(operation.strip("`"), OPERATIONS)
            for words in re.findall(r"`directorctl ([a-z -]+)`", command):
                found: click.Command = main
                for word in words.split():
                    if isinstance(found, click.Group):
                        found = found.commands[word]

    def test_code(self) -> None:
        """Every module and class is there."""
        names = [name for _, here in section("Names in the code") for name in re.findall(r"`((?:director|cluster)\.[\w.]+)`", here)]
        self.assertGreater(len(names), 10)
        for name in names:
            parts = name.split(".")
            for cut in range(len(parts), 0, -1):
                try:
                    found = importlib.import_module(".".join(parts[:cut]))
                except ModuleNotFoundError:
                    continue
                for part in parts[cut:]:
                    found = getattr(found, part)
                break
