"""The API's page has every operation that REST has, and links to objects that it tells of."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from director.admin.rest import ROUTES
from docs._ext.api import api_page


class ApiPageTests(SynchronousTestCase):
    def test_every_route(self) -> None:
        """A heading for each method of each path, in the order of the routes."""
        wanted = {f"{method} /api/v1/{route.path}" for route in ROUTES for method in route.methods if method != "HEAD"}
        self.assertEqual({each for each in re.findall(r"^### (.+)$", api_page(), flags=re.M) if "/" in each}, wanted)

    def test_links(self) -> None:
        """Each object that is named is there."""
        page = api_page()
        objects = {name.lower() for name in re.findall(r"^### (\w+)$", page, flags=re.M)}
        self.assertEqual(set(re.findall(r"\(#(\w+)\)", page)) - objects, set())

    def test_parameters(self) -> None:
        """Where a parameter goes, its bounds, its default, and whether it is needed."""
        part = api_page().partition("### PUT /api/v1/services/{service}/groups/{group}/hosts/{host}/state")[2].partition("###")[0]
        self.assertIn("| `state` | body | [AdminState](#adminstate) | required |", part)
        self.assertIn("| `why` | body | string | default `\"\"` |", part)
        self.assertIn("Answers [HostPicture](#hostpicture).", part)
