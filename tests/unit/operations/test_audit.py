"""The shared audit, on an embedded store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import StoreUnavailable
from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.store import Changes, Committed, Compare, Operation, Put, Record
from director.admin.control import Audit, Caller, Role
from director.operations import audit as module
from director.operations.audit import MAX_WAITING, AuditTrail
from director.operations.refusals import MOST, WINDOW_S

ADA = Caller("ada", Role.FULL, "192.0.2.9")


class LooseStore(MemoryStore):
    """May be away, or slow.

    :ivar slow: commits that wait to be let through, once it is a list.
    """

    away = False
    slow: list[Deferred[None]] | None = None

    def commit(self, operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
        if self.away:
            return fail(StoreUnavailable("no answer in 2 s"))
        if self.slow is None:
            return super().commit(operations, when=when)
        self.slow.append(Deferred())
        return self.slow[-1].addCallback(lambda _: MemoryStore.commit(self, operations, when=when))


class AuditTrailTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.now = 1000.0
        self.refused: list[None] = []
        self.store = LooseStore(clock=self.clock, wall=lambda: self.now)
        self.successResultOf(self.store.start())
        self.trail = self.begin("one")

    def begin(self, director: str) -> AuditTrail:
        trail = AuditTrail(self.store, Keys("test"), director=director, wall=lambda: self.now, monotonic=lambda: self.now,
                           refused=lambda: self.refused.append(None))
        trail.startService()
        self.turn()
        return trail

    def turn(self) -> None:
        for _ in range(20):
            self.clock.advance(0)

    def record(self, operation: str = "weight", *, trail: AuditTrail | None = None) -> None:
        (trail or self.trail).record(Audit(ADA, operation, {"weight": 2.0}, "ok"))
        self.turn()

    def refuse(self, who: str = "bob") -> None:
        outcome = "Forbidden: weight needs the role 'full'"
        self.trail.record(Audit(Caller(who, Role.READONLY, "192.0.2.8"), "weight", {"weight": 2.0}, outcome, True))

    def test_strange_keys(self) -> None:
        """Keys of somebody else's under the audit, which no director could delete, don't keep its own from being deleted."""
        self.patch(module, "KEPT", 30)
        self.patch(module, "BATCH", 10)
        prefix = Keys("test").audits()
        strange = tuple(Record(f"{prefix}\udcff{number}", b"\xff", 1, 1) for number in range(12))
        self.trail._heard(Changes(strange, (), 1))
        for number in range(75):
            self.now += 1
            self.record(f"change{number}")
            self.turn()
        kept = self.successResultOf(self.store.list(prefix)).records
        self.assertLessEqual(len(kept), 40)
        self.assertEqual(len(self.trail.problems), 12)
        msgspec.json.encode(self.trail.problems)

    def test_refusals_are_few(self) -> None:
        """Any number of refusals of one caller are ten entries a minute, and the next tells how many were left out."""
        lines: list[Any] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        for _ in range(10_300):
            self.refuse()
        self.turn()
        self.refuse("eve")
        self.turn()
        self.assertEqual((len(self.trail.newest(100)), len(self.refused), len(lines)), (MOST + 1, 10_301, MOST + 1))
        self.now += WINDOW_S
        self.refuse()
        self.turn()
        self.assertEqual(self.trail.newest(1)[0].left_out, 10_300 - MOST)

    def test_refusals_go_first(self) -> None:
        """Refusals, however many, push out none of what was done; what was done pushes out refusals, and then itself."""
        for name, value in (("KEPT", 20), ("KEPT_REFUSED", 10), ("BATCH", 5)):
            self.patch(module, name, value)
        self.record("order")
        for number in range(100):
            self.now += 1
            self.refuse(f"reader{number}")
            self.turn()
        kept = self.trail.newest(100)
        self.assertIn("order", [entry.operation for entry in kept])
        self.assertLessEqual(sum(entry.refused for entry in kept), 15)
        fresh = self.begin("two")
        for _ in range(14):
            self.now += 1
            self.record("retry", trail=fresh)
        kept = fresh.newest(100)
        self.assertEqual(sum(not entry.refused for entry in kept), 15)
        self.assertLessEqual(len(kept), 25)

    def test_refusals_leave_room(self) -> None:
        """While the store is slow, what was done still has its place."""
        self.store.slow = []
        for number in range(200):
            self.now += 0.001
            self.refuse(f"reader{number}")
        self.now += 0.001
        self.record("order")
        while self.store.slow:
            self.store.slow.pop(0).callback(None)
            self.turn()
        self.assertIn("order", [entry.operation for entry in self.trail.newest(1000)])

    def test_entry(self) -> None:
        """An entry tells who, when, from where, at which director, what, and the outcome."""
        self.record()
        (entry,) = self.trail.newest(10)
        self.assertEqual(
            (entry.who, entry.at, entry.origin, entry.director, entry.operation, entry.arguments, entry.outcome),
            ("ada", 1000.0, "192.0.2.9", "one", "weight", {"weight": 2.0}, "ok"),
        )

    def test_shared_and_in_order(self) -> None:
        """Two directors see each other's entries, the newest first, even those of one microsecond."""
        other = self.begin("two")
        self.record("order")
        self.record("weight", trail=other)
        self.now += 1
        self.record("retry")
        for trail in (self.trail, other):
            self.assertEqual([entry.operation for entry in trail.newest(10)], ["retry", "weight", "order"])
        self.assertEqual([entry.operation for entry in other.newest(1)], ["retry"])

    def test_bounded(self) -> None:
        """The newest are kept, and the oldest deleted a batch at a time."""
        self.patch(module, "KEPT", 30)
        self.patch(module, "BATCH", 10)
        for number in range(75):
            self.now += 1
            self.record(f"change{number}")
        kept = self.successResultOf(self.store.list(Keys("test").audits())).records
        self.assertEqual(len(kept), 35)
        self.assertEqual(len(self.trail.newest(100)), 35)
        self.assertEqual(self.trail.newest(100)[0].operation, "change74")

    def test_clock_set_back(self) -> None:
        """What was done last is the newest though the clock says that it was before; and is the last to be deleted."""
        self.patch(module, "KEPT", 30)
        self.patch(module, "BATCH", 10)
        self.now = 1e9
        for number in range(75):
            self.now -= 3600
            self.record(f"change{number}")
        self.assertEqual([entry.operation for entry in self.trail.newest(2)], ["change74", "change73"])
        self.assertEqual(self.begin("two").newest(100), self.trail.newest(100))
        self.assertEqual(len(self.trail.newest(100)), 35)

    def test_store_away(self) -> None:
        """While the store is away an entry is in the log, and the next one is written when it is back."""
        self.store.away = True
        self.record()
        self.store.away = False
        self.record("order")
        self.assertEqual([entry.operation for entry in self.trail.newest(10)], ["order"])

    def test_slow_store(self) -> None:
        """What waits for a slow store is bounded, and written before the director stops."""
        self.store.slow = []
        for _ in range(MAX_WAITING + 50):
            self.record()
        stopped = self.trail.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        while self.store.slow:
            self.store.slow.pop().callback(None)
        self.successResultOf(stopped)
        written = self.successResultOf(self.store.list(Keys("test").audits())).records
        self.assertLessEqual(len(written), MAX_WAITING + 1)
        self.assertGreater(len(written), 0)

    def test_garbage(self) -> None:
        """A record that is no entry hides no other."""
        self.successResultOf(self.store.commit([Put(Keys("test").audit(1), b"{")]))
        self.record()
        self.assertEqual(len(self.trail.newest(10)), 1)
