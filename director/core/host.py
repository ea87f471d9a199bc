"""A host as the pool and the schedulers see it while the director runs."""

from __future__ import annotations

from cluster.model import HostRef


class Host:
    """The moving parts of one backend. Owned by its `Pool`, which alone writes to it; schedulers only read.

    Identity is the object: a host that was removed and configured again under the same name is another `Host`,
    and tickets of the old one still count down the old one.
    """

    __slots__ = ("available", "backup", "configured_weight", "in_flight", "last_picked", "max_connections",
                 "picks", "ref", "weight")

    def __init__(self, ref: HostRef, *, weight: float = 1.0, max_connections: int = 0, backup: bool = False) -> None:
        self.ref = ref
        self.configured_weight = weight  #: what the operator gave; consistent hashing uses only this
        self.weight = weight  #: effective: configured x load factor x slow start; 0 takes no new connections
        self.max_connections = max_connections  #: 0: no maximum
        self.backup = backup
        self.available = True  #: admin state and health allow new connections
        self.in_flight = 0  #: tickets not yet released
        self.picks = 0
        self.last_picked = 0.0  #: monotonic seconds; 0 before the first pick

    @property
    def name(self) -> str:
        return self.ref.host

    @property
    def full(self) -> bool:
        """At its maximum of open connections."""
        return 0 < self.max_connections <= self.in_flight

    def __repr__(self) -> str:
        return f"<Host {self.ref} w={self.weight:g} n={self.in_flight}>"
