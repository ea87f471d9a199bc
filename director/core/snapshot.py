"""The one typed picture of a director, which feeds API, pages, command line and metrics.

Built by `director.core.inventory.Inventory.snapshot`; immutable; times are POSIX seconds, ages are seconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cluster.model import AdminState, HostState, LoadReport


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the snapshot's records."""


class TransitionPicture(Picture, frozen=True):
    at: float
    before: HostState
    after: HostState
    why: str


class OrderPicture(Picture, frozen=True):
    """A standing admin order."""

    by: str  #: ``operator``, ``agent`` or ``local``
    state: AdminState
    who: str
    why: str
    at: float


class CheckPicture(Picture, frozen=True):
    """The last active probe, and when the next is due."""

    at: float | None = None
    ok: bool | None = None
    detail: str = ""
    duration_s: float | None = None
    next_at: float | None = None


class SeenPicture(Picture, frozen=True):
    """A host as another director sees it; one without such a record sees the host up."""

    director: str
    state: HostState
    why: str
    since: float
    blind: bool  #: it has neither heard nor reached the host lately, so this speaks neither way


class ResponderPicture(Picture, frozen=True):
    """A host's agent-check responder."""

    answers: bool  #: the last try had an answer
    said: str  #: the last line it said
    said_at: float | None
    problem: str  #: why there was no answer, or what of it is unknown
#: What a host's rate counts; empty: it has none. ``agent``: what its agent, or the application, calls a completion.
RateOf = Literal["", "agent", "turnarounds", "connections"]


class HostPicture(Picture, frozen=True):
    service: str
    group: str
    name: str
    address: str
    backup: bool
    registered: bool  #: joined through its agent, not configured
    discovered: bool  #: found by DNS, not configured
    state: HostState
    admin: AdminState
    orders: tuple[OrderPicture, ...]
    in_rotation: bool  #: takes new connections now
    why_not: str  #: why it does not; empty when it does
    since: float  #: of *state*
    why: str  #: of *state*
    configured_weight: float
    capacity: float  #: the factor that reports give (W of SCHEDULING), 1 without reports
    slow_start: float  #: 0.1 to 1
    agent_weight: float  #: the factor the agent asked for
    weight: float  #: effective: the product
    in_flight: int
    max_connections: int
    picks: int
    connect_failures: int
    agent_connected: bool
    heartbeat_age_s: float | None
    report: LoadReport | None
    check: CheckPicture
    history: tuple[TransitionPicture, ...]
    overruled: str = ""  #: whose word decides rather than *state*, and why; empty while *state* does
    seen_by_others: tuple[SeenPicture, ...] = ()
    in_flight_elsewhere: dict[str, int | None] = {}  #: of a draining host, at the other directors; None: unknown
    report_age_s: float | None = None  #: heard by this director itself, or forwarded by another
    responder: ResponderPicture | None = None  #: where the group has agent-check
    probed_weight: float = 1.0  #: the factor from what it says to HTTP probes
    ejected_s: float | None = None  #: so long it is out as an outlier of its group still; None: it is not
    ejections: int = 0  #: that count still: the next one takes so many times longer
    turnarounds: int = 0  #: since its first client: first bytes of the host after bytes of its client
    turnaround_s: float | None = None  #: how long they took, of late; None: there were none
    rate: float | None = None  #: completions per second that its capacity rests on; None: unknown
    rate_of: RateOf = ""  #: what they are; ``agent``: what it calls so
    rate_scale: float = 1.0  #: by what this director's own rate was multiplied, for the clients that others serve
    share: float = 0.0  #: of its group's new connections, 0 to 1, at the present load (`director.core.expected`)
    rate_doubt: str = ""  #: why turnarounds do not count in its group; empty: they do


class WaitingPicture(Picture, frozen=True):
    """A host that registered through its agent and waits for an operator's approval."""

    name: str
    address: str
    agent: str
    since: float


class GroupPicture(Picture, frozen=True):
    service: str
    name: str
    enabled: bool
    scheduler: str
    available: int  #: hosts in rotation
    failing_open: bool  #: every host is bad and the group's fail-open policy tries them all
    backups_in_use: bool
    in_flight: int
    hosts: tuple[HostPicture, ...]
    waiting: tuple[WaitingPicture, ...] = ()
    share: float = 0.0  #: of new clients, 0 to 1
    strayed: int = 0  #: clients of this group, by its share, that another one took


class ServicePicture(Picture, frozen=True):
    name: str
    listen: tuple[str, ...]  #: as bound
    enabled: str | None
    connections: int
    max_connections: int
    queued: int
    queue: int
    sticky: str
    sticky_entries: int
    groups: tuple[GroupPicture, ...]
    share: int | None = None  #: this director's part of *max_connections*, where directors share it
    split: dict[str, float] = {}  #: groups by their shares of new clients, as configured; empty: the enabled one has all


class PeerPicture(Picture, frozen=True):
    """Another director, over the peer link."""

    name: str
    address: str
    connected: bool
    heard_s: float | None  #: since it was last heard; None: never


class MemberPicture(Picture, frozen=True):
    """A director that lives, as it describes itself in the store."""

    name: str
    version: str
    started: float
    boot_id: str
    peers: str | None
    agents: tuple[str, ...]
    admin: tuple[str, ...]
    roles: tuple[str, ...]
    leads: bool
    linked: bool | None = None  #: whether the director asked has a peer link with it; None: none is to be


class VipPicture(Picture, frozen=True):
    address: str
    owner: str | None  #: None: this director had it and gave it up; who has it now is not known
    since: float
    term: int
    able: tuple[str, ...] = ()  #: where each has an owner of its own: the directors that may have it
    pinned: str | None = None  #: and the one that has it whenever it can
    moves: int = 0  #: and how often this director gave it to another since it started


class DisagreementPicture(Picture, frozen=True):
    """A host that directors see differently."""

    host: str  #: ``service/group/host``
    views: dict[str, str]  #: state, or ``unseen``, by director; one that is not named sees it up


class ClusterPicture(Picture, frozen=True):
    """The directors together. What this one does itself is as it is now; the rest is as the store said last."""

    cluster: str
    director: str  #: who says so
    store: str
    store_available: bool
    cold_start: bool
    leader: str | None
    term: int
    members: tuple[MemberPicture, ...] = ()
    vips: tuple[VipPicture, ...] = ()
    disagreements: tuple[DisagreementPicture, ...] = ()
    store_problems: tuple[str, ...] = ()  #: records of the store that cannot be read, and why
    store_writable: bool = True  #: False while it is away, or has no room
    problems: tuple[str, ...] = ()  #: of the store: what an operator should mend, a sentence each
    last_known: bool = False  #: the store is away: others may have come, gone and followed since
    leads: bool = False  #: this director leads now
    vips_held: tuple[str, ...] = ()  #: that this director holds now
    vip_fence: str = ""  #: what ends them in its kernel: ``tc``, ``nft`` or ``lifetime``; empty: it may have none
    takeover: str = "lease"  #: how one leader follows another here: by a ``lease``, or by ``promises``
    electors: tuple[str, ...] = ()  #: by promises: who may follow, as the store said last


class PastPicture(Picture, frozen=True):
    """One change in the store's history."""

    revision: int
    at: float | None  #: POSIX seconds, when the store or the value knows
    key: str
    what: str  #: in words
    value: str | None  #: as it was written; None: deleted


class DirectorPicture(Picture, frozen=True):
    name: str
    version: str
    at: float
    started: float
    isolated: bool  #: so many agents fell silent at once that this director suspects itself
    grace: bool  #: just started, or another leader: nothing is evicted yet
    store: str  #: ``memory:``, ``file:/path``…
    store_available: bool
    services: tuple[ServicePicture, ...]
    cold_start: bool = False  #: serves what a snapshot on disk said; the store has not answered yet
    leader: str | None = None  #: of the cluster, as far as is known
    leads: bool = False  #: this director is it
    vips_held: tuple[str, ...] = ()
    vip_fence: str = ""  #: what ends them in the kernel: ``tc``, ``nft`` or ``lifetime``; empty: it may have none
    vip_fence_holds: bool = False  #: to the millisecond
    peers: tuple[PeerPicture, ...] = ()
    problems: tuple[str, ...] = ()  #: what an operator should mend, a sentence each
    store_problems: tuple[str, ...] = ()  #: records of the store that cannot be read, and why
    store_writable: bool = True  #: False while it is away, or has no room
    store_bytes: int = 0  #: that etcd takes on its disk; 0: not known, or another store
    store_writes: int = 0  #: transactions that this director sent to etcd
    store_written_bytes: int = 0  #: of keys and values in them
    retired: dict[str, int] = {}  #: connections that deleted services have open still
    previous_connections: int | None = None  #: that the process before this one still serves; None: there is none

    def host(self, service: str, group: str, name: str) -> HostPicture | None:
        """Find one host."""
        for each in self.services:
            if each.name == service:
                for part in each.groups:
                    if part.name == group:
                        return next((host for host in part.hosts if host.name == name), None)
        return None


class NotablePicture(Picture, frozen=True):
    """A group that somebody should look at."""

    service: str
    name: str
    failing_open: bool
    backups_in_use: bool
    waiting: int  #: hosts for approval


class TotalsPicture(Picture, frozen=True):
    """All services together, without a picture of any."""

    services: tuple[str, ...]  #: their names
    hosts: int
    in_rotation: int
    connections: int
    queued: int
    connect_failures: int
    notable: tuple[NotablePicture, ...]


def totals_of(services: tuple[ServicePicture, ...]) -> TotalsPicture:
    """What `director.core.totals.totals` says of the same services, for who has their pictures already."""
    groups = [group for service in services for group in service.groups]
    hosts = [host for group in groups for host in group.hosts]
    return TotalsPicture(
        services=tuple(service.name for service in services),
        hosts=len(hosts),
        in_rotation=sum(host.in_rotation for host in hosts),
        connections=sum(service.connections for service in services),
        queued=sum(service.queued for service in services),
        connect_failures=sum(host.connect_failures for host in hosts),
        notable=tuple(
            NotablePicture(service=group.service, name=group.name, failing_open=group.failing_open,
                           backups_in_use=group.backups_in_use, waiting=len(group.waiting))
            for group in groups if group.failing_open or group.backups_in_use or group.waiting
        ),
    )


class CandidatePicture(Picture, frozen=True):
    """One host's part in an `Explanation`."""

    group: str
    host: str
    eligible: bool
    why_not: str  #: why it takes no new connection; empty when eligible
    factors: dict[str, float]  #: every number that matters to the scheduler, or that the weight comes from, by its name
    weight: float = 0.0  #: effective
    share: float = 0.0  #: of its group's new connections, 0 to 1, at the present load
    words: tuple[str, ...] = ()  #: where weight, score and share come from, in sentences


class Explanation(Picture, frozen=True):
    """Which host a client would get from a service now, and why."""

    service: str
    client: str  #: the address asked about
    group: str | None  #: whose hosts serve it; None when none is enabled, or several of a split take turns
    scheduler: str
    host: str | None  #: None: nobody, or drawn at random
    random: bool  #: somebody would be chosen, but by a draw
    sticky: bool  #: the client is sent back to the host that it had
    candidates: tuple[CandidatePicture, ...]
    steps: tuple[str, ...]  #: the decision in sentences, in order: access list, maxima, stickiness, rotation, choice
    rule: str = ""  #: by which the scheduler chooses now; empty where there is none, or several groups take turns


class ConnectionPicture(Picture, frozen=True):
    """One client that is connected now."""

    client: str  #: ``ip:port``, ``[v6]:port``, or ``unix``
    group: str | None  #: None, as *host*, while it waits in the queue
    host: str | None
    age_s: float  #: since it was accepted
    idle_s: float | None  #: since the connect began or a byte moved either way; None in the queue
    to_host: int  #: bytes
    to_client: int  #: bytes
    previous: bool = False  #: it belongs to the process before this one, after an upgrade


class ConnectionsPicture(Picture, frozen=True):
    """Some of a service's clients, the oldest first."""

    total: int
    connections: tuple[ConnectionPicture, ...]
