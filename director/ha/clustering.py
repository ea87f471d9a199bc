"""What makes a director one of several: who lives, who leads, who has the virtual addresses, what was last known.

    Clustering
      ├─ membership  this director among the living; on etcd
      ├─ observing   what directors see of hosts, shared; on etcd
      ├─ summarising what this one carries, now and then, for people; on etcd
      ├─ peers       links to the other directors, where an address for them is configured: reports that only one of them
      │              hears, sticky clients, promises
      ├─ capping     the services' maxima, shared out among the directors; on etcd
      ├─ vips        the addresses that the leader owns, if there are any; or `director.ha.spreading`, each with an owner
      ├─ leading     campaigns for the leadership, by a lease or by promises (`director.ha.reigning`); last, since whoever
      │              cannot serve must not lead
      └─ keeping     the store's content on disk, if a snapshot is configured
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import msgspec
from twisted.application.service import MultiService
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from cluster.errors import StoreUnavailable
from cluster.etcd import Access, EtcdStore
from cluster.keys import ROOT, Keys
from cluster.model import Configuration, Etcd, HostRef, Member
from cluster.peer_wire import Alive
from cluster.renewal import Renewed
from cluster.store import Lease, Record, Store
from cluster.takeover import Timing
from cluster.view import printable
from director.core.forwarding import FRESH_S
from director.core.promises import PROMISE_S
from director.core.snapshot import DisagreementPicture, PeerPicture
from director.engine.node import Node
from director.engine.sync import Sync
from director.ha.capping import Capping
from director.ha.exchange import Exchange
from director.ha.fence import fences
from director.ha.keeping import Keeping, last_known
from director.ha.leading import Known, Leading
from director.ha.leases import HeldLease, Leases
from director.ha.membership import Membership
from director.ha.observing import Observing
from director.ha.open_connections import end_connections
from director.ha.owning import Presiding
from director.ha.peers import Peers
from director.ha.promising import Promising
from director.ha.spreading import Spreading, priorities
from director.ha.summarising import Summarising
from director.ha.vips import Vips
from director.ha.whereabouts import whereabouts
from director.reports.attendance import Attendance
from director.version import VERSION

#: For short exchanges under way to finish. Well below the second after which a client repeats its unanswered SYN.
HAND_OVER_S = 0.4


class Clustering(MultiService):
    """Started once the store is there.

    :param boot_id: of the process that this one follows, if there is one: to the others they are one director.
    :ivar missing: after `remember`, why there is nothing to start with; empty when there is.
    """

    log = Logger()

    def __init__(self, configuration: Configuration, store: Store, keys: Keys, sync: Sync, balancer: Node,
                 attendance: Attendance, *, reactor: Any, boot_id: str | None = None) -> None:
        super().__init__()
        self.setName("clustering")
        node = configuration.node
        self.cluster = node.etcd.cluster
        self.store_name = f"etcd:{','.join(node.etcd.endpoints)}" if node.etcd.endpoints else node.store
        self.boot_id = boot_id or uuid.uuid4().hex
        self.last_known: Sequence[Record] = ()
        self.missing = ""
        self.leaving = False  #: it stops, or is about to: no new clients should come
        self._leave_s = node.leave_s
        self._reactor = reactor
        self._beside: tuple[str, ...] = ()  #: other clusters of this etcd, when this one was empty at the start
        self._store = store
        self._balancer = balancer
        self._sync = sync
        self._snapshot = node.etcd.snapshot
        self.shared = isinstance(store, EtcdStore)  #: with other directors
        self.member = Member(
            name=node.name, boot_id=self.boot_id, version=VERSION, started=time.time(),
            peers=node.peers.advertise or node.peers.listen, agents=node.agents.listen,
            admin=tuple(endpoint.listen for endpoint in node.admin.endpoints), roles=node.roles,
            promises=node.takeover == "promises", process=whereabouts(),
            vips=priorities(node.vips) if "balance" in node.roles else {},
        )
        self.membership = Membership(store, keys, self.member, reactor=reactor)
        keeps = node.vip_on_isolation == "keep"
        self.peers: Peers | None = None
        if node.peers.listen is not None:
            self.peers = Peers(node.peers, cluster=self.cluster, director=node.name, boot_id=self.boot_id, reactor=reactor)
        self.reigning: Presiding | None = None  #: where one director follows another by promises
        self.leading: Leading | Presiding
        leading = None
        if node.takeover == "promises" and self.peers is not None:
            self.leading = self.reigning = Presiding(
                store, keys, self.peers, director=node.name, timing=Timing.of(node.takeover_s), reactor=reactor,
                members=lambda: self.membership.members, fit=self._unfit,
                spread=node.vips.spread if node.vips.addresses else None,
            )
        else:
            self.leading = leading = Leading(
                store, keys, director=node.name, boot_id=self.boot_id, reactor=reactor, ttl_s=node.leader_lease_s,
                hold_back_s=PROMISE_S if keeps else 0.0,
            )
        self.leading.on_known.append(self._leader_known)
        self.spreading: Spreading | None = None  #: where each address has an owner of its own
        self.vips: Vips | Spreading
        interface = node.vips.interface or ""
        if node.vips.spread and node.vips.addresses and self.reigning is not None and self.peers is not None:
            self.vips = self.spreading = Spreading(
                node.vips, self.reigning, self.peers, store, keys, timing=Timing.of(node.takeover_s), reactor=reactor,
                members=lambda: self.membership.members, wanted=lambda: bool(balancer.inventory.services),
                rivals=lambda: bool(self._others()), turn_away=balancer.listeners.turn_away,
                fence=lambda groups: fences(groups, interface=interface, reactor=reactor),
            )
        else:
            self.vips = vips = Vips(
                node.vips, self.leading, store, keys, reactor=reactor, right_s=self._right_s,
                fence=lambda until_ns: fences([vips.virtual], until_ns, interface=interface, reactor=reactor)[0],
                wanted=lambda: bool(balancer.inventory.services), rivals=lambda: bool(self._others()),
            )
            if self.reigning is not None:
                self.reigning.openers.append(vips.open_fence)
                self.reigning.closers.append(vips.close_fence)
        self.observing = Observing(store, keys, balancer, self.membership, boot_id=self.boot_id, reactor=reactor)
        self.promising: Promising | None = None
        if self.peers is not None:
            self.exchange = Exchange(
                self.peers, balancer, attendance, store_answers=lambda: self.available,
                fresh_s=max(FRESH_S, 2 * node.agents.interval_s), caps=self._own_caps,
            )
            if leading is not None:
                self.promising = Promising(
                    self.peers, leading, store, keys, members=self._others, holds=lambda: self.vips.held,
                    keep=keeps, reactor=reactor,
                )
            self.membership.on_members.append(self._members_changed)
        self.capping = Capping(
            balancer.inventory, self.leading, store, keys, balances="balance" in node.roles,
            members=lambda: self.membership.members, alive=self._alive, peers=self.peers, reactor=reactor,
        )
        if self.shared:
            self.membership.setServiceParent(self)
            self.capping.setServiceParent(self)
            self.observing.setServiceParent(self)
            Summarising(
                store, keys, balancer.inventory, self.membership, director=node.name, every_s=node.summary_s,
                reactor=reactor, wall=balancer.wall,
            ).setServiceParent(self)
            if self.peers is not None:
                self.peers.setServiceParent(self)
                if self.promising is not None:
                    self.promising.setServiceParent(self)
        if node.vips.addresses:
            self.vips.setServiceParent(self)
        if node.vips.addresses or (self.shared and "manage" in node.roles):
            self.leading.setServiceParent(self)
        if self._snapshot is not None:
            keeping = Keeping(store, sync.prefixes, self._snapshot, self.cluster, reactor=reactor)
            keeping.setServiceParent(self)
            sync.on_change.append(keeping.changed)

    def startService(self) -> None:
        super().startService()
        self._sync.synced.addCallback(self._synced)

    def _synced(self, _: None) -> None:
        """A name that was mistyped is a cluster of its own, and empty."""
        if isinstance(self._store, EtcdStore) and not self._balancer.inventory.services:
            self._store.names(ROOT).addCallbacks(
                self._found,
                lambda failure: self.log.info("no other clusters are known: {why}", why=failure.getErrorMessage()),
            ).addErrback(lambda failure: self.log.failure("the cluster's name could not be compared", failure))

    def _found(self, names: Sequence[str]) -> None:
        self._beside = tuple(printable(name) for name in names if name != self.cluster)
        why = self._empty() or f"cluster {self.cluster!r} has no service yet"
        self.log.warn("{why}; no virtual address is taken before there is one", why=why)

    def _empty(self) -> str:
        """Why this cluster may not be the one that was meant; empty: it has services, or is alone."""
        if not self._beside or self._balancer.inventory.services:
            return ""
        return (f"cluster {self.cluster!r} has no service, and etcd also has the clusters {', '.join(self._beside)}: is "
                "node.etcd.cluster what was meant? director bootstrap gives a new cluster its services")

    def remember(self) -> bool:
        """Look for what was last known; False when there is nothing, `missing` says why."""
        snapshot, self.missing = last_known(self._snapshot, self.cluster)
        if snapshot is None:
            return False
        self.last_known = snapshot.records
        return True

    async def claim(self) -> None:
        """Have this director's name among those that share the store.

        :raises director.membership.NameTaken: another has it.
        """
        if self.shared:
            await self.membership.claim()

    async def hand_over(self) -> None:
        """Lead no more, so that another takes new clients. Clients of a virtual address that need longer than
        `HAND_OVER_S` lose their connection with it."""
        self.leaving = True
        if self._balancer.running and self._leave_s:
            await deferLater(self._reactor, self._leave_s)
        on = self.vips.on
        if self.vips.held:
            await self._balancer.turn_away(HAND_OVER_S)
        for child in (self.leading, self.vips):
            if child.parent is not None:
                await maybeDeferred(child.disownServiceParent)
        for each in on:
            self._end_connections(each.ip)

    def _end_connections(self, address: IPv4Address | IPv6Address) -> None:
        """Of one that is elsewhere: they would keep the stop waiting until ``drain_s`` is over."""
        try:
            count = end_connections(address)
        except OSError as error:
            self.log.info("connections at {address} are waited for: {why}", address=str(address), why=error.strerror)
        else:
            if count:
                self.log.info("{count} connections at {address} are cut: it is elsewhere now", count=count,
                              address=str(address))

    # --- from one process to the next

    async def give_way(self) -> None:
        """Another process of this director is about to take over; `go_on` if it does not. By promises its addresses go to
        another director first, for no promise is handed from one process to the next; as at a stop clients have
        `HAND_OVER_S` to finish."""
        at = [each.ip for each in self.vips.on] if self.reigning is not None else []
        listeners = self._balancer.listeners
        try:
            if at:
                listeners.turn_away(at)
                await deferLater(self._reactor, HAND_OVER_S)
            if self.spreading is not None:
                await self.spreading.give_way()
            if self.reigning is not None:
                await self.reigning.give_way()
        finally:
            if at:
                listeners.turn_away([])  # the next process has the same sockets

    def go_on(self) -> None:
        if self.reigning is not None:
            self.reigning.go_on()
        if self.spreading is not None:
            self.spreading.go_on()

    def leases(self) -> Leases:
        """What this process has in the shared store."""
        leading, vips = self.leading, self.vips
        leads = leading.leads and self.shared
        return Leases(
            member=self._held(self.membership.lease), member_revision=self.membership.revision,
            leader=self._held(leading.lease) if leads else None, term=leading.term,
            vips=tuple(map(str, vips.on)), vips_named=vips.named,
        )

    def _held(self, lease: Lease | None) -> HeldLease | None:
        if lease is None or not isinstance(self._store, EtcdStore):
            return None
        ttl_s, until = self._store.held_lease(lease)
        return HeldLease(id=lease.id, ttl_s=ttl_s, until=until)

    def adopt(self, leases: Leases | None) -> None:
        """Have what another process has; before the start. It goes on renewing leases and addresses until `let_go`."""
        if leases is None or not isinstance(self._store, EtcdStore):
            return
        if leases.member is not None:
            self.membership.adopt(self._store.adopt_lease(*msgspec.structs.astuple(leases.member)), leases.member_revision)
        if leases.leader is not None:
            self.leading.adopt(self._store.adopt_lease(*msgspec.structs.astuple(leases.leader)), leases.term)
            if isinstance(self.vips, Vips):
                self.vips.adopt(leases.vips, leases.vips_named)

    async def let_go(self) -> None:
        """Another process of this director has taken over: nothing is revoked, deleted or taken from the interface."""
        store = self._store
        if isinstance(store, EtcdStore):
            for lease in (self.membership.lease, self.leading.lease):
                if lease is not None:
                    store.let_go(lease)
        self.membership.let_go()
        self.leading.let_go()
        self.vips.let_go()
        if self.parent is not None:
            await maybeDeferred(self.disownServiceParent)

    def _leader_known(self, known: Known | None) -> None:
        """Another leads, or (None) nobody; every term is told once."""
        if known is not None:
            self._balancer.leader_changed()

    def elsewhere(self, ref: HostRef) -> dict[str, int | None]:
        """Open connections of a draining host at every other director; None where nobody can say."""
        if not self.shared:
            return {}
        others = {name for name, member in self.membership.members.items() if "balance" in member.roles}
        linked = self.exchange.in_flight(ref) if self.peers is not None else {}
        return {**dict.fromkeys(sorted(others - {self.member.name})), **linked}

    def _own_caps(self) -> dict[str, tuple[int, int, int]]:
        return self.capping.own()

    def _others(self) -> set[str]:
        """The other directors that may lead, as last known: those that are linked though the store forgot them too."""
        members = {name for name, member in self.membership.members.items() if "manage" in member.roles}
        return (members | set(self.peers.names if self.peers is not None else ())) - {self.member.name}

    def _alive(self) -> Mapping[str, Alive]:
        """What the linked directors said last."""
        return self.exchange.alive if self.peers is not None else {}

    def _right_s(self) -> float:
        """For how long the others' promises let this director keep the virtual addresses without the store."""
        return self.promising.right_s() if self.promising is not None else 0.0

    def _unfit(self) -> str:
        """Why this director must not own virtual addresses by leading; empty: it may, or owns none by that."""
        if self.spreading is not None:
            return ""
        kind, why = self.vips.fence
        return f"the kernel would not end their answers in time ({kind}): {why}" if why else ""

    def _members_changed(self) -> None:
        assert self.peers is not None
        self.peers.set_members(self.membership.members)

    # --- what is known

    def peer_pictures(self) -> tuple[PeerPicture, ...]:
        """The other directors that live, and whether they are linked."""
        linked = {state.director: state for state in self.peers.states()} if self.peers is not None else {}
        return tuple(
            PeerPicture(
                name=name, address=member.peers or "", connected=name in linked,
                heard_s=linked[name].heard_s if name in linked else None,
            )
            for name, member in sorted(self.membership.members.items()) if name != self.member.name
        )

    def disagreements(self) -> tuple[DisagreementPicture, ...]:
        return tuple(DisagreementPicture(host=str(ref), views=views) for ref, views in self.observing.disagreements())

    @property
    def available(self) -> bool:
        """Whether the store answers."""
        return self._store.available if isinstance(self._store, EtcdStore) else True

    @property
    def writable(self) -> bool:
        """Whether the store takes changes, as far as is known."""
        return self.available and (not isinstance(self._store, EtcdStore) or self._store.room.writable)

    @property
    def problems(self) -> tuple[str, ...]:
        """Of the store and the virtual addresses: what an operator should mend, a sentence each."""
        room = self._store.room.problems if isinstance(self._store, EtcdStore) else ()
        kind, why = self.vips.fence
        fence = f"the kernel does not end the virtual addresses in time ({kind}): {why}" if why else ""
        return (*room, *filter(None, (self._empty(), fence)))

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Records of the directors' own that cannot be read, and why."""
        parts = (self.leading.problems, self.membership.problems, self.vips.problems, self.observing.problems)
        return {key: why for part in parts for key, why in part.items()}

    def written(self) -> tuple[int, int, int]:
        """The store's size, transactions sent to it and bytes in those; zeros for a store of this director's own."""
        store = self._store
        return (store.room.size_bytes, store.writes, store.written_bytes) if isinstance(store, EtcdStore) else (0, 0, 0)

    @property
    def cold(self) -> bool:
        """Whether a snapshot stands in for the store."""
        return self._sync.assumed

    @property
    def leader(self) -> str | None:
        """Who leads, as the store said last; not this director when it does not lead, whatever the store says."""
        known = self.leading.known
        if known is None or (known.leader.name == self.member.name and not self.leading.leads):
            return None
        return known.leader.name

    @property
    def term(self) -> int:
        """The leader's, whoever it is; 0 without one."""
        return self.leading.known.term if self.leading.known is not None else 0

    def vip_owner(self, owner: str, address: str = "") -> str | None:
        """Who has the addresses that the store says are *owner*'s; None: this director, which gave them up.

        :param address: which it is, where each has an owner of its own.
        """
        if address in self.vips_held if self.spreading is not None else self.vips.held:
            return self.member.name
        return None if owner == self.member.name else owner

    @property
    def vips_held(self) -> tuple[str, ...]:
        return tuple(str(each.ip) for each in self.vips.on)


def etcd_certificates(etcd: Etcd) -> list[Renewed[Any]]:
    """What watches over the certificate shown to etcd, if there is one. gRPC reads the files at each connection itself.

    :raises cluster.errors.ConfigError: a file cannot be read or is not what it should be.
    """
    certificate, key = etcd.certificate, etcd.key
    if certificate is None or key is None:
        return []
    return [Renewed("node.etcd", (certificate, key), lambda files: files.identity(certificate, key))]


def etcd_access(etcd: Etcd) -> Access:
    """:raises StoreUnavailable: the password's file cannot be read."""
    password = None
    if etcd.password_file is not None:
        try:
            password = Path(etcd.password_file).read_text().rstrip("\n")
        except OSError as error:
            raise StoreUnavailable(f"{etcd.password_file}: {error.strerror}") from error
    return Access(etcd.endpoints, ca=etcd.ca, certificate=etcd.certificate, key=etcd.key, user=etcd.user, password=password)
