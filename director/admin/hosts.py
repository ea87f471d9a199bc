"""Operations on hosts as they run: orders, weights, registrations, probes. Each answers the host as it is afterwards."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cluster.model import AdminState, SecondsOrOff, Weight
from director.admin.looking import find_host
from director.admin.offers import Operations
from director.admin.operation import Caller, OfHost, Role, operation
from director.core.snapshot import HostPicture
from director.engine.errors import Invalid

#: An operator's reason, as kept with the order: a sentence, not a document.
MAX_WHY = 500


class GiveOrder(OfHost, frozen=True, kw_only=True):
    state: AdminState
    why: Annotated[str, Meta(max_length=MAX_WHY)] = ""
    deadline_s: SecondsOrOff | None = None
    local: bool = False  #: at this director alone, even while the store is away


class SetWeight(OfHost, frozen=True, kw_only=True):
    weight: Weight


@operation(Role.FULL, GiveOrder)
async def order(director: Operations, caller: Caller, p: GiveOrder) -> HostPicture:
    """Order a host up, into drain, or down; a local order is this director's alone and needs no store."""
    if p.deadline_s is not None and p.state is not AdminState.DRAIN:
        raise Invalid("only a drain has a deadline", "deadline_s")
    find_host(director, p.ref)
    await director.order(p.ref, p.state, who=caller.who, why=p.why, deadline_s=p.deadline_s, local=p.local)
    return find_host(director, p.ref)


@operation(Role.FULL, SetWeight)
async def weight(director: Operations, caller: Caller, p: SetWeight) -> HostPicture:
    """Set a host's configured weight; 0 takes no new connections."""
    find_host(director, p.ref)
    await director.set_weight(p.ref, p.weight, who=caller.who)
    return find_host(director, p.ref)


@operation(Role.FULL, OfHost)
async def approve(director: Operations, caller: Caller, p: OfHost) -> HostPicture:
    """Let a host into its group that registered through its agent and waits."""
    await director.approve(p.ref, who=caller.who)
    return find_host(director, p.ref)


@operation(Role.FULL, OfHost)
async def retry(director: Operations, caller: Caller, p: OfHost) -> HostPicture:
    """Probe a host now; it comes back if it passes."""
    find_host(director, p.ref)
    await director.retry(p.ref)
    return find_host(director, p.ref)
