"""How much of its own a director uses: descriptors, and ports to each host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.logger import Logger

from cluster.model import HostRef
from director.core.entries import HostEntry
from director.core.inventory import Inventory
from director.metrics.counters import HOST_LABELS, HOSTS
from director.metrics.families import Part, Table
from director.ports.sockets import sources_for
from director.resources.descriptors import Descriptors
from director.resources.places import in_use
from director.resources.shortages import Shortages
from director.timing.courtesy import politely
from director.timing.seldom import Seldom, more

#: Where Linux says which ports it gives to connections (ip(7)); both families use it.
PORT_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
#: Linux's default, where it cannot be read.
DEFAULT_PORTS = 28_232
#: Ports in use are told of from this part on: at the pace of the last seconds there is still time to act.
NEAR_END = 0.9
#: Between two lines about one host whose ports run out.
WARN_EVERY_S = 60.0


def local_ports(path: str = PORT_RANGE) -> int:
    """How many connections one address of ours may have to one host."""
    try:
        with open(path, encoding="ascii") as file:
            low, high = map(int, file.read().split())
    except (OSError, ValueError):
        return DEFAULT_PORTS
    return high - low + 1


class PortUse(NamedTuple):
    """A host, and how many connections to it there may be."""

    ref: HostRef
    in_use: int
    ports: int


def port_use(inventory: Inventory, ports: int) -> Iterator[PortUse]:
    """Of every host that is reached over TCP; *ports* are those of one source address."""
    for entry in politely(inventory.hosts.values(), HOSTS):
        if (most := _most(entry, ports)) is not None:
            yield PortUse(entry.ref, entry.host.in_flight, most)


def _most(entry: HostEntry, ports: int) -> int | None:
    target = entry.target
    if target is None or target.address.is_unix:
        return None
    return ports * max(1, len(sources_for(target.address, target.sources)))


class PortWatch:
    """Says when the ports to a host are running out. Ask it every second or so."""

    log = Logger()

    def __init__(self, inventory: Inventory, *, monotonic: Callable[[], float],
                 ports: Callable[[], int] = local_ports) -> None:
        self._inventory = inventory
        self._ports = ports
        self._seldom = Seldom(monotonic=monotonic, every_s=WARN_EVERY_S)

    def look(self) -> None:
        ports = self._ports()
        for entry in self._inventory.hosts.values():
            if entry.host.in_flight < NEAR_END * ports:  # true of nearly all, so it comes first
                continue
            most = _most(entry, ports)
            if most is None or entry.host.in_flight < NEAR_END * most:
                continue
            held = self._seldom.due(entry.ref)
            if held is not None:
                self.log.warn(
                    "{count} of {most} ports to {host} are in use: give its group (more) source addresses, or widen "
                    "net.ipv4.ip_local_port_range{more}", count=entry.host.in_flight, most=most, host=str(entry.ref),
                    more=more(held),
                )


class ResourceCollector:
    """A prometheus-client collector."""

    def __init__(self, inventory: Inventory, descriptors: Descriptors, shortages: Shortages, *,
                 ports: Callable[[], int] = local_ports) -> None:
        self._inventory = inventory
        self._descriptors = descriptors
        self._shortages = shortages
        self._ports = ports
        self._ratios = Table("gauge", "host_ports_ratio",
                             "Open connections to the host, of those its source addresses have ports for.", HOST_LABELS)

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        room, places, ports = self._descriptors.room(), self._descriptors.places, self._ports()
        yield GaugeMetricFamily("txdirector_descriptors_in_use", "Descriptors that this process has open.",
                                value=in_use())
        yield GaugeMetricFamily("txdirector_descriptors_limit", "Descriptors that this process may have open.",
                                value=room.limit)
        yield GaugeMetricFamily("txdirector_descriptors_reserve", "Of these, those that clients are not given.",
                                value=room.reserve)
        yield GaugeMetricFamily("txdirector_client_places", "Clients that the rest is enough for, two for each.",
                                value=room.clients)
        yield GaugeMetricFamily("txdirector_client_places_taken", "Clients that are there.", value=places.taken)
        yield CounterMetricFamily("txdirector_accept_pauses", "Times that accepting paused until there was room.",
                                  value=places.pauses)
        yield CounterMetricFamily("txdirector_clients_delayed", "Clients that waited in the backlog for that.",
                                  value=places.delayed)
        yield from self._shortages.collect()
        yield GaugeMetricFamily("txdirector_local_ports", "Ports that one source address has for connections to one host.",
                                value=ports)
        parts: dict[str, tuple[list[HostRef], list[float | None]]] = {}
        for each in port_use(self._inventory, ports):
            refs, ratios = parts.setdefault(each.ref.service, ([], []))
            refs.append(each.ref)
            ratios.append(each.in_use / each.ports)
        yield self._ratios.family({service: Part(*part) for service, part in parts.items()})
