"""When a lease of etcd's promises, for how long, and when it is lost; etcd's answers are the test's."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import StoreUnavailable
from cluster.etcd.leases import PATIENCE, RENEWALS_PER_TTL, EtcdLease

TTL_S = 4.0
EVERY_S = TTL_S / RENEWALS_PER_TTL


class LeaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.drawn = 0.0
        self.slept = 0.0  #: what boot time has and the reactor's clock has not
        self.asked: list[Deferred[float]] = []
        self.lost: list[None] = []
        self.over: list[int] = []
        self.lease = EtcdLease(
            7, TTL_S, self.boottime(), ask=self.ask, end=lambda number: Deferred(), over=self.over.append,
            reactor=self.clock, boottime=self.boottime, random=lambda: self.drawn,
        )
        self.lease.lost.addCallback(self.lost.append)

    def boottime(self) -> float:
        return 1000.0 + self.clock.seconds() + self.slept

    def ask(self, number: int, timeout_s: float) -> Deferred[float]:
        self.assertEqual((number, timeout_s), (7, TTL_S * PATIENCE))
        self.asked.append(Deferred())
        return self.asked[-1]

    def test_counts_from_the_question(self) -> None:
        """An answer promises time from when its question was sent, however late it comes."""
        self.clock.advance(EVERY_S)
        self.clock.advance(0.9)
        self.asked[0].callback(TTL_S)
        self.assertAlmostEqual(self.lease.remaining_s(), TTL_S - 0.9)

    def test_spread(self) -> None:
        """Renewals are not in step with anything: each may come earlier by a fifth of the interval, and never later."""
        self.drawn = 0.999
        self.clock.advance(EVERY_S)  # the first was drawn before
        for count in (2, 3):
            self.clock.advance(EVERY_S * 0.79)
            self.assertEqual(len(self.asked), count - 1)
            self.clock.advance(EVERY_S * 0.02)
            self.assertEqual(len(self.asked), count)

    def test_short(self) -> None:
        """A lease of a second is renewed eight times in its life."""
        asked: list[int] = []

        def ask(number: int, timeout_s: float) -> Deferred[float]:
            asked.append(number)
            return succeed(1.0)

        EtcdLease(8, 1.0, self.boottime(), ask=ask, end=lambda number: Deferred(), over=self.over.append,
                  reactor=self.clock, boottime=self.boottime, random=lambda: 0.0)
        self.clock.pump([0.125] * 8)
        self.assertEqual(asked, [8] * 8)

    def test_late_answer_takes_nothing_back(self) -> None:
        """Answers out of order leave the latest promise in force."""
        self.clock.advance(EVERY_S)
        self.clock.advance(EVERY_S)
        first, second = self.asked
        second.callback(TTL_S)
        first.callback(TTL_S)
        self.assertAlmostEqual(self.lease.remaining_s(), TTL_S)

    def test_renewed_for_ever(self) -> None:
        """While etcd answers the lease lives on; two in a row may be missing."""
        for n in range(40):
            self.clock.advance(EVERY_S)
            if n % 3 == 2:
                self.asked[-1].callback(TTL_S)
            self.assertGreater(self.lease.remaining_s(), 0.0)
        self.assertEqual((self.lost, self.over), ([], []))

    def test_lost_at_the_deadline(self) -> None:
        """Without an answer the lease is lost when its promise ends, not before; a late answer changes nothing."""
        for _ in range(RENEWALS_PER_TTL):
            self.assertEqual(self.lost, [])
            self.clock.advance(EVERY_S)
        self.assertEqual((self.lost, self.over, self.lease.remaining_s()), ([None], [7], 0.0))
        self.asked[-1].callback(TTL_S)
        self.assertEqual(self.lease.remaining_s(), 0.0)
        asked = len(self.asked)
        self.clock.pump([EVERY_S] * 8)
        self.assertEqual((len(self.asked), self.lost), (asked, [None]))

    def test_lost_in_sleep(self) -> None:
        """A machine that slept for too long finds its lease lost, though its reactor saw no time pass."""
        self.slept = TTL_S
        self.assertEqual(self.lease.remaining_s(), 0.0)
        self.clock.advance(EVERY_S)
        self.assertEqual((self.lost, self.asked), ([None], []))

    def test_lost_by_answer(self) -> None:
        """etcd's answer that there is no such lease is believed at once."""
        self.clock.advance(EVERY_S)
        self.asked[0].callback(0.0)
        self.assertEqual((self.lost, self.lease.remaining_s()), ([None], 0.0))

    def test_slow_failure_is_tried_again_at_once(self) -> None:
        """When an endpoint let the question time out the next one is asked at once; quick refusals wait their turn."""
        self.clock.advance(EVERY_S)
        self.asked[0].errback(StoreUnavailable("refused"))
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(EVERY_S)
        self.clock.advance(EVERY_S)
        self.clock.advance(0.1)
        self.asked[1].errback(StoreUnavailable("timed out"))
        self.assertEqual(len(self.asked), 4)

    def test_revoked(self) -> None:
        """A revoked lease promises nothing, asks nothing and is never lost; revoking it again does nothing."""
        self.clock.advance(EVERY_S)
        self.assertNoResult(self.lease.revoke())
        self.successResultOf(self.lease.revoke())
        self.asked[0].callback(0.0)
        self.clock.pump([EVERY_S] * 8)
        self.assertEqual((self.lost, self.over, len(self.asked), self.lease.remaining_s()), ([], [7], 1, 0.0))
