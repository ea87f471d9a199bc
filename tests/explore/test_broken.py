"""Each rule is needed: without it two directors answer for one address. With it the same schedule, as far as it goes, and what
may follow it, is sound."""

from __future__ import annotations

import pytest

from cluster.takeover.timing import MS, Timing
from tests.explore.broken import CASES, WITH_DRIFT, Case
from tests.explore.explore import explore
from tests.explore.ticks import Ticks

#: The farthest is found among some 70,000.
MOST = 150_000
#: After a counterexample's steps, of the machine that ships.
SOUND_MOST = 5_000


def case_id(case: Case) -> str:
    return f"{case.rule}-{case.lacks.replace(' ', '-')}"


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_needed(case: Case) -> None:
    found = explore(case.world(), most=MOST, along=case.along)
    assert found.schedule, f"{found.states} states, and no two owners"


@pytest.mark.parametrize("case", [case for case in CASES if not case.rule.startswith("I")], ids=case_id)
def test_sound_with_it(case: Case) -> None:
    found = explore(case.world(sound=True), most=SOUND_MOST, along=case.along, as_far=True)
    assert not found.schedule, "\n".join(map(str, found.schedule))


def broken(ticks: Ticks) -> set[str]:
    """The inequalities that do not hold where a tick is a tenth of a second."""
    real = {name: 100 * MS * getattr(ticks, name) for name in ticks.__struct_fields__}
    return {each.partition(":")[0] for each in Timing.broken(Ticks(**real))}


def test_inequalities() -> None:
    """The constants with which two owners are found are refused by that name; those of the sound worlds are not."""
    for case in CASES:
        if case.rule.startswith("I"):
            assert case.rule in broken(case.ticks), case
    assert not broken(WITH_DRIFT) & {"I1", "I2", "I3", "I4"}
