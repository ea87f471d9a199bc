"""The vocabulary: services, groups, hosts, orders, reports and states, as frozen records.

Everything here is a value. One library (msgspec) turns the same records into TOML, wire JSON and store JSON;
``cluster.validate`` reports every error of a document at once.

Three kinds of host state are kept apart, and only whoever set one clears it:

- *admin* state (`AdminState`): ordered by an operator or by the host's agent; the most restrictive wins;
- *operational* state (`HostState`): observed from heartbeats, probes and real connects;
- *weight*: configured weight x load factor x slow start.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

NAME_PATTERN = r"^[A-Za-z0-9._-]{1,63}\Z"

HASH_PATTERN = r"^\$(argon2|2[aby]\$)"

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
UserName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}[$]?$")]
#: Thirty years. More is a mistake, and infinity none of the ways to keep a value can hold: JSON makes null of it.
MAX_SECONDS = 1e9
Seconds = Annotated[float, Meta(gt=0, le=MAX_SECONDS)]
SecondsOrOff = Annotated[float, Meta(ge=0, le=MAX_SECONDS)]
Moment = Annotated[float, Meta(ge=0, le=253_402_300_799)]  # POSIX seconds; calendars of programs end with the year 9999
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(ge=0, le=1_000_000)]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base of every configured or stored value: immutable, keyword-only, unknown keys are errors."""


# --- states -----------------------------------------------------------------------------------------------


class AdminState(enum.Enum):
    """What somebody ordered. ``drain``: no new connections, open ones go on; ``down``: out of use."""

    UP = "up"
    DRAIN = "drain"
    DOWN = "down"

    @property
    def severity(self) -> int:
        """Rank for "the most restrictive wins"."""
        return ("up", "drain", "down").index(self.value)


class HostState(enum.Enum):
    """What was observed. A *suspect* host stays in rotation and is probed faster; a *down* one does not."""

    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"


class Reason(enum.Enum):
    """Why a client's connection ended: each accepted client is counted under exactly one."""

    __hash__ = object.__hash__  # members are their own identity; Enum's hash is a Python call, and this one is hot

    # relayed, and then
    CLIENT_CLOSED = "client_closed"  #: both directions finished; the client finished first
    HOST_CLOSED = "host_closed"  #: both directions finished; the host finished first
    CLIENT_RESET = "client_reset"  #: the client reset (or aborted while it waited)
    HOST_RESET = "host_reset"  #: the host reset
    CLIENT_LOST = "client_lost"  #: the client answers no more: its machine or its network is gone
    HOST_LOST = "host_lost"  #: so does the host
    IDLE_TIMEOUT = "idle_timeout"
    HALF_CLOSED_TIMEOUT = "half_closed_timeout"
    MAX_AGE = "max_age"
    DRAIN_DEADLINE = "drain_deadline"  #: cut when its host's drain ran out of time
    HOST_DOWN = "host_down"  #: cut because its host was judged down, where the group says so
    ORDERED_DOWN = "ordered_down"  #: cut because its host was ordered down, where the group says so
    HOST_REMOVED = "host_removed"  #: cut because its host was removed, where the group says so
    KILLED = "killed"  #: cut by an operator's order
    SHUTDOWN = "shutdown"  #: cut when the director stopped
    RELAY_ERROR = "relay_error"  #: the kernel refused memory or descriptors in mid-relay
    # never relayed
    CONNECT_FAILED = "connect_failed"  #: every tried host refused or was unreachable
    CONNECT_TIMEOUT = "connect_timeout"  #: the deadline for all tries passed
    OUT_OF_RESOURCES = "out_of_resources"  #: this director had no port, descriptor or memory for a connect to a host
    NO_HOST = "no_host"  #: no host in rotation
    HOSTS_FULL = "hosts_full"  #: every host at its maximum, and no queue
    SERVICE_FULL = "service_full"  #: the service at its maximum, and no queue
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    DENIED = "denied"  #: by the access list
    BAD_PROXY_HEADER = "bad_proxy_header"


class HostRef(NamedTuple):
    """Which host: ``service/group/host``."""

    service: str
    group: str
    host: str

    def __str__(self) -> str:
        return "/".join(self)

    @classmethod
    def parse(cls, text: str) -> HostRef:
        """Inverse of ``str``. Raises ValueError unless *text* has three parts."""
        parts = text.split("/")
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"{text!r} is not service/group/host")
        return cls(*parts)


# --- the cluster's configuration --------------------------------------------------------------------------


class Host(Record, frozen=True):
    """One backend: where it listens and how much it may carry."""

    address: str  #: ``host:port``, ``[v6]:port`` or ``unix:/path``
    weight: Weight = 1.0  #: 0: no new connections
    max_connections: Count = 0  #: 0: no maximum
    backup: bool = False  #: used only while no other host of the group is available
    probe_port: Port | None = None  #: where to probe it, when not at the port of its address or of its group's probe


class Probe(Record, frozen=True):
    """An active check. ``none`` leaves health to heartbeats and real connects."""

    kind: Literal["tcp", "http", "none"] = "tcp"
    address: str | None = None  #: where to probe, when not the host's own address
    port: Port | None = None  #: where to probe at the host's own address, when not at its own port
    send_proxy: Literal["auto", "off", "v1", "v2"] = "auto"  #: a PROXY header first; auto: where clients send one
    path: str = "/"
    host_header: str | None = None  #: ``Host:`` of an HTTP probe; the host's address when absent
    expect: tuple[Annotated[int, Meta(ge=100, le=599)], ...] = ()  #: accepted statuses; empty: any 2xx or 3xx
    timeout_s: Seconds = 1.0


class Health(Record, frozen=True):
    """How a group's hosts are watched. Defaults: DESIGN section 5."""

    probe: Probe = Probe()
    interval_s: Seconds = 2.0  #: between probes of an up host
    suspect_interval_s: Seconds = 1.0
    down_interval_s: Seconds = 30.0  #: where the back-off of a down host's probes ends
    jitter: Fraction = 0.1  #: intervals vary by this much either way
    rise: Positive = 2  #: consecutive successes that bring a host back
    fall: Positive = 3  #: consecutive failures that take it out
    suspect_after_s: Seconds = 3.0  #: heartbeat silence that makes a host suspect
    timeout_s: Seconds = 5.0  #: heartbeat silence that, with a failed probe, takes it out
    flap_hold_s: SecondsOrOff = 60.0  #: how long a host that goes down again and again is kept out at most; 0: never
    slow_start_s: SecondsOrOff = 10.0  #: ramp of a host that came back, from 0.1 to 1 of its weight
    early_reset_s: SecondsOrOff = 0.5  #: a host that resets a client so soon did not take it; 0: that is a transfer
    early_reset_bytes: Count = 0  #: having sent at most so much
    fail_open: Literal["refuse", "all"] = "refuse"  #: when every host is bad: refuse clients, or try all hosts


class Registration(Record, frozen=True):
    """Whether hosts may join a group through their agents."""

    mode: Literal["off", "approve", "auto"] = "off"
    networks: tuple[str, ...] = ()  #: addresses that may register besides the agent's own peer address
    max_hosts: Positive = 1000  #: registered at a time, those that wait for approval included
    max_weight: Weight = 10.0  #: an agent that asks for more joins with this
    forget_s: SecondsOrOff = 3600.0  #: a registration without an agent whose host is down ends after this; 0: never


class Group(Record, frozen=True):
    """Hosts that can stand in for each other, and the policy among them."""

    hosts: dict[Name, Host] = {}
    scheduler: str = "weightedleastconns"
    parameters: dict[str, float | int | str | bool] = {}  #: of the scheduler
    health: Health = Health()
    registration: Registration = Registration()
    source: tuple[str, ...] = ()  #: addresses of the director to connect from, in turn; empty: the kernel's choice
    on_down: Literal["keep", "cut"] = "keep"  #: open connections of a host judged or ordered down, or removed


class Limits(Record, frozen=True):
    max_connections: Count = 0  #: open connections of the service; 0: no maximum
    queue: Count = 0  #: clients that may wait when the service or its hosts are full; 0: refuse at once
    queue_timeout_s: Seconds = 5.0


class Timeouts(Record, frozen=True):
    connect_s: Seconds = 5.0  #: for all tries together
    idle_s: Seconds = 3600.0  #: without progress in either direction
    half_closed_s: Seconds | None = None  #: without progress once one side finished; absent: as `idle_s`
    max_age_s: SecondsOrOff = 0.0  #: 0: connections live as long as they like
    max_age_jitter: Fraction = 0.1
    drain_s: Seconds = 300.0  #: default deadline of a drain or a shutdown


#: What Linux takes for TCP_KEEPIDLE and TCP_KEEPINTVL, and for TCP_KEEPCNT.
KeepaliveSeconds = Annotated[int, Meta(ge=1, le=32_767)]
KeepaliveCount = Annotated[int, Meta(ge=1, le=127)]


class Keepalive(Record, frozen=True):
    """How a peer is noticed that is gone without a word: TCP's own questions, of clients and of hosts.

    One option for each connection to a host is what the default may cost: with Linux's interval and count it notices a dead
    peer after 12 minutes. A user timeout would also cut a live peer that reads nothing for so long, hence none by default.
    """

    idle_s: KeepaliveSeconds = 60  #: of silence before the first question
    interval_s: KeepaliveSeconds | None = None  #: between questions; absent: the kernel's, 75 s
    count: KeepaliveCount | None = None  #: unanswered ones that end it; absent: the kernel's, 9
    user_timeout_s: Annotated[float, Meta(ge=0, le=2_000_000)] = 0.0  #: for sent bytes to be taken; 0: the kernel's


class Sticky(Record, frozen=True):
    """Keep a client on its host: ``hash`` by Maglev over configured hosts, ``table`` by remembering."""

    mode: Literal["hash", "table"] = "hash"
    ttl_s: Seconds = 1800.0
    max_entries: Positive = 100_000


class Proxy(Record, frozen=True):
    """The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt)."""

    send: Literal["off", "v1", "v2"] = "off"
    accept_from: tuple[str, ...] = ()  #: networks, or "unix", whose connections begin with a PROXY header
    timeout_s: Seconds = 3.0  #: for the header to arrive


class Access(Record, frozen=True):
    """Client networks. *deny* is looked at first; an empty *allow* allows everyone."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class UnixFile(Record, frozen=True):
    """Who may connect to a service's UNIX sockets: the file's permissions, octal; absent names are the director's own."""

    mode: Annotated[str, Meta(pattern=r"^0?[0-7]{3}$")] = "0660"
    owner: UserName | None = None  #: a name or a number
    group: UserName | None = None


class Service(Record, frozen=True):
    """What clients connect to, and the groups that can answer; the unit of atomic change."""

    listen: tuple[str, ...] = ()
    groups: dict[Name, Group] = {}
    enable: Name | None = None  #: the group that answers; the first one when absent
    relay: Literal["auto", "native", "python"] = "auto"
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    keepalive: Keepalive = Keepalive()
    sticky: Sticky | None = None
    proxy: Proxy = Proxy()
    access: Access = Access()
    unix: UnixFile = UnixFile()

    @property
    def enabled_group(self) -> str | None:
        """The configured group, else the first one; None for a service without groups."""
        return self.enable if self.enable is not None else next(iter(self.groups), None)


# --- a node's own configuration ---------------------------------------------------------------------------


class TLS(Record, frozen=True):
    """PEM files of a listening side. With *client_ca*, peers must present a certificate it signed."""

    certificate: str
    key: str
    client_ca: str | None = None


class Identity(Record, frozen=True):
    """An agent: how it proves who it is, and which hosts it may speak for."""

    hosts: tuple[str, ...]  #: patterns of ``service/group/host``, ``*`` allowed in each part
    token_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None = None
    certificate_name: str | None = None  #: a DNS subject alternative name
    max_registered: Positive = 1000  #: hosts that its agents may have registered at a time


class AgentListeners(Record, frozen=True):
    """Where agents connect."""

    listen: tuple[str, ...] = ()
    tls: TLS | None = None
    insecure: bool = False  #: allow plaintext beyond loopback
    identities: dict[Name, Identity] = {}
    interval_s: Seconds = 1.0  #: between reports, as told to agents
    advertise: tuple[str, ...] = ()  #: every director's agent address, as told to agents
    handshakes_per_s: Annotated[float, Meta(gt=0, le=1e6)] = 500.0  #: accepted connections; a storm waits its turn


class AdminEndpoint(Record, frozen=True):
    listen: str
    tls: TLS | None = None


class User(Record, frozen=True):
    """An operator. *password* is an Argon2 hash as ``directorctl password`` prints it, or a bcrypt hash."""

    password: Annotated[str, Meta(pattern=HASH_PATTERN)]
    role: Literal["readonly", "full"] = "readonly"


class Admin(Record, frozen=True):
    endpoints: tuple[AdminEndpoint, ...] = ()
    users: dict[Name, User] = {}
    htpasswd: str | None = None  #: a file of further users
    htpasswd_role: Literal["readonly", "full"] = "readonly"  #: of all of them
    refresh_s: Seconds = 5.0
    project_url: str = ""
    insecure: bool = False  #: allow plaintext http beyond loopback
    max_connections: Positive = 512  #: of all endpoints; those by UNIX sockets are not counted
    max_connections_per_address: Positive = 128  #: of one IPv4 address, or /64 of IPv6


class Manhole(Record, frozen=True):
    """A Python shell inside the running director, over SSH, for users with full access."""

    listen: str | None = None
    host_key: str | None = None  #: OpenSSH private key; made when the file is not there
    authorized_keys: str | None = None  #: public keys that may enter, one a line
    passwords: bool = False  #: users of the admin with the full role may enter by theirs


class Logging(Record, frozen=True):
    level: Literal["debug", "info", "warn", "error"] = "info"
    format: Literal["text", "json"] = "text"
    target: str = "stderr"  #: ``stderr``, ``stdout`` or a file's path
    access: bool = False  #: one line for each connection


class Peers(Record, frozen=True):
    """Where the other directors connect, and by what a director is known to them: a secret, a certificate, or both."""

    listen: str | None = None
    advertise: str | None = None  #: where they find us, when that is not what we listen on
    secret_file: str | None = None  #: the cluster's secret; no agent's token
    tls: TLS | None = None  #: with *client_ca*: certificates both ways
    certificate_domain: str | None = None  #: a director's certificate has the DNS name ``<director>.<this>``


class Vips(Record, frozen=True):
    """Addresses that the leading director owns."""

    interface: str | None = None
    addresses: tuple[str, ...] = ()  #: ``10.0.0.100/24``, ``2001:db8::100/64``


class Etcd(Record, frozen=True):
    """The store that directors share, for ``store = "etcd:"``. With *ca* the connection is TLS."""

    endpoints: tuple[str, ...] = ()  #: ``host:port``, all of one cluster
    cluster: Name = "main"  #: several clusters of directors may share an etcd
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    user: str | None = None
    password_file: str | None = None
    snapshot: str | None = None  #: where the last known state is kept, for a start without etcd


class Node(Record, frozen=True):
    """What is local to one director."""

    name: Name = "director"
    store: str = "memory:"  #: ``memory:``, ``file:/path`` or ``etcd:``
    etcd: Etcd = Etcd()
    roles: tuple[Literal["balance", "manage"], ...] = ("balance", "manage")  #: serve clients; probe hosts and lead
    summary_s: SecondsOrOff = 60.0  #: between two summaries for inspection with etcdctl; 0: none
    agents: AgentListeners = AgentListeners()
    admin: Admin = Admin()
    log: Logging = Logging()
    panic_fraction: Fraction = 0.5  #: silent agents beyond this at once: my own isolation, not their death
    manhole: Manhole = Manhole()
    control_socket: str | None = None  #: a UNIX socket's path, where backends ask who is behind a connection
    resolvers: tuple[str, ...] = ()  #: DNS servers ``ip:port``; empty: the system's
    resolver_hold_s: SecondsOrOff = 30.0  #: how long addresses outlive an answer that there are none
    peers: Peers = Peers()
    vips: Vips = Vips()
    vip_on_isolation: Literal["release", "keep"] = "release"  #: what a leader does with the VIPs when etcd is away
    leader_lease_s: Annotated[float, Meta(ge=1, le=60)] = 2.0  #: a dead leader is noticed after this and half a second
    relay_threads: Annotated[int, Meta(ge=1, le=16)] = 1  #: of the native relay


class Configuration(Record, frozen=True):
    """A whole file: the node, and with an embedded store the cluster's services."""

    node: Node = Node()
    services: dict[Name, Service] = {}


# --- what directors keep about hosts besides configuration -------------------------------------------------


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


# --- what directors tell each other through the store -------------------------------------------------------


class Shared(Record, frozen=True, forbid_unknown_fields=False):
    """Base of what directors of different versions read of each other: unknown keys are ignored."""


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
    process: str = ""  #: which one it is, for others on its machine (`director.ha.whereabouts`)


class Leader(Shared, frozen=True):
    """Who leads (``leader``). The term is the record's create_revision."""

    name: Name
    boot_id: str
    since: Moment  #: POSIX seconds


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


# --- what agents report -----------------------------------------------------------------------------------


class LoadReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host's load over the interval since its last report. None: the agent does not know.

    Unknown keys are ignored, so that newer agents can speak to older directors.
    """

    utilisation: Annotated[float, Meta(ge=0, le=1)] | None = None  #: of the scarcest resource, 0..1
    in_flight: Annotated[float, Meta(ge=0, le=1e9)] | None = None  #: requests or connections being served now
    latency_s: Annotated[float, Meta(ge=0, le=1e6)] | None = None  #: mean of what finished
    rate: Annotated[float, Meta(ge=0, le=1e9)] | None = None  #: completions per second, failed ones included
    errors: Annotated[float, Meta(ge=0, le=1)] | None = None  #: failed fraction of the completions
    completions: Annotated[float, Meta(ge=0, le=1e12)] | None = None  #: count behind *rate* and *errors*
    capacity: Annotated[float, Meta(gt=0, le=1e9)] | None = None  #: the agent's own estimate, completions/s
    max_connections: Annotated[int, Meta(ge=0, le=1_000_000_000)] | None = None  #: the agent lowers the maximum
    weight: Annotated[float, Meta(ge=0, le=1)] | None = None  #: the agent lowers the weight by this factor
    state: Literal["ready", "drain", "down"] = "ready"
    custom: dict[Annotated[str, Meta(max_length=63)], float] = {}
