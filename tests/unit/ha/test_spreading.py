"""Virtual addresses with owners of their own: one store, links in memory, one clock, and for each address a fence that does as
the kernel's. At no instant are two fences of one address open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.model import Leader, Member, Placement
from cluster.model import Vips as Config
from cluster.store import Delete, Put
from cluster.takeover import Timing
from director.config.bootstrap import first_record
from director.ha.device import Device
from director.ha.lookout import Befell
from director.ha.netlink import Interface
from director.ha.owning import Presiding
from director.ha.reigning import NS
from director.ha.spreading import SETTLE_S, Spreading, priorities
from tests.unit.ha.test_reigning import End, Links, SlowStore

KEYS = Keys("c")
TIMING = Timing()
STEP_S = 0.005
#: Until nothing moves any more.
QUIET_S = SETTLE_S + 8.0
A, B, C = "10.0.0.100", "10.0.0.101", "2001:db8::100"


class Link(Device):
    """An interface that takes everything."""

    def __init__(self) -> None:
        super().__init__("eth0")
        self.befalls = Befell()

    def listen(self, reactor: object, told: Callable[[], None]) -> None:
        """Nothing befalls it by itself."""

    def befell(self) -> Befell:
        return self.befalls

    def add(self, address: Interface, lifetime_s: int) -> None:
        """There it is."""

    def remove(self, address: Interface) -> None:
        """Gone."""

    def announce(self, address: Interface) -> None:
        """Told."""


class KernelFence:
    kind = "tc"

    def __init__(self) -> None:
        self.until = 0

    def open_until(self, boot_ns: int) -> None:
        self.until = boot_ns

    def close(self) -> None:
        self.until = 0

    def holds(self) -> str:
        return ""

    def release(self) -> None:
        """It stays closed."""

    leave = release


class Director:
    """One, with its kernel, which goes on when its process is dead."""

    def __init__(self, name: str, lab: Lab, addresses: Sequence[str], **more: Any) -> None:
        self.name, self.lab = name, lab
        self.config = Config(interface="eth0", spread=True, **more,
                             addresses=tuple(f"{each}/{64 if ':' in each else 24}" for each in addresses))
        self.fences = {each: KernelFence() for each in addresses}
        self.open: Counter[str] = Counter()  #: connections, by address
        self.turned_away: list[list[str]] = []
        self.told: list[str] = []
        self.links: list[Link] = []
        self.begin()

    def begin(self) -> None:
        """A process."""
        lab = self.lab
        self.end = End(lab.links, self.name)
        self.leading = Presiding(
            lab.store, KEYS, self.end, director=self.name, timing=TIMING, reactor=lab.clock, spread=True,
            members=lambda: lab.members, boottime_ns=lab.now, wall=lambda: 5.0,
        )
        self.spreading = Spreading(
            self.config, self.leading, self.end, lab.store, KEYS, timing=TIMING,  # type: ignore[arg-type]
            members=lambda: lab.members, wanted=lambda: True, rivals=lambda: len(lab.members) > 1,
            turn_away=lambda at: self.turned_away.append(list(map(str, at))), fence=self._fences, reactor=lab.clock,
            count=lambda address: self.open[str(address)], link=self._link, boottime_ns=lab.now,
            monotonic=lab.clock.seconds, wall=lambda: 5.0,
        )
        self.spreading.on_taken.append(lambda addresses: self.told.extend(f"+{each}" for each in addresses))
        self.spreading.on_released.append(lambda addresses: self.told.extend(f"-{each}" for each in addresses))

    def _link(self) -> Link:
        self.links.append(Link())
        return self.links[-1]

    def _fences(self, groups: Sequence[Sequence[Any]]) -> Any:
        for fence in self.fences.values():
            fence.close()
        return tuple(self.fences[str(address)] for (address,) in groups)

    @property
    def answers(self) -> set[str]:
        return {address for address, fence in self.fences.items() if fence.until > self.lab.now()}

    def join(self) -> None:
        self.lab.members = {**self.lab.members, self.name: Member(
            name=self.name, boot_id=self.name, version="1", started=0.0, promises=True, vips=priorities(self.config))}
        self.spreading.startService()
        self.leading.startService()

    def kill(self) -> None:
        """The process is gone; its membership lapses later."""
        self.end.alive = False
        for reigning in (self.leading, *self.spreading.owning.values()):
            reigning._turn.cancel()
            reigning._alarm.cancel()
            reigning._watch.stop()  # type: ignore[union-attr]
        for vips in self.spreading.vips.values():
            vips._timer.cancel()
            vips._silence()
            vips._watch.stop()  # type: ignore[union-attr]
        self.spreading._timer.cancel()
        self.spreading._watch.stop()  # type: ignore[union-attr]
        for end in self.lab.links.ends.values():
            if end is not self.end:
                for left in end.on_left:
                    left(self.name, True)

    def come_back(self) -> None:
        self.told.clear()
        self.begin()
        self.join()


class Lab:
    def __init__(self, case: SynchronousTestCase) -> None:
        self.case = case
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.store = SlowStore(clock=self.clock, wall=lambda: 0.0)
        case.successResultOf(self.store.start())
        self.links = Links(self.clock)
        self.members: dict[str, Member] = {}
        self.directors: dict[str, Director] = {}

    def add(self, name: str, *addresses: str, **more: Any) -> Director:
        made = self.directors[name] = Director(name, self, addresses, **more)
        return made

    def now(self) -> int:
        return round(self.clock.seconds() * NS)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.clock.advance(STEP_S)
            answering = Counter(address for each in self.directors.values() for address in each.answers)
            assert not answering or max(answering.values()) == 1, answering

    def until(self, happened: Callable[[], bool], within_s: float) -> float:
        begun = self.clock.seconds()
        while not happened():
            assert self.clock.seconds() - begun < within_s, ("not in time", {
                each.name: each.answers for each in self.directors.values()})
            self.run(STEP_S)
        return self.clock.seconds() - begun

    def result(self, awaited: Any) -> Any:
        waits = Deferred.fromCoroutine(awaited) if hasattr(awaited, "send") else awaited
        self.run(0.05)
        return self.case.successResultOf(waits)

    def placement(self, address: str, **said: Any) -> None:
        """An operator's word."""
        self.result(self.store.commit([Put(KEYS.placement(address), msgspec.json.encode(Placement(**said)))]))

    def record(self, address: str) -> Leader:
        found = self.result(self.store.get(KEYS.reign(address)))
        return msgspec.json.decode(found.value, type=Leader)


class SpreadingTestCase(SynchronousTestCase):
    def lab(self, *names: str, addresses: Sequence[str] = (A, B)) -> Lab:
        """All of them run, and what has to move has moved."""
        lab = Lab(self)
        for name in names:
            lab.add(name, *addresses)
        lab.result(first_record(lab.store, KEYS, names[0], TIMING, 5.0))
        for each in lab.directors.values():
            each.join()
        lab.run(QUIET_S)
        return lab


class SpreadTests(SpreadingTestCase):
    def test_one_each(self) -> None:
        """Two addresses over two directors; three over three, of both families. Nothing is written while all is well."""
        for names in (("d1", "d2"), ("d1", "d2", "d3")):
            lab = self.lab(*names, addresses=(A, B, C)[: len(names)])
            self.assertEqual([len(each.answers) for each in lab.directors.values()], [1] * len(names))
            revision = self.successResultOf(lab.store.list(KEYS.root)).revision
            lab.run(3.0)
            self.assertEqual(self.successResultOf(lab.store.list(KEYS.root)).revision, revision)

    def test_killed(self) -> None:
        """The other one has both within the promise; back again, the first one gets one when nobody has a connection to it."""
        lab = self.lab("d1", "d2")
        first, second = lab.directors.values()
        first.kill()
        self.assertLessEqual(lab.until(lambda: second.answers == {A, B}, 0.6), 0.47)
        second.open.update((A, B))
        lab.run(1.0)
        first.come_back()
        lab.run(QUIET_S)
        self.assertEqual((first.answers, second.answers), (set(), {A, B}))
        del second.open[B]
        took = lab.until(lambda: first.answers == {B}, 3.0)
        self.assertLess(took, 2.0)
        lab.run(QUIET_S)
        self.assertEqual((first.answers, second.answers), ({B}, {A}))
        self.assertEqual(second.spreading.moves, {B: 1})
        self.assertEqual(second.turned_away[-2:], [[B], []])
        self.assertEqual(second.told[-1], f"-{B}")

    def test_one_message(self) -> None:
        """The beats of all addresses of an owner are one message, and so are their acknowledgements."""
        lab = self.lab("d1", "d2", addresses=("10.0.0.100", "10.0.0.101", "10.0.0.102", "10.0.0.103"))
        sent = lab.links.sent
        lab.run(1.0)
        # beats of the leader and its acks; of two owners to each other, and their acks
        self.assertLessEqual(lab.links.sent - sent, 6 * 21)

    def test_stop(self) -> None:
        """Whoever stops gives each of its addresses to whom it should go to, at once."""
        lab = self.lab("d1", "d2", "d3", addresses=(A, B, C, "10.0.0.102"))
        first = next(each for each in lab.directors.values() if len(each.answers) == 2)
        others = [each for each in lab.directors.values() if each is not first]
        stopped = first.spreading.stopService()
        first.leading.stopService()
        took = lab.until(lambda: sum(len(each.answers) for each in others) == 4, 0.3)
        self.assertLess(took, 0.1)
        lab.run(0.2)
        self.successResultOf(stopped)
        self.assertEqual([len(each.answers) for each in others], [2, 2])

    def test_resigned_and_rejoined(self) -> None:
        """As an upgrade does: it takes part no more, and again; then it has its part again."""
        lab = self.lab("d1", "d2")
        first, second = lab.directors.values()
        lab.result(first.spreading.give_way())
        self.assertEqual((first.answers, second.answers), (set(), {A, B}))
        first.spreading.go_on()
        lab.run(QUIET_S)
        self.assertEqual((len(first.answers), len(second.answers)), (1, 1))

    def test_carrier(self) -> None:
        """Whoever has no carrier gives its address away, and gets none back while that lasts."""
        lab = self.lab("d1", "d2")
        first, second = lab.directors.values()
        for link in first.links:
            link.befalls = Befell(running=False)
        lab.until(lambda: second.answers == {A, B}, 1.0)
        terms = [lab.record(each).term for each in (A, B)]
        lab.run(QUIET_S)
        self.assertEqual([lab.record(each).term for each in (A, B)], terms, "nothing has moved")
        for link in first.links:
            link.befalls = Befell()
        lab.run(QUIET_S)
        self.assertEqual((len(first.answers), len(second.answers)), (1, 1))


class OrderTests(SpreadingTestCase):
    def test_moved(self) -> None:
        """By order an address moves though it is in use, and stays; what may goes the other way then, so that both are even."""
        lab = self.lab("d1", "d2")
        first, second = lab.directors.values()
        (mine,) = first.answers
        first.open[mine] = 3
        lab.placement(mine, to="d2")
        self.assertLess(lab.until(lambda: second.answers == {A, B}, 2.0), 1.0)
        first.open.clear()
        second.open.update((A, B))
        lab.run(QUIET_S)
        self.assertEqual(second.answers, {A, B})
        second.open.clear()
        lab.run(QUIET_S)
        self.assertEqual((first.answers, second.answers), ({A, B} - {mine}, {mine}))

    def test_old_orders(self) -> None:
        """What began a term since ends an order: nobody gives an address back to a director that has come back."""
        lab = self.lab("d1", "d2")
        first, second = lab.directors.values()
        (its,) = second.answers
        lab.placement(its, to="d1")
        lab.until(lambda: first.answers == {A, B}, 2.0)
        first.kill()
        lab.until(lambda: second.answers == {A, B}, 0.6)
        second.open.update((A, B))
        first.come_back()
        lab.run(QUIET_S)
        self.assertEqual(second.answers, {A, B})

    def test_pinned(self) -> None:
        """A pinned address goes where it is pinned once nobody uses it, and comes back there."""
        lab = self.lab("d1", "d2")
        first, second = lab.directors.values()
        (mine,) = first.answers
        first.open[mine] = 1
        lab.placement(mine, pinned="d2")
        lab.run(QUIET_S)
        self.assertIn(mine, first.answers)
        first.open.clear()
        lab.run(QUIET_S)
        self.assertIn(mine, second.answers)
        second.kill()
        lab.until(lambda: first.answers == {A, B}, 0.6)
        second.come_back()
        lab.run(QUIET_S)
        self.assertEqual((first.answers, second.answers), ({A, B} - {mine}, {mine}))

    def test_priorities(self) -> None:
        """An address goes to whom it has the highest priority at."""
        lab = Lab(self)
        lab.add("d1", A, B)
        lab.add("d2", A, B, priorities={A: 200, B: 200})
        lab.result(first_record(lab.store, KEYS, "d1", TIMING, 5.0))
        for each in lab.directors.values():
            each.join()
        lab.run(2 * QUIET_S)
        self.assertEqual(lab.directors["d2"].answers, {A, B})


class SafetyTests(SpreadingTestCase):
    def test_store_away(self) -> None:
        """Each stays where it is."""
        lab = self.lab("d1", "d2")
        before = [each.answers for each in lab.directors.values()]
        lab.store.away = True
        lab.run(30.0)
        self.assertEqual([each.answers for each in lab.directors.values()], before)

    def test_deleted(self) -> None:
        """A record that is deleted by hand is its owner's to write again; the leader does not, though that is another."""
        lab = self.lab("d1", "d2")
        second = lab.directors["d2"]
        (its,) = second.answers
        lab.result(lab.store.commit([Delete(KEYS.reign(its)), Delete(KEYS.reign_beat(its))]))
        lab.run(2.0)
        self.assertEqual(lab.record(its).kind, "re-created")
        self.assertEqual(second.answers, {its})

    def test_together_beside_spread(self) -> None:
        """A director that would take all addresses by leading leads nothing where they are spread."""
        lab = self.lab("d1", "d2")
        lab.members = {**lab.members, "d3": Member(name="d3", boot_id="d3", version="1", started=0.0, promises=True)}
        third = Presiding(lab.store, KEYS, End(lab.links, "d3"), director="d3", timing=TIMING, reactor=lab.clock,
                          spread=False, members=lambda: lab.members, boottime_ns=lab.now, wall=lambda: 5.0)
        third.startService()
        lab.run(2.0)
        self.assertIn("spread", third.problems[KEYS.leader()])
        lab.directors["d1"].kill()
        lab.directors["d2"].kill()
        lab.run(3.0)
        self.assertFalse(third.leads)


    def test_from_together_to_spread(self) -> None:
        """One that takes all of them by leading, and follows: the others lead first, and then each address has its owner."""
        lab = Lab(self)
        old = Presiding(lab.store, KEYS, End(lab.links, "d0"), director="d0", timing=TIMING, reactor=lab.clock, spread=False,
                        members=lambda: lab.members, boottime_ns=lab.now, wall=lambda: 5.0)
        fence = KernelFence()
        old.openers.append(fence.open_until)
        old.closers.append(fence.close)
        lab.members = {"d0": Member(name="d0", boot_id="d0", version="1", started=0.0, promises=True)}
        lab.result(first_record(lab.store, KEYS, "d0", TIMING, 5.0))
        old.startService()
        lab.until(lambda: fence.until > lab.now(), 2.0)
        for name in ("d1", "d2"):
            lab.add(name, A, B).join()
        lab.run(5.0)
        self.assertTrue(old.leads)
        self.assertEqual([each.answers for each in lab.directors.values()], [set(), set()])
        lab.members = {name: each for name, each in lab.members.items() if name != "d0"}
        stopped = old.stopService()
        for _ in range(round(2 * QUIET_S / STEP_S)):
            lab.run(STEP_S)
            assert fence.until <= lab.now() or not any(each.answers for each in lab.directors.values())
        self.successResultOf(stopped)
        self.assertEqual([len(each.answers) for each in lab.directors.values()], [1, 1])
