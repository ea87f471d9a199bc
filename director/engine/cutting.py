"""Whose open connections a host's state ends, where its group says ``on_down = "cut"``. Pure."""

from __future__ import annotations

from cluster.model import AdminState, Reason
from director.core.entries import GroupEntry, HostEntry


def why_cut(group: GroupEntry, entry: HostEntry) -> Reason | None:
    """Why the connections to a host end now; None: they go on. A drain is not out: it has a deadline of its own."""
    if group.spec.on_down == "keep":
        return None
    if entry.admin is AdminState.DOWN:
        return Reason.ORDERED_DOWN
    return Reason.HOST_DOWN if entry.verdict.down else None
