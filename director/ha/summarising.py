"""A summary of this director's load in the store, for whoever inspects the cluster with etcdctl. Nobody decides by it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import Misuse, StoreUnavailable
from cluster.keys import Keys
from cluster.store import Lease, Put, Store
from director.core.inventory import Inventory
from director.ha.membership import Membership

#: The busiest; those beyond are only counted. A summary is to be read, and etcd keeps each until it is compacted.
MAX_HOSTS = 200
#: On average; a longer summary comes less often. 13 MB a day of each director; that of 200 hosts comes every 3 minutes.
BYTES_PER_S = 150


class Summarising(Service):
    """Writes ``load/<director>`` every *every_s* seconds if it says something new, under the membership's lease; 0:
    never."""

    log = Logger()

    def __init__(self, store: Store, keys: Keys, inventory: Inventory, membership: Membership, *, director: str,
                 every_s: float, reactor: Any, wall: Callable[[], float]) -> None:
        self.setName("summarising")
        self._store = store
        self._key = keys.load(director)
        self._inventory = inventory
        self._membership = membership
        self._every_s = every_s
        self._reactor = reactor
        self._wall = wall
        self._timer: Any = None
        self._last: dict[str, Any] = {}  #: what the store has
        membership.on_lease.append(self._leased)

    def startService(self) -> None:
        super().startService()
        if self._membership.lease is not None:  # it was had before
            self._leased(self._membership.lease)

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leased(self, _: Lease) -> None:
        """A new lease has no summary yet."""
        self._last = {}
        if self.running and self._every_s and self._timer is None:
            self._write()

    def _write(self) -> None:
        lease = self._membership.lease
        said = load_summary(self._inventory)
        value = msgspec.json.encode({"at": self._wall(), **said})
        self._timer = self._reactor.callLater(max(self._every_s, len(value) / BYTES_PER_S), self._write)
        if lease is not None and said != self._last:
            self._last = said
            written = self._store.commit([Put(self._key, value, lease.id)], when=[self._membership.fence()])
            written.addErrback(self._not_written)

    def _not_written(self, failure: Failure) -> None:
        self._last = {}
        failure.trap(StoreUnavailable, Misuse)  # Misuse: the lease ended meanwhile; a new one brings another summary


def load_summary(inventory: Inventory) -> dict[str, Any]:
    """Connections of each service, and what each host carries: state, weight, open connections, reported utilisation."""
    busiest = heapq.nlargest(MAX_HOSTS, inventory.hosts.items(), key=lambda item: item[1].host.in_flight)
    hosts = {
        str(ref): {
            "state": entry.health.state.value, "weight": round(entry.host.weight, 3), "open": entry.host.in_flight,
            **({"utilisation": entry.report.utilisation} if entry.report is not None else {}),
        }
        for ref, entry in busiest
    }
    return {
        "services": {name: {"connections": entry.admission.connections, "queued": entry.admission.queued}
                     for name, entry in inventory.services.items()},
        "hosts": hosts, "hosts_left_out": max(0, len(inventory.hosts) - MAX_HOSTS),
    }
