"""Orders on a real etcd that is asked by many at once, and that stops in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from cluster.errors import OutcomeUnknown
from cluster.model import AdminState, HostRef
from cluster.store import Committed, Compare, Operation
from director.admin.operation import Caller, Role
from director.engine.swapping import DEADLINE_S
from director.service import DirectorService
from tests.etcd_server import EtcdCluster
from tests.integration.kit import DirectorTestCase, service, until

ADA = Caller("ada", Role.FULL, "192.0.2.9")
APP = HostRef("web", "main", "a")


class OrdersTests(DirectorTestCase):
    timeout = 120

    async def start(self, names: tuple[str, ...] = ("d1", "d2")) -> list[DirectorService]:
        self.etcd = EtcdCluster()
        self.addCleanup(self.etcd.stop)
        await deferToThread(self.etcd.start)
        directors = [
            await self.director({"node": {"name": name, "store": "etcd:", "etcd": {"endpoints": list(self.etcd.endpoints)}}})
            for name in names
        ]
        spec = service({"a": (await self.backend("a")).address}, group={"health": {"probe": {"kind": "none"}}})
        await self.call(directors[0], "new_service", service="web", spec=spec["services"]["web"])
        for director in directors:
            await until(lambda director=director: APP in director.node.inventory.hosts, "the service")  # type: ignore[misc]
        return directors

    async def call(self, director: DirectorService, name: str, **arguments: object) -> Any:
        return await director.control.call(ADA, name, arguments)

    def order_and_freeze(self, director: DirectorService, why: str) -> Deferred[None]:
        """An order, and etcd stands still as its commit comes."""
        self.frozen = False
        commit = director.store.commit

        def commit_and_freeze(operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
            if not self.frozen and "/admin/" in operations[0].key:
                self.etcd.members[0].freeze()
                self.frozen = True
            return commit(operations, when=when)

        self.patch(director.store, "commit", commit_and_freeze)
        return director.operations.order(APP, AdminState.DRAIN, who="ada", why=why)

    async def test_many_at_once(self) -> None:
        """A hundred orders about one host at two directors, most of them to use it again: every one is answered within
        the deadline, and both directors agree at the end."""
        directors = await self.start()
        for _ in range(5):
            answers = [
                directors[number % 2].operations.order(APP, AdminState.DRAIN if number % 7 == 0 else AdminState.UP,
                                                       who="ada", why=str(number))
                for number in range(100)
            ]
            done = await DeferredList(answers, consumeErrors=True).addTimeout(DEADLINE_S, reactor)
            self.assertEqual([result for well, result in done if not well], [])
        last = await directors[0].store.get(directors[0].keys.admin(APP, "operator"))
        kept = [] if last is None else ["operator"]
        await until(lambda: all(sorted(each.node.inventory.hosts[APP].orders) == kept for each in directors), "both to agree")

    async def test_stopped_in_mid_order(self) -> None:
        """etcd stops as an order is on its way and goes on: within the deadline the order is made and told so; after it,
        it is told as unknown, and the audit tells later what became of it."""
        [director] = await self.start(("d1",))
        for seconds in (0.5, 6.0):
            answer = self.order_and_freeze(director, f"for {seconds} s")
            await until(lambda: self.frozen, "the commit")
            await deferLater(reactor, seconds)
            self.etcd.members[0].thaw()
            await answer
            self.assertEqual(director.node.inventory.hosts[APP].orders["operator"].why, f"for {seconds} s")
            await until(lambda: director.clustering.available, "etcd to be back")
        answer = self.order_and_freeze(director, "never answered")
        await self.assertFailure(answer, OutcomeUnknown)
        self.etcd.members[0].thaw()

        def settled() -> list[str]:
            return [entry.outcome for entry in director.audit.newest(10) if entry.operation == "looked_up"]

        await until(settled, "what became of it")
        there = await director.store.get(director.keys.admin(APP, "operator"))
        made = there is not None and b"never answered" in there.value
        self.assertEqual(settled(), ["it was made" if made else "it was not made"])
