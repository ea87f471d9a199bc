"""The share of new connections that each host of a group gets at the present load.

A scheduler's next choice is one host, and says little about what each will get. So this is asked: if connections go on
coming as they end, so that as many stay open as now, and last as long on every host as on any other, to which part of
them does each host come? `director.core.schedulers.base.Scheduler.parts` answers for hosts that are mostly idle (turns), and
for hosts that all have connections (equal scores); between the two, by connections per host.

That is computed from weights and scores as they are now, and plays nothing forward, so that it costs one look at each
host. Whole connections are left out: with one or two for each host a tenth more weight may mean one connection more, and so
twice as many. Beside the real schedulers played at constant load it is right to within 0.035 with nothing in flight and
from some ten connections a host on, and to within 0.2 between (tests/unit/core/test_expected.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from director.core.schedulers.base import Parts

#: Connections for each host up to which hosts take turns, and from which on scores alone decide.
LIGHT, HEAVY = 2.0, 5.0

Key = TypeVar("Key")


def expected_shares(parts: Mapping[Key, Parts], in_flight: int) -> dict[Key, float]:
    """Of each host that takes connections, 0 to 1. *in_flight*: of all of them together."""
    idle, busy = (sum(each[kind] for each in parts.values()) for kind in (0, 1))
    if not parts:
        return {}
    if not idle or not busy:  # a table without a slot for any of them: one is as near as the other
        return dict.fromkeys(parts, 1.0 / len(parts))
    heavy = min(max((in_flight / len(parts) - LIGHT) / (HEAVY - LIGHT), 0.0), 1.0)
    return {key: (1.0 - heavy) * each.idle / idle + heavy * each.busy / busy for key, each in parts.items()}
