"""What is kept in the store about hosts besides configuration: orders, and hosts that joined through their agents."""

from __future__ import annotations

from cluster.model.base import Moment, Record, SecondsOrOff, Weight
from cluster.model.services import Host
from cluster.model.states import AdminState


class Order(Record, frozen=True, kw_only=True):
    """A standing admin order about one host. ``up`` is the absence of an order, so it is never stored."""

    state: AdminState
    who: str
    why: str = ""
    at: Moment  #: POSIX seconds, for people; deadlines are counted from when each director sees the order
    deadline_s: SecondsOrOff | None = None  #: of a drain: after this, open connections are cut; None: the service's
    boot_id: str | None = None  #: of the agent that ordered; another boot id clears the order


class Registered(Record, frozen=True):
    """A host that joined a group through its agent."""

    host: Host
    agent: str
    boot_id: str
    at: Moment  #: POSIX seconds
    approved: bool
    weight: Weight | None = None  #: what an operator set, and *host* has, whatever its agent asks
