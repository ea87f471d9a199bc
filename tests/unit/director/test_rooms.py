"""The rooms of `director` keep their insides: what others may import of one is what its ``__all__`` names."""

from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import director

SOURCE = Path(director.__file__).parent
ROOMS = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
#: On top lie entry points and composition only.
MOST_ON_TOP = 8


def is_module(room: str, name: str) -> bool:
    return (SOURCE / room / f"{name}.py").exists() or (SOURCE / room / name).is_dir()


def imported(path: Path) -> Iterator[str]:
    """Dotted names of ours that a module imports, `TYPE_CHECKING` or not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def used_from_outside() -> dict[str, set[str]]:
    """By room: the modules that modules of other rooms import."""
    used: dict[str, set[str]] = defaultdict(set)
    for path in SOURCE.rglob("*.py"):
        here = path.relative_to(SOURCE).parts[0]
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "director" or len(parts) < 3 or parts[1] not in ROOMS or parts[1] == here:
                continue
            room, module = parts[1], parts[2]
            if is_module(room, module):
                used[room].add(module)
    return used


class RoomTests(SynchronousTestCase):
    def test_insides(self) -> None:
        """Each room offers just what others use of it."""
        used = used_from_outside()
        for room in set(ROOMS) - {"ctl"}:  # a command: nobody imports it
            offered = {name for name in importlib.import_module(f"director.{room}").__all__ if is_module(room, name)}
            self.assertEqual(offered, used.get(room, set()), room)

    def test_top(self) -> None:
        """What is added finds its room."""
        self.assertLessEqual(len(list(SOURCE.glob("*.py"))), MOST_ON_TOP)

    def test_said(self) -> None:
        """Every room says what it is for."""
        for room in ROOMS:
            self.assertTrue(importlib.import_module(f"director.{room}").__doc__, room)
