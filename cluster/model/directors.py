"""What directors tell each other through the store. Versions may differ: each record ignores keys that it does not know."""

from __future__ import annotations

from typing import Any, Literal

from cluster.model.base import Count, Moment, Name, Positive, SecondsOrOff, Shared
from cluster.model.states import HostState


class Member(Shared, frozen=True):
    """A director that lives, as it describes itself (``directors/<name>``)."""

    name: Name
    boot_id: str  #: a new one each time the director's process starts
    version: str
    started: Moment  #: POSIX seconds
    peers: str | None = None  #: where other directors reach it
    agents: tuple[str, ...] = ()  #: where agents reach it
    admin: tuple[str, ...] = ()  #: where operators reach it
    roles: tuple[str, ...] = ("balance", "manage")
    promises: bool = False  #: it takes part in takeovers by promises
    vips: dict[str, int] = {}  #: priorities of the addresses that it would take one by one (`node.vips.spread`)
    process: str = ""  #: which one it is, for others on its machine (`director.ha.whereabouts`)


class Leader(Shared, frozen=True):
    """Who leads (``leader``). By a lease, and the term is the record's create_revision; or by promises
    (`cluster.takeover`), where *electors* says who may follow."""

    name: Name
    boot_id: str  #: by promises: the incarnation
    since: Moment  #: POSIX seconds
    kind: Literal["lease", "campaign", "hand-over", "re-created", "first"] = "lease"  #: how the term began
    electors: tuple[Name, ...] = ()
    counts_ns: Count = 0  #: what the owner counts of a beat in the store
    term: Count = 0  #: 0: it began with this write
    spread: bool = False  #: each virtual address has an owner of its own (``reigns/<address>``): who leads owns none by that


class Observed(Shared, frozen=True):
    """A host that a director sees otherwise than up (``observed/<director>/<service>/<group>/<host>``)."""

    state: HostState
    since: Moment  #: POSIX seconds, for people
    why: str
    boot_id: str  #: of the director
    blind: bool = False  #: it has neither heard nor reached the host lately, so this speaks neither way


class VipOwner(Shared, frozen=True):
    """Who last took a virtual address (``vips/<address>``); deleted by an owner that gave it up in order."""

    owner: Name
    interface: str
    term: int  #: under which it was taken
    since: Moment  #: POSIX seconds
    linger_s: SecondsOrOff = 0.0  #: the address may outlive the owner's leader lease by this


class Placement(Shared, frozen=True):
    """Where operators want a virtual address (``placements/<address>``). Written along with the address's first record, and
    never deleted: so nobody writes a first record twice."""

    pinned: str = ""  #: the director that has it whenever it can
    to: str = ""  #: a director. Younger than the owner's term it is an order to move; where the owner is, to stay
    who: str = ""
    at: Moment = 0.0  #: POSIX seconds


class AuditEntry(Shared, frozen=True):
    """What somebody did or tried (``audit/<time>``)."""

    at: Moment  #: POSIX seconds
    who: str
    origin: str  #: the address that the request came from; empty: this machine
    director: str
    operation: str
    arguments: dict[str, Any]  #: without secrets; what is large is cut
    outcome: str  #: ``ok``, or why not
    refused: bool = False  #: nothing was done
    left_out: int = 0  #: refusals of the same caller before this one that have no entry


class CapShare(Shared, frozen=True):
    """One director's part of a service's maximum."""

    grant: Count  #: it lets so many connections in
    ceiling: Count  #: it may have so many open still, from when its grant was larger


class Caps(Shared, frozen=True):
    """How a service's maximum is shared out among directors (``caps/<service>``)."""

    number: Positive  #: grows with every change; directors say which one they keep to
    maximum: Count
    shares: dict[Name, CapShare]
