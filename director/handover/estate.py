"""All that passes from one process of a director to the next, and the order in which it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from cluster.address import parse_address
from cluster.errors import Problem
from cluster.file import FileStore
from cluster.memory import MemoryStore
from cluster.model import Node
from director.core import carrying
from director.core.orders import LOCAL
from director.engine.errors import Conflict
from director.ha.leases import Leases
from director.handover.frames import Offer, Progress, Take
from director.handover.sections import Sections, read, write
from director.metrics.carried import Counted, Key, changed
from director.metrics.counters import grown
from director.operations.clients import kill_client, picture_connections
from director.operations.previous import Previous
from director.ports.passing import SOCKETS
from director.service import ETCD, DirectorService

#: For a write of the store that is under way; a disk that takes longer is no time for an upgrade.
WRITTEN_S = 2.0
#: Clients of each service that the old process tells of each second, the oldest: what hangs is among them.
LISTED = 200
#: Between two looks at that.
LOOK_S = 0.005
#: Each host is probed by the new process before it serves, if it is not known; for so long at most.
PROBED_S = 5.0
PROBED_LOOK_S = 0.05


class Estate:
    """Of one director: see `director.handover.giving.Gives` and `director.handover.taking.Takes`."""

    log = Logger()

    def __init__(self, director: DirectorService, *, reactor: Any) -> None:
        self._director = director
        self._reactor = reactor
        self._ordered_by = ""
        self._samples: dict[Key, float] = {}
        self._hosts: dict[tuple[str, str, str], dict[str, float]] = {}

    # --- given

    def offer(self) -> tuple[Offer, list[int]]:
        store, node = self._director.store, self._director.configuration.node
        listening = SOCKETS.listening()
        descriptors = [descriptor for _, some in listening for descriptor in some]
        lock = store.lock if isinstance(store, FileStore) else None
        if lock is not None:
            descriptors.append(lock)
        return Offer(
            sockets=tuple((asked, len(some)) for asked, some in listening), foreign=SOCKETS.foreign, lock=lock is not None,
            store=store.content() if isinstance(store, MemoryStore) else None, boot_id=self._director.clustering.boot_id,
            name=node.name, store_name=store_name(node),
        ), descriptors

    def freeze(self) -> Deferred[Take]:
        return Deferred.fromCoroutine(self._freeze())

    async def _freeze(self) -> Take:
        director, store = self._director, self._director.store
        SOCKETS.hold()
        if isinstance(store, MemoryStore):
            store.hold()
            deadline = self._reactor.seconds() + WRITTEN_S
            while store.writing:
                if self._reactor.seconds() >= deadline:
                    raise Conflict(f"the store is still being written after {WRITTEN_S:g} s")
                await deferLater(self._reactor, LOOK_S)
        await director.clustering.give_way()
        director.node.settle()
        inventory = director.node.inventory
        self._samples, self._hosts = director.registry.samples(), director.metrics.of_hosts()
        sections: Sections = {
            "hosts": write("hosts", carrying.hosts(inventory)),
            "sticky": write("sticky", carrying.sticky(inventory)),
            "orders": write("orders", carrying.local_orders(inventory)),
            "counted": write("counted", Counted(samples=changed(self._samples, {}), hosts=list(self._hosts.items()))),
            "leases": write("leases", director.clustering.leases()),
        }
        return Take(sections=sections, store=store.content() if isinstance(store, MemoryStore) else None)

    def thaw(self) -> None:
        if isinstance(self._director.store, MemoryStore):
            self._director.store.release()
        SOCKETS.release()
        self._director.clustering.go_on()

    def retire(self) -> None:
        self._director.retire()

    def progress(self) -> Progress:
        director = self._director
        samples, hosts = director.registry.samples(), director.metrics.of_hosts()
        counted = Counted(samples=changed(samples, self._samples), hosts=[
            (ref, news) for ref, numbers in hosts.items() if (news := grown(numbers, self._hosts.get(ref, {})))
        ])
        self._samples, self._hosts = samples, hosts
        return Progress(
            connections=director.node.open_connections, at_most_s=director.node.longest_drain_s,
            in_flight={str(ref): entry.host.in_flight for ref, entry in director.node.inventory.hosts.items()
                       if entry.host.in_flight},
            clients={name: picture_connections(frontends, LISTED, director.node.monotonic())
                     for name in {frontend.service.name for frontend in director.node.every_frontend() if frontend.open}
                     if (frontends := director.node.frontends_of(name))},
            sections={"counted": write("counted", counted)},
        )

    def cut(self, service: str, client: str) -> None:
        kill_client(self._director.node.frontends_of(service), parse_address(client))

    # --- taken

    async def verified(self) -> None:
        """Every host that can be probed has been, or has had its time: nobody is sent to one of which nothing is known."""
        deadline = self._reactor.seconds() + PROBED_S
        services = self._director.node.inventory.services.values()
        while self._reactor.seconds() < deadline and any(
            entry.health.last_check is None
            for service in services for group in service.groups.values() if group.spec.health.probe.kind != "none"
            for entry in group.hosts.values()
        ):
            await deferLater(self._reactor, PROBED_LOOK_S)

    def take_over(self, take: Take, lock: int | None) -> Deferred[None]:
        return Deferred.fromCoroutine(self._take_over(take, lock))

    async def _take_over(self, take: Take, lock: int | None) -> None:
        director, store = self._director, self._director.store
        self._ordered_by = take.ordered_by
        if isinstance(store, MemoryStore) and take.store is not None:
            store.replace(take.store)
        if isinstance(store, FileStore):
            if lock is None:
                raise Conflict("the old process did not use this store")
            store.take_over(lock)
        await deferLater(self._reactor, 0)  # the store's news
        node, now = director.node, director.node.monotonic()
        inventory = node.inventory
        sections = take.sections
        known = read(sections, "hosts", list[carrying.HostRecord])
        if known is None:
            self.log.warn("the old process tells of hosts in another form: they are known by their probes only")
            carrying.doubt_hosts(inventory, now)
        else:
            count = carrying.recall_hosts(inventory, known, now)
            self.log.info("{count} hosts are known from the old process", count=count)
        carrying.recall_sticky(inventory, read(sections, "sticky", list[carrying.StickyRecord]) or (), now)
        for each in read(sections, "orders", list[carrying.LocalOrder]) or ():
            node.set_order(each.ref, LOCAL, each.order)
        self._count(read(sections, "counted", Counted))
        await director.join_after(read(sections, "leases", Leases))
        node.settle()

    def serve(self) -> None:
        """This process is the owner now."""
        Deferred.fromCoroutine(self._serve()).addErrback(
            lambda failure: self.log.failure("the file's services are not in the store", failure))

    async def _serve(self) -> None:
        await self._director.own_store(self._ordered_by)
        await deferLater(self._reactor, 0)  # the store's news, which may be more addresses
        for name in SOCKETS.unused():
            self.log.info("nobody listens on {name} any more", name=name)

    def follows(self, ask: Callable[[], Deferred[None]]) -> None:
        self._director.registry.carry_from(ask)

    def heard_of(self, progress: Progress, cut: Callable[[str, str], None]) -> None:
        self._count(read(progress.sections, "counted", Counted))
        self._director.follow_previous(Previous(progress.connections, progress.in_flight, progress.clients, cut))

    def alone(self) -> None:
        self.log.info("the process before this one has ended")
        self._director.follow_previous(None)
        self._director.registry.carry_from(None)

    def _count(self, counted: Counted | None) -> None:
        if counted is None:
            return
        hosts = self._director.node.inventory.hosts
        self._director.registry.carry(counted.samples)
        self._director.metrics.add_of_hosts(each for each in counted.hosts if each[0] in hosts)


def must_restart(offer: Offer, node: Node) -> list[Problem]:
    """What of the configuration makes this another director than the one that offers: it cannot take that one's place."""
    problems = []
    for place, theirs, ours in (("node.name", offer.name, node.name), ("node.store", offer.store_name, store_name(node))):
        if theirs != ours:
            problems.append(Problem(place, f"the running director has {theirs!r}: a change takes a restart"))
    return problems


def store_name(node: Node) -> str:
    return f"{node.store} {node.etcd.cluster}".strip() if node.store == ETCD else node.store
