"""What is let in before any page sees it, at every door that takes bodies: refused is refused."""

from __future__ import annotations

import hashlib
import io
import json
import xmlrpc.client
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Any, NamedTuple
from urllib.parse import urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import AdminState, HostRef, Identity
from director.admin.auth import REMEMBER_S
from director.admin.intake import FREE_BODY_BYTES, IDLE_S, LINGER_S, MAX_BODY_BYTES
from director.reports.http import ReportResource
from director.reports.roster import Roster
from tests.unit.admin.small_director import Admin, _Wire, basic
from tests.unit.admin.visit import Visitor
from tests.unit.reports.agent_sink import RecordingSink

APP1 = HostRef("web", "blue", "app1")
HOST = "/api/v1/services/web/groups/blue/hosts/app1"
ORDER = {"service": "web", "group": "blue", "host": "app1", "state": "down", "why": "kernel"}
JSON, XML, FORM = "application/json", "text/xml", "application/x-www-form-urlencoded"


class Door(NamedTuple):
    """A request that changes something.

    :ivar most: bytes of a body that it takes."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    most: int

    def head(self, *lines: str) -> bytes:
        sent = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1:7401",
                *(f"{name}: {value}" for name, value in self.headers.items()), *lines]
        return "\r\n".join(sent).encode() + b"\r\n\r\n"

    def whole(self) -> bytes:
        return self.head(f"Content-Length: {len(self.body)}") + self.body

    def padded(self, size: int) -> bytes:
        """The body, and white space, which none of the formats minds."""
        return self.body + (b"+" if self.headers["Content-Type"] == FORM else b" ") * (size - len(self.body))


def chunked(body: bytes, size: int = 0x4000) -> bytes:
    """All chunks but the last, empty one."""
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


END = b"0\r\n\r\n"


def answers(wire: bytes) -> list[int]:
    """The statuses of all answers in *wire*, which holds nothing else."""
    source = io.BytesIO(wire)
    source.close, kept = lambda: None, source.close  # type: ignore[method-assign]
    found = []
    while source.tell() < len(wire):
        response = HTTPResponse(_Open(source))  # type: ignore[arg-type]
        response.begin()
        response.read()
        found.append(response.status)
    kept()
    return found


class _Open(_Wire):
    """Several answers on one connection."""

    def __init__(self, source: io.BytesIO) -> None:
        self.source = source

    def makefile(self, mode: str) -> io.BytesIO:
        return self.source


class DoorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.sink = RecordingSink("web/blue/app1")
        identity = Identity(hosts=("web/*/*",), token_sha256=hashlib.sha256(b"secret").hexdigest())
        reports = ReportResource(Roster({"x": identity}, self.sink), self.sink.rejected, monotonic=lambda: 1.0)
        self.admin = Admin(exact={b"/api/v1/report": reports})
        visitor = Visitor(self.admin)
        visitor.sign_in()
        (cookie,) = visitor.cookies.items()
        form = visitor.page("/services/web/groups/blue/hosts/app1").forms["/do/order"]
        known = {"Authorization": basic("ada:engine")}
        report = {"agent": "a", "boot_id": "b", "token": "secret", "seq": 1, "hosts": {"web/blue/app1": {"in_flight": 3}}}
        self.doors = {
            "REST": Door("PUT", f"{HOST}/state", known | {"Content-Type": JSON},
                         json.dumps({"state": "down", "why": "kernel"}).encode(), MAX_BODY_BYTES),
            "XML-RPC": Door("POST", "/RPC2", known | {"Content-Type": XML},
                            xmlrpc.client.dumps((ORDER,), "order").encode(), MAX_BODY_BYTES),
            "form": Door("POST", "/do/order", {"Content-Type": FORM, "Cookie": "=".join(cookie)},
                         urlencode(form | {"state": "down", "why": "kernel"}).encode(), FREE_BODY_BYTES),
            "report": Door("POST", "/api/v1/report", {"Content-Type": JSON}, json.dumps(report).encode(), FREE_BODY_BYTES),
            "running.txt": Door("GET", "/running.txt", known | {"Content-Type": JSON}, b"{}", FREE_BODY_BYTES),
        }

    def done(self) -> int:
        """How much was done since the last call."""
        hosts = self.admin.director.hosts
        ordered = hosts[APP1].admin is not AdminState.UP
        reported = len(self.sink.events)
        audited = len(self.admin.audited)
        self.sink.events.clear()
        self.admin.audited.clear()
        return int(ordered) + reported + audited

    def exchange(self, wire: bytes, step: int = 0) -> list[int]:
        """The answers to *wire*, sent at once or in pieces of *step*."""
        if not step:
            return answers(self.admin.exchange(wire))
        transport = self.admin.connect(wire[:step])
        for at in range(step, len(wire), step):
            self.admin.channel.dataReceived(wire[at : at + step])
        self.admin.clock.advance(0)
        self.admin.channel.connectionLost(Failure(ConnectionDone()))
        return answers(transport.value())


class BodyTests(DoorCase):
    def refused(self, make: Callable[[Door], bytes], *statuses: int, steps: tuple[int, ...] = (0, 0x5000)) -> None:
        """What *make* makes of each door has the one answer, and does nothing, also when a good request follows."""
        for name, door in self.doors.items():
            for step in steps:
                for more in (b"", door.whole()):
                    got = self.exchange(make(door) + more, step)
                    self.assertTrue(len(got) == 1 and got[0] in statuses, (name, step, bool(more), got))
                    self.assertEqual(self.done(), 0, (name, step, bool(more)))

    def test_whole(self) -> None:
        """Every door takes its request, declared or chunked, at once or byte by byte; and pipelined, one by one."""
        for name in self.doors:
            for in_chunks in (False, True):
                for step in (0, 1):
                    self.setUp()
                    door = self.doors[name]
                    wire = (door.head("Transfer-Encoding: chunked") + chunked(door.body, 7) + END) if in_chunks else door.whole()
                    self.assertIn(self.exchange(wire, step), ([200], [303]), (name, step))
                    self.assertEqual(self.done() > 0, name != "running.txt", name)
                    self.assertEqual(len(self.exchange(wire * 2, step)), 2, name)

    def test_too_long_by_its_length(self) -> None:
        """A length beyond what the door takes is refused though the bytes follow."""
        self.refused(lambda door: door.head(f"Content-Length: {door.most + 1}") + door.padded(door.most + 1), 413)
        self.refused(lambda door: door.head(f"Content-Length: {door.most + 1}"), 413)

    def test_too_long_in_chunks(self) -> None:
        """An order padded beyond the bound in chunks, and then its end, is refused and not done."""
        for rest in (END, b"", b"zz\r\n"):
            self.refused(lambda door, rest=rest: door.head("Transfer-Encoding: chunked")
                         + chunked(door.padded(door.most + 1)) + rest, 413)

    def test_bad_chunks(self) -> None:
        """A body whose chunks are not framed as they must be is refused, whatever came before."""
        for bad in (b"zz\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"1" * 2000, b"ffffffffffffffffffffffff\n\r\n", b"0\r\n" + b"x" * 70000):
            self.refused(lambda door, bad=bad: door.head("Transfer-Encoding: chunked") + chunked(door.body) + bad + END, 400)

    def test_bad_lengths(self) -> None:
        """Lengths that are none, or two, are refused."""
        for lines in (["Content-Length: -1"], ["Content-Length: x"], ["Content-Length: " + "9" * 5000],
                      ["Content-Length: 5", "Content-Length: 6"], ["Content-Length: 5", "Transfer-Encoding: chunked"],
                      ["Transfer-Encoding: gzip, chunked"]):
            self.refused(lambda door, lines=lines: door.head(*lines) + door.body, 400, steps=(0, 1))

    def test_half(self) -> None:
        """A connection that closes within a body leaves nothing done, and no error."""
        for name, door in self.doors.items():
            for wire in (door.whole(), door.head("Transfer-Encoding: chunked") + chunked(door.body) + END):
                for left in (1, 3, len(door.body)):
                    self.assertEqual(self.exchange(wire[:-left]), [], (name, left))
                    self.assertEqual(self.done(), 0, (name, left))
        self.assertEqual(self.flushLoggedErrors(), [])

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.sampled_from(["REST", "XML-RPC", "form", "report", "running.txt"]), st.integers(0, 400), st.binary(max_size=4),
           st.integers(1, 300))
    def test_damaged(self, name: str, at: int, junk: bytes, step: int) -> None:
        """Whatever bytes of a request are changed, it is refused or served, and nothing breaks."""
        door = self.doors[name]
        wire = door.head("Transfer-Encoding: chunked") + chunked(door.body, 50) + END
        got = self.exchange(wire[:at] + junk + wire[at + len(junk) :], step)
        self.assertTrue(all(status < 500 for status in got), got)
        self.assertEqual(self.flushLoggedErrors(), [])


class CredentialTests(DoorCase):
    def setUp(self) -> None:
        super().setUp()
        self.verifying: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def slow(self) -> None:
        """From now on nobody is known, and passwords are verified when the test says so."""
        self.admin.clock.advance(REMEMBER_S)
        self.admin.in_thread = self.in_thread

    def in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        self.verifying.append((work, Deferred()))
        return self.verifying[-1][1]

    def verify(self) -> None:
        work, waiting = self.verifying.pop()
        waiting.callback(work())
        self.admin.clock.advance(0)

    def large(self, user: str, *, end: bytes = END) -> bytes:
        door = self.doors["REST"]
        door = door._replace(headers=door.headers | {"Authorization": basic(user)} if user else {"Content-Type": JSON})
        return door.head("Transfer-Encoding: chunked") + chunked(door.padded(MAX_BODY_BYTES // 2)) + end

    def test_before_the_body(self) -> None:
        """Of a body that strangers may not send, nothing is read until its sender is known; then the rest is."""
        self.slow()
        wire = self.large("bob:looking")
        transport = self.admin.connect(wire[: FREE_BODY_BYTES + 2000])
        self.assertEqual((transport.producerState, transport.value()), ("paused", b""))
        self.verify()
        self.assertEqual(transport.producerState, "producing")
        self.admin.channel.dataReceived(wire[FREE_BODY_BYTES + 2000 :])
        self.admin.clock.advance(0)
        self.assertEqual(answers(transport.value()), [403])  # bob may look only

    def test_all_there_already(self) -> None:
        """A request that came whole while its credentials were checked is served once they are, and only then."""
        self.slow()
        transport = self.admin.connect(self.large("ada:engine"))
        self.assertEqual((transport.value(), self.done()), (b"", 0))
        self.verify()
        self.assertEqual(answers(transport.value()), [200])
        self.assertGreater(self.done(), 0)

    def test_strangers(self) -> None:
        """A stranger with a large body has his 401, and nothing else."""
        for user in ("", "ada:wrong", "eve:engine"):
            for wire in (self.large(user), self.large(user, end=b"") + b"8000\r\n"):
                self.assertEqual(self.exchange(wire, 0x8000), [401], user)
                self.assertEqual(self.done(), 0)
        self.assertEqual(self.exchange(self.doors["REST"]._replace(headers={"Content-Type": JSON}).head(
            f"Content-Length: {MAX_BODY_BYTES}")), [401])

    def test_gone_meanwhile(self) -> None:
        """A client that leaves while its credentials are checked is no error."""
        self.slow()
        for user in ("ada:engine", "bob:wrong"):
            self.admin.connect(self.large(user))
            self.admin.channel.connectionLost(Failure(ConnectionDone()))
            self.verify()
        self.assertEqual((self.done(), self.flushLoggedErrors()), (0, []))

    def test_told_to_go_on(self) -> None:
        """A client that waits to be told sends its body only once it is known."""
        door = self.doors["REST"]
        for user, told in (("ada:engine", b"HTTP/1.1 100 "), ("ada:wrong", b"HTTP/1.1 401 ")):
            known = door._replace(headers=door.headers | {"Authorization": basic(user)})
            wire = self.admin.exchange(known.head(f"Content-Length: {MAX_BODY_BYTES}", "Expect: 100-continue"))
            self.assertTrue(wire.startswith(told), wire)
            self.assertEqual(wire.count(b"HTTP/1.1"), 1)


class TimeTests(DoorCase):
    def test_a_body_that_does_not_end(self) -> None:
        """A head, and a body, that come byte by byte for longer than an idle connection lives are cut off."""
        for wire in (b"GET / HT", self.doors["REST"].head("Content-Length: 5000")):
            transport = self.admin.connect(wire)
            for _ in range(IDLE_S):
                self.admin.clock.advance(1)
                self.admin.channel.dataReceived(b" ")
            self.assertTrue(transport.disconnecting, wire)
            self.admin.channel.connectionLost(Failure(ConnectionDone()))

    def test_refused_lingers(self) -> None:
        """A refused connection is kept a moment, for its client to read why, and then closed."""
        transport = self.admin.connect(self.doors["REST"].head(f"Content-Length: {MAX_BODY_BYTES + 1}"))
        self.assertFalse(transport.disconnecting)
        for _ in range(LINGER_S):
            self.admin.channel.dataReceived(b" " * 1000)
            self.admin.clock.advance(1)
        self.assertTrue(transport.disconnecting)


class ConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.admin = Admin(max_connections=5, max_connections_per_address=3)
        self.open: list[tuple[Any, StringTransport]] = []

    def connects(self, address: Any) -> bool:
        channel = self.admin.site.buildProtocol(address)
        if channel is None:
            return False
        transport = StringTransport(IPv4Address("TCP", "127.0.0.1", 1), address)
        channel.makeConnection(transport)
        self.open.append((channel, transport))
        return True

    def metrics(self) -> str:
        return generate_latest(self.admin.registry).decode()

    def test_maxima(self) -> None:
        """One address, or /64, has so many connections, and all have so many; those by UNIX sockets are not counted."""
        one, two = (IPv4Address("TCP", f"192.0.2.{number}", 4711) for number in (1, 2))
        six = [IPv6Address("TCP", f"2001:db8::{number}", 4711) for number in range(1, 4)]
        self.assertEqual([self.connects(one) for _ in range(4)], [True, True, True, False])
        self.assertEqual([self.connects(each) for each in six], [True, True, False])
        self.assertFalse(self.connects(two))
        self.assertTrue(all(self.connects(UNIXAddress(None)) for _ in range(10)))
        self.assertIn("txdirector_admin_connections 5.0", self.metrics())
        self.assertIn('txdirector_admin_refused_connections_total{maximum="address"} 1.0', self.metrics())
        self.assertIn('txdirector_admin_refused_connections_total{maximum="all"} 2.0', self.metrics())

    def test_places_come_back(self) -> None:
        """Who leaves, however, makes room; nothing is remembered of addresses that have none."""
        one = IPv4Address("TCP", "192.0.2.1", 4711)
        for _ in range(20):
            self.assertTrue(self.connects(one))
            self.open.pop()[0].connectionLost(Failure(ConnectionDone()))
        self.assertIn("txdirector_admin_connections 0.0", self.metrics())
        self.assertEqual(len(self.admin.site.intake._of), 0)
