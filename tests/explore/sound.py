"""Worlds of the machine that ships, each wide in one direction: all of them at once would be looked at forever."""

from __future__ import annotations

from typing import NamedTuple

from tests.explore.broken import SHORT
from tests.explore.ticks import Ticks
from tests.explore.world import Bounds, World


class Wide(NamedTuple):
    name: str
    members: int
    bounds: Bounds
    ticks: Ticks = Ticks()
    electors: int | None = None

    def world(self) -> World:
        return World(self.members, self.bounds, ticks=self.ticks, electors=self.electors)


WIDE = (
    Wide("2 directors, messages on the way, late refreshes", 2,
         Bounds(terms=3, crashes=1, hand_overs=True, wires=True, late_fence=True)),
    Wide("2 directors, requests on the way, late refreshes, the record deleted", 2,
         Bounds(terms=3, crashes=1, deletions=1, hand_overs=True, requests=True, late_fence=True)),
    Wide("2 directors, killed twice, the record deleted", 2, Bounds(terms=4, crashes=2, deletions=1, hand_overs=True)),
    Wide("3 directors, killed, one in or out, the record deleted", 3,
         Bounds(terms=3, crashes=1, deletions=1, changes=1, hand_overs=True, drift=False), SHORT),
    Wide("3 directors, the third not an elector at first", 3,
         Bounds(terms=3, crashes=1, changes=1, hand_overs=True, drift=False), SHORT, 2),
    Wide("3 directors, requests on the way, one in or out, the record deleted", 3,
         Bounds(terms=3, deletions=1, changes=1, requests=True, drift=False), SHORT),
)
