"""Passwords: verified once a minute, throttled by address, never by knowing a name alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cluster.model import User
from director.admin.auth import (
    FAILURE_S,
    FREE_FAILURES,
    MAX_ADDRESSES,
    MAX_VERIFYING,
    MAX_WAITING,
    REMEMBER_S,
    AddressedPassword,
    CallerRealm,
    Foreign,
    PasswordChecker,
    Throttle,
    Throttled,
    is_loopback,
    local_caller,
    verify,
)
from director.admin.control import Caller, Role
from director.admin.gate import Gate
from tests.unit.admin.small_director import HASHER, USERS


def secret(name: str, password: str, address: str = "192.0.2.1") -> AddressedPassword:
    return AddressedPassword(name.encode(), password.encode(), address)


class CheckerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.users: dict[str, User] = dict(USERS)
        self.clock = Clock()
        self.verified = 0
        self.checker = PasswordChecker(lambda: self.users, clock=self.clock, in_thread=self.in_thread)

    def in_thread(self, work: Callable[[], bool]) -> Deferred[bool]:
        self.verified += 1
        return succeed(work())

    def check(self, *who: str) -> object:
        return self.successResultOf(self.checker.requestAvatarId(secret(*who)))

    def refused(self, kind: type[Exception], *who: str) -> Exception:
        error = self.failureResultOf(self.checker.requestAvatarId(secret(*who)), kind).value
        assert isinstance(error, Exception)
        return error

    def test_right_and_wrong(self) -> None:
        """The right password gives the name; a wrong one, another user's and an unknown name are refused alike."""
        self.assertEqual(self.check("ada", "engine"), b"ada")
        for who in (("ada", "Engine"), ("ada", "looking"), ("ada", ""), ("eve", "engine"), ("", "")):
            self.refused(UnauthorizedLogin, *who)

    def test_foreign_authority(self) -> None:
        """Another authority is asked for names that are no user's, and its wrong passwords are throttled like ours."""
        asked: list[bytes] = []

        @implementer(ICredentialsChecker)
        class Directory:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
                asked.append(credentials.username)
                right = credentials.checkPassword(b"compiler")
                return succeed(b"grace") if right else fail(UnauthorizedLogin())

        gate = Gate(lambda: self.users, lambda: False, clock=self.clock, in_thread=self.in_thread,
                    credentials=Foreign(Directory(), Role.FULL))
        self.assertFalse(gate.open)

        def sign_in(name: str, password: str) -> Deferred[Caller]:
            return Deferred.fromCoroutine(gate.sign_in(name.encode(), password.encode(), "192.0.2.1"))

        self.assertEqual(self.successResultOf(sign_in("grace", "compiler")), Caller("grace", Role.FULL, "192.0.2.1"))
        self.failureResultOf(sign_in("ada", "compiler"), UnauthorizedLogin)
        self.assertEqual(asked, [b"grace"])
        for _ in range(FREE_FAILURES - 1):
            self.failureResultOf(sign_in("grace", "wrong"), UnauthorizedLogin)
        self.failureResultOf(sign_in("grace", "wrong"), Throttled)

    def test_unknown_names_cost_the_same(self) -> None:
        """An unknown name is verified against some hash too, so that time does not tell which names exist."""
        self.refused(UnauthorizedLogin, "eve", "engine")
        self.assertEqual(self.verified, 1)

    def test_success_is_remembered_for_a_minute(self) -> None:
        """One verification lets the same password pass for a minute, and no longer; another password never."""
        self.check("ada", "engine")
        self.clock.advance(REMEMBER_S - 1)
        self.check("ada", "engine")
        self.assertEqual(self.verified, 1)
        self.refused(UnauthorizedLogin, "ada", "engines")
        self.clock.advance(1)
        self.check("ada", "engine")
        self.assertEqual(self.verified, 3)

    def test_changed_password_forgets_the_old_one(self) -> None:
        """A password that was changed, or a user who was removed, is out at once."""
        self.check("ada", "engine")
        self.users["ada"] = User(password=HASHER.hash("difference"))
        self.refused(UnauthorizedLogin, "ada", "engine")
        self.check("ada", "difference")
        del self.users["ada"]
        self.refused(UnauthorizedLogin, "ada", "difference")

    def test_guesser_waits(self) -> None:
        """After the free failures an address waits, unverified, even with the right password; others do not."""
        for _ in range(FREE_FAILURES):
            self.refused(UnauthorizedLogin, "ada", "guess")
        verified = self.verified
        error = self.refused(Throttled, "ada", "engine")
        assert isinstance(error, Throttled)
        self.assertTrue(0 < error.wait_s <= FAILURE_S)
        self.assertEqual(self.verified, verified)
        self.check("ada", "engine", "192.0.2.2")
        self.clock.advance(error.wait_s)
        self.check("bob", "looking")

    def test_signed_in_operator_is_not_locked_out(self) -> None:
        """A remembered success passes although a guesser at the same address is throttled."""
        self.check("ada", "engine")
        for _ in range(FREE_FAILURES):
            self.refused(UnauthorizedLogin, "ada", "guess")
        self.refused(Throttled, "ada", "guess")
        self.check("ada", "engine")

    def test_successes_are_free(self) -> None:
        """Any number of right passwords wears nothing."""
        for _ in range(FREE_FAILURES * 3):
            self.clock.advance(REMEMBER_S)
            self.check("ada", "engine")

    def test_verifications_are_bounded(self) -> None:
        """Only so many run and so many wait; the rest are sent away for a moment, not held against their address."""
        running: list[Deferred[bool]] = []

        def slow(work: Callable[[], bool]) -> Deferred[bool]:
            running.append(Deferred())
            return running[-1]

        checker = PasswordChecker(lambda: self.users, clock=self.clock, in_thread=slow)
        started = [checker.requestAvatarId(secret("ada", "engine", f"192.0.2.{number}"))
                   for number in range(MAX_VERIFYING + MAX_WAITING)]
        self.assertEqual(len(running), MAX_VERIFYING)
        self.failureResultOf(checker.requestAvatarId(secret("ada", "engine", "192.0.2.254")), Throttled)
        while running:
            running.pop().callback(True)
        for each in started:
            self.assertEqual(self.successResultOf(each), b"ada")

    def slowly(self) -> tuple[PasswordChecker, list[tuple[Callable[[], bool], Deferred[bool]]]]:
        """A checker, and its verifications under way."""
        running: list[tuple[Callable[[], bool], Deferred[bool]]] = []

        def slow(work: Callable[[], bool]) -> Deferred[bool]:
            running.append((work, Deferred()))
            return running[-1][1]

        return PasswordChecker(lambda: self.users, clock=self.clock, in_thread=slow), running

    def test_many_at_once(self) -> None:
        """A password that an address sends many times at once is verified once; none of them is too many."""
        checker, running = self.slowly()
        for password, kind in (("engine", None), ("wrong", UnauthorizedLogin)):
            asked = [checker.requestAvatarId(secret("ada", password)) for _ in range(24)]
            ((work, waiting),) = running
            running.clear()
            waiting.callback(work())
            for each in asked:
                if kind is None:
                    self.assertEqual(self.successResultOf(each), b"ada")
                else:
                    self.failureResultOf(each, kind)

    def test_right_passwords_are_never_too_many(self) -> None:
        """Right passwords of many users of one address all pass, though more at once than it has attempts; wrong ones
        use them up, and then the address waits."""
        names = [f"user{number}" for number in range(FREE_FAILURES * 3)]
        self.users |= dict.fromkeys(names, USERS["ada"])
        for password, passed in (("engine", len(names)), ("wrong", 0)):
            checker, running = self.slowly()
            asked = [checker.requestAvatarId(secret(name, password)) for name in names]
            verified = 0
            while running:
                work, waiting = running.pop(0)
                verified += 1
                waiting.callback(work())
            outcomes: list[Any] = []
            for each in asked:
                each.addBoth(outcomes.append)
            self.assertEqual((len(outcomes), outcomes.count(names[-1].encode())), (len(names), bool(passed)))
            self.assertEqual(sum(isinstance(each, bytes) for each in outcomes), passed)
            self.assertEqual(verified, passed or FREE_FAILURES)

    def test_a_verification_that_fails(self) -> None:
        """An error of the thread pool reaches all who wait, and the next attempt is verified anew."""
        checker, running = self.slowly()
        asked = [checker.requestAvatarId(secret("ada", "engine")) for _ in range(3)]
        running.pop()[1].errback(OSError())
        for each in asked:
            self.failureResultOf(each, OSError)
        again = checker.requestAvatarId(secret("ada", "engine"))
        running.pop()[1].callback(True)
        self.assertEqual(self.successResultOf(again), b"ada")

    def test_broken_hash(self) -> None:
        """A hash that is none lets nobody in and breaks nothing."""
        self.assertFalse(verify("$argon2id$nonsense", b"x"))
        self.assertFalse(verify("", b""))


class ThrottleTests(SynchronousTestCase):
    def test_bounded(self) -> None:
        """However many addresses fail, only the bound is remembered, the longest silent forgotten first."""
        throttle = Throttle()
        for _ in range(FREE_FAILURES):
            throttle.take("192.0.2.1", 0.0)
        for number in range(MAX_ADDRESSES - 1):
            throttle.take(f"10.0.{number >> 8}.{number & 255}", 0.0)
        self.assertGreater(throttle.take("192.0.2.1", 0.0), 0)
        for number in range(MAX_ADDRESSES):
            throttle.take(f"10.1.{number >> 8}.{number & 255}", 0.0)
        self.assertEqual(throttle.take("192.0.2.1", 0.0), 0)

    def test_ipv6_by_network(self) -> None:
        """Addresses of one /64 are one client."""
        throttle = Throttle()
        for number in range(FREE_FAILURES):
            self.assertEqual(throttle.take(f"2001:db8::{number:x}", 0.0), 0)
        self.assertGreater(throttle.take("2001:db8::ffff", 0.0), 0)
        self.assertEqual(throttle.take("2001:db8:0:1::1", 0.0), 0)


class LocalTests(SynchronousTestCase):
    def test_loopback(self) -> None:
        """Loopback is known by name, by address of either family, mapped or not; a mere likeness is not."""
        for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"):
            self.assertTrue(is_loopback(host), host)
        for host in ("", "localhost.example", "127.0.0.1.example", "192.0.2.1", "::ffff:192.0.2.1", "0.0.0.0"):
            self.assertFalse(is_loopback(host), host)

    def test_unix_clients_are_local(self) -> None:
        """Who can open the UNIX socket is on this machine; the file's permissions say who that is."""
        caller = local_caller(None, b"anything")
        assert caller is not None
        self.assertIs(caller.role, Role.FULL)


class RealmTests(SynchronousTestCase):
    def test_a_user_removed_meanwhile(self) -> None:
        """A user removed between verification and role is refused."""
        realm = CallerRealm(lambda name: None)
        self.assertRaises(UnauthorizedLogin, realm.requestAvatar, b"ada", "192.0.2.1")
