"""What agents say, applied to the node (`director.agents.AgentSink`).

An agent's drain and down are orders of the agent's own: they join the operator's, and only a later report, or another
boot of the agent, lifts them.
"""

from __future__ import annotations

import ipaddress

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cluster.address import parse_address
from cluster.keys import Keys
from cluster.model import AdminState, Host, HostRef, LoadReport, Order, Registered
from cluster.store import Put, Store
from director.metrics import Metrics
from director.node import Node
from director.roster import LEFT

_ORDERED = {"drain": AdminState.DRAIN, "down": AdminState.DOWN}


class Attendance:
    """Between the agents' listener and the inventory; writes registrations into the store."""

    log = Logger()

    def __init__(self, node: Node, store: Store, keys: Keys, metrics: Metrics) -> None:
        self._node = node
        self._store = store
        self._keys = keys
        self._metrics = metrics

    def known(self, ref: HostRef) -> bool:
        return ref in self._node.inventory.hosts

    def registered(self, ref: HostRef, agent: str, boot_id: str, address: str, weight: float, *, peer: str) -> str:
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
        host = Host(address=address, weight=weight)
        before = inventory.registered(ref)
        approved = policy.mode == "auto" or (before is not None and before.approved)
        if before is None or (before.host, before.agent, before.boot_id) != (host, agent, boot_id):
            record = Registered(host=host, agent=agent, boot_id=boot_id, at=self._node.wall(), approved=approved)
            written: Deferred[object] = Deferred.fromCoroutine(self._write(ref, record))
            written.addErrback(lambda failure: self.log.failure("{host} not registered", failure, host=str(ref)))
        return "" if approved else "waits for an operator's approval"

    async def _write(self, ref: HostRef, record: Registered) -> None:
        await self._store.commit([Put(self._keys.registered(ref), msgspec.json.encode(record))])
        self.log.info("{host} registered at {address} by agent {agent}{pending}", host=str(ref),
                      address=record.host.address, agent=record.agent,
                      pending="" if record.approved else ", waits for approval")

    def agent_connected(self, ref: HostRef, agent: str, boot_id: str, address: str) -> None:
        self.log.info("agent {agent} ({address}) speaks for {host}", agent=agent, address=address, host=str(ref))
        self._node.inventory.agent_connected(ref, agent, boot_id, self._node.monotonic())
        self._node.settle()

    def reported(self, ref: HostRef, report: LoadReport, now: float) -> None:
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
            order = None if asked is None else self._order(ref, asked, "the agent reports it", None)
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
            self._node.plan_probe(entry)

    def rejected(self, reason: str) -> None:
        self._metrics.rejected(reason)

    def _order(self, ref: HostRef, state: AdminState, why: str, deadline_s: float | None) -> Order:
        entry = self._node.inventory.hosts.get(ref)
        agent = entry.agent if entry is not None else None
        boot_id = entry.boot_id if entry is not None else None
        return Order(state=state, who=agent or "agent", why=why, at=self._node.wall(), deadline_s=deadline_s,
                     boot_id=boot_id)


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
