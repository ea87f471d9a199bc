"""Whose open connections a host's state ends."""

from __future__ import annotations

from typing import Literal, cast

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import AdminState, Group, Reason
from director.core.entries import GroupEntry, HostEntry
from director.core.merge import Verdict
from director.engine.cutting import why_cut


class Looks:
    """What is looked at of a host and of its group."""

    def __init__(self, on_down: Literal["keep", "cut"], admin: AdminState, down: bool) -> None:
        self.spec, self.admin, self.verdict = Group(on_down=on_down), admin, Verdict(down=down)


class CuttingTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Never where the group keeps them; else an order to be down goes before the verdict, and a drain is no reason."""
        for on_down, admin, down, why in (
            ("keep", AdminState.DOWN, True, None),
            ("cut", AdminState.UP, False, None),
            ("cut", AdminState.DRAIN, False, None),
            ("cut", AdminState.UP, True, Reason.HOST_DOWN),
            ("cut", AdminState.DRAIN, True, Reason.HOST_DOWN),
            ("cut", AdminState.DOWN, False, Reason.ORDERED_DOWN),
            ("cut", AdminState.DOWN, True, Reason.ORDERED_DOWN),
        ):
            looks = Looks(cast(Literal["keep", "cut"], on_down), admin, down)
            self.assertIs(why_cut(cast(GroupEntry, looks), cast(HostEntry, looks)), why, (on_down, admin, down))
