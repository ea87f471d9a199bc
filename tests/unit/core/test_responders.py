"""What agent-check responders say, and what follows."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.agent_check import parse
from cluster.model import AdminState
from director.core.responders import Relayed, Said


def said(*lines: bytes) -> Said:
    all_of_it = Said()
    for line in lines:
        all_of_it = all_of_it.then(parse(line))
    return all_of_it


class Saying(SynchronousTestCase):
    def test_what_is_not_said_stays(self) -> None:
        """Each kind of word for itself."""
        self.assertEqual(said(b"50% maxconn:7 drain fail #disk", b"20%"), Said(20, 7, "drain", "fail", "disk"))
        self.assertEqual(said(b"50% maxconn:7 drain fail #disk", b""), Said(50, 7, "drain", "fail", "disk"))
        self.assertEqual(said(b"fail #disk", b"fail"), Said(health="fail"))

    def test_orders(self) -> None:
        """The severest of both kinds; each word takes back its own kind only."""
        for lines, order in (
            ([b"75%"], None),
            ([b"up ready"], None),
            ([b"drain"], (AdminState.DRAIN, "its responder says drain")),
            ([b"maint"], (AdminState.DOWN, "its responder says maint")),
            ([b"down"], (AdminState.DOWN, "its responder says down")),
            ([b"stopped # on purpose"], (AdminState.DOWN, "its responder says stopped: on purpose")),
            ([b"drain fail #disk"], (AdminState.DOWN, "its responder says fail: disk")),
            ([b"drain fail", b"up"], (AdminState.DRAIN, "its responder says drain")),
            ([b"drain fail", b"ready"], (AdminState.DOWN, "its responder says fail")),
            ([b"drain fail", b"ready up"], None),
            ([b"maint", b"drain"], (AdminState.DRAIN, "its responder says drain")),
        ):
            self.assertEqual(said(*lines).order, order, lines)

    def test_reports(self) -> None:
        """It lowers, and never raises."""
        for line, report in (
            (b"", Relayed()), (b"75%", Relayed(weight=0.75)), (b"0%", Relayed(weight=0.0)),
            (b"300%", Relayed(weight=1.0)), (b"maxconn:9", Relayed(max_connections=9)),
            (b"drain", Relayed(state="drain")), (b"maint", Relayed(state="down")),
            (b"50% fail", Relayed(weight=0.5, state="down")),
        ):
            self.assertEqual(said(line).report, report, line)
