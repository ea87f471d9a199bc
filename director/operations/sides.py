"""Which group a client would come to now, and why, in an operator's words."""

from __future__ import annotations

from typing import NamedTuple

from director.core.entries import GroupEntry, ServiceEntry
from director.core.splitting import Split


class Side(NamedTuple):
    groups: tuple[GroupEntry, ...]  #: none; one; or several, of which it will be one's turn
    steps: tuple[str, ...]


def side_of(service: ServiceEntry, client: bytes, now: float) -> Side:
    """Of *client*, a packed address."""
    enabled, split = service.enabled, service.admission.pool
    if enabled is None:
        return Side((), ("no group is enabled: the client is refused",))
    if not isinstance(split, Split):
        return Side((enabled,), (f"group {enabled.name} is enabled; {_places(enabled)}",))
    parts = {name: part for name, part in split.shares.parts.items() if part}
    steps = ["clients are split: " + ", ".join(f"{name} {100 * part:.4g} %" for name, part in parts.items())]
    own, why = split.certain(client, now)
    if own is not None:
        steps.append(f"this client belongs to {own}, {'as the sticky table remembers' if why == 'remembered' else why}")
    elif len(parts) > 1:
        steps.append("the service is not sticky: the groups take turns, by their shares")
    owners = [own] if own is not None else list(parts)
    serving = {name: split.serving(name) or name for name in owners}
    for name, other in serving.items():
        if name != other:
            lack = "is full" if service.groups[name].pool.available else "has no host available"
            steps.append(f"group {name} {lack}: group {other} takes its clients")
    groups = tuple(service.groups[name] for name in dict.fromkeys(serving.values()))
    return Side(groups, (*steps, *(f"group {group.name}: {_places(group)}" for group in groups)))


def _places(group: GroupEntry) -> str:
    return f"{group.pool.eligible} of {len(group.hosts)} hosts take connections"
