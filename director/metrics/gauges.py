"""Gauges, computed at scrape from the one snapshot; nothing is stored.

Families are declared in tables and produced one by one, so that a scrape of many hosts can be served in pieces
(`director.admin.pages.MetricsPage`) from one consistent snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from cluster.model import AdminState, HostState, LoadReport
from director.core.snapshot import DirectorPicture, GroupPicture, HostPicture, ServicePicture
from director.metrics.counters import HOST_LABELS
from director.metrics.families import Part, Table, Where
from director.relay.interface import Counters
from director.timing.courtesy import politely

#: What a gauge shows; None leaves the series out (the value is unknown, which is not 0).
HostValue = Callable[[HostPicture], float | None]
HostValues = Callable[[Sequence[HostPicture]], list[float | None]]


def _reported(of: Callable[[LoadReport], float | None]) -> HostValue:
    return lambda host: None if host.report is None else of(host.report)


HOST_GAUGES: Sequence[tuple[str, str, HostValue]] = (
    ("in_rotation", "1 while the host takes new connections.", lambda host: host.in_rotation),
    ("ejected", "1 while the host is out of rotation as an outlier of its group.",
     lambda host: host.ejected_s is not None),
    ("weight", "Effective weight, the product of its factors.", lambda host: host.weight),
    ("in_flight_connections", "Open connections given to the host.", lambda host: host.in_flight),
    ("max_connections", "Configured maximum of open connections; 0 is none.", lambda host: host.max_connections),
    ("agent_connected", "1 while the host's agent is connected.", lambda host: host.agent_connected),
    ("agent_check_answers", "1 while the host's agent-check responder answers; absent without one.",
     lambda host: None if host.responder is None else host.responder.answers),
    ("heartbeat_age_seconds", "Time since the agent's last heartbeat.", lambda host: host.heartbeat_age_s),
    ("load_utilisation_ratio", "Utilisation of the scarcest resource, as reported.",
     _reported(lambda report: report.utilisation)),
    ("load_in_flight", "Requests or connections being served, as reported.",
     _reported(lambda report: report.in_flight)),
    ("load_latency_seconds", "Mean latency, as reported.", _reported(lambda report: report.latency_s)),
    ("load_rate_per_second", "Completions per second, as reported.", _reported(lambda report: report.rate)),
    ("load_errors_ratio", "Failed fraction of the completions, as reported.",
     _reported(lambda report: report.errors)),
)

WEIGHT_FACTORS: Mapping[str, HostValue] = {
    "configured": lambda host: host.configured_weight,
    "capacity": lambda host: host.capacity,
    "slow_start": lambda host: host.slow_start,
    "agent": lambda host: host.agent_weight,
    "probe": lambda host: host.probed_weight,
}

GROUP_GAUGES: Sequence[tuple[str, str, Callable[[GroupPicture], float]]] = (
    ("enabled", "1 for the group that answers for its service.", lambda group: group.enabled),
    ("share_ratio", "Part of its service's new clients that the group gets.", lambda group: group.share),
    ("available_hosts", "Hosts that take new connections.", lambda group: group.available),
    ("failing_open", "1 while every host is bad and all are tried.", lambda group: group.failing_open),
    ("backups_in_use", "1 while only backup hosts are left.", lambda group: group.backups_in_use),
)

SERVICE_GAUGES: Sequence[tuple[str, str, Callable[[ServicePicture], float]]] = (
    ("connections", "Open client connections.", lambda service: service.connections),
    ("max_connections", "Configured maximum of open connections; 0 is none.", lambda service: service.max_connections),
    ("queued_clients", "Clients waiting for a host.", lambda service: service.queued),
    ("sticky_entries", "Clients remembered with their host.", lambda service: service.sticky_entries),
)

DIRECTOR_GAUGES: Sequence[tuple[str, str, Callable[[DirectorPicture], float]]] = (
    ("isolated", "1 while so many agents are silent that this director suspects itself.",
     lambda director: director.isolated),
    ("grace", "1 after a start or a change of leader, while nothing is evicted yet.", lambda director: director.grace),
    ("store_available", "1 while the store answers.", lambda director: director.store_available),
    ("store_writable", "1 while the store takes changes, as far as is known.", lambda director: director.store_writable),
    ("store_bytes", "What etcd takes on the disk of the member that answered last; 0: not known, or another store.",
     lambda director: director.store_bytes),
    ("cold_start", "1 while a snapshot stands in for a store that has not answered yet.",
     lambda director: director.cold_start),
    ("problems", "What an operator should mend; the director's status names each.",
     lambda director: len(director.problems)),
    ("store_problems", "Records of the store that cannot be read, the first 100.",
     lambda director: len(director.store_problems)),
    ("leads", "1 while this director leads the cluster.", lambda director: director.leads),
    ("vips_held", "Virtual addresses that this director holds.", lambda director: len(director.vips_held)),
    ("vip_fence_holds",
     "1 while the kernel ends the virtual addresses to the millisecond, by tc or nft; 0: by their lifetime.",
     lambda director: director.vip_fence_holds),
    ("peers_connected", "Other directors that are connected.",
     lambda director: sum(peer.connected for peer in director.peers)),
    ("previous_process_connections", "Connections that the process before an upgrade still serves.",
     lambda director: director.previous_connections or 0),
    ("start_time_seconds", "POSIX time of the director's start.", lambda director: director.started),
)

RELAY_GAUGES: Sequence[tuple[str, str, Callable[[Counters], float]]] = (
    ("open_connections", "Connections in the relay, pending connects included.", lambda relay: relay.open),
    ("connecting", "Connects to hosts that are pending.", lambda relay: relay.connecting),
    ("stalled_connections", "Connections with data waiting for a slow reader.", lambda relay: relay.stalled),
    ("pipes", "Pipes for splicing, in the pool or in use.", lambda relay: relay.pipes),
)


class SnapshotCollector:
    """A prometheus-client collector over snapshots.

    :param snapshot: builds the picture; called once for each scrape.
    :param relays: the counters of each running relay by its name.
    """

    def __init__(
        self, snapshot: Callable[[], DirectorPicture], relays: Callable[[], Mapping[str, Counters]]
    ) -> None:
        self._snapshot = snapshot
        self._relays = relays
        self._of_hosts = [(Table("gauge", f"host_{name}", text, HOST_LABELS, variants), of)
                          for name, text, variants, of in _host_tables()]

    def describe(self) -> Iterable[Metric]:
        """Nothing: so that registering takes no snapshot of a director that is not running yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """One family at a time, all of one snapshot."""
        picture = self._snapshot()
        yield from _director(picture)
        for name, text, of_service in SERVICE_GAUGES:
            family = GaugeMetricFamily(f"txdirector_service_{name}", text, labels=("service",))
            for service in picture.services:
                family.add_metric((service.name,), of_service(service))
            yield family
        retired = GaugeMetricFamily("txdirector_deleted_service_connections",
                                    "Connections that are open still of a service that is deleted.", labels=("service",))
        for name, count in picture.retired.items():
            retired.add_metric((name,), count)
        yield retired
        groups = [group for service in picture.services for group in service.groups]
        for name, text, of_group in GROUP_GAUGES:
            family = GaugeMetricFamily(f"txdirector_group_{name}", text, labels=("service", "group"))
            for group in groups:
                family.add_metric((group.service, group.name), of_group(group))
            yield family
        strayed = CounterMetricFamily("txdirector_group_strayed_clients",
                                      "Clients that belong to the group, by its share, and that another one took.",
                                      labels=("service", "group"))
        for group in groups:
            strayed.add_metric((group.service, group.name), group.strayed)
        yield strayed
        hosts = [(service.name, *_hosts(service)) for service in picture.services]
        for table, of_host in self._of_hosts:
            yield table.family({name: Part(where, of_host(of)) for name, where, of in politely(hosts, 1)})
        yield from _relay_families(self._relays())


def _director(picture: DirectorPicture) -> Iterator[Metric]:
    yield InfoMetricFamily("txdirector_build", "The running release.",
                           value={"version": picture.version, "director": picture.name})
    for name, text, of_director in DIRECTOR_GAUGES:
        yield GaugeMetricFamily(f"txdirector_{name}", text, value=of_director(picture))
    yield CounterMetricFamily("txdirector_store_writes", "Transactions that this director sent to etcd.",
                              value=picture.store_writes)
    yield CounterMetricFamily("txdirector_store_written_bytes", "Keys and values in those, kept until etcd is compacted.",
                              value=picture.store_written_bytes)


def _hosts(service: ServicePicture) -> tuple[Where, list[HostPicture]]:
    hosts = [host for group in service.groups for host in group.hosts]
    return [(host.service, host.group, host.name) for host in hosts], hosts


def _host_tables() -> Iterator[tuple[str, str, tuple[str, Sequence[str]] | None, HostValues]]:
    """Name, text, label and values of the variants, and what fills the table."""
    for name, text, of_host in HOST_GAUGES:
        yield name, text, None, partial(_each, (of_host,))
    yield ("weight_factor", "What the effective weight is the product of.", ("factor", list(WEIGHT_FACTORS)),
           partial(_each, tuple(WEIGHT_FACTORS.values())))
    yield ("state", "1 for the host's operational state.", ("state", [each.value for each in HostState]),
           lambda hosts: [each is host.state for host in hosts for each in HostState])
    yield ("admin_state", "1 for the ordered state in force.", ("state", [each.value for each in AdminState]),
           lambda hosts: [each is host.admin for host in hosts for each in AdminState])


def _each(values: Sequence[HostValue], hosts: Sequence[HostPicture]) -> list[float | None]:
    return [of(host) for host in hosts for of in values]


def _relay_families(relays: Mapping[str, Counters]) -> Iterator[Metric]:
    for name, text, of_relay in RELAY_GAUGES:
        family = GaugeMetricFamily(f"txdirector_relay_{name}", text, labels=("relay",))
        for relay, counters in relays.items():
            family.add_metric((relay,), of_relay(counters))
        yield family
    moved = CounterMetricFamily("txdirector_relay_bytes", "Bytes moved, of open connections too, by direction.",
                                labels=("relay", "direction"))
    spliced = CounterMetricFamily("txdirector_relay_spliced_bytes", "Bytes moved within the kernel.",
                                  labels=("relay",))
    for relay, counters in relays.items():
        moved.add_metric((relay, "to_host"), counters.to_host_bytes)
        moved.add_metric((relay, "to_client"), counters.to_client_bytes)
        spliced.add_metric((relay,), counters.spliced_bytes)
    yield moved
    yield spliced
