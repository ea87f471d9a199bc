"""What the director counts, exposed through prometheus-client.

Counters of the hot path are plain numbers, raised by the data path and turned into prometheus-client's families at scrape:
its own counters take a lock for each increment, half a microsecond and seven of them for a connection, and everything here
runs on the reactor's thread. So are the probes and transitions of each host, which ten thousand hosts have by the thousands
a second; reports are counters of the library's. Gauges are not stored at all but read from the one snapshot at scrape
(`director.metrics.gauges`).

Names begin with ``txdirector_``, units are base units, and every label is bounded: configured names, enumerations of ours,
or the `MAX_REASONS` first reasons.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from cluster.model import HostRef, HostState, Reason
from director.core.host import Host
from director.core.seen import Tallied
from director.metrics.families import Part, Table
from director.metrics.hellos import Hellos
from director.timing.courtesy import politely

#: Hosts between two times of giving way, at a scrape.
HOSTS = 8
#: Observe the duration of one pick in this many: two readings of the clock cost a tenth of a pick.
PICK_SAMPLE = 16
#: Distinct reasons of one counter; our code has about ten. What exceeds it is counted as ``other``, so that no peer can
#: make the label grow even if a reason ever carried its words.
MAX_REASONS = 32

DURATION_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0)
QUEUE_WAIT_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Of each host, so few: ten thousand hosts have as many times the series. A network answers below the first bound, a
#: machine under load below the third, and the last ones are where connects are sent again.
CONNECT_BUCKETS = (0.001, 0.01, 0.1, 1.0, 3.0)
HOST_DURATION_BUCKETS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0)
PICK_BUCKETS = (1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2)

HOST_LABELS = ("service", "group", "host")


#: Names of what is no whole number. It comes as a whole: sums of differences are rounded, and may fall.
SECONDS, SUM = "turnaround_seconds", " sum"


def grown(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """What a host's numbers have gained, for `HostMetrics.add` in a process that knows *before*."""
    return {name: value if name == SECONDS or name.endswith(SUM) else value - before.get(name, 0.0)
            for name, value in after.items() if value > before.get(name, 0.0)}


class Distribution:
    """How often values fell below each of *bounds*, which ascend."""

    __slots__ = ("before", "bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.before = 0.0  #: the sum in other processes of this director

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulated, as the exposition wants them."""
        return list(zip(_bounds(self.bounds), accumulate(self.counts), strict=True))

    def numbers(self, name: str) -> dict[str, float]:
        """Its counts and its sum, for `add` in another process."""
        counts = {f"{name}<={bound}": float(count) for bound, count in zip(_bounds(self.bounds), self.counts, strict=True)
                  if count}
        return counts | ({f"{name}{SUM}": self.before + self.sum} if counts else {})

    def add(self, name: str, numbers: Mapping[str, float]) -> None:
        """Count what another process has, too; under bounds that this release does not have, as beyond all."""
        bounds = {f"{name}<={bound}": number for number, bound in enumerate(_bounds(self.bounds))}
        for key, count in numbers.items():
            if key.startswith(f"{name}<="):
                self.counts[bounds.get(key, len(self.bounds))] += int(count)
        self.before = numbers.get(f"{name}{SUM}", self.before)

    def series(self) -> list[float | None]:
        """For a `Table`: the buckets, the count and the sum; none before the first value."""
        cumulated = list(accumulate(self.counts))
        return [*cumulated, cumulated[-1], self.before + self.sum] if cumulated[-1] else [None] * (len(cumulated) + 2)


def _bounds(bounds: Sequence[float]) -> list[str]:
    return [*map(floatToGoString, bounds), "+Inf"]


class HostMetrics:
    """The counters of one host."""

    __slots__ = ("connect", "connect_failures", "connections", "counted", "duration", "ejections", "probes_failed",
                 "probes_passed", "to_client_bytes", "to_host_bytes", "transitions", "turnaround_seconds_before",
                 "turnarounds_before")

    def __init__(self) -> None:
        self.connections = 0
        self.connect_failures = 0
        self.connect = Distribution(CONNECT_BUCKETS)  #: seconds from the pick to the host's answer
        self.duration = Distribution(HOST_DURATION_BUCKETS)  #: seconds from the pick to the end, of those it answered
        self.ejections = 0
        self.to_host_bytes = 0
        self.to_client_bytes = 0
        self.probes_passed = 0
        self.probes_failed = 0
        self.counted: Tallied | None = None  #: of its turnarounds, from its first client on
        self.turnarounds_before = 0  #: in other processes of this director
        self.turnaround_seconds_before = 0.0
        self.transitions: dict[HostState, int] = {}  #: by the new state

    def numbers(self) -> dict[str, float]:
        """All of them, for `add` in another process."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        moves = {f"to_{state.value}": count for state, count in self.transitions.items()}
        return plain | moves | self.connect.numbers("connect") | self.duration.numbers("duration") | {
            "turnarounds": _turnarounds(self), SECONDS: _turnaround_seconds(self)}

    def add(self, numbers: Mapping[str, float]) -> None:
        """Count what another process has, too, or has since it last told (`grown`); what this release does not know is left
        out."""
        for name in _PLAIN:
            setattr(self, name, getattr(self, name) + int(numbers.get(name, 0)))
        for state in HostState:
            if moves := int(numbers.get(f"to_{state.value}", 0)):
                self.transitions[state] = self.transitions.get(state, 0) + moves
        self.connect.add("connect", numbers)
        self.duration.add("duration", numbers)
        self.turnarounds_before += int(numbers.get("turnarounds", 0))
        self.turnaround_seconds_before = numbers.get(SECONDS, self.turnaround_seconds_before)


#: The counters of a host that are whole numbers.
_PLAIN = ("connect_failures", "connections", "ejections", "probes_failed", "probes_passed", "to_client_bytes",
          "to_host_bytes")


class ServiceMetrics:
    """The counters of one service, and of its hosts."""

    __slots__ = ("accepted", "duration", "ended", "handshakes", "hosts", "networks", "pick", "queue_wait", "retries")

    def __init__(self) -> None:
        self.accepted = 0
        #: every reason is present from the start, so that a rate over its first event is not lost
        self.ended = dict.fromkeys(Reason, 0)
        self.retries = 0
        self.duration = Distribution(DURATION_BUCKETS)  #: seconds from accept to end
        self.queue_wait = Distribution(QUEUE_WAIT_BUCKETS)  #: seconds; clients that queued only
        self.pick = Distribution(PICK_BUCKETS)  #: seconds; one pick in `PICK_SAMPLE`
        self.networks: Callable[[], int] | None = None
        self.handshakes: Callable[[], int] | None = None
        self.hosts: dict[tuple[str, str], HostMetrics] = {}

    def count_networks(self, count: Callable[[], int] | None) -> None:
        """How many client networks are remembered; None: there is nobody who remembers them."""
        self.networks = count

    def count_handshakes(self, count: Callable[[], int] | None) -> None:
        """How many handshakes with clients are under way; None: clients speak no TLS."""
        self.handshakes = count

    def host(self, group: str, host: str) -> HostMetrics:
        """The host's counters, created at first."""
        found = self.hosts.get((group, host))
        if found is None:
            found = self.hosts[group, host] = HostMetrics()
        return found


class OfHosts(dict[Host, HostMetrics]):
    """Counters of the hosts of *service*, found once each: the name of a host is no key for every connection's events."""

    def __init__(self, service: ServiceMetrics) -> None:
        super().__init__()
        self._service = service

    def __missing__(self, host: Host) -> HostMetrics:
        found = self[host] = self._service.host(host.ref.group, host.ref.host)
        return found


def _series(of: Callable[[HostMetrics], Distribution]) -> Callable[[HostMetrics], Iterable[float | None]]:
    return lambda host: of(host).series()


def _turnarounds(host: HostMetrics) -> float:
    return host.turnarounds_before + (0 if host.counted is None else host.counted.read().total)


def _turnaround_seconds(host: HostMetrics) -> float:
    return host.turnaround_seconds_before + (0.0 if host.counted is None else host.counted.read().seconds)


def _transitions(host: HostMetrics) -> Iterable[float | None]:
    return map(host.transitions.get, HostState)


#: Name, text, label and values of the variants, and the count of each; None while there shall be no series.
HOST_COUNTERS: Sequence[
    tuple[str, str, tuple[str, Sequence[str]] | None, Callable[[HostMetrics], Iterable[float | None]]]
] = (
    ("host_connections", "Clients given to the host, retries included.", None, lambda host: (host.connections,)),
    ("host_connect_failures", "Connects to the host that failed.", None, lambda host: (host.connect_failures,)),
    ("host_ejections", "Times that the host was taken out of rotation as an outlier of its group.", None,
     lambda host: (host.ejections,)),
    ("host_relayed_bytes", "Bytes relayed of ended connections, by direction.", ("direction", ("to_host", "to_client")),
     lambda host: (host.to_host_bytes, host.to_client_bytes)),
    ("host_turnarounds", "Answers of the host: first bytes after bytes of its client.", None,
     lambda host: (_turnarounds(host),)),
    ("host_turnaround_seconds", "Time that clients waited for these, of all together.", None,
     lambda host: (_turnaround_seconds(host),)),
    ("host_transitions", "Changes of the host's operational state, by the new state.",
     ("to", [state.value for state in HostState]), _transitions),
    ("host_probes", "Active probes finished, by result.", ("result", ("success", "failure")),
     lambda host: (host.probes_passed or None, host.probes_failed or None)),
)

#: Likewise: name, text, bounds and the values.
HOST_HISTOGRAMS: Sequence[tuple[str, str, Sequence[float], Callable[[HostMetrics], Distribution]]] = (
    ("host_connect_seconds", "Time from the pick of the host to its answer to the connect.", CONNECT_BUCKETS,
     lambda host: host.connect),
    ("host_connection_duration_seconds", "Time from the pick of the host to the end of the connection.",
     HOST_DURATION_BUCKETS, lambda host: host.duration),
)


class Metrics:
    """All counters of one director.

    After `forget_service` or `forget_host` the label sets are gone from the exposition; counting into objects that were
    kept beyond that is harmless and invisible.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._families = _Families(registry)
        registry.register(self)
        self._services: dict[str, ServiceMetrics] = {}
        self._rejections: set[str] = set()
        self._of_hosts = [(Table("counter", name, text, HOST_LABELS, variants), of)
                          for name, text, variants, of in HOST_COUNTERS]
        self._of_hosts += [(Table("histogram", name, text, HOST_LABELS, ("le", _bounds(bounds))), _series(of))
                           for name, text, bounds, of in HOST_HISTOGRAMS]
        self.hellos = Hellos()  #: of listeners that services share
        registry.register(self.hellos)
        self.reports: Counter = self._families.reports  #: agents' accepted load reports

    def service(self, name: str) -> ServiceMetrics:
        """The service's counters, created at first."""
        found = self._services.get(name)
        if found is None:
            found = self._services[name] = ServiceMetrics()
        return found

    def host(self, ref: HostRef) -> HostMetrics:
        """The host's counters, created at first; by `forget_host` all that was counted under its labels goes."""
        return self.service(ref.service).host(ref.group, ref.host)

    def rejected(self, reason: str) -> None:
        """Count an agent's message that was dropped, by why."""
        if reason not in self._rejections:
            if len(self._rejections) >= MAX_REASONS:
                reason = "other"
            self._rejections.add(reason)
        self._families.rejected.labels(reason).inc()

    def transition(self, ref: HostRef, to: HostState) -> None:
        """Count a change of a host's operational state."""
        counted = self.host(ref).transitions
        counted[to] = counted.get(to, 0) + 1

    def ejection(self, ref: HostRef) -> None:
        """Count an outlier taken out of rotation."""
        self.host(ref).ejections += 1

    def probe(self, ref: HostRef, *, ok: bool) -> None:
        """Count a finished active probe."""
        host = self.host(ref)
        if ok:
            host.probes_passed += 1
        else:
            host.probes_failed += 1

    def forget_service(self, name: str) -> None:
        """Drop the label sets of a service that configuration removed, and of its hosts. Unknown names are ignored."""
        self._services.pop(name, None)

    def forget_host(self, ref: HostRef) -> None:
        """Drop the label sets of a host that left. Unknown hosts are ignored."""
        service = self._services.get(ref.service)
        if service is not None:
            service.hosts.pop((ref.group, ref.host), None)

    # --- from one process to the next

    def of_hosts(self) -> dict[tuple[str, str, str], dict[str, float]]:
        """Every host's numbers."""
        return {(name, *key): host.numbers() for name, service in self._services.items()
                for key, host in service.hosts.items()}

    def add_of_hosts(self, counted: Iterable[tuple[tuple[str, str, str], Mapping[str, float]]]) -> None:
        """Count what another process has counted of hosts, too; of hosts that are there no more nothing is shown."""
        for (service, group, host), numbers in counted:
            of_service = self._services.get(service)
            if of_service is not None:
                of_service.host(group, host).add(numbers)

    # --- for prometheus-client

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        """The hot path's numbers as families."""
        services = list(self._services.items())
        hosts = [(name, [(name, *key) for key in service.hosts], list(service.hosts.values()))
                 for name, service in politely(services, 1)]
        yield _counter("connections_accepted", "Client connections accepted.", ("service",),
                       (((name,), each.accepted) for name, each in services))
        yield _counter("connections_ended", "Client connections ended, each under exactly one reason.",
                       ("service", "reason"),
                       (((name, reason.value), count) for name, each in services for reason, count in each.ended.items()))
        yield _counter("connection_retries", "Connects tried on another host after one failed.", ("service",),
                       (((name,), each.retries) for name, each in services))
        networks = GaugeMetricFamily("txdirector_client_networks", "Client networks that the service's limits remember.",
                                     labels=("service",))
        for name, each in services:
            if each.networks is not None:
                networks.add_metric((name,), each.networks())
        yield networks
        handshakes = GaugeMetricFamily("txdirector_client_handshakes", "TLS handshakes with clients that are under way.",
                                       labels=("service",))
        for name, each in services:
            if each.handshakes is not None:
                handshakes.add_metric((name,), each.handshakes())
        yield handshakes
        yield _histogram("connection_duration_seconds", "Time from accept to end of a client connection.",
                         ((name, each.duration) for name, each in services))
        yield _histogram("queue_wait_seconds", "Time that queued clients waited for a host.",
                         ((name, each.queue_wait) for name, each in services))
        yield _histogram("pick_duration_seconds",
                         f"Time of the scheduler to pick a host; one pick in {PICK_SAMPLE} is observed.",
                         ((name, each.pick) for name, each in services))
        for table, of_host in self._of_hosts:
            yield table.family({name: Part(where, [count for host in counted for count in of_host(host)])
                                for name, where, counted in politely(hosts, 1)})


class LogLines:
    """What became of the log's lines.

    :param dropped: how many were never written.
    """

    def __init__(self, dropped: Callable[[], int]) -> None:
        self._dropped = dropped

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _counter("log_lines_dropped", "Lines of the log that were dropped, because it was not read or its disk was "
                       "full or too slow.", (), [((), self._dropped())])


class _Families:
    """What is counted rarely, in counters of the library's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"txdirector_{name}", text, labels, registry=registry)

        self.reports = counter("agent_reports", "Load reports of agents accepted.")
        self.rejected = counter("agent_messages_rejected", "Messages of agents dropped, by reason.", "reason")


def _counter(name: str, text: str, labels: tuple[str, ...],
             values: Iterable[tuple[tuple[str, ...], float]]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"txdirector_{name}", text, labels=labels)
    for where, value in values:
        family.add_metric(where, value)
    return family


def _histogram(name: str, text: str, values: Iterable[tuple[str, Distribution]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"txdirector_{name}", text, labels=("service",))
    for service, value in values:
        family.add_metric((service,), value.buckets(), value.sum)
    return family
