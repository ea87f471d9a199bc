"""The default scheduler: by what there is to go by, with nothing lost in between."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Group, LoadReport, Reason, Sticky
from director.core.schedulers import make_scheduler, with_sticky
from director.core.schedulers.auto import SILENCE_S, Auto
from tests.unit.core.core_pools import pool_of

REPORT = LoadReport(utilisation=0.5)


class AutoTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.scheduler = Auto()
        self.pool = pool_of(self.scheduler, [1, 2, 1])

    def test_default(self) -> None:
        """It is what a group has that says nothing."""
        self.assertIsInstance(make_scheduler(Group().scheduler, {}, random=lambda: 0.0), Auto)

    def test_switches(self) -> None:
        """With the first report it is loadaware; after long silence of all agents weightedleastconns again."""
        self.assertEqual(self.scheduler.resolved, "weightedleastconns")
        self.pool.reported(self.pool.hosts["h1"], REPORT, 100.0)
        self.assertEqual(self.scheduler.resolved, "loadaware")
        self.pool.reported(self.pool.hosts["h2"], REPORT, 110.0)
        self.scheduler.cleanup(110.0 + SILENCE_S)
        self.assertEqual(self.scheduler.resolved, "loadaware")
        self.scheduler.cleanup(110.1 + SILENCE_S)
        self.assertEqual(self.scheduler.resolved, "weightedleastconns")
        self.pool.reported(self.pool.hosts["h1"], REPORT, 500.0)
        self.assertEqual(self.scheduler.resolved, "loadaware")

    def test_open_connections_stay(self) -> None:
        """Whichever way it switches, open connections count; hosts that are not eligible stay out."""
        self.pool.set_available(self.pool.hosts["h0"], False, True)
        h2 = [self.pool.hosts["h2"]]
        tickets = [self.pool.pick(None, 1.0, h2) for _ in range(20)]
        for switch in (lambda: self.pool.reported(self.pool.hosts["h2"], REPORT, 1.0), lambda: self.scheduler.cleanup(1e6)):
            switch()
            more = [self.pool.pick(None, 1.0) for _ in range(5)]
            self.assertEqual({ticket.host.name for ticket in more}, {"h2"})
            for ticket in more:
                self.pool.release(ticket, Reason.HOST_CLOSED, 1.1)
        for ticket in tickets:
            self.pool.release(ticket, Reason.HOST_CLOSED, 2.0)
        self.assertEqual(self.pool.in_flight, 0)

    def test_inside_a_table(self) -> None:
        """What it resolved to is seen through a sticky table too."""
        pool = pool_of(with_sticky(self.scheduler, Sticky(mode="table")), [1])
        self.assertEqual(pool.scheduler.resolved, "weightedleastconns")
        pool.reported(pool.hosts["h0"], REPORT, 1.0)
        self.assertEqual(pool.scheduler.resolved, "loadaware")
        self.assertEqual(make_scheduler("p2c", {}, random=lambda: 0.0).resolved, "")
