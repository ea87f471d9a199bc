"""The vocabulary: services, groups, hosts, orders, reports and states, as frozen records.

Everything here is a value. One library (msgspec) turns the same records into TOML, wire JSON and store JSON;
``cluster.validate`` reports every error of a document at once.

Three kinds of host state are kept apart, and only whoever set one clears it:

- *admin* state (`AdminState`): ordered by an operator or by the host's agent; the most restrictive wins;
- *operational* state (`HostState`): observed from heartbeats, probes and real connects;
- *weight*: configured weight x load factor x slow start.
"""

from __future__ import annotations

from cluster.model.base import (
    HASH_PATTERN,
    HOST_NAME_PATTERN,
    MAX_SECONDS,
    NAME_PATTERN,
    SERVER_NAME_PATTERN,
    Count,
    Fraction,
    Moment,
    Name,
    Port,
    Positive,
    Record,
    Seconds,
    SecondsOrOff,
    Shared,
    UserName,
    Weight,
)
from cluster.model.directors import AuditEntry, Caps, CapShare, Leader, Member, Observed, Placement, VipOwner
from cluster.model.kept import Order, Registered
from cluster.model.node import (
    TLS,
    Admin,
    AdminEndpoint,
    AgentListeners,
    Configuration,
    Etcd,
    Hook,
    Identity,
    Logging,
    Manhole,
    MetricsPort,
    Node,
    NodeLimits,
    Peers,
    User,
    Vips,
)
from cluster.model.report import LoadReport
from cluster.model.services import (
    Access,
    AgentCheck,
    Certificate,
    Discover,
    Group,
    Health,
    Host,
    HostName,
    HostTLS,
    Keepalive,
    KeepaliveCount,
    KeepaliveSeconds,
    Limits,
    Outliers,
    Probe,
    ProbeStep,
    ProbeTLS,
    Proxy,
    Registration,
    Service,
    ServiceTLS,
    Sni,
    Sticky,
    Timeouts,
    UnixFile,
)
from cluster.model.states import AdminState, HostRef, HostState, Reason

__all__ = [
    "HASH_PATTERN", "HOST_NAME_PATTERN", "MAX_SECONDS", "NAME_PATTERN", "SERVER_NAME_PATTERN",
    "TLS", "Access", "Admin", "AdminEndpoint", "AdminState",
    "AgentCheck", "AgentListeners", "AuditEntry", "CapShare", "Caps", "Certificate",
    "Configuration", "Count", "Discover", "Etcd", "Fraction", "Group",
    "Health", "Hook", "Host", "HostName", "HostRef", "HostState", "HostTLS",
    "Identity", "Keepalive", "KeepaliveCount", "KeepaliveSeconds", "Leader", "Limits",
    "LoadReport", "Logging", "Manhole", "Member", "MetricsPort", "Moment", "Name", "Node", "NodeLimits", "Observed", "Order",
    "Outliers",
    "Peers", "Placement", "Port", "Positive", "Probe", "ProbeStep", "ProbeTLS", "Proxy", "Reason", "Record", "Registered",
    "Registration", "Seconds", "SecondsOrOff", "Service", "ServiceTLS", "Shared", "Sni", "Sticky", "Timeouts", "UnixFile",
    "User", "UserName", "VipOwner", "Vips", "Weight",
]
