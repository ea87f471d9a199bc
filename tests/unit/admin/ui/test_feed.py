"""The stream of events: what viewers are sent and when, and what it may cost."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import HostRef
from director.admin.ui import feed as feeding
from director.admin.ui.cells import LINE_SAMPLES, LINE_STEP_S
from director.admin.ui.feed import LOOK_S, MAX_OF_BROWSER, MAX_VIEWERS, PING_S
from director.admin.ui.sessions import IDLE_S
from tests.unit.admin.small_director import USERS, Admin
from tests.unit.admin.visit import Visitor

APP1 = HostRef("web", "blue", "app1")


class Stream:
    """An open connection that was answered with events."""

    def __init__(self, transport: StringTransport) -> None:
        self.transport = transport
        self.head, _, rest = transport.value().partition(b"\r\n\r\n")
        self._read = len(transport.value()) - len(rest)

    @property
    def ended(self) -> bool:
        return self.transport.value().endswith(b"0\r\n\r\n")

    def read(self) -> list[str]:
        """The events, or comments, since the last call."""
        wire = self.transport.value()[self._read :]
        self._read += len(wire)
        body = b""
        while wire:
            size, _, wire = wire.partition(b"\r\n")
            body += wire[: int(size, 16)]
            wire = wire[int(size, 16) + 2 :]
        return [event for event in body.decode().split("\n\n") if event and not event.startswith("retry")]

    def cells(self) -> list[dict[str, Any]]:
        return [json.loads(event.removeprefix("data: ")) for event in self.read() if event.startswith("data: ")]


class FeedCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.users = dict(USERS)
        self.admin = Admin(self.users)
        self.visitor = Visitor(self.admin)
        self.visitor.sign_in()
        self.admin.feed.startService()
        self.addCleanup(lambda: self.admin.feed.running and self.admin.feed.stopService())

    def watch(self, scope: str = "", visitor: Visitor | None = None) -> Stream:
        cookies = "; ".join(f"{name}={value}" for name, value in (visitor or self.visitor).cookies.items())
        wire = f"GET /events?scope={scope} HTTP/1.1\r\nHost: 127.0.0.1:7401\r\nCookie: {cookies}\r\n\r\n"
        return Stream(self.admin.connect(wire.encode()))

    def weigh(self, weight: float) -> None:
        hosts = self.admin.director.hosts
        hosts[APP1] = msgspec.structs.replace(hosts[APP1], weight=weight)
        self.admin.clock.advance(LOOK_S)


class StreamTests(FeedCase):
    def test_everything_then_what_changed(self) -> None:
        """A viewer is sent all cells at once, then only those that changed."""
        stream = self.watch()
        self.assertIn(b"text/event-stream", stream.head)
        (everything,) = stream.cells()
        self.assertEqual(everything["web/blue/app1:weight"], "1.00")
        self.assertEqual(everything["web/blue/app1:state"], ["up", "up"])
        self.weigh(0.5)
        self.assertEqual(stream.cells(), [{"web/blue/app1:weight": "0.50"}])
        self.admin.clock.advance(LOOK_S)
        self.assertEqual(stream.cells(), [])

    def test_scope(self) -> None:
        """A host's page hears of that host and of the director's modes."""
        stream = self.watch("mail/all/mx")
        self.assertEqual({key.partition(":")[0] for key in stream.cells()[0]}, {"", "mail/all/mx"})
        self.weigh(0.5)
        self.assertEqual(stream.cells(), [])

    def test_every_viewer(self) -> None:
        """One look serves all; who comes later is sent everything, the others only news."""
        first = self.watch()
        first.read()
        second = self.watch()
        self.assertEqual((len(first.cells()), len(second.cells())), (0, 1))
        self.weigh(0.25)
        self.assertEqual(first.cells(), second.cells())

    def test_slow_readers(self) -> None:
        """Nothing is queued for a viewer that does not read; when it does again, it is sent the state of then."""
        stream = self.watch()
        stream.read()
        producer: Any = stream.transport.producer
        producer.pauseProducing()
        for weight in (0.9, 0.8, 0.7):
            self.weigh(weight)
        self.assertEqual(stream.read(), [])
        producer.resumeProducing()
        self.admin.clock.advance(LOOK_S)
        (everything,) = stream.cells()
        self.assertEqual((everything["web/blue/app1:weight"], len(everything) > 20), ("0.70", True))

    def test_pings(self) -> None:
        """A stream without news is not silent for longer than `PING_S`."""
        stream = self.watch()
        for _ in range(int(LINE_SAMPLES * LINE_STEP_S)):  # from then on a steady load is a steady line
            self.admin.clock.advance(1)
        stream.read()
        for _ in range(3 * int(PING_S / LOOK_S)):
            self.admin.clock.advance(LOOK_S)
        self.assertEqual(stream.read(), [":"] * 3)


class OneViewersErrorTests(FeedCase):
    def test_numbers_in_scopes(self) -> None:
        """Whatever number a scope names, its viewer is answered and the others are sent their news."""
        other = self.watch()
        self.patch(feeding, "MAX_OF_BROWSER", 10)
        streams = [self.watch(f"web/blue%23{number}") for number in ("9" * 5000, "0", "-1", "", "%D9%A1", "1e9", "x")]
        for stream in streams:
            self.assertFalse(stream.ended)
            self.assertEqual(len(stream.cells()), 1)
        other.read()
        self.weigh(0.5)
        self.assertEqual(len(other.cells()), 1)

    def test_is_his_own(self) -> None:
        """A viewer whose cells cannot be made, or that cannot be written to, is let go; the others see all news."""
        first = self.watch()
        look = feeding.shown

        def shown(picture: Any, scope: str) -> Any:
            if scope == "odd":
                raise ValueError(scope)
            return look(picture, scope)

        self.patch(feeding, "shown", shown)
        odd = self.watch("odd")
        last = self.watch()
        self.assertEqual((odd.ended, first.ended, last.ended), (True, False, False))
        last.read()
        self.weigh(0.5)
        self.assertEqual((len(first.cells()), len(last.cells())), (2, 1))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_page_opened_without_a_password(self) -> None:
        """Once there are users, a stream that needed none ends."""
        admin = self.admin = Admin(accounts := {})
        admin.feed.startService()
        stream = self.watch(visitor=Visitor(admin))
        self.assertFalse(stream.ended)
        accounts.update(USERS)
        admin.clock.advance(LOOK_S)
        self.assertTrue(stream.ended)


class EndTests(FeedCase):
    def test_needs_a_session(self) -> None:
        """Strangers and other methods get no events."""
        stream = self.watch(visitor=Visitor(self.admin))
        self.assertIn(b" 403 ", stream.head)
        self.assertNotIn(b"app1", stream.transport.value())
        self.assertEqual(self.visitor.post("/events", {}).status, 405)

    def test_head(self) -> None:
        """Who asks for the head alone has it, and watches nothing."""
        answer = self.visitor._ask("HEAD", "/events", b"", {})
        self.assertEqual((answer.status, answer.headers["Content-Type"], answer.body), (200, "text/event-stream", b""))
        self.assertEqual(self.admin.feed._viewers, set())

    def test_ends_with_the_session(self) -> None:
        """Signing out, or the user's removal, ends streams that are open."""
        stream = self.watch()
        self.visitor.send(self.visitor.page("/"), "/sign-out")
        self.admin.clock.advance(LOOK_S)
        self.assertTrue(stream.ended)
        self.visitor.sign_in()
        stream = self.watch()
        del self.users["ada"]
        self.admin.clock.advance(LOOK_S)
        self.assertTrue(stream.ended)

    def test_watching_is_use(self) -> None:
        """A session whose page is open and live does not expire for idleness."""
        self.watch()
        for _ in range(3):
            self.admin.clock.pump([IDLE_S / 10] * 10)
        self.assertEqual(self.visitor.get("/").status, 200)

    def test_ends_with_the_director(self) -> None:
        """A stop ends all streams, so that connections do not hold it up."""
        stream = self.watch()
        self.admin.feed.stopService()
        self.assertTrue(stream.ended)
        self.patch(self.admin.director, "picture", lambda: self.fail("still looking"))
        self.admin.clock.advance(60)

    def test_left(self) -> None:
        """A viewer that closes its connection is forgotten."""
        self.patch(feeding, "MAX_VIEWERS", 1)
        self.watch()
        channel = self.admin.channel
        self.assertIn(b" 503 ", self.watch().head)
        channel.connectionLost(Failure(ConnectionLost()))
        self.assertIn(b" 200 ", self.watch().head)


class CostTests(FeedCase):
    def looks(self, seconds: float, took_s: float = 0.0) -> int:
        """How often the director is looked at within a time, when a look takes *took_s*."""
        counted = []
        look = self.admin.director.picture

        def picture() -> Any:
            counted.append(None)
            self.admin.clock.rightNow += took_s
            return look()

        self.patch(self.admin.director, "picture", picture)
        end = self.admin.clock.seconds() + seconds
        while self.admin.clock.seconds() < end:
            self.admin.clock.advance(0.25)
        return len(counted)

    def test_seldom_unwatched(self) -> None:
        """Without viewers a look at each step of the load lines is all; with one, a look a second."""
        self.assertIn(self.looks(60), (12, 13))
        self.watch()
        self.assertIn(self.looks(60), range(59, 63))

    def test_a_hundredth_at_most(self) -> None:
        """When a look takes long, for many hosts, there are fewer: a hundredth of the time at most."""
        self.watch()
        self.assertLessEqual(self.looks(120, took_s=0.2), 7)

    def test_a_browser_has_few(self) -> None:
        """Of one browser three pages are live, so that its other windows can be loaded; another browser has its own,
        and a page that is closed makes room."""
        self.watch()
        channel = self.admin.channel
        for _ in range(MAX_OF_BROWSER - 1):
            self.assertIn(b" 200 ", self.watch().head)
        self.assertIn(b" 503 ", self.watch().head)
        other = Visitor(self.admin)
        other.sign_in("bob", "looking")
        self.assertIn(b" 200 ", self.watch(visitor=other).head)
        channel.connectionLost(Failure(ConnectionLost()))
        self.assertIn(b" 200 ", self.watch().head)

    def test_bounded_viewers(self) -> None:
        """Beyond `MAX_VIEWERS` a page is told to reload itself instead."""
        self.patch(feeding, "MAX_VIEWERS", 2)
        self.assertGreater(MAX_VIEWERS, 2)
        self.watch()
        self.watch()
        self.assertIn(b" 503 ", self.watch().head)
