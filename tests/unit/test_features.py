"""``docs/features.md``: every requirement has a row, and every test that a row names exists."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]
ROWS = [line for line in (ROOT / "docs/features.md").read_text().splitlines() if re.match(r"\| *\d", line)]
#: The numbers of the requirements.
NUMBERS = {*range(1, 68), *range(70, 89), *range(90, 99), *range(100, 108), *range(110, 117), *range(120, 153)}
STATES = ("done", "part", "planned")


def numbers(row: str) -> set[int]:
    """Of one row: ``4, 46`` and ranges such as ``36–42``."""
    found: set[int] = set()
    for part in row.split("|")[1].split(","):
        first, _, last = part.strip().partition("–")
        found |= set(range(int(first), int(last or first) + 1))
    return found


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Many rows name the same file."""
    return ast.parse(path.read_text())


class FeaturesTests(SynchronousTestCase):
    def test_every_number(self) -> None:
        self.assertEqual(NUMBERS - {number for row in ROWS for number in numbers(row)}, set())

    def test_states(self) -> None:
        """Each row is done, done in part, or planned; what is done names what shows it."""
        for row in ROWS:
            state, shown = (cell.strip() for cell in row.split("|")[3:5])
            self.assertTrue(state.startswith(STATES), row)
            if state == "done":
                self.assertTrue(shown, row)

    def test_named_tests(self) -> None:
        """Folders, files, classes and functions are there; of whatever is named nothing is passed over."""
        missing = []
        for row in ROWS:
            for named in re.findall(r"`([^`]+)`", row.split("|")[4]):
                path, *names = named.split("::")
                if named.startswith("make "):
                    continue
                if not (ROOT / path).is_file():
                    if names or not (ROOT / path).is_dir():
                        missing.append(named)
                    continue
                if not names:
                    continue
                node: ast.Module | ast.stmt = parsed(ROOT / path)
                for name in names:
                    inside = [each for each in getattr(node, "body", ()) if getattr(each, "name", "") == name]
                    if not inside:
                        missing.append(named)
                        break
                    node = inside[0]
        self.assertEqual(missing, [])
