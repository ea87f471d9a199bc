"""The process's descriptors: how many relays may spend on pipes, and how many clients there are places for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from cluster.model import NodeLimits
from cluster.shortage import CONNECTIONS
from director.core.bucket import TokenBucket
from director.relay.interface import Relay
from director.relay.pipes import MAX_PIPES
from director.resources.places import OWN, PER_PIPE, Places, Room, divide, in_use, soft_limit

#: Pipes only make bulk cheaper, clients come first: one for so many descriptors, in each relay that splices.
DESCRIPTORS_PER_PIPE = 64
#: By its name: it has to look at every byte.
_NEVER_SPLICES = "tls"


def pipes_for(limit: float) -> int:
    """How many pipes a relay may have."""
    return MAX_PIPES if math.isinf(limit) else min(MAX_PIPES, int(limit) // DESCRIPTORS_PER_PIPE)

class Descriptors:
    """Divides what this process may have open, and keeps `places` to it.

    :param relays: whose pipes count, and whose open connections are no descriptors of the process's own.
    :param agents: how many may connect.
    :param limits: of clients, that an operator has set.
    """

    def __init__(self, relays: Mapping[str, Relay], agents: Callable[[], int], limits: NodeLimits | None = None, *,
                 now: float = 0.0) -> None:
        rate = limits.new_per_s if limits is not None else 0
        self.places = Places(pace=TokenBucket(rate, max(1.0, rate), now) if rate else None)
        self._most = (limits.max_connections if limits is not None else 0) or math.inf
        self._relays = relays
        self._agents = agents
        self._own = OWN

    def room(self) -> Room:
        """As things stand."""
        limit = soft_limit()
        splicing = sum(name != _NEVER_SPLICES for name in self._relays)
        return divide(limit, own=self._own, agents=self._agents(), pipes=splicing * pipes_for(limit))

    def resize(self) -> None:
        """Hosts came or went, or somebody changed the limit."""
        clients = self.room().clients
        if self._most <= clients:
            self.places.resize(self._most, CONNECTIONS)
        else:
            self.places.resize(clients)

    def count_own(self) -> None:
        """Everything is open now that this process needs besides its clients and agents."""
        relayed = [relay.counters() for relay in self._relays.values()]
        clients = self.places.taken + sum(counters.open + PER_PIPE * counters.pipes for counters in relayed)
        self._own = max(OWN, in_use() - clients)
        self.resize()
