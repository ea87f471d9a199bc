"""What the admin may ask of a running director (`director.admin.control.Operations`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import msgspec
from twisted.internet.defer import Deferred, fail, succeed

from cluster.address import Address
from cluster.keys import Keys
from cluster.model import AdminState, AuditEntry, Configuration, Host, HostRef, Member, Order, Registered, Service
from cluster.store import Compare, Delete, PastWrite, Put, Record, Store
from cluster.view import Unreadable, decode
from director.admin.offers import Edit, Process, Stored, UserPicture
from director.core.orders import LOCAL
from director.core.pictures import picture_services
from director.core.snapshot import (
    ClusterPicture,
    ConnectionsPicture,
    DirectorPicture,
    Explanation,
    MemberPicture,
    PastPicture,
    TotalsPicture,
    TransitionPicture,
    VipPicture,
)
from director.core.totals import bad, happened, totals
from director.engine.errors import Conflict, NotFound
from director.engine.node import Node
from director.engine.swapping import Swap, Swapping
from director.engine.sync import Sync
from director.ha.clustering import Clustering
from director.operations.audit import AuditTrail
from director.operations.clients import kill_client, picture_connections
from director.operations.echo import Echo
from director.operations.explaining import explanation
from director.operations.explaining_names import name_steps
from director.operations.past import told
from director.operations.previous import Previous, cut_previous, with_previous
from director.operations.readiness import why_not_ready
from director.operations.services import ServiceChanges
from director.operations.users import UserChanges
from director.operations.vips import VipOrders
from director.ports.tls import Renewal
from director.traffic.frontend import Frontend
from director.version import VERSION

#: Changes of any kind that a look at one host's history goes through.
HISTORY_LOOKED_THROUGH = 10_000


class NodeOperations:
    """Reads the node's inventory, writes the store; the change comes back through the node's `Sync`.

    :param own_process: where this director is a process of its own.
    :param previous: the process before this one; None: it has ended, or there was none.
    """

    def __init__(self, node: Node, store: Store, sync: Sync, keys: Keys, clustering: Clustering, *,
                 boot: Configuration, audit: AuditTrail, users: UserChanges, swapping: Swapping, certificates: Renewal,
                 reactor: Any, own_process: Process | None = None,
                 previous: Callable[[], Previous | None] = lambda: None) -> None:
        self._node = node
        self._store = store
        self._sync = sync
        self._keys = keys
        self._clustering = clustering
        self._boot = boot
        self._audit = audit
        self._users = users
        self._own_process = own_process
        self._previous = previous
        self._certificates = certificates
        self._swapping = swapping
        self._echo = Echo(node, reactor=reactor)
        self._vips = VipOrders(clustering, store, keys, reactor=reactor, wall=node.wall)
        self._changes = ServiceChanges(node, store, swapping, keys, boot.node)

    # --- looking

    def picture(self, service: str | None = None, group: str | None = None, host: str | None = None) -> DirectorPicture:
        node, clustering, previous = self._node, self._clustering, self._previous()
        now = node.monotonic()
        size, writes, written = clustering.written()
        return DirectorPicture(
            name=node.director,
            version=VERSION,
            at=node.wall(),
            started=node.started_at,
            isolated=node.inventory.isolation.isolated,
            grace=node.inventory.in_grace(now),
            store=clustering.store_name,
            store_available=clustering.available,
            cold_start=clustering.cold,
            leader=clustering.leader,
            leads=clustering.leading.leads,
            vips_held=clustering.vips_held,
            vip_fence=clustering.vips.fence[0],
            vip_fence_holds=clustering.vips.fence[0] != "" and not clustering.vips.fence[1],
            peers=clustering.peer_pictures(),
            problems=(
                *self._users.problems, *clustering.problems, *self._certificates.problems, *node.probing.scripts.problems,
            ),
            services=picture_services(
                node.inventory, now, node.wall() - now, node.listeners.addresses, service, group, host),
            store_problems=self._unreadable(),
            store_writable=clustering.writable, store_bytes=size, store_writes=writes, store_written_bytes=written,
            retired=node.retired_connections(),
            previous_connections=None if previous is None else previous.connections,
        )

    def unready(self) -> str:
        """Empty, or why no new clients should come."""
        return why_not_ready(self._node, stopping=self._clustering.leaving, balances="balance" in self._boot.node.roles)

    def refs(self) -> Iterable[HostRef]:
        return self._node.inventory.hosts.keys()

    def totals(self) -> TotalsPicture:
        return totals(self._node.inventory)

    def bad(self, unused: bool) -> Iterable[HostRef]:
        return bad(self._node.inventory, unused)

    def happened(self, limit: int, *, downs: bool) -> Sequence[tuple[HostRef, TransitionPicture]]:
        return happened(self._node.inventory, self._node.wall() - self._node.monotonic(), limit, downs=downs)

    def explain(self, service: str, client: str, server_name: str | None = None) -> Explanation:
        entry = self._node.inventory.services.get(service)
        if entry is None:
            raise NotFound(f"no service is called {service!r}")
        told = explanation(entry, client, self._node.monotonic(), self._node.inventory.walk)
        services = {name: each.spec for name, each in self._node.inventory.services.items()}
        return msgspec.structs.replace(told, steps=(*name_steps(service, services, server_name), *told.steps))

    # --- changing

    def order(
        self, ref: HostRef, state: AdminState, *, who: str, why: str, deadline_s: float | None = None,
        local: bool = False,
    ) -> Deferred[None]:
        order = Order(state=state, who=who, why=why, at=self._node.wall(), deadline_s=deadline_s)
        if local:
            self._node.set_order(ref, LOCAL, order)
            return succeed(None)
        key = self._keys.admin(ref, "operator")
        echoed = state is AdminState.UP and self._echo.heard(ref)
        changed = self._swapping.change(key, partial(self._ordered, ref, order)).addCallback(_done)
        return changed.addCallback(lambda _: Deferred.fromCoroutine(self._echo.over(ref))) if echoed else changed

    async def _ordered(self, ref: HostRef, order: Order, record: Record | None) -> Swap | None:
        key = self._keys.admin(ref, "operator")
        if order.state is not AdminState.UP:
            return Swap(Put(key, msgspec.json.encode(order)))
        if record is None:
            self._node.set_order(ref, LOCAL, None)
            return None
        return Swap(Delete(key))

    def set_weight(self, ref: HostRef, weight: float, *, who: str) -> Deferred[None]:
        entry = self._node.inventory.hosts.get(ref)
        if entry is not None and entry.registered:
            return self._change_registered(ref, lambda it: msgspec.structs.replace(
                it, weight=weight, host=msgspec.structs.replace(it.host, weight=weight)))
        changed = self._changes.change(ref.service, lambda spec: _with_weight(spec, ref, weight), None)
        return Deferred.fromCoroutine(changed).addCallback(_done)

    def approve(self, ref: HostRef, *, who: str) -> Deferred[None]:
        if self._node.inventory.registered(ref) is None and ref in self._node.inventory.hosts:
            return fail(NotFound(f"host {ref} is configured; there is no registration to approve"))
        return self._change_registered(ref, lambda it: msgspec.structs.replace(it, approved=True))

    def _change_registered(self, ref: HostRef, change: Callable[[Registered], Registered]) -> Deferred[None]:
        key = self._keys.registered(ref)

        async def decide(record: Record | None) -> Swap | None:
            if record is None:
                raise NotFound(f"no host {ref} has registered")
            try:
                before = decode(record.value, Registered)
            except Unreadable as error:
                raise Conflict(f"what is stored of {ref} cannot be read: {error}") from error
            after = change(before)
            return None if after == before else Swap(Put(key, msgspec.json.encode(after)))

        return self._swapping.change(key, decide).addCallback(_done)

    def retry(self, ref: HostRef) -> Deferred[None]:
        return self._node.probing.retry(ref)

    def forget(self, ref: HostRef) -> Deferred[int | None]:
        key, order_key = self._keys.registered(ref), self._keys.admin(ref, "operator")

        async def decide(record: Record | None) -> Swap | None:
            if record is None:
                return None
            order = await self._store.get(order_key)
            if order is None:
                return Swap(Delete(key), when=[Compare(order_key, 0)])
            return Swap(Delete(key), [Delete(order_key)], [Compare(order_key, order.mod_revision)])

        return self._swapping.change(key, decide).addCallback(lambda revision: revision or None)

    # --- what runs

    def connections(self, service: str, limit: int) -> ConnectionsPicture:
        previous = self._previous()
        own = picture_connections(self._frontends(service), limit, self._node.monotonic())
        return with_previous(own, None if previous is None else previous.clients.get(service), limit)

    def kill_connection(self, service: str, client: Address) -> int:
        return kill_client(self._frontends(service), client) + cut_previous(self._previous(), service, client)

    def _frontends(self, service: str) -> list[Frontend]:
        frontends = self._node.frontends_of(service)
        if not frontends:
            raise NotFound(f"no service is called {service!r}")
        return frontends

    def audit(self, limit: int) -> tuple[AuditEntry, ...]:
        return self._audit.newest(limit)

    def process(self) -> Process:
        if self._own_process is None:
            raise Conflict("this director runs within another program, which has its own ways for that")
        return self._own_process

    # --- users

    def users(self) -> tuple[UserPicture, ...]:
        return self._users.listed()

    def put_user(self, name: str, password: str | None, role: Literal["readonly", "full"]) -> Deferred[None]:
        return Deferred.fromCoroutine(self._users.put(name, password, role))

    def del_user(self, name: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._users.delete(name))

    # --- configuration

    def boot(self) -> Configuration:
        return self._boot

    def stored(self) -> Deferred[Mapping[str, Stored]]:
        return Deferred.fromCoroutine(self._changes.stored())

    # --- the directors together

    def cluster(self) -> ClusterPicture:
        clustering = self._clustering
        leader = clustering.leader
        members = clustering.membership.members if clustering.shared else {clustering.member.name: clustering.member}
        links = clustering.peer_pictures() if clustering.peers is not None else ()
        linked = {each.name: each.connected for each in links if each.address}
        return ClusterPicture(
            cluster=clustering.cluster, director=self._node.director, store=clustering.store_name,
            store_available=clustering.available, cold_start=clustering.cold, leader=leader, term=clustering.term,
            members=tuple(
                MemberPicture(**_described(member), leads=name == leader, linked=linked.get(name))
                for name, member in sorted(members.items())
            ),
            vips=self._vips.listed(),
            disagreements=clustering.disagreements(), store_problems=self._unreadable(),
            store_writable=clustering.writable, problems=clustering.problems,
            last_known=clustering.shared and not clustering.available, leads=clustering.leading.leads,
            vips_held=clustering.vips_held, vip_fence=clustering.vips.fence[0],
            takeover="lease" if clustering.reigning is None else "promises",
            electors=() if clustering.reigning is None else clustering.reigning.electors,
        )

    def vips(self) -> tuple[VipPicture, ...]:
        return self._vips.listed()

    def move_vip(self, address: str, director: str, *, who: str) -> Deferred[VipPicture]:
        return Deferred.fromCoroutine(self._vips.move(address, director, who))

    def pin_vip(self, address: str, director: str, *, who: str) -> Deferred[VipPicture]:
        return Deferred.fromCoroutine(self._vips.pin(address, director, who))

    def unpin_vip(self, address: str, *, who: str) -> Deferred[VipPicture]:
        return Deferred.fromCoroutine(self._vips.unpin(address, who))

    def rebalance_vips(self, *, who: str) -> Deferred[tuple[VipPicture, ...]]:
        return Deferred.fromCoroutine(self._vips.rebalance(who))

    def _unreadable(self) -> tuple[str, ...]:
        """What of the store is passed over, and why."""
        return self._sync.problems_and(self._clustering.unreadable, self._audit.problems)

    def history(self, ref: HostRef | None, limit: int) -> Deferred[tuple[PastPicture, ...]]:
        changes = self._store.history(self._keys.root, limit=HISTORY_LOOKED_THROUGH)
        return changes.addCallback(self._told, ref, limit)

    def _told(self, changes: Sequence[PastWrite], ref: HostRef | None, limit: int) -> tuple[PastPicture, ...]:
        found = told(changes, self._keys, ref, HISTORY_LOOKED_THROUGH)
        inventory = self._node.inventory
        if ref is not None and ref not in inventory.hosts and inventory.registered(ref) is None and not any(
            str(ref) in each.key or f'"{ref.host}":' in (each.value or "") for each in found
        ):
            raise NotFound(f"there is no host {ref}, and the store remembers none")
        return found[:limit]

    def change(self, service: str, change: Edit, *, revision: int | None = None) -> Deferred[int]:
        return Deferred.fromCoroutine(self._changes.change(service, change, revision))


def _described(member: Member) -> dict[str, Any]:
    """All but what is the directors' own business."""
    own = ("process", "promises", "vips")
    return {name: value for name, value in msgspec.structs.asdict(member).items() if name not in own}


def _done(_: object) -> None:
    """Who ordered it needs no more than that."""


def _with_weight(spec: Service | None, ref: HostRef, weight: float) -> Service:
    """*spec* with one host's weight changed."""
    group = spec.groups.get(ref.group) if spec is not None else None
    if spec is None or group is None or ref.host not in group.hosts:
        raise NotFound(f"{ref} is not configured: it is gone, or its weight is what DNS says")
    host: Host = msgspec.structs.replace(group.hosts[ref.host], weight=weight)
    group = msgspec.structs.replace(group, hosts={**group.hosts, ref.host: host})
    return msgspec.structs.replace(spec, groups={**spec.groups, ref.group: group})
