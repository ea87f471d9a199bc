"""Directors that campaign on one store."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import StoreUnavailable
from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Leader
from cluster.store import Delete, Put
from cluster.table import Transaction
from director.ha.leading import Leading, NotLeading

KEYS = Keys("c")


class FailingStore(MemoryStore):
    """A store that can't write while *away*."""

    away = False

    async def _persist(self, transactions: Sequence[Transaction]) -> None:
        if self.away:
            raise StoreUnavailable("away")


class LeadingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FailingStore(clock=self.clock, wall=lambda: 0.0)
        self.successResultOf(self.store.start())

    def director(self, name: str) -> Leading:
        leading = Leading(self.store, KEYS, director=name, boot_id=f"{name}-1", reactor=self.clock,
                          boottime=self.clock.seconds, wall=lambda: 5.0)
        self.told: list[str]
        leading.on_gained.append(lambda term: self.told.append(f"{name} gained"))
        leading.on_lost.append(lambda: self.told.append(f"{name} lost"))
        leading.startService()
        return leading

    def pass_time(self, seconds: float = 0.0) -> None:
        """In small steps, so that leases are renewed."""
        self.clock.pump([0.0] * 5 + [0.05] * round(seconds / 0.05))

    def pair(self) -> tuple[Leading, Leading]:
        self.told = []
        first = self.director("d1")
        self.pass_time()
        second = self.director("d2")
        self.pass_time()
        return first, second

    def recorded(self) -> str | None:
        record = self.successResultOf(self.store.get(KEYS.leader()))
        return None if record is None else msgspec.json.decode(record.value, type=Leader).name


class CampaignTests(LeadingTestCase):
    def test_the_first_leads_and_goes_on(self) -> None:
        """One leads, for as long as it renews; everybody knows who and since which term."""
        first, second = self.pair()
        self.pass_time(10.0)
        self.assertTrue(first.leads)
        self.assertFalse(second.leads)
        self.assertGreater(first.remaining_s(), 1.2)
        assert first.known is not None
        self.assertEqual(first.known, second.known)
        self.assertEqual((first.known.leader, first.known.term),
                         (Leader(name="d1", boot_id="d1-1", since=5.0), first.term))
        self.assertEqual((second.term, self.told), (0, ["d1 gained"]))

    def test_record_without_a_lease(self) -> None:
        """A record that somebody put there without a lease is named and nobody's; it is gone after a lease's time, and then
        somebody leads under a new term. Records that replace it are waited for anew."""
        self.told = []
        for value in (b"\xff", msgspec.json.encode(Leader(name="d9", boot_id="9", since=1.0))):
            put = self.successResultOf(self.store.commit([Put(KEYS.leader(), value)]))
        first = self.director("d1")
        self.pass_time(1.0)
        self.assertIsNone(first.known)
        self.assertIn("no lease", first.problems[KEYS.leader()])
        self.assertFalse(first.leads)
        self.pass_time(1.5)
        self.assertTrue(first.leads)
        self.assertGreater(first.term, put.revision)
        self.assertEqual(first.problems, {})

    def test_leader_overwritten(self) -> None:
        """A leader whose record somebody overwrites stops at once, and nobody follows before its lease has surely ended."""
        first, second = self.pair()
        self.successResultOf(self.store.commit([Put(KEYS.leader(), b"mine")]))
        self.pass_time()
        self.assertFalse(first.leads)
        self.pass_time(first.ttl_s - 0.2)
        self.assertFalse(first.leads or second.leads)
        self.pass_time(1.0)
        self.assertTrue(first.leads or second.leads)

    def test_resigning_hands_over(self) -> None:
        """After an order the other leads at once, with a greater term; the first keeps back, and then stands by."""
        first, second = self.pair()
        term = first.term
        done = first.resign(hold_s=5.0)
        self.pass_time()
        self.successResultOf(done)
        self.assertEqual(self.told, ["d1 gained", "d1 lost", "d2 gained"])
        self.assertGreater(second.term, term)
        self.pass_time(1.0)
        second.resign(hold_s=60.0)
        self.pass_time(3.5)
        self.assertIsNone(self.recorded())
        self.pass_time(1.0)
        self.assertTrue(first.leads)

    def test_stopping_resigns(self) -> None:
        """A stop waits until others can take over, deletes what the leader owned, and leaves nothing running."""
        first, second = self.pair()
        self.successResultOf(first.fenced([Put(KEYS.vip("10.0.0.1"), b"{}")]))
        first.owned.add(KEYS.vip("10.0.0.1"))
        stopped = [leading.stopService() for leading in (second, first)]
        self.pass_time()
        for each in stopped:
            self.successResultOf(each)
        self.assertEqual(self.told, ["d1 gained", "d1 lost"])
        self.assertEqual(self.successResultOf(self.store.list(KEYS.root)).records, ())
        self.successResultOf(self.store.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_while_it_campaigns(self) -> None:
        """A lease that is granted after the stop goes back, and no record stays."""
        self.told = []
        leading = self.director("d1")
        self.successResultOf(leading.stopService())
        self.pass_time(5.0)
        self.assertIsNone(self.recorded())
        self.assertEqual(self.told, [])


class LossTests(LeadingTestCase):
    def test_frozen_leader(self) -> None:
        """A leader that stood still for longer than its lease leads no more, before any timer of its own has run, and
        what it then writes is refused."""
        first, second = self.pair()
        fence_of = first.fenced
        self.clock.rightNow += 2.5
        self.assertFalse(first.leads)
        self.failureResultOf(fence_of([Put("/a", b"")]), NotLeading)
        self.pass_time(0.5)
        self.assertEqual(self.told[:2], ["d1 gained", "d1 lost"])
        self.assertTrue(first.leads or second.leads)

    def test_late_write(self) -> None:
        """A write that was sent while leading and arrives after a take-over changes nothing."""
        first, second = self.pair()
        self.successResultOf(self.store.commit([Delete(KEYS.leader())]))
        self.assertTrue(first.leads, "it does not know yet")
        outcome = self.successResultOf(first.fenced([Put("/a", b"")]))
        self.assertFalse(outcome.succeeded)
        self.assertIsNone(self.successResultOf(self.store.get("/a")))
        self.pass_time(0.5)
        self.assertIn("d1 lost", self.told)
        self.assertTrue(second.leads)
        self.assertFalse(first.leads)

    def test_store_away_at_the_campaign(self) -> None:
        """A store that cannot write is asked again until it can; the campaign of unknown outcome leads nowhere."""
        self.told = []
        self.store.away = True
        leading = self.director("d1")
        self.pass_time(3.0)
        self.assertFalse(leading.leads)
        self.store.away = False
        self.pass_time(2.0)
        self.assertTrue(leading.leads)
        self.assertEqual(self.told, ["d1 gained"])

    def test_store_away_at_the_stop(self) -> None:
        """A stop does not wait long for a store that does not answer."""
        first, _ = self.pair()
        self.store.away = True
        stopped = first.stopService()
        self.pass_time(2.5)
        self.successResultOf(stopped)

    def test_one_follower_fails(self) -> None:
        """What raises when it is told of a change does not keep the next from being told."""
        first, _ = self.pair()
        first.on_lost.insert(0, lambda: 1 / 0)  # type: ignore[arg-type,return-value]
        first.resign()
        self.pass_time()
        self.assertIn("d1 lost", self.told)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class PromiseTests(LeadingTestCase):
    def test_promise(self) -> None:
        """Who promised does not campaign until it is over; who leads promises nothing."""
        first, second = self.pair()
        self.assertFalse(first.promise(6.0))
        self.assertTrue(second.promise(6.0))
        first.resign(hold_s=60.0)
        self.pass_time(5.5)
        self.assertFalse(second.leads)
        self.pass_time(1.0)
        self.assertTrue(second.leads)
