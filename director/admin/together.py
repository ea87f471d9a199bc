"""Operations about the directors together: who is there, who leads, what the store remembers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cluster.model import HostRef, Name
from director.admin.offers import Operations
from director.admin.operation import Caller, Nothing, Parameters, Role, operation
from director.core.snapshot import ClusterPicture, PastPicture
from director.engine.errors import Invalid


class History(Parameters, frozen=True, kw_only=True):
    """A host, or none of its three names for everything."""

    service: Name | None = None
    group: Name | None = None
    host: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


@operation(Role.READONLY, Nothing)
def cluster(director: Operations, caller: Caller, _: Nothing) -> ClusterPicture:
    """The directors together: members, leader, virtual addresses, the store, and hosts that are seen differently."""
    return director.cluster()


@operation(Role.READONLY, History)
async def history(director: Operations, caller: Caller, p: History) -> tuple[PastPicture, ...]:
    """Changes of state as the store remembers them, newest first; it forgets what was compacted."""
    if p.service is not None and p.group is not None and p.host is not None:
        return await director.history(HostRef(p.service, p.group, p.host), p.limit)
    if (p.service, p.group, p.host) != (None, None, None):
        raise Invalid("a host has a service, a group and a name; give all three, or none", "host")
    return await director.history(None, p.limit)
