"""Which host, the states it can be in, and why a client's connection ended."""

from __future__ import annotations

import enum
from typing import NamedTuple


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
    CLIENT_TRUNCATED = "client_truncated"  #: the client's TLS ended without a goodbye (close_notify)
    HOST_TRUNCATED = "host_truncated"  #: so did the host's
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
    SERVICE_RATE = "service_rate"  #: more new clients a second than the service may have
    CLIENT_FULL = "client_full"  #: its network has as many connections as one may have
    CLIENT_RATE = "client_rate"  #: its network opens more a second than one may
    QUEUE_FULL = "queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    DENIED = "denied"  #: by the access list
    BAD_PROXY_HEADER = "bad_proxy_header"
    BAD_HANDSHAKE = "bad_handshake"  #: TLS with the client did not come about
    HANDSHAKE_TIMEOUT = "handshake_timeout"  #: nor in time, or others had to have its place


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
