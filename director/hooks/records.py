"""What a hook is told, as JSON: one object for each transition. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

import msgspec

from cluster.model import AdminState, HostRef, HostState
from director.core.entries import HostEntry
from director.core.orders import counting
from director.core.transitions import Transition

#: Characters of a text in a record; a record must fit a pipe.
MAX_TEXT = 1_000

_OF_HEALTH = {HostState.UP: "host_up", HostState.SUSPECT: "host_suspect", HostState.DOWN: "host_down"}


def moved(entry: HostEntry, transition: Transition) -> dict[str, object]:
    """This director sees a host in another state."""
    return {"event": _OF_HEALTH[transition.after], **_host(entry.ref), "before": transition.before.value,
            "after": transition.after.value, "why": transition.why[:MAX_TEXT]}


def ordered(entry: HostEntry, before: AdminState) -> dict[str, object]:
    """A host's ordered state is another one; *by* whom, when anything is ordered still."""
    record: dict[str, object] = {"event": "host_ordered", **_host(entry.ref), "before": before.value,
                                 "after": entry.admin.value}
    for by, order in counting(entry.orders).items():
        if order.state is entry.admin:
            record |= {"by": by, "who": order.who[:MAX_TEXT], "why": order.why[:MAX_TEXT]}
            if order.deadline_s is not None:
                record["deadline_s"] = order.deadline_s
    return record


def gained(term: int) -> dict[str, object]:
    return {"event": "leader_gained", "term": term}


def lost() -> dict[str, object]:
    return {"event": "leader_lost"}


def vips(addresses: tuple[str, ...], *, taken: bool) -> dict[str, object]:
    return {"event": "vip_taken" if taken else "vip_released", "addresses": list(addresses)}


def encoded(record: Mapping[str, object], *, director: str, number: int, at: float) -> bytes:
    """A line.

    :param number: counts this director's records, so that their order is known.
    :param at: POSIX seconds.
    """
    time = datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"director": director, "number": number, "time": time, **record}) + b"\n"


def _host(ref: HostRef) -> dict[str, object]:
    return {"service": ref.service, "group": ref.group, "host": ref.host}
