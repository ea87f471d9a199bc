"""The machine that ships: no two directors answer for one address, in any state that is looked at."""

from __future__ import annotations

import os

import pytest

from tests.explore.explore import explore
from tests.explore.sound import WIDE, Wide

#: Of all worlds together: 1.2 million take a core for a minute; ``make explore`` looks at ten million.
STATES = int(os.environ.get("EXPLORE_STATES", "1200000"))


@pytest.mark.parametrize("wide", WIDE, ids=lambda wide: wide.name.replace(" ", "-"))
def test_never_two(wide: Wide) -> None:
    found = explore(wide.world(), most=STATES // len(WIDE))
    print(f"{wide.name}: {found.states} states{', all there are' if found.exhausted else ''}, {found.seconds:.0f} s")
    assert not found.schedule, "\n".join(map(str, found.schedule))
    assert found.exhausted or found.states >= STATES // len(WIDE)
