"""Operators' orders about addresses that each have an owner of their own: through the store, to whoever owns them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Placement, VipOwner
from director.engine.errors import Conflict, NotFound
from director.operations.vips import VipOrders
from tests.unit.ha.test_spreading import KEYS, QUIET_S, A, B, Director, SpreadingTestCase


class OrderTests(SpreadingTestCase):
    def setUp(self) -> None:
        self.spread = self.lab("d1", "d2")
        self.orders = {name: self.of(each) for name, each in self.spread.directors.items()}

    def of(self, director: Director) -> VipOrders:
        clustering: Any = SimpleNamespace(
            spreading=director.spreading, vips=director.spreading, vip_owner=lambda owner, address="": owner)
        return VipOrders(clustering, self.spread.store, KEYS, reactor=self.spread.clock, wall=lambda: 5.0)

    def done(self, order: Any) -> Any:
        over: list[Any] = []
        Deferred.fromCoroutine(order).addBoth(over.append)
        self.spread.until(lambda: bool(over), 7.0)
        if hasattr(over[0], "raiseException"):
            over[0].raiseException()
        return over[0]

    def where(self) -> dict[str, str]:
        return {each.address: each.owner or "" for each in self.orders["d1"].listed()}

    def placement(self, address: str) -> Placement:
        record = self.spread.result(self.spread.store.get(KEYS.placement(address)))
        return msgspec.json.decode(record.value, type=Placement)

    def test_listed(self) -> None:
        """Everybody lists the same: who has which, in which term, and who may."""
        first, second = (each.listed() for each in self.orders.values())
        self.assertEqual(first, second)
        self.assertEqual([each.able for each in first], [("d1", "d2")] * 2)
        self.assertEqual([each.term for each in first], [
            self.spread.directors[each.owner or ""].spreading.owning[each.address].term for each in first])

    def test_move(self) -> None:
        """It is there when that is answered, whoever was asked; the name of who ordered is kept."""
        (its,) = self.spread.directors["d1"].answers
        moved = self.done(self.orders["d2"].move(its, "d2", "ada"))
        self.assertEqual(moved.owner, "d2")
        self.assertEqual(self.spread.directors["d2"].answers, {A, B})
        self.assertEqual((self.placement(its).to, self.placement(its).who), ("d2", "ada"))
        again = self.spread.clock.seconds()
        self.done(self.orders["d2"].move(its, "d2", "ada"))
        self.assertLess(self.spread.clock.seconds() - again, 1.0)

    def test_not_followed(self) -> None:
        """An order that nobody carries out is answered after some seconds with what is so."""
        (its,) = self.spread.directors["d1"].answers
        self.spread.directors["d2"].leading.promise(60.0)
        for owning in self.spread.directors["d2"].spreading.owning.values():
            owning.promise(60.0)
        self.spread.run(0.2)
        self.assertEqual(self.done(self.orders["d2"].move(its, "d2", "ada")).owner, "d1")

    def test_pin(self) -> None:
        """Is told, kept, and taken back."""
        (its,) = self.spread.directors["d1"].answers
        self.assertEqual(self.done(self.orders["d1"].pin(its, "d2", "ada")).pinned, "d2")
        self.spread.run(2 * QUIET_S)
        other = next(each for each in (A, B) if each != its)
        self.assertEqual(self.where(), {its: "d2", other: "d1"})
        self.assertIsNone(self.done(self.orders["d2"].unpin(its, "ada")).pinned)
        self.assertEqual(self.placement(its).pinned, "")

    def test_rebalance(self) -> None:
        """At once, though all of it is in use."""
        first = self.spread.directors["d1"]
        (its,) = first.answers
        second = self.spread.directors["d2"]
        self.done(self.orders["d1"].move(its, "d2", "ada"))
        second.open.update((A, B))
        self.spread.run(QUIET_S)
        self.assertEqual(second.answers, {A, B})
        after = self.done(self.orders["d1"].rebalance("ada"))
        self.assertEqual({each.owner for each in after}, {"d1", "d2"})
        self.spread.run(QUIET_S)
        self.assertEqual((len(first.answers), len(second.answers)), (1, 1))

    def test_refused(self) -> None:
        """An address that is none, a director that cannot, one that moves all together; nothing is written."""
        revision = self.spread.result(self.spread.store.list(KEYS.root)).revision
        orders = self.orders["d1"]
        self.assertRaises(NotFound, self.done, orders.move("10.9.9.9", "d2", "ada"))
        self.assertRaises(Conflict, self.done, orders.move(A, "d9", "ada"))
        self.assertRaises(Conflict, self.done, orders.pin(A, "d9", "ada"))
        self.assertEqual(self.spread.result(self.spread.store.list(KEYS.root)).revision, revision)


class TogetherTests(SynchronousTestCase):
    def test_together(self) -> None:
        """Where the leader has all of them they are listed, and no order is taken."""
        owner = VipOwner(owner="lb1", interface="eth0", term=7, since=9.0)
        clustering: Any = SimpleNamespace(spreading=None, vips=SimpleNamespace(owners={A: owner}),
                                          vip_owner=lambda owner, address="": owner)
        nothing: Any = None
        orders = VipOrders(clustering, nothing, KEYS, reactor=nothing, wall=lambda: 5.0)
        (listed,) = orders.listed()
        self.assertEqual((listed.address, listed.owner, listed.term, listed.able), (A, "lb1", 7, ()))
        for order in (orders.move(A, "lb1", "ada"), orders.rebalance("ada"), orders.unpin(A, "ada")):
            self.assertIn("spread is off", str(self.failureResultOf(Deferred.fromCoroutine(order), Conflict).value))
