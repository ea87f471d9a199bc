"""docs/reference/rest.md says what is there."""

from __future__ import annotations

from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from director.admin.control import OPERATIONS
from director.admin.rest import ROUTES

DOCUMENT = Path(__file__).parents[3] / "docs/reference/rest.md"


class ReferenceTests(SynchronousTestCase):
    def test_every_route_has_its_row(self) -> None:
        """Each route is a row with its methods, its operation and each parameter that its path does not give; and
        each row is a route."""
        rows = {}
        for line in DOCUMENT.read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) == 5 and cells[0].startswith("`"):
                rows[cells[0], cells[1], cells[2]] = cells[3]
        expected = {}
        for route in ROUTES:
            methods = " ".join(f"`{method}`" for method in route.methods if method != "HEAD")
            path = route.path
            for name, letter in (("service", "S"), ("group", "G"), ("host", "H"), ("client", "C"), ("user", "U"),
                                 ("address", "A")):
                path = path.replace(f"{{{name}}}", letter)
            expected[methods, f"`{path}`", f"`{route.operation}`"] = route
        self.assertEqual(set(rows), set(expected))
        for key, route in expected.items():
            for field in msgspec.structs.fields(OPERATIONS[route.operation].parameters):
                if f"{{{field.name}}}" not in route.path:
                    self.assertIn(f"`{field.name}`", rows[key], key)
