"""A director among the living: one to a name, and its record there as long as it lives."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Member
from cluster.store import Compare, Delete, Put
from director.ha.membership import CLAIM_MARGIN_S, RETRY_S, TTL_S, Membership, NameTaken
from director.ha.whereabouts import has_ended, whereabouts

KEYS = Keys("test")
KEY = KEYS.director("one")
HERE = whereabouts()
#: This machine's, of a process that is no more.
ENDED = HERE.rsplit("/", 1)[0] + "/1"


class MembershipTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock, wall=lambda: 0.0)
        self.successResultOf(self.store.start())

    def pass_time(self, seconds: float = 0.0) -> None:
        self.clock.pump([0.0] * 8 + [0.05] * round(seconds / 0.05) + [0.0] * 8)

    def member(self, boot: str, *, process: str = "") -> Membership:
        member = Member(name="one", boot_id=boot, version="1", started=0.0, admin=("192.0.2.1:7401",), process=process)
        return Membership(self.store, KEYS, member, reactor=self.clock)

    def claim(self, membership: Membership) -> Deferred[None]:
        claimed = Deferred.fromCoroutine(membership.claim())
        self.pass_time()
        return claimed

    def start(self, membership: Membership) -> None:
        membership.startService()
        self.addCleanup(membership.stopService)
        self.pass_time()

    def owner(self) -> str | None:
        record = self.successResultOf(self.store.get(KEY))
        return None if record is None else msgspec.json.decode(record.value, type=Member).boot_id

    def fenced(self, membership: Membership) -> bool:
        """Whether it may write under its name."""
        return self.successResultOf(self.store.commit([Put("/x", b"")], when=[membership.fence()])).succeeded

    def test_lives(self) -> None:
        """The name of a director that certainly lives is refused at once, in a sentence that says where it is."""
        first = self.member("a", process=HERE)
        self.start(first)
        failure = self.failureResultOf(self.claim(self.member("b", process=HERE)), NameTaken)
        self.assertIn("192.0.2.1:7401", str(failure.value))
        self.assertEqual((self.owner(), self.fenced(first)), ("a", True))

    def test_may_live(self) -> None:
        """One that may live is waited for until its record must have lapsed: then the name is had, or refused."""
        for ends in (True, False):
            first = self.member("a")
            self.start(first)
            second = self.member("b")
            claimed = self.claim(second)
            self.assertNoResult(claimed)
            if ends:
                first.stopService()
                self.pass_time(RETRY_S)
                self.successResultOf(claimed)
                self.assertEqual((self.owner(), self.fenced(second), self.fenced(first)), ("b", True, False))
                self.start(second)
                second.stopService()
                self.pass_time()
            else:
                self.pass_time(TTL_S + CLAIM_MARGIN_S + RETRY_S)
                self.failureResultOf(claimed, NameTaken)
                self.assertEqual(self.owner(), "a")

    def test_ended(self) -> None:
        """What a killed process left is replaced at once, and what it left under way no longer counts."""
        first = self.member("a", process=ENDED)
        self.start(first)
        second = self.member("b", process=HERE)
        self.successResultOf(self.claim(second))
        self.assertEqual((self.owner(), self.fenced(second), self.fenced(first)), ("b", True, False))

    def test_at_once(self) -> None:
        """Of two that start together one has the name."""
        both = [self.member(boot, process=HERE) for boot in "ab"]
        claims = [Deferred.fromCoroutine(each.claim()) for each in both]
        self.pass_time(2 * RETRY_S)
        outcomes: list[object] = []
        for claim in claims:
            claim.addBoth(outcomes.append)
        self.assertEqual(sum(outcome is None for outcome in outcomes), 1)

    def test_written_again(self) -> None:
        """A record that somebody deleted is written again, under the same lease; one that another wrote over is not
        fought for, but had again once it is gone."""
        first = self.member("a", process=HERE)
        leases: list[object] = []
        first.on_lease.append(leases.append)
        self.start(first)
        self.successResultOf(self.store.commit([Delete(KEY)]))
        self.pass_time()
        self.assertEqual((self.owner(), self.fenced(first), len(leases)), ("a", True, 1))
        rival = Member(name="one", boot_id="b", version="1", started=0.0)
        self.successResultOf(self.store.commit([Put(KEY, msgspec.json.encode(rival))]))
        self.pass_time(3)
        self.assertEqual((self.owner(), self.fenced(first)), ("b", False))
        self.successResultOf(self.store.commit([Delete(KEY)]))
        self.pass_time(2 * RETRY_S)
        self.assertEqual((self.owner(), self.fenced(first)), ("a", True))

    def test_fence_before(self) -> None:
        """Nothing is written under a name that was not had yet."""
        self.assertFalse(self.fenced(self.member("a")))
        self.assertIsInstance(self.member("a").fence(), Compare)


class WhereaboutsTests(SynchronousTestCase):
    def test_ended(self) -> None:
        """This process lives, one of another start or number has ended, and of other machines nothing is known."""
        machine, _, rest = HERE.partition("/")
        self.assertIs(has_ended(HERE), False)
        self.assertIs(has_ended(ENDED), True)
        self.assertIs(has_ended(HERE.rsplit("/", 2)[0] + "/999999999/1"), True)
        for unknown in ("", "x", "/", machine, f"elsewhere/{rest}", f"{machine}/pid:[1]/1/1", f"{machine}/x/y/z"):
            self.assertIsNone(has_ended(unknown), unknown)
