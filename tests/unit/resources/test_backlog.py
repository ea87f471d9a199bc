"""Clients that wait to be accepted: what the kernel says, and what is told."""

from __future__ import annotations

import tempfile
from pathlib import Path

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Configuration
from director.config import check
from director.ports.binding import BACKLOG
from director.resources.backlog import BacklogCollector, granted, turned_away

NETSTAT = """TcpExt: SyncookiesSent ListenOverflows ListenDrops
TcpExt: 5 7 9
IpExt: InNoRoutes
IpExt: 0
"""


class BacklogTests(SynchronousTestCase):
    def file(self, text: str) -> Path:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name, "file")
        path.write_text(text)
        return path

    def test_granted(self) -> None:
        """The less of what is asked for and what the kernel grants; what it does not say is no reason to warn."""
        for text, backlog in (("128\n", 128), ("65536\n", BACKLOG), ("?", BACKLOG)):
            self.assertEqual(granted(self.file(text)), backlog)
        self.assertEqual(granted(Path("/nowhere")), BACKLOG)

    def test_turned_away(self) -> None:
        self.assertEqual(turned_away(self.file(NETSTAT)), {"ListenOverflows": 7, "ListenDrops": 9})
        for broken in ("", "TcpExt: a\n", "TcpExt: a\nTcpExt: 1 2\n", NETSTAT.replace("9", "x")):
            self.assertEqual(turned_away(self.file(broken)), {})

    def test_metrics(self) -> None:
        registry = CollectorRegistry()
        registry.register(BacklogCollector(lambda: [("web", "10.0.0.1:80", 3, 128)], netstat=self.file(NETSTAT)))
        where = {"service": "web", "address": "10.0.0.1:80"}
        self.assertEqual([registry.get_sample_value(f"txdirector_listen_{name}", labels) for name, labels in (
            ("queue", where), ("backlog", where), ("overflows_total", {}), ("drops_total", {}))], [3, 128, 7, 9])

    def test_warning(self) -> None:
        """A director that takes clients says so when the kernel grants less than it asks for."""
        balances, manages = Configuration(), Configuration()
        manages = Configuration(node=type(manages.node)(roles=("manage",)))
        for configuration, backlog, warned in ((balances, 128, 1), (balances, BACKLOG, 0), (manages, 128, 0)):
            found = [each for each in check.warnings(configuration, backlog=backlog) if "somaxconn" in each.message]
            self.assertEqual(len(found), warned)
