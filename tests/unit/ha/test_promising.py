"""Directors that lose the store together, or one of them alone, and who has the addresses then.

Stores of one process each, that stand for one cluster's as long as nobody writes; the link is two lists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import StoreUnavailable
from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Vips as Config
from cluster.peer_wire import Ask, Promise
from cluster.store import Record
from director.core.promises import PROMISE_S
from director.ha.leading import Leading
from director.ha.netlink import Interface
from director.ha.promising import Promising
from director.ha.vips import Device, Vips

KEYS = Keys("c")


class Store(MemoryStore):
    """One director's way to the shared store, which can be cut."""

    def __init__(self, shared: MemoryStore | None, clock: Clock) -> None:
        super().__init__(clock=clock, wall=lambda: 0.0)
        self.shared = shared
        self.cut = False

    def get(self, key: str) -> Deferred[Record | None]:
        if self.cut:
            return fail(StoreUnavailable("cut"))
        return super().get(key) if self.shared is None else self.shared.get(key)


class NoLink(Device):
    def __init__(self) -> None:
        super().__init__("eth0")

    def listen(self, reactor: object, told: object) -> None: ...

    def add(self, address: Interface, lifetime_s: int) -> None: ...

    def remove(self, address: Interface) -> None: ...

    def announce(self, address: Interface) -> None: ...


class Wire:
    """The part of `director.ha.peers.Peers` that promises use; *others* are linked."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.others: dict[str, Wire] = {}
        self.hearers: dict[type, Callable[[str, Any], None]] = {}

    def hear(self, kind: type, tell: Callable[[str, Any], None]) -> None:
        self.hearers[kind] = tell

    def send(self, peer: str, message: object) -> bool:
        other = self.others.get(peer)
        if other is not None:
            self.clock.callLater(0, lambda: other.hearers[type(message)](self.name, message))
        return other is not None


class Side:
    def __init__(self, name: str, clock: Clock, store: Store, *, keep: bool = True) -> None:
        self.store = store
        self.wire = Wire(name, clock)
        self.leading = Leading(store, KEYS, director=name, boot_id="b", reactor=clock, boottime=clock.seconds,
                               wall=lambda: 0.0)
        self.vips = Vips(Config(interface="eth0", addresses=("10.0.0.1/24",)), self.leading, store, KEYS, reactor=clock,
                         right_s=lambda: self.promising.right_s(), link=NoLink(), monotonic=clock.seconds)
        self.promising = Promising(self.wire, self.leading, store, KEYS, members=lambda: list(self.wire.others),  # type: ignore[arg-type]
                                   holds=lambda: self.vips.held, keep=keep, reactor=clock, boottime=clock.seconds)
        self.promising.startService()

    def lead(self) -> None:
        self.vips.startService()
        self.leading.startService()

    def lose_the_store(self) -> None:
        """Its lease is not renewed any more, and nothing that it asks is answered."""
        self.store.cut = True
        lease: Any = self.leading._lease
        lease.forget()
        lease.live = True
        self.store._phase = type(self.store._phase).STOPPED


class PromisingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def sides(self, *, keep: tuple[bool, bool] = (True, True)) -> tuple[Side, Side]:
        first_store = Store(None, self.clock)
        self.successResultOf(first_store.start())
        holder = Side("d1", self.clock, first_store, keep=keep[0])
        member = Side("d2", self.clock, Store(first_store, self.clock), keep=keep[1])
        holder.wire.others["d2"], member.wire.others["d1"] = member.wire, holder.wire
        holder.lead()
        self.pass_time(1.0)
        self.assertTrue(holder.vips.held)
        return holder, member

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.0] * 5 + [0.05] * round(seconds / 0.05))


class HolderTests(PromisingTestCase):
    def test_kept_while_all_promise(self) -> None:
        """The store is away for everybody: the addresses stay, long after the lease lapsed."""
        holder, member = self.sides()
        member.store.cut = True
        holder.lose_the_store()
        for _ in range(30):
            self.pass_time(1.0)
            self.assertTrue(holder.vips.held)
        self.assertFalse(holder.leading.leads)

    def test_kept_by_a_late_turn(self) -> None:
        """A turn that looks after the lease's deadline, but before anybody was told of the lapse, finds the promises."""
        holder, member = self.sides()
        member.store.cut = True
        holder.lose_the_store()
        self.pass_time(0.9)
        self.assertGreater(holder.leading.remaining_s(), 0.0)
        self.clock.rightNow += holder.leading.remaining_s() + 0.01  # and no timer runs
        holder.vips.step()
        self.assertTrue(holder.vips.held)

    def test_released_without_promises(self) -> None:
        """Not configured to keep, a member that is not, one that is not linked, or one that reaches the store: the
        addresses go with the lease."""
        for keep, cut, linked in (((False, True), True, True), ((True, False), True, True), ((True, True), True, False),
                                  ((True, True), False, True)):
            holder, member = self.sides(keep=keep)
            member.store.cut = cut
            holder.lose_the_store()
            if not linked:
                holder.promising._members = lambda: ["d2"]
                holder.wire.others.clear()
            if not cut:
                member.store.shared = None
                member.store._phase = holder.store._phase.RUNNING
            self.pass_time(2.5)
            self.assertFalse(holder.vips.held, (keep, cut, linked))

    def test_given_up_before_the_oldest_promise_lapses(self) -> None:
        """When a member is heard no more, the holder gives up while that member is still bound."""
        holder, member = self.sides()
        member.store.cut = True
        holder.lose_the_store()
        self.pass_time(10.0)
        holder.wire.others.clear()
        lost_at = self.clock.seconds()
        while holder.vips.held:
            self.pass_time(0.05)
        self.assertLess(self.clock.seconds() - lost_at, PROMISE_S)
        bound_until = member.leading._machine._not_before
        self.assertLess(self.clock.seconds(), bound_until + 0.3)  # a look of the holder, after which nothing is refreshed

    def test_alone(self) -> None:
        """A single director keeps what it has."""
        holder, _ = self.sides()
        holder.wire.others.clear()
        holder.lose_the_store()
        self.pass_time(20.0)
        self.assertTrue(holder.vips.held)

    def test_resigning_ends_it(self) -> None:
        """An order to resign gives the addresses up, promises or not."""
        holder, member = self.sides()
        member.store.cut = True
        holder.store.cut = True
        lease: Any = holder.leading._lease
        lease.forget()
        lease.live = True
        self.pass_time(1.0)
        self.assertTrue(holder.promising.right_s() > 0)
        holder.leading.resign()
        self.assertFalse(holder.vips.held)


class MemberTests(PromisingTestCase):
    def test_bound(self) -> None:
        """A member that promised campaigns only when its promise is over."""
        holder, member = self.sides()
        member.store.cut = True
        holder.lose_the_store()
        self.pass_time(3.0)
        self.assertGreater(member.leading._machine._not_before, self.clock.seconds() + PROMISE_S / 2)

    def test_a_leader_promises_nothing(self) -> None:
        """Whoever leads does not hold back for anybody."""
        holder, member = self.sides()
        holder.store.cut = True
        self.successResultOf(Deferred.fromCoroutine(member.promising._answer("d1", Ask(number=1, for_s=PROMISE_S))))
        answers: list[Any] = []
        member.wire.hearers[Promise] = lambda who, promise: answers.append(promise)
        self.successResultOf(Deferred.fromCoroutine(holder.promising._answer("d2", Ask(number=1, for_s=PROMISE_S))))
        self.pass_time(0.1)
        self.assertEqual([(each.granted, each.why) for each in answers], [(False, "it leads, or is about to")])

    def test_no_longer_than_after_a_start(self) -> None:
        """A question for longer than a director holds back after its start is refused."""
        _, member = self.sides()
        member.store.cut = True
        self.assertIn("longer", self.successResultOf(Deferred.fromCoroutine(member.promising._objection(Ask(number=1, for_s=60.0)))))
