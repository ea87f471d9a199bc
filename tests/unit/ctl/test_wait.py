"""What a drain waits for, in words."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from director.ctl.hosts import _still_open


class StillOpenTests(SynchronousTestCase):
    def test_over_all_directors(self) -> None:
        """Connections are summed over directors; one that did not say is unknown, which is not none; an older director
        says nothing about others."""
        for host, words in (
            ({"in_flight": 0}, ""),
            ({"in_flight": 0, "in_flight_elsewhere": {"d2": 0}}, ""),
            ({"in_flight": 1, "in_flight_elsewhere": {"d2": 2, "d3": 0}}, "3 connections are still open"),
            ({"in_flight": 0, "in_flight_elsewhere": {"d2": None}}, "those of d2 are not known"),
            ({"in_flight": 2, "in_flight_elsewhere": {"d3": None, "d2": None}},
             "2 connections are still open, those of d2 are not known, those of d3 are not known"),
        ):
            self.assertEqual(_still_open(host), words)
