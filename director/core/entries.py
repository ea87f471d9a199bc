"""The inventory's records: services, groups and hosts, each with all that is known of it.

Owned by `director.core.inventory.Inventory`, and written by it and its parts (`placing`, `judging`, `weighing`,
`ejecting`); others read.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Literal

from msgspec.structs import replace

from cluster.model import AdminState, Group, Health, HostRef, LoadReport, Order, Service
from cluster.model import Host as HostSpec
from director.core.access import AccessList
from director.core.admission import Admission
from director.core.capacity import Capacity
from director.core.health import HostHealth
from director.core.host import Host
from director.core.merge import Verdict
from director.core.orders import counting
from director.core.outliers import Comparison, Conduct
from director.core.pool import Pool
from director.core.probed_weight import ProbedWeights
from director.core.responders import Responder
from director.core.seen import Seen, Tallied, Totals
from director.core.splitting import Shares, Split

#: Why there is no target before the first answer about a name: nothing is known of the host.
NOT_RESOLVED_YET = "not resolved yet"

#: Who says that there is such a host: the configuration, its agent, or DNS.
Origin = Literal["configured", "registered", "discovered"]


class HostEntry:
    """One host, with everything known about it."""

    __slots__ = ("address_error", "agent", "agent_weight", "boot_id", "conduct", "connect_failures", "drain_seen", "health",
                 "host", "looked_at", "orders", "origin", "ref", "report", "report_at", "reported_at", "responder",
                 "spec", "tally", "target", "up_since", "verdict", "watched_at")

    def __init__(self, ref: HostRef, spec: HostSpec, host: Host, health: HostHealth, conduct: Conduct, *,
                 origin: Origin) -> None:
        self.ref = ref
        self.spec = spec
        self.host = host
        self.health = health
        self.conduct = conduct  #: beside the group's other hosts
        self.origin = origin
        self.orders: dict[str, Order] = {}  #: by their authors, see `director.core.orders`
        self.drain_seen: float | None = None  #: monotonic, when this director first saw the drain
        self.agent: str | None = None  #: the connected agent
        self.boot_id: str | None = None
        self.report: LoadReport | None = None
        self.report_at = -math.inf  #: when the agent made it, whoever heard it
        self.reported_at = -math.inf  #: when this director last heard one itself
        self.agent_weight = 1.0
        self.responder: Responder | None = None  #: of agent-check, where the group has them
        self.up_since = -math.inf  #: when the slow start began
        self.verdict = Verdict(down=False)  #: of all directors
        self.target: Any = None  #: where to connect; None until whoever resolves names has said it
        self.address_error = NOT_RESOLVED_YET
        self.connect_failures = 0
        self.tally: Tallied | None = None  #: of its turnarounds, from its first client on
        self.looked_at = Totals()  #: what its scheduler and its group know of these
        self.watched_at = math.inf  #: when the inventory looks at the health machine next

    @property
    def registered(self) -> bool:
        """It joined through its agent."""
        return self.origin == "registered"

    @property
    def unresolved(self) -> bool:
        """Its name has not been looked up yet, which says nothing about the host."""
        return self.target is None and self.address_error == NOT_RESOLVED_YET

    @property
    def totals(self) -> Totals:
        """What this director has seen of it so far. A failed connect and a reset at once are no service."""
        host, failed = self.host, self.connect_failures
        finished = host.picks - host.in_flight - failed
        if self.tally is None:
            return Totals(finished=finished, failed=failed, in_flight=host.in_flight)
        turns = self.tally.read()
        return Totals(turns.total, turns.seconds, turns.unasked, finished, failed, host.in_flight)

    @property
    def admin(self) -> AdminState:
        """The most restrictive standing order."""
        states = (order.state for order in counting(self.orders).values())
        return max(states, key=lambda state: state.severity, default=AdminState.UP)

    def ordered(self, orders: dict[str, Order], now: float) -> bool:
        """*orders* are what stands about it from now on. Returns whether that changes its admin state."""
        before = self.admin
        self.orders = orders
        if self.admin is before:
            return False
        self.drain_seen = now if self.admin is AdminState.DRAIN else None
        if self.admin is AdminState.UP:
            self.up_since = now
        return True

    def remember(self, report: LoadReport, at: float) -> None:
        """Another process heard it, *at* that time."""
        self.report, self.report_at = report, at
        self.agent_weight = 1.0 if report.weight is None else report.weight

    def rise(self, since: float) -> None:
        """Its slow start began then."""
        self.up_since = since

    @property
    def drain_order(self) -> Order | None:
        """The order behind a drain, if one stands."""
        return next((order for order in counting(self.orders).values() if order.state is AdminState.DRAIN), None)


class GroupEntry:
    """One group: its pool, the capacity its reports give, and how its hosts compare.

    :param due: the groups whose weights are to be brought up to date; this one joins them by itself.
    """

    def __init__(self, service: str, name: str, spec: Group, pool: Pool, due: dict[GroupEntry, None], now: float) -> None:
        self.service = service
        self.name = name
        self.spec = spec
        self.pool = pool
        self.capacity: Capacity[HostRef] = Capacity()
        self.probed: ProbedWeights[HostRef] = ProbedWeights()
        self.comparison = Comparison(now)
        self.seen: Seen[HostRef] = Seen()
        self.hosts: dict[str, HostEntry] = {}
        self.ramping: set[HostEntry] = set()  #: in their slow start
        self.recompute_at = math.inf  #: weights are due
        self._due = due

    def weigh_by(self, at: float) -> None:
        """Weights are due at *at*, if they are not before."""
        if at < self.recompute_at:
            self.recompute_at = at
            self._due[self] = None


class ServiceEntry:
    """One service: its gate, its groups, who may connect.

    :param waiting: the services with a queue; this one joins them by itself.
    """

    def __init__(self, name: str, spec: Service, waiting: dict[ServiceEntry, None]) -> None:
        self.name = name
        self.spec = spec
        self.groups: dict[str, GroupEntry] = {}
        self.admission = Admission(None, spec.limits, on_waiting=lambda: waiting.setdefault(self))
        self.share: int | None = None  #: of the service's maximum, where several directors share it
        self.access = AccessList(spec.access)
        self.strayed: Counter[str] = Counter()  #: clients of a split that another group took, by the groups they belong to

    def answering(self) -> Pool | Split | None:
        """Whose hosts serve clients: the enabled group's, or, while its clients are split, all of theirs."""
        enabled = self.enabled
        if enabled is None:
            return None
        weights = {name: weight for name, weight in sorted(self.spec.split.items()) if name in self.groups}
        if not sum(weights.values()):
            return enabled.pool
        pools = {name: self.groups[name].pool for name in (enabled.name, *weights)}
        by_address = self.spec.sticky is not None or any(self.groups[name].spec.scheduler == "maglev" for name in pools)
        return Split(Shares(weights), pools, by_address=by_address, strayed=self.strayed)

    @property
    def enabled(self) -> GroupEntry | None:
        name = self.spec.enabled_group
        return self.groups.get(name) if name is not None else None


def policy_of(group: Group, host: HostSpec) -> Health:
    """How a host is watched: as its group says, but for the port of its probe. A probe that goes where clients' connections
    go is over TLS where they are."""
    probe = group.health.probe
    if host.probe_port is not None:
        return replace(group.health, probe=replace(probe, port=host.probe_port))
    elsewhere = probe.address is not None or probe.port is not None or probe.kind not in ("tcp", "http")
    if group.tls is None or probe.tls is not None or elsewhere:
        return group.health
    return replace(group.health, probe=replace(probe, tls=group.tls))
