"""A node's own configuration, and the whole file around it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from cluster.model.base import HASH_PATTERN, Count, Fraction, Name, Positive, Rate, Record, Seconds, SecondsOrOff
from cluster.model.services import Service


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


class Hook(Record, frozen=True):
    """Who is told of transitions: a program, or an address on the web."""

    on: tuple[Literal["host_up", "host_suspect", "host_down", "host_ordered", "leader_gained", "leader_lost", "vip_taken",
                      "vip_released"], ...] = (
        "host_up", "host_down", "host_ordered", "leader_gained", "leader_lost", "vip_taken", "vip_released")
    command: tuple[str, ...] = ()
    url: str | None = None
    ca: str | None = None  #: of the URL's certificate; else those that the system trusts
    token_file: str | None = None  #: shown to the URL
    timeout_s: Seconds = 10.0
    when: Literal["always", "leading"] = "always"  #: of hosts: each director tells, or only the one that leads


class MetricsPort(Record, frozen=True):
    """Where the metrics, and nothing else, are there for everybody who reaches it."""

    listen: str | None = None
    tls: TLS | None = None


class Manhole(Record, frozen=True):
    """A Python shell inside the running director, over SSH, for users with full access."""

    listen: str | None = None
    host_key: str | None = None  #: OpenSSH private key; made when the file is not there
    authorized_keys: str | None = None  #: public keys that may enter, one a line
    passwords: bool = False  #: users of the admin with the full role may enter by theirs


class Logging(Record, frozen=True):
    level: Literal["debug", "info", "warn", "error"] = "info"
    format: Literal["text", "json"] = "text"
    target: str = "stderr"  #: ``stderr``, ``stdout``, ``syslog``, ``journal`` or a file's path
    access: bool = False  #: one line for each connection


class Peers(Record, frozen=True):
    """Where the other directors connect, and by what a director is known to them: a secret, a certificate, or both."""

    listen: str | None = None
    advertise: str | None = None  #: where they find us, when that is not what we listen on
    secret_file: str | None = None  #: the cluster's secret; no agent's token
    tls: TLS | None = None  #: with *client_ca*: certificates both ways
    certificate_domain: str | None = None  #: a director's certificate has the DNS name ``<director>.<this>``


class Vips(Record, frozen=True):
    """Addresses that the leading director owns; with *spread*, each an owner of its own."""

    interface: str | None = None
    addresses: tuple[str, ...] = ()  #: ``10.0.0.100/24``, ``2001:db8::100/64``
    spread: bool = False  #: over all directors, each address for itself
    priorities: dict[str, Annotated[int, Meta(ge=0, le=1_000_000)]] = {}  #: of this director, by address; 100 is usual


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


class NodeLimits(Record, frozen=True):
    """Of all services' clients at this director together. Those beyond wait in the kernel's backlog."""

    max_connections: Count = 0  #: open at a time; 0: as many as there are descriptors for
    new_per_s: Rate = 0.0  #: accepted; 0: any number


class Node(Record, frozen=True):
    """What is local to one director."""

    name: Name = "director"
    store: str = "memory:"  #: ``memory:``, ``file:/path`` or ``etcd:``
    etcd: Etcd = Etcd()
    roles: tuple[Literal["balance", "manage"], ...] = ("balance", "manage")  #: serve clients; probe hosts and lead
    summary_s: SecondsOrOff = 60.0  #: between two summaries for inspection with etcdctl; 0: none
    limits: NodeLimits = NodeLimits()
    agents: AgentListeners = AgentListeners()
    admin: Admin = Admin()
    log: Logging = Logging()
    panic_fraction: Fraction = 0.5  #: silent agents beyond this at once: my own isolation, not their death
    scripts: str | None = None  #: the directory of programs that may be run as probes
    probe_passwords: str | None = None  #: the directory of files with passwords that probes sign in with
    manhole: Manhole = Manhole()
    metrics: MetricsPort = MetricsPort()
    hooks: dict[Name, Hook] = {}
    control_socket: str | None = None  #: a UNIX socket's path, where backends ask who is behind a connection
    resolvers: tuple[str, ...] = ()  #: DNS servers ``ip:port``; empty: the system's
    resolver_hold_s: SecondsOrOff = 30.0  #: how long addresses outlive an answer that there are none
    peers: Peers = Peers()
    vips: Vips = Vips()
    vip_on_isolation: Literal["release", "keep"] = "release"  #: what a leader does with the VIPs when etcd is away
    takeover: Literal["lease", "promises"] = "lease"  #: how one director follows another as the leader
    takeover_s: Annotated[float, Meta(gt=0, le=60)] = 0.45  #: by promises: how long one lasts
    leader_lease_s: Annotated[float, Meta(ge=1, le=60)] = 2.0  #: a dead leader is noticed after this and half a second
    relay_threads: Annotated[int, Meta(ge=1, le=16)] = 1  #: of the native relay
    leave_s: SecondsOrOff = 0.0  #: before a stop: for so long ``/ready`` says so, and everybody is served as ever
    upgrade_ready_s: Seconds = 60.0  #: how long a new process may take until it could serve


class Configuration(Record, frozen=True):
    """A whole file: the node, and with an embedded store the cluster's services."""

    node: Node = Node()
    services: dict[Name, Service] = {}
