"""Users of three sources, and changes of those in the store."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import User
from cluster.store import Delete, Operation, Put
from director.admin.auth import verify
from director.admin.userbook import SOURCES, UserBook
from director.engine.errors import Conflict, Invalid, NotFound
from director.engine.swapping import Swapping
from director.engine.sync import Applies, Sync
from director.operations import users as user_changes
from director.operations.users import UserChanges
from tests.unit.admin.small_director import HASHER

ADA = User(password=HASHER.hash("engine"), role="full")
BOB = User(password=HASHER.hash("looking"))


class UserBookTests(SynchronousTestCase):
    def test_order_of_sources(self) -> None:
        """The node's file goes before htpasswd, and that before the store; what hid a user gone, it is there again."""
        book = UserBook({"ada": ADA})
        book.set_stored("ada", BOB)
        book.replace("htpasswd", {"ada": BOB, "bob": BOB})
        self.assertEqual((book.users, book.source("ada"), book.source("bob")),
                         ({"ada": ADA, "bob": BOB}, "configuration", "htpasswd"))
        book.replace("configuration", {})
        self.assertEqual((book.users["ada"], book.source("ada")), (BOB, "htpasswd"))
        book.replace("htpasswd", {})
        self.assertEqual((book.users, book.source("bob")), ({"ada": BOB}, None))
        book.set_stored("ada", None)
        self.assertEqual(book.users, {})

    def test_no_users_now(self) -> None:
        """Passwords stay needed when any source runs dry, and where users were meant to be; never where none were."""
        self.assertFalse(UserBook().required)
        self.assertTrue(UserBook(required=True).required)
        books = [UserBook({"ada": ADA}), UserBook(), UserBook()]
        books[1].replace("htpasswd", {"ada": ADA})
        books[2].set_stored("ada", ADA)
        for book in books:
            for source in SOURCES:
                book.replace(source, {})
            self.assertEqual((book.users, book.required), ({}, True))


class _Nothing:
    """Takes services and hosts, of which there are none here."""

    def drop_local_orders(self) -> None: ...


class UserChangesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(user_changes, "PasswordHasher", lambda: HASHER)
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock, wall=lambda: 0.0)
        self.successResultOf(self.store.start())
        self.book, self.changes = self.director()

    def director(self, **users: User) -> tuple[UserBook, UserChanges]:
        """A director's users and changes, on the shared store."""
        book = UserBook(users)
        sync = Sync(self.store, Keys("test"), cast(Applies, _Nothing()), book.set_stored, user_unreadable=book.require)
        sync.startService()
        sync.follow()
        self.addCleanup(sync.stopService)
        self.turn()

        def in_thread(work: Callable[[], Any]) -> Deferred[Any]:
            return succeed(work())

        return book, UserChanges(book, Swapping(self.store, sync, reactor=self.clock), Keys("test"), in_thread=in_thread)

    def turn(self) -> None:
        for _ in range(10):
            self.clock.advance(0)

    def put(self, name: str, password: str | None, role: Any = "full", changes: UserChanges | None = None) -> None:
        self.done((changes or self.changes).put(name, password, role))

    def delete(self, name: str) -> None:
        self.done(self.changes.delete(name))

    def done(self, work: Coroutine[Any, Any, None]) -> None:
        """Raises what *work* raised."""
        answer = Deferred.fromCoroutine(work)
        self.turn()
        outcome: list[Any] = []
        answer.addBoth(outcome.append)
        (result,) = outcome
        if isinstance(result, Failure):
            result.raiseException()

    def test_at_once_everywhere(self) -> None:
        """A user that one director took is in force there when that is answered, and at the others by the watch."""
        other, _ = self.director()
        self.put("ada", "analytical")
        for book in (self.book, other):
            self.assertTrue(verify(book.users["ada"].password, b"analytical"))
        self.put("bob", "looking on", "readonly")
        self.delete("bob")
        self.assertEqual((set(self.book.users), set(other.users)), ({"ada"}, {"ada"}))

    def test_role_alone(self) -> None:
        """Without a password the old one stays; a new user needs one."""
        self.put("ada", "analytical")
        self.put("bob", "looking on", "readonly")
        self.put("bob", None, "full")
        self.assertEqual(self.book.users["bob"].role, "full")
        self.assertTrue(verify(self.book.users["bob"].password, b"looking on"))
        self.assertRaises(Invalid, self.put, "eve", None)

    def test_lock_out(self) -> None:
        """Nothing is done that leaves nobody with the full role, nor anybody to sign in."""
        self.assertRaises(Conflict, self.put, "bob", "looking on", "readonly")
        self.put("ada", "analytical")
        self.put("bob", "looking on", "readonly")
        self.assertRaises(Conflict, self.delete, "ada")
        self.assertRaises(Conflict, self.put, "ada", None, "readonly")
        self.delete("bob")
        self.assertRaises(Conflict, self.delete, "ada")
        self.assertEqual(set(self.book.users), {"ada"})

    def test_users_that_vanish(self) -> None:
        """Users that go from the store behind our back, or that cannot be read, leave passwords needed."""
        self.assertFalse(self.book.required)
        self.put("ada", "analytical")
        self.commit(Delete(Keys("test").user("ada")))
        self.assertEqual((self.book.users, self.book.required), ({}, True))
        self.commit(Put(Keys("test").user("bob"), b"{"))
        fresh, _ = self.director()
        self.assertEqual((fresh.users, fresh.required), ({}, True))

    def commit(self, operation: Operation) -> None:
        self.successResultOf(self.store.commit([operation]))
        self.turn()

    def test_other_sources(self) -> None:
        """Users of a file are changed in the file."""
        book, changes = self.director(ada=ADA)
        book.replace("htpasswd", {"bob": BOB})
        for name in ("ada", "bob"):
            self.assertRaises(Conflict, self.put, name, "difference", changes=changes)
            self.failureResultOf(Deferred.fromCoroutine(changes.delete(name)), Conflict)
        self.assertEqual([(user.name, user.source) for user in changes.listed()],
                         [("ada", "configuration"), ("bob", "htpasswd")])
        self.assertRaises(NotFound, self.delete, "eve")
