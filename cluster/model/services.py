"""The cluster's configuration: services, their groups, their hosts."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from cluster.model.base import (
    HOST_NAME_PATTERN,
    SERVER_NAME_PATTERN,
    Count,
    Fraction,
    Name,
    Port,
    Positive,
    Rate,
    Record,
    Seconds,
    SecondsOrOff,
    UserName,
    Weight,
)

#: Of an HTTP header (RFC 9110, token).
FieldName = Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}\Z")]


class Host(Record, frozen=True):
    """One backend: where it listens and how much it may carry."""

    address: str  #: ``host:port``, ``[v6]:port`` or ``unix:/path``
    weight: Weight = 1.0  #: 0: no new connections
    max_connections: Count = 0  #: 0: no maximum
    backup: bool = False  #: used only while no other host of the group is available
    probe_port: Port | None = None  #: where to probe it, when not at the port of its address or of its group's probe


#: A host name, as a TLS client asks for one.
HostName = Annotated[str, Meta(max_length=253, pattern=HOST_NAME_PATTERN)]


#: Of ALPN (RFC 7301): registered ones are of letters, digits and a few signs.
Protocol = Annotated[str, Meta(pattern=r"^[!-~]{1,255}\Z")]


class ProbeTLS(Record, frozen=True):
    """TLS of a probe. Paths are of PEM files, on each director that probes."""

    ca: str | None = None  #: authorities of the hosts' certificates; absent: those of the system
    server_name: HostName | None = None  #: asked for, and in the certificate; absent: the address's name, or IP address
    verify: bool = True  #: whether the certificate must be right; else any will do
    certificate: str | None = None  #: shown to a host that asks for one
    key: str | None = None


class HostTLS(ProbeTLS, frozen=True):
    """TLS of the connections to a group's hosts. Paths are of PEM files, on each director."""

    alpn: tuple[Protocol, ...] = ()  #: offered to hosts, where a client's TLS has not settled on one


#: Text that stands for bytes, one character for each.
ByteText = Annotated[str, Meta(max_length=4096, pattern=r"^[\x00-\xff]*\Z")]


class ProbeStep(Record, frozen=True):
    """What a probe says to a host, and what it waits for then."""

    send: ByteText = ""
    receive: ByteText | None = None  #: a regular expression


class Probe(Record, frozen=True):
    """An active check. ``none`` leaves health to heartbeats and real connects."""

    kind: Literal["tcp", "http", "exchange", "grpc", "redis", "postgresql", "script", "none"] = "tcp"
    steps: tuple[ProbeStep, ...] = ()  #: of an exchange
    receive_bytes: Annotated[int, Meta(ge=1, le=65_536)] = 4096  #: that a step of an exchange waits for, at most
    grpc_service: Annotated[str, Meta(max_length=255)] = ""  #: whose health is asked for; empty: the server's
    role: Literal["any", "primary", "replica"] = "any"  #: of Redis and PostgreSQL: who passes
    user: Annotated[str, Meta(max_length=63, pattern=r"^[^\x00]*\Z")] = ""  #: who signs in there
    password: Name | None = None  #: by which: the name of a file in the node's ``probe_passwords``
    database: Annotated[str, Meta(max_length=63, pattern=r"^[^\x00]*\Z")] = ""  #: of PostgreSQL; empty: the user's
    command: tuple[Annotated[str, Meta(pattern=r"^[^\x00]*\Z")], ...] = ()  #: of a script: the program, and what it is given
    address: str | None = None  #: where to probe, when not the host's own address
    port: Port | None = None  #: where to probe at the host's own address, when not at its own port
    send_proxy: Literal["auto", "off", "v1", "v2"] = "auto"  #: a PROXY header first; auto: where clients send one
    path: str = "/"
    host_header: str | None = None  #: ``Host:`` of an HTTP probe; the host's address when absent
    expect: tuple[Annotated[int, Meta(ge=100, le=599)], ...] = ()  #: accepted statuses; empty: any 2xx or 3xx
    weight_header: bool | FieldName = False  #: of the answer to an HTTP probe, that says a weight; true: the usual one
    timeout_s: Seconds = 1.0
    tls: ProbeTLS | None = None  #: of all but scripts; absent: as clients' connections, if it goes to the same port


class Outliers(Record, frozen=True):
    """When a host that treats clients worse than the group's others is ejected (`director.core.outliers`)."""

    enabled: bool = True
    consecutive: Count = 5  #: clients in a row that it failed, at least; 0: that ejects nobody
    failure_share: Fraction = 0.2  #: of its clients that it failed, above the others' share; 1: that ejects nobody
    latency_factor: Annotated[float, Meta(ge=0, le=1000)] = 5.0  #: its connects beside the others'; 0: that ejects nobody
    latency_s: Seconds = 0.5  #: and a connect takes longer than that, on average
    samples: Positive = 50  #: clients of each host that a share or an average is taken of
    window_s: Seconds = 10.0  #: in which they come
    max_ejected: Fraction = 0.1  #: of the group's hosts at a time; one may always be, the last one never
    ejection_s: Seconds = 30.0  #: the first time; the second twice that, and so on
    max_ejection_s: Seconds = 300.0


class AgentCheck(Record, frozen=True):
    """Each host has a responder of HAProxy's agent-check at its own address."""

    port: Port
    interval_s: Seconds = 2.0
    timeout_s: Seconds = 1.0  #: for an answer
    send: Annotated[str, Meta(max_length=255)] = ""  #: what the responder is to be told first


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
    outliers: Outliers = Outliers()
    agent_check: AgentCheck | None = None


class Registration(Record, frozen=True):
    """Whether hosts may join a group through their agents."""

    mode: Literal["off", "approve", "auto"] = "off"
    networks: tuple[str, ...] = ()  #: addresses that may register besides the agent's own peer address
    max_hosts: Positive = 1000  #: registered at a time, those that wait for approval included
    max_weight: Weight = 10.0  #: an agent that asks for more joins with this
    forget_s: SecondsOrOff = 3600.0  #: a registration without an agent whose host is down ends after this; 0: never


class Discover(Record, frozen=True):
    """Hosts that are found by DNS."""

    name: HostName
    port: Port | None = None  #: of each of its addresses; absent: the name has SRV records
    max_hosts: Positive = 100  #: more are left out
    max_connections: Count = 0  #: of each host; 0: no maximum


class Group(Record, frozen=True):
    """Hosts that can stand in for each other, and the policy among them."""

    hosts: dict[Name, Host] = {}
    discover: Discover | None = None
    scheduler: str = "auto"
    parameters: dict[str, float | int | str | bool] = {}  #: of the scheduler
    health: Health = Health()
    registration: Registration = Registration()
    tls: HostTLS | None = None  #: with the hosts; None: they get clients' bytes as they are
    source: tuple[str, ...] = ()  #: addresses of the director to connect from, in turn; empty: the kernel's choice
    on_down: Literal["keep", "cut"] = "keep"  #: open connections of a host judged or ordered down, or removed


class Limits(Record, frozen=True):
    max_connections: Count = 0  #: open connections of the service; 0: no maximum
    queue: Count = 0  #: clients that may wait when the service or its hosts are full; 0: refuse at once
    queue_timeout_s: Seconds = 5.0
    new_per_s: Rate = 0.0  #: new connections of the service, at each director; 0: any number
    max_connections_per_client: Count = 0  #: open connections of one client network, at each director; 0: no maximum
    new_per_client_per_s: Rate = 0.0  #: new connections of one client network, at each director; 0: any number
    client_ipv4_prefix: Annotated[int, Meta(ge=1, le=32)] = 32  #: bits by which a client network is known
    client_ipv6_prefix: Annotated[int, Meta(ge=1, le=128)] = 64


class Timeouts(Record, frozen=True):
    connect_s: Seconds = 5.0  #: for all tries together
    idle_s: Seconds = 3600.0  #: without progress in either direction
    half_closed_s: Seconds | None = None  #: without progress once one side finished; absent: as `idle_s`
    max_age_s: SecondsOrOff = 0.0  #: 0: connections live as long as they like
    max_age_jitter: Fraction = 0.1
    drain_s: Seconds = 300.0  #: default deadline of a drain or a shutdown
    hello_s: Seconds = 3.0  #: for a TLS client's first message, where it is looked at


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


#: A server name in TLS: a host name, ``*.`` before one, or ``*``.
ServerName = Annotated[str, Meta(max_length=253, pattern=SERVER_NAME_PATTERN)]


class Sni(Record, frozen=True):
    """Which clients of its listeners are a service's, where others share them: by the ClientHello, which stays untouched."""

    names: tuple[ServerName, ...]  #: at least one
    alpn: tuple[Protocol, ...] = ()  #: only clients that offer one of these; empty: all


class Certificate(Record, frozen=True):
    """Paths of PEM files, on each director."""

    certificate: str  #: with its chain
    key: str


class ServiceTLS(Record, frozen=True):
    """TLS with clients, which ends here: hosts get what was inside."""

    certificates: tuple[Certificate, ...]  #: by the names that they have; the first is for all other clients
    alpn: tuple[Protocol, ...] = ()  #: protocols of the hosts', the preferred one first
    min_version: Literal["1.2", "1.3"] = "1.2"
    client_ca: str | None = None  #: path of the authorities that sign clients' certificates; None: none is asked for
    client_certificate: Literal["required", "optional"] = "required"  #: where one is asked for
    handshake_s: Seconds = 5.0  #: from accept, or from the PROXY header, to the end of the handshake
    max_handshakes: Positive = 1024  #: under way at a time; beyond, the oldest is closed


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
    split: dict[Name, Weight] = {}  #: the enabled group and others, by their shares of new clients; empty: it has all
    relay: Literal["auto", "native", "python"] = "auto"
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    keepalive: Keepalive = Keepalive()
    sticky: Sticky | None = None
    proxy: Proxy = Proxy()
    sni: Sni | None = None  #: None: clients of every name, and those that speak no TLS
    tls: ServiceTLS | None = None
    access: Access = Access()
    unix: UnixFile = UnixFile()

    @property
    def enabled_group(self) -> str | None:
        """The configured group, else the first one; None for a service without groups."""
        return self.enable if self.enable is not None else next(iter(self.groups), None)

    @property
    def has_tls(self) -> bool:
        """With clients or with hosts, by the director itself."""
        return self.tls is not None or any(group.tls is not None for group in self.groups.values())

    @property
    def shares(self) -> dict[str, float]:
        """What part of new clients each group gets; those with none may be left out."""
        total = sum(self.split.values())
        if total > 0:
            return {name: weight / total for name, weight in self.split.items()}
        return {self.enabled_group: 1.0} if self.enabled_group is not None else {}
