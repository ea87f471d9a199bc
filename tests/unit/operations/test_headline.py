"""A director in one line."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from director.core.snapshot import NotablePicture, TotalsPicture
from director.operations.headline import headline


def totals(services: int = 2, hosts: int = 12, in_rotation: int = 10, connections: int = 153, queued: int = 0,
           notable: tuple[NotablePicture, ...] = ()) -> TotalsPicture:
    return TotalsPicture(services=tuple(map(str, range(services))), hosts=hosts, in_rotation=in_rotation, connections=connections,
                         queued=queued, connect_failures=7, notable=notable)


class HeadlineTests(SynchronousTestCase):
    def line(self, totals: TotalsPicture, *, leads: bool = False, available: bool = True, isolated: bool = False) -> str:
        return headline(totals, leads=leads, store_available=available, isolated=isolated)

    def test_numbers(self) -> None:
        """How much there is; clients that wait are named where there are any."""
        self.assertEqual(self.line(totals()), "serving 2 services, 153 connections, 10 of 12 hosts in rotation")
        self.assertEqual(self.line(totals(1, 1, 0, 1, 4)),
                         "serving 1 service, 1 connection and 4 queued, 0 of 1 host in rotation")

    def test_troubles(self) -> None:
        """What is out of order stands behind."""
        failing = NotablePicture(service="web", name="blue", failing_open=True, backups_in_use=False, waiting=0)
        backups = NotablePicture(service="web", name="blue", failing_open=False, backups_in_use=True, waiting=0)
        numbers = "serving 2 services, 153 connections, 10 of 12 hosts in rotation"
        self.assertEqual(self.line(totals(notable=(backups,)), leads=True), f"{numbers}; leading")
        self.assertEqual(self.line(totals(notable=(failing,)), available=False, isolated=True),
                         f"{numbers}; the store does not answer; hardly any agent is heard; not all groups have a healthy host")
