"""What agents say, applied to the node (`director.reports.agents.AgentSink`).

An agent's drain and down are orders of the agent's own: they join the operator's, and only a later report, or another
boot of the agent, lifts them.
"""

from __future__ import annotations

import ipaddress

import msgspec
from twisted.logger import Logger

from cluster.address import parse_address
from cluster.keys import Keys
from cluster.model import AdminState, Host, HostRef, LoadReport, Order, Registered
from cluster.store import Put, Record
from cluster.view import Unreadable, decode
from director.engine.node import Node
from director.engine.swapping import Swap, Swapping
from director.metrics.counters import Metrics
from director.reports.roster import LEFT

#: Why there is an order that an agent gave by a report.
REPORTED = "the agent reports it"
_ORDERED = {"drain": AdminState.DRAIN, "down": AdminState.DOWN}


class Attendance:
    """Between the agents' listener and the inventory; writes registrations into the store."""

    log = Logger()

    def __init__(self, node: Node, swapping: Swapping, keys: Keys, metrics: Metrics) -> None:
        self._node = node
        self._swapping = swapping
        self._claims: dict[HostRef, Registered] = {}  # under way into the store
        self._by_identity: dict[str, set[HostRef]] = {}  # what agents of each registered here, gone or not
        self._keys = keys
        self._metrics = metrics

    def known(self, ref: HostRef) -> bool:
        return ref in self._node.inventory.hosts

    def registered(self, ref: HostRef, agent: str, boot_id: str, address: str, weight: float, *, peer: str,
                   identity: str, most: int) -> str:
        inventory = self._node.inventory
        service = inventory.services.get(ref.service)
        group = service.groups.get(ref.group) if service is not None else None
        if group is None:
            return "no such group"
        if ref.host in group.spec.hosts:
            return ""
        policy = group.spec.registration
        if policy.mode == "off":
            return "the group takes no registrations"
        refusal = _address_refusal(address, peer, policy.networks)
        if refusal:
            return refusal
        before = inventory.registered(ref)
        if before is None and (full := self._full(ref, identity, most, policy.max_hosts)):
            return full
        if weight > policy.max_weight:
            self.log.info("{host} asks for a weight of {weight:g}, and gets {most:g}: the most of its group",
                          host=str(ref), weight=weight, most=policy.max_weight)
        host = Host(address=address, weight=min(weight, policy.max_weight))
        claimed = Registered(host=host, agent=agent, boot_id=boot_id, at=self._node.wall(), approved=policy.mode == "auto")
        after = _again(before, claimed)
        if before is None or after != before:
            self._register(ref, claimed)
        self._by_identity.setdefault(identity, set()).add(ref)
        return "" if after.approved else "waits for an operator's approval"

    def _full(self, ref: HostRef, identity: str, most: int, most_of_group: int) -> str:
        """Why one more registration is one too many; empty when it is not."""
        there = self._node.inventory.registrations().keys() | self._claims.keys()
        own = self._by_identity.setdefault(identity, set())
        if len(own) >= most:
            own &= there  # which takes long where there are many: only when it matters
            if len(own - {ref}) >= most:
                return f"its identity has registered {most} hosts, the most it may"
        if len(there) >= most_of_group and sum(each[:2] == ref[:2] for each in there if each != ref) >= most_of_group:
            return f"{most_of_group} hosts are registered with the group, the most it takes"
        return ""

    def _register(self, ref: HostRef, claimed: Registered) -> None:
        key = self._keys.registered(ref)
        self._claims[ref] = claimed

        async def decide(record: Record | None) -> Swap | None:
            if self._claims.get(ref) is not claimed:
                return None  # a later one goes on
            try:
                before = decode(record.value, Registered) if record is not None else None
            except Unreadable:  # nobody's any more
                before = None
            after = _again(before, claimed)
            return None if after == before else Swap(Put(key, msgspec.json.encode(after)))

        def done() -> None:
            if self._claims.get(ref) is claimed:
                del self._claims[ref]
                self.log.info("{host} registered at {address} by agent {agent}", host=str(ref),
                              address=claimed.host.address, agent=claimed.agent)

        self._swapping.persist(key, decide, done)

    def agent_connected(self, ref: HostRef, agent: str, boot_id: str, address: str) -> None:
        self.log.info("agent {agent} ({address}) speaks for {host}", agent=agent, address=address, host=str(ref))
        self._node.inventory.agent_connected(ref, agent, boot_id, self._node.monotonic())
        self._node.settle()

    def reported(self, ref: HostRef, report: LoadReport) -> None:
        self._metrics.reports.inc()
        self._node.inventory.reported(ref, report, self._node.monotonic())
        self._follow(ref, report)

    def relayed(self, ref: HostRef, report: LoadReport, age_s: float) -> None:
        """A report that only another director had from the agent, *age_s* ago."""
        self._node.inventory.relayed(ref, report, age_s, self._node.monotonic())
        self._follow(ref, report)

    def _follow(self, ref: HostRef, report: LoadReport) -> None:
        """What the agent reports its host's state to be becomes, or ends, its order."""
        entry = self._node.inventory.hosts.get(ref)
        if entry is None:
            return
        standing = entry.orders.get("agent")
        asked = _ORDERED.get(report.state)
        if asked is not (standing.state if standing is not None else None):
            order = None if asked is None else self._order(ref, asked, REPORTED, None)
            self._node.set_order(ref, "agent", order)
        else:
            self._node.settle()

    def agent_leaving(self, ref: HostRef, deadline_s: float) -> None:
        self._node.set_order(ref, "agent", self._order(ref, AdminState.DRAIN, "the agent is leaving", deadline_s))

    def agent_lost(self, ref: HostRef, why: str) -> None:
        now = self._node.monotonic()
        if why == LEFT:
            self._node.inventory.agent_left(ref, now)
        else:
            self._node.inventory.agent_lost(ref, why, now)
        self._node.settle()
        entry = self._node.inventory.hosts.get(ref)
        if entry is not None:
            self._node.probing.schedule(entry)

    def rejected(self, reason: str) -> None:
        self._metrics.rejected(reason)

    def _order(self, ref: HostRef, state: AdminState, why: str, deadline_s: float | None) -> Order:
        entry = self._node.inventory.hosts.get(ref)
        agent = entry.agent if entry is not None else None
        boot_id = entry.boot_id if entry is not None else None
        return Order(state=state, who=agent or "agent", why=why, at=self._node.wall(), deadline_s=deadline_s,
                     boot_id=boot_id)


def _again(before: Registered | None, claimed: Registered) -> Registered:
    """What an agent *claimed*, but for what an operator decided: the approval and the weight are theirs."""
    if before is None:
        return claimed
    host = claimed.host if before.weight is None else msgspec.structs.replace(claimed.host, weight=before.weight)
    after = msgspec.structs.replace(
        claimed, host=host, weight=before.weight, approved=claimed.approved or before.approved)
    same = msgspec.structs.replace(after, at=before.at) == before
    return before if same else after


def _address_refusal(address: str, peer: str, networks: tuple[str, ...]) -> str:
    """Why *address* may not be registered from *peer*; empty when it may: its own, or inside *networks*."""
    try:
        parsed = parse_address(address)
    except ValueError as error:
        return str(error)
    if parsed.is_unix:
        return "" if not peer else "a UNIX socket is registered from the same machine only"
    if not parsed.is_ip:
        return "an IP address is registered, not a name"
    if parsed.host == peer:
        return ""
    registered = ipaddress.ip_address(parsed.host)
    if any(registered in ipaddress.ip_network(network) for network in networks):
        return ""
    return f"{parsed.host} is neither the agent's own address nor in the group's networks"
