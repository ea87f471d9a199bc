"""Directors that lead by promises: one store, links in memory, one clock, and fences that do as the kernel's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import StoreUnavailable
from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Leader, Member
from cluster.store import Delete, Put
from cluster.table import Transaction
from cluster.takeover import Timing
from director.config.bootstrap import first_record
from director.ha.leading import Leading, NotLeading
from director.ha.reigning import NS, Reigning

KEYS = Keys("c")
TIMING = Timing()
#: Of the clock, between two looks at who answers.
STEP_S = 0.005


class SlowStore(MemoryStore):
    """Can neither be asked nor written while *away*."""

    away = False

    async def _persist(self, transactions: Sequence[Transaction]) -> None:
        if self.away:
            raise StoreUnavailable("away")

    def list(self, prefix: str) -> Deferred[Any]:
        return Deferred() if self.away else super().list(prefix)


class Links:
    """Between all directors; *cut* ones lose what is sent."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ends: dict[str, End] = {}
        self.cut: set[tuple[str, str]] = set()
        self.sent = 0

    def cut_both(self, one: str, other: str) -> None:
        self.cut |= {(one, other), (other, one)}


class End:
    """What `director.ha.peers.Peers` is to `Reigning`."""

    def __init__(self, links: Links, name: str) -> None:
        self.links, self.name = links, name
        self.on_left: list[Callable[[str, bool], None]] = []
        self.hearers: dict[type, Callable[[str, Any], None]] = {}
        self.alive = True
        links.ends[name] = self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, end in self.links.ends.items() if name != self.name and end.alive)

    def hear(self, kind: type, tell: Callable[[str, Any], None]) -> None:
        self.hearers[kind] = tell

    def send(self, peer: str, message: Any, *, droppable: bool = False) -> bool:
        self.links.sent += 1
        if (self.name, peer) not in self.links.cut and self.alive:
            self.links.clock.callLater(0.001, self.arrive, peer, message)
        return True

    def arrive(self, peer: str, message: Any) -> None:
        end = self.links.ends[peer]
        if end.alive and type(message) in end.hearers:
            end.hearers[type(message)](self.name, message)

    def knock(self, peer: str) -> Deferred[bool]:
        return succeed(not self.links.ends[peer].alive)


class Director:
    """One, and its kernel."""

    def __init__(self, name: str, lab: Lab) -> None:
        self.name, self.lab = name, lab
        self.fence = 0
        self.unfit = ""
        self.end = End(lab.links, name)
        self.store = lab.store
        self.told: list[str] = []
        self.reigning = Reigning(
            lab.store, KEYS, self.end, director=name, timing=TIMING, reactor=lab.clock,  # type: ignore[arg-type]
            members=lambda: lab.members, fit=lambda: self.unfit, boottime_ns=lab.now, wall=lambda: 5.0,
        )
        self.reigning.openers.append(self.open)
        self.reigning.closers.append(lambda: self.open(0))
        self.reigning.on_gained.append(lambda term: self.told.append("gained"))
        self.reigning.on_lost.append(lambda: self.told.append("lost"))

    def open(self, until: int) -> None:
        self.fence = until

    @property
    def answers(self) -> bool:
        return self.fence > self.lab.now()

    def kill(self) -> None:
        """The process is gone, its links are closed by the kernel, which goes by the fence."""
        self.end.alive = False
        self.reigning._turn.cancel()
        self.reigning._alarm.cancel()
        self.reigning._watch.stop()  # type: ignore[union-attr]
        for end in self.lab.links.ends.values():
            if end is not self.end:
                for left in end.on_left:
                    left(self.name, True)


class Lab:
    def __init__(self, case: SynchronousTestCase, *names: str) -> None:
        self.case = case
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.store = SlowStore(clock=self.clock, wall=lambda: 0.0)
        case.successResultOf(self.store.start())
        self.links = Links(self.clock)
        self.members: dict[str, Member] = {}
        self.directors = {name: Director(name, self) for name in names}

    def now(self) -> int:
        return round(self.clock.seconds() * NS)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.clock.advance(STEP_S)
            assert sum(each.answers for each in self.directors.values()) <= 1

    def until(self, happened: Callable[[], bool], within_s: float) -> float:
        """How long it took."""
        begun = self.clock.seconds()
        while not happened():
            assert self.clock.seconds() - begun < within_s, "not in time"
            self.run(STEP_S)
        return self.clock.seconds() - begun

    def join(self, name: str) -> Director:
        self.members[name] = Member(name=name, boot_id=name, version="1", started=0.0, promises=True)
        self.directors[name].reigning.startService()
        return self.directors[name]


class ReigningTestCase(SynchronousTestCase):
    def lab(self, *names: str) -> Lab:
        """All of them running, the first one owns, everybody may follow."""
        lab = Lab(self, *names)
        first = first_record(lab.store, KEYS, names[0], TIMING, 5.0)
        made = Deferred.fromCoroutine(first)
        lab.run(0.05)
        self.successResultOf(made)
        for name in names:
            lab.join(name)
        lab.until(lambda: lab.directors[names[0]].answers, 2.0)
        lab.until(lambda: set(self.record(lab).electors) == set(names), 2.0)
        lab.run(0.5)
        return lab

    def record(self, lab: Lab) -> Leader:
        found = lab.store.get(KEYS.leader())
        lab.clock.advance(0)
        record = self.successResultOf(found)
        assert record is not None
        return msgspec.json.decode(record.value, type=Leader)


class LeadingTests(ReigningTestCase):
    def test_quiet(self) -> None:
        """While all is well nothing is written, and the owner's right is renewed beat by beat."""
        lab = self.lab("d1", "d2")
        first, second = lab.directors.values()
        revision = self.successResultOf(lab.store.list(KEYS.leader())).revision
        lab.run(5.0)
        self.assertEqual(self.successResultOf(lab.store.list(KEYS.leader())).revision, revision)
        self.assertGreater(first.reigning.remaining_s(), 0.3)
        self.assertEqual((first.reigning.leads, second.reigning.leads, second.reigning.term), (True, False, 0))
        self.assertEqual((first.reigning.electors, second.reigning.electors), (("d1", "d2"),) * 2)
        assert second.reigning.known is not None
        self.assertEqual((second.reigning.known.leader.name, second.reigning.known.term), ("d1", first.reigning.term))

    def test_killed(self) -> None:
        """The next one answers after the promise, and no sooner than the fence of the killed one is closed."""
        for names in (("d1", "d2"), ("d1", "d2", "d3")):
            lab = self.lab(*names)
            lab.directors["d1"].kill()
            others = [each for each in lab.directors.values() if each.name != "d1"]
            took = lab.until(lambda others=others: any(each.answers for each in others), 0.6)
            self.assertLessEqual(took, 0.47)
            lab.run(2.0)

    def test_links_cut(self) -> None:
        """The owner beats in the store, and stays."""
        lab = self.lab("d1", "d2")
        lab.links.cut_both("d1", "d2")
        lab.run(3.0)
        self.assertEqual(lab.directors["d1"].told, ["gained"])
        self.assertTrue(lab.directors["d1"].answers)

    def test_store_away(self) -> None:
        """The owner stays by promises."""
        lab = self.lab("d1", "d2")
        lab.store.away = True
        lab.run(30.0)
        self.assertTrue(lab.directors["d1"].answers)
        self.assertEqual(lab.directors["d1"].told, ["gained"])

    def test_deleted(self) -> None:
        """The owner writes the record anew."""
        lab = self.lab("d1", "d2")
        deleted = lab.store.commit([Delete(KEYS.leader()), Delete(KEYS.leader_beat())])
        lab.run(1.0)
        self.successResultOf(deleted)
        self.assertEqual(self.record(lab).kind, "re-created")
        self.assertTrue(lab.directors["d1"].answers)

    def test_fenced(self) -> None:
        """Only the owner writes, and only while its record is as it knows it."""
        lab = self.lab("d1", "d2")
        first, second = (each.reigning for each in lab.directors.values())
        self.failureResultOf(second.fenced([Put("x", b"1")]), NotLeading)
        written = first.fenced([Put("x", b"1")])
        lab.run(0.05)
        self.assertTrue(self.successResultOf(written).succeeded)
        taken = lab.store.commit([Put(KEYS.leader(), b"{}")])
        written = first.fenced([Put("x", b"2")])
        lab.run(0.05)
        self.successResultOf(taken)
        self.assertFalse(self.successResultOf(written).succeeded)
        self.assertFalse(first.leads, "the record is nobody's")
        self.assertIn(KEYS.leader(), first.problems)


class GivingWayTests(ReigningTestCase):
    def test_resigns(self) -> None:
        """The other one answers at once, and the first one does not campaign for as long as it was told."""
        lab = self.lab("d1", "d2")
        first, second = lab.directors.values()
        over = first.reigning.resign(5.0)
        self.assertFalse(first.answers)
        self.assertLess(lab.until(lambda: second.answers, 0.5), 0.05)
        self.successResultOf(over)
        second.kill()
        lab.run(3.0)
        self.assertFalse(first.answers)
        lab.until(lambda: first.answers, 4.0)

    def test_nobody_to_follow(self) -> None:
        """Alone it does not resign."""
        lab = self.lab("d1", "d2")
        lab.directors["d2"].kill()
        lab.run(1.0)
        self.successResultOf(lab.directors["d1"].reigning.resign())
        lab.run(1.0)
        self.assertTrue(lab.directors["d1"].answers)

    def test_stops(self) -> None:
        """It hands over before; a standby's end moves nothing."""
        lab = self.lab("d1", "d2", "d3")
        owner = lab.directors["d1"]
        stopped = owner.reigning.stopService()
        lab.until(lambda: any(lab.directors[each].answers for each in ("d2", "d3")), 0.1)
        self.successResultOf(stopped)
        self.assertEqual(owner.told, ["gained", "lost"])
        heir = next(each for each in lab.directors.values() if each.answers)
        other = next(each for each in lab.directors.values() if each not in (owner, heir))
        self.successResultOf(other.reigning.stopService())
        lab.run(2.0)
        self.assertTrue(heir.answers)

    def test_one_process_at_a_time(self) -> None:
        """R2: before another process of the director takes part this one does not any more; it may go on after all."""
        lab = self.lab("d1", "d2")
        first, second = lab.directors.values()
        gave = Deferred.fromCoroutine(first.reigning.give_way())
        lab.until(lambda: second.answers, 0.1)
        self.successResultOf(gave)
        before = first.reigning._machine.incarnation
        lab.run(1.0)
        first.reigning.go_on()
        first.reigning.go_on()
        self.assertNotEqual(first.reigning._machine.incarnation, before)
        lab.run(1.0)
        second.kill()
        lab.until(lambda: first.answers, 1.0)

    def test_unfit(self) -> None:
        """Whose kernel would not end its answers owns nothing, and does not campaign; another follows."""
        lab = self.lab("d1", "d2")
        first, second = lab.directors.values()
        first.unfit = "no fence"
        lab.until(lambda: second.answers, 1.0)
        self.flushLoggedErrors()
        second.kill()
        lab.run(3.0)
        self.assertFalse(first.answers)
        first.unfit = ""
        lab.until(lambda: first.answers, 1.0)

    def test_a_fence_that_fails(self) -> None:
        """What was to follow is left undone: no promise while the own fence may be open. A loss is told all the same; and
        who was hindered, by whatever it was, takes part again once it is not."""
        for error in (OSError("no such program"), RuntimeError("unforeseen")):
            with self.subTest(error=error):
                lab = self.lab("d1", "d2")
                first, second = lab.directors.values()

                def broken(error: Exception = error) -> None:
                    raise error

                second.reigning.closers.append(broken)
                sent = lab.links.sent
                lab.run(0.2)
                self.assertTrue(first.answers)
                self.assertLess(lab.links.sent - sent, 6, "beats only")
                second.reigning.closers.pop()
                lab.run(0.5)
                first.kill()
                lab.until(lambda second=second: second.answers, 1.0)
                second.reigning.closers.append(broken)
                self.successResultOf(lab.store.commit([Put(KEYS.leader(), b"{}")]))
                lab.run(0.1)
                self.assertEqual(second.told, ["gained", "lost"])
                self.assertEqual({type(each.value) for each in self.flushLoggedErrors()} - {RuntimeError}, set())

    def test_read_before_the_start(self) -> None:
        """R2: what was asked of the store before a start is no sight of it after."""
        lab = self.lab("d1", "d2")
        second = lab.directors["d2"].reigning
        answers: list[Deferred[Any]] = []
        plain = lab.store.list
        lab.store.list = lambda prefix: answers.append(Deferred()) or answers[-1]  # type: ignore[method-assign, func-returns-value]
        second._read()
        lab.run(0.2)
        old = self.successResultOf(plain(KEYS.leader()))
        self.successResultOf(Deferred.fromCoroutine(second.give_way()))
        second.go_on()
        second._watch.stop()  # type: ignore[union-attr]
        answers[0].callback(old)
        lab.run(0.05)
        self.assertFalse(second._machine.has_read())
        lab.store.list = plain  # type: ignore[method-assign]
        lab.run(1.5)  # until the read without an answer is given up
        self.assertTrue(second._machine.has_read())

    def test_other_constants(self) -> None:
        """A director with a shorter promise promises nothing, and says why; the owner stays by the store."""
        lab = self.lab("d1", "d2")
        second = lab.directors["d2"].reigning
        second._timing = Timing.of(0.3)
        lab.run(2.0)
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        self.assertTrue(lab.directors["d1"].answers)

    def test_by_a_lease(self) -> None:
        """A director that leads by leases leaves the record alone, and says what is missing."""
        lab = self.lab("d1", "d2")
        leading = Leading(lab.store, KEYS, director="d3", boot_id="d3", reactor=lab.clock, boottime=lab.clock.seconds)
        leading.startService()
        lab.run(10.0)
        self.assertFalse(leading.leads)
        self.assertIn("promises", leading.problems[KEYS.leader()])
        self.assertTrue(lab.directors["d1"].answers)
