"""One maximum for a whole cluster: a service's ``max_connections`` shared out among directors. Pure.

Each director lets clients in while it has fewer open than its *grant*. The leader writes the grants, all of a service in one
record. A grant that was lowered is not free yet: its director may not know, and keeps the connections that it has. So the
record has a *ceiling* for each director too, and the rules are:

1. A director never has more open than its ceiling in the newest record.
2. A grant is raised only so far that all ceilings together stay within the maximum (`next_caps`).
3. A ceiling comes down to what its director says that it has open, once it says that it keeps to the present record; and
   goes away only with a director whose process has certainly ended.

By 1 and 2 the sum of all open connections never exceeds the maximum. (Where an operator lowers the maximum below what is
open, nobody is let in until it fits.) While the store is away nobody can raise anything, so the last grants, which keep to
the maximum together, stand. A director that nobody hears keeps its ceiling: whether it is dead or cut off, nobody
knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cluster.model import Caps, CapShare

#: A director asks for more once so much of its grant is in use: before it has to refuse anybody.
PRESSED = 0.9
#: Grants are not moved for less than this share of the maximum, so that load that goes up and down writes little.
LEAST_MOVE = 0.05


class View(NamedTuple):
    """What the leader knows of a director."""

    live: bool  #: its membership stands, or it is linked
    gone: bool = False  #: its process has certainly ended
    number: int = 0  #: of the record that it says it keeps to; 0: it has not said
    open: int = 0  #: connections, when it said so
    wanted: int = 0  #: with the clients that wait


_NOTHING = CapShare(grant=0, ceiling=0)


def next_caps(maximum: int, caps: Caps | None, views: Mapping[str, View]) -> Caps | None:
    """The next record; None when the present one will do.

    :param views: of every director that lives or is in the record; one that is not counts as silent.
    """
    present = {} if caps is None else dict(caps.shares)
    shares = {
        name: _settled(share, views.get(name, View(live=False)), 0 if caps is None else caps.number)
        for name, share in present.items() if not views.get(name, View(live=False)).gone
    }
    live = sorted(name for name, view in views.items() if view.live and not view.gone)
    shares |= {name: _NOTHING for name in live if name not in shares}
    targets = _targets(maximum, shares, {name: views[name] for name in live})
    for name in live:
        if targets[name] < shares[name].grant:
            shares[name] = CapShare(grant=targets[name], ceiling=shares[name].ceiling)
    free = maximum - sum(share.ceiling for share in shares.values())
    for name in sorted(live, key=lambda name: shares[name].grant):  # who has least, first
        grant, ceiling = shares[name].grant, shares[name].ceiling
        raised = min(targets[name], ceiling + max(0, free))
        if raised > grant:
            shares[name] = CapShare(grant=raised, ceiling=max(ceiling, raised))
            free -= shares[name].ceiling - ceiling
    granted = {name: share.grant for name, share in shares.items()}
    if caps is not None and caps.maximum == maximum and granted == {name: each.grant for name, each in present.items()}:
        return None
    return Caps(number=1 if caps is None else caps.number + 1, maximum=maximum, shares=shares)


def share_of(caps: Caps | None, director: str, maximum: int) -> int:
    """How many *director* may let in, under a service's *maximum* as it is configured now."""
    share = None if caps is None else caps.shares.get(director)
    return 0 if share is None else min(share.grant, maximum)


def split(total: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """*total* in whole parts: nobody who wants less than an equal part pays for it, and what is left over is shared
    equally. (Max-min fairness; the parts' sum is *total*.)"""
    parts: dict[str, int] = {}
    left = total
    for index, name in enumerate(sorted(wanted, key=lambda name: (wanted[name], name))):
        parts[name] = min(wanted[name], left // (len(wanted) - index))
        left -= parts[name]
    for index, name in enumerate(sorted(parts)):
        parts[name] += left // len(parts) + (index < left % len(parts))
    return parts


def _settled(share: CapShare, view: View, number: int) -> CapShare:
    """Rule 3."""
    if view.number < number or not view.live:
        return share
    return CapShare(grant=share.grant, ceiling=min(share.ceiling, max(share.grant, view.open)))


def _targets(maximum: int, shares: Mapping[str, CapShare], live: Mapping[str, View]) -> dict[str, int]:
    """What each live director should be granted: what it has, unless one of them is pressed or new, or what they have
    together is not what there is to share out."""
    silent = sum(share.ceiling for name, share in shares.items() if name not in live)
    present = {name: shares[name].grant for name in live}
    fair = split(max(0, maximum - silent), {name: view.wanted for name, view in live.items()})
    if sum(present.values()) != sum(fair.values()):
        return fair
    least = max(1, round(LEAST_MOVE * maximum))
    pressed = any(view.wanted >= PRESSED * present[name] and fair[name] - present[name] >= least
                  for name, view in live.items())
    return fair if pressed else present
