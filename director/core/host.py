"""A host as the pool and the schedulers see it while the director runs."""

from __future__ import annotations

from cluster.model import HostRef


class Host:
    """The moving parts of one backend. Owned by its `Pool`, which alone writes to it; schedulers only read.

    Identity is the object: a host that was removed and configured again under the same name is another `Host`,
    and tickets of the old one still count down the old one.
    """

    __slots__ = (
        "admissible",
        "available",
        "backup",
        "capacity",
        "configured_maximum",
        "configured_weight",
        "eligible",
        "in_flight",
        "max_connections",
        "picks",
        "ref",
        "retired",
        "turn",
        "weight",
    )

    def __init__(self, ref: HostRef, *, weight: float = 1.0, max_connections: int = 0, backup: bool = False) -> None:
        self.ref = ref
        self.configured_weight = weight  #: what the operator gave; consistent hashing uses only this
        self.weight = weight  #: effective: configured x load factor x slow start; 0 takes no new connections
        self.capacity = 1.0  #: what of the weight is an estimate, from reports: W of SCHEDULING
        self.configured_maximum = max_connections
        self.max_connections = max_connections  #: effective (its agent may lower it); 0: no maximum
        self.backup = backup
        self.available = True  #: admin state and health allow new connections
        self.admissible = True  #: admin state allows them, whatever health says; counts when failing open
        self.eligible = False  #: the scheduler may pick it now
        self.retired = False  #: removed from the configuration; its last connections still count down
        self.in_flight = 0  #: tickets not yet released
        self.picks = 0
        self.turn = 0  #: number of its last pick in its pool; negative before the first, in order of joining

    @property
    def name(self) -> str:
        return self.ref.host

    @property
    def full(self) -> bool:
        """At its maximum of open connections."""
        return 0 < self.max_connections <= self.in_flight

    @property
    def last_turn(self) -> int:
        """`turn`, for people: 0 before the first pick."""
        return max(self.turn, 0)

    def __repr__(self) -> str:
        return f"<Host {self.ref} w={self.weight:g} n={self.in_flight}>"
