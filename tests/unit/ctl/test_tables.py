"""What tables keep whole where there is little room."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from director.ctl import tables

MEMBER: dict[str, Any] = {
    "name": "director-amsterdam-1", "leads": True, "version": "0.1.0", "started": 0.0, "admin": ["127.0.0.1:7401"],
    "agents": ["10.10.20.30:7946"], "peers": "10.10.20.30:7947", "roles": ["balance", "manage"],
}
HOST: dict[str, Any] = {
    "service": "storefront", "group": "blue", "name": "application-17", "address": "10.10.20.30:8080", "state": "suspect",
    "admin": "drain", "weight": 1.25, "in_flight": 4711, "max_connections": 5000, "report": {"utilisation": 0.5},
    "heartbeat_age_s": 0.3, "why_not": "drained by ada: new kernel",
}


def shown(table: Any, width: int = 80) -> str:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


class NarrowTests(SynchronousTestCase):
    def test_names_stay_whole(self) -> None:
        """On 80 columns no director's and no host's name is cut; what there is no room for is left out or folds."""
        self.assertIn(MEMBER["name"], shown(tables.members_table([MEMBER, MEMBER | {"name": "b", "leads": False}])))
        self.assertIn("storefront/blue/application-17", shown(tables.hosts_table([HOST], width=80)))

    def test_nothing_is_lost(self) -> None:
        """What folds is all there."""
        text = shown(tables.members_table([MEMBER])).replace("\n", " ")
        self.assertNotIn("…", text)
