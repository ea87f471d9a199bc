"""A service's limits of who comes how often: kept to, and told of in the log.

Its owner has one only while the service has such limits, so that others pay nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_network

from twisted.logger import Logger

from cluster.model import Limits, Reason
from director.core.access import MAPPED
from director.core.arrivals import Arrivals
from director.core.entries import ServiceEntry
from director.metrics.counters import ServiceMetrics
from director.timing.seldom import Seldom, more
from director.traffic.connection import Connection

#: Between two lines about one kind of refusal: an attack lasts, and the metric has every refusal.
SAY_S = 10.0

_WORDS = {
    Reason.CLIENT_FULL: "it has {limits.max_connections_per_client} connections, as many as one may have",
    Reason.CLIENT_RATE: "it opens more than {limits.new_per_client_per_s:g} a second",
    Reason.SERVICE_RATE: "more than {limits.new_per_s:g} clients a second come to the service",
}


class Turnstile:
    """Of one service.

    :param present: connections that are open.
    """

    log = Logger()

    def __init__(self, service: str, limits: Limits, metrics: ServiceMetrics, present: Iterable[Connection],
                 monotonic: Callable[[], float]) -> None:
        self._service = service
        self._limits = limits
        self._monotonic = monotonic
        self._seldom = Seldom(monotonic=monotonic, every_s=SAY_S)
        self._inside = set(present)  # those that were counted
        self._arrivals = self._anew(limits)
        metrics.count_networks(lambda: self._arrivals.networks)

    def configure(self, limits: Limits) -> None:
        """From now on; nobody who is there is thrown out."""
        self._limits = limits
        if self._arrivals.prefixes == (limits.client_ipv4_prefix, limits.client_ipv6_prefix):
            self._arrivals.configure(limits, self._monotonic())
        else:
            self._arrivals = self._anew(limits)

    def _anew(self, limits: Limits) -> Arrivals:
        return Arrivals(limits, self._monotonic(), (connection.ip for connection in self._inside))

    def enter(self, connection: Connection) -> Reason | None:
        """Count it until `leave`, or say why it is refused."""
        refusal = self._arrivals.enter(connection.ip, connection.accepted_at)
        if refusal is None:
            self._inside.add(connection)
        elif (held := self._seldom.due(refusal)) is not None:
            self.log.info("{service}: {network} is refused: {why}{more}", service=self._service, reason=refusal.value,
                          network=self._network(connection.ip), why=_WORDS[refusal].format(limits=self._limits),
                          more=more(held))
        return refusal

    def leave(self, connection: Connection) -> None:
        """It has ended, whether it was counted or not."""
        if connection in self._inside:
            self._inside.remove(connection)
            self._arrivals.leave(connection.ip, self._monotonic())

    def _network(self, client: bytes | None) -> str:
        """As people write it."""
        if client is None:
            return "a client"
        if client.startswith(MAPPED) and len(client) == 16:
            client = client[12:]
        bits = self._arrivals.prefixes[len(client) == 16]
        network = ip_network((client, bits), strict=False)
        return str(network.network_address) if network.num_addresses == 1 else str(network)


def turnstile_of(before: Turnstile | None, service: ServiceEntry, metrics: ServiceMetrics,
                 present: Callable[[], Iterable[Connection]], monotonic: Callable[[], float]) -> Turnstile | None:
    """What a service has as it is configured now, where it had *before*; None: its limits ask for nothing."""
    limits = service.spec.limits
    if not Arrivals.limited(limits):
        metrics.count_networks(None)
        return None
    if before is None:
        return Turnstile(service.name, limits, metrics, present(), monotonic)
    before.configure(limits)
    return before
