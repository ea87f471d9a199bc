"""``docs/reference/metrics.md`` names every metric that a director exposes, with its labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.core import Metric

from director.metrics.counters import LogLines
from tests.integration.kit import DirectorTestCase, service, until

PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"
#: What of a family's name the exposition adds.
SUFFIX = {"counter": "_total", "info": "_info"}
#: Labels that formats give, not we.
OF_FORMAT = {"le"}


def documented() -> dict[str, set[str]]:
    """Labels by name."""
    found: dict[str, set[str]] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`(\w+)`", cells[0]) if line.startswith("| `") else ():
            assert name not in found, f"twice: {name}"
            found[name] = set() if cells[1] == "–" else set(cells[1].split(", "))
    return found


def labels(family: Metric) -> set[str]:
    return {label for sample in family.samples for label in sample.labels} - OF_FORMAT


class ReferenceTests(DirectorTestCase):
    async def test_all_and_no_other(self) -> None:
        site = await self.backend("a")
        data = service({"a": site.address})
        data["node"] = {"admin": {"endpoints": [{"listen": "127.0.0.1:0"}]}, "metrics": {"listen": "127.0.0.1:0"}}
        director = await self.director(data)
        await self.served_by(director)
        await until(lambda: self.ended(director, "client_closed"), "the close")
        director.registry.register(LogLines(lambda: 0))
        families = {each.name + SUFFIX.get(each.type, ""): each for each in director.registry.collect()}
        told = documented()
        self.assertEqual(sorted(told), sorted(families))
        for name, family in families.items():
            if found := labels(family):
                self.assertEqual(found, told[name], name)
