"""What the inventory has its caller act upon."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from cluster.model import AdminState
from director.core.entries import HostEntry
from director.core.merge import Verdict
from director.core.pool import Ticket
from director.core.transitions import Transition


class HostAdded(NamedTuple):
    """To be resolved and probed."""

    entry: HostEntry


class HostRemoved(NamedTuple):
    """Out of the configuration; its open connections go on, unless *cut*."""

    entry: HostEntry
    cut: bool = False


class HostMoved(NamedTuple):
    """A change of operational state."""

    entry: HostEntry
    transition: Transition


class HostOrdered(NamedTuple):
    """A change of the ordered state that is in force."""

    entry: HostEntry
    before: AdminState


class HostJudged(NamedTuple):
    """A change of the merged verdict, or of whose it is."""

    entry: HostEntry
    before: Verdict


class HostEjected(NamedTuple):
    """Out of rotation for a while, as an outlier of its group."""

    entry: HostEntry
    why: str
    for_s: float


class HostReturned(NamedTuple):
    """From an ejection."""

    entry: HostEntry


class Served(NamedTuple):
    """Queued clients whose turn came."""

    service: str
    clients: list[tuple[Any, Ticket]]


class IsolationChanged(NamedTuple):
    isolated: bool


Event: TypeAlias = (HostAdded | HostRemoved | HostMoved | HostOrdered | HostJudged | HostEjected | HostReturned | Served
                    | IsolationChanged)
