"""docs/reference/configuration.md tells of every key, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tomli_w
from msgspec import NODEFAULT, inspect
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Configuration
from cluster.model.base import MAX_SECONDS
from director.core.schedulers import SCHEDULERS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "configuration.md"


def tables(node: inspect.Type, place: str = "") -> Iterator[tuple[str, inspect.StructType]]:
    """Every struct below *node* with the header of its TOML table."""
    match node:
        case inspect.StructType(fields=fields):
            yield place, node
            for field in fields:
                yield from tables(field.type, f"{place}.{field.encode_name}".lstrip("."))
        case inspect.DictType(value_type=value) if isinstance(value, inspect.StructType):
            yield from tables(value, f"{place}.NAME")
        case inspect.VarTupleType(item_type=inspect.StructType() as item):
            yield from ((f"[{place}]" if header == place else header, table) for header, table in tables(item, place))
        case inspect.UnionType(types=types):
            for each in types:
                yield from tables(each, place)
        case _:
            pass


def default(field: inspect.Field) -> str:
    """A default as the page should show it."""
    value = field.default if field.default is not NODEFAULT else field.default_factory()
    if value is None:
        return "–"
    written = tomli_w.dumps({"k": value}).removeprefix("k = ").strip().replace("[k]", "{}")
    return "`" + re.sub(r"\[\s*(.*?),?\s*\]", lambda match: "[" + " ".join(match[1].split()) + "]", written, flags=re.S) + "`"


class Bounds(NamedTuple):
    """Of a number."""

    above: float | None
    least: float | None
    most: float | None


def bounds(node: inspect.Type) -> Bounds | None:
    """Of the number that this is, or that its items are."""
    match node:
        case inspect.IntType(gt=above, ge=least, le=most) | inspect.FloatType(gt=above, ge=least, le=most):
            return Bounds(above, least, most)
        case inspect.UnionType(types=types):
            return next(filter(None, map(bounds, types)), None)
        case inspect.VarTupleType(item_type=item):
            return bounds(item)
    return None


def told(kind: str) -> Bounds:
    """As the page's words for a kind of number mean them, by its conventions."""
    usual = None if "whole number" in kind else MAX_SECONDS if "seconds" in kind else 1_000_000
    if whole := re.search(r"(\d+) to (\d+)", kind):
        return Bounds(None, int(whole[1]), int(whole[2]))
    most = int(at_most[1]) if (at_most := re.search(r"at most (\d+)", kind)) else usual
    if "above 0" in kind:
        return Bounds(None, 1, most) if "whole number" in kind else Bounds(0, None, most)
    return Bounds(None, 0, most)


def documented(column: int = 1) -> dict[str, dict[str, str]]:
    """Header → key → default, as on the page; of column 0 the kind."""
    found: dict[str, dict[str, str]] = {}
    rows: dict[str, str] = {}
    for line in PAGE.read_text().splitlines():
        if heading := re.fullmatch(r"## \[(.+)\]", line):
            rows = found.setdefault(heading[1], {})
        elif row := re.match(r"\| `(\w+)` \| ([^|]+) \| ([^|]+) \| [^|]*\|$", line):
            rows[row[1]] = row[2 + column]
    return found


class ReferenceTests(SynchronousTestCase):
    def test_every_key_with_its_default(self) -> None:
        """The page's tables and keys are the model's, defaults included."""
        wanted = {}
        for header, table in tables(inspect.type_info(Configuration)):
            leaves = [field for field in table.fields if not list(tables(field.type))]
            if leaves:
                wanted[header] = {
                    field.encode_name: "required" if field.required else default(field) for field in leaves
                }
        self.maxDiff = None
        self.assertEqual(documented(), wanted)

    def test_every_bound(self) -> None:
        """What the page says of a number is what is taken."""
        kinds = documented(column=0)
        for header, table in tables(inspect.type_info(Configuration)):
            for field in table.fields:
                if (known := bounds(field.type)) is not None:
                    with self.subTest(table=header, key=field.encode_name):
                        self.assertEqual(told(kinds[header][field.encode_name]), known)

    def test_every_scheduler(self) -> None:
        """Every scheduler is there under all its names, with its parameters and their defaults."""
        rows = {
            row[0]: row
            for line in PAGE.read_text().splitlines()
            if (row := [part.strip() for part in line.split("|")[1:-1]]) and len(row) == 3
        }
        for kind in SCHEDULERS.values():
            row = rows[", ".join(f"`{name}`" for name in (kind.name, *kind.aliases))]
            for parameter in kind.parameters:
                self.assertIn(f"`{parameter.name}`", row[2])
                self.assertIn(f"default {parameter.default}".lower(), row[2])  # as TOML writes true
