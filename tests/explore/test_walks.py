"""Long random schedules, with constants of many ticks and no bounds to speak of: no two owners. The same walks find them without
the waits."""

from __future__ import annotations

import os
from random import Random

import pytest

from cluster.takeover.machine import Takeover
from tests.explore.broken import WaitsForNothing
from tests.explore.explore import walk
from tests.explore.ticks import Ticks
from tests.explore.world import Bounds, World

#: As `test_sound`: a part of what ``make explore`` does.
STEPS = int(os.environ.get("EXPLORE_STATES", "1200000")) // 60
MANY = Ticks(promise_ns=9, count_ns=8, wait_ns=9, etcd_count_ns=8)
BOUNDS = Bounds(terms=10**6, crashes=10**6, changes=10**6, deletions=10**6, hand_overs=True)


def world(members: int, bounds: Bounds, rules: type[Takeover] = Takeover) -> World:
    return World(members, bounds, ticks=MANY, rules=rules)


@pytest.mark.parametrize("members", [2, 3])
@pytest.mark.parametrize("bounds", [BOUNDS._replace(deletions=0), BOUNDS, BOUNDS._replace(requests=True, late_fence=True)],
                         ids=["kept", "deleted", "requests"])
def test_never_two(members: int, bounds: Bounds) -> None:
    walked = walk(world(members, bounds), Random(members), most=STEPS // 6)
    print(f"{members} directors: {walked.steps} steps, {walked.moves} moves, answered {walked.answered:.0%} of the time")
    assert not walked.schedule, "\n".join(map(str, walked.schedule))
    assert walked.moves


def test_finds_a_missing_rule() -> None:
    """So that walks that find nothing say something."""
    assert walk(world(2, BOUNDS._replace(deletions=0), WaitsForNothing), Random(1), most=40_000).schedule
