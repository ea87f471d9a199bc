"""Probes: the status parser and the loop that says when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from cluster.model import Probe
from director.checks.dialogues import ProbeFailed, http
from director.checks.dialogues.http import MAX_HEAD_BYTES, answer_in
from director.checks.probes import MAX_PROBES, Prober, ProbeResult

TCP = Probe(timeout_s=1.5)
HTTP = Probe(kind="http", path="/health check?x=1\r\nX: y", timeout_s=1.5)


def status_of(head: bytes) -> int | None:
    answer = answer_in(head)
    return None if answer is None else answer[0]


class StatusTests(SynchronousTestCase):
    def test_table(self) -> None:
        """The status, informational responses skipped; None until it has all come."""
        for head, status in (
            (b"HTTP/1.1 200 OK\r\n", 200), (b"HTTP/1.0 404\r\n", 404), (b"HTTP/1.1 503 \n", 503),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n", 204), (b"HTTP/1.1 101 Switch\r\n", 101),
            (b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 302 Found\r\n", 302),
            (b"", None), (b"HTT", None), (b"HTTP/1.1 200 OK", None), (b"HTTP/1.1 100 Continue\r\n", None),
            (b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n", None),
        ):
            self.assertEqual(status_of(head), status, head)

    def test_refused(self) -> None:
        """Other protocols, HTTP/2 among them, and endless lines are not HTTP/1."""
        for head in (b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 2000 OK\r\n", b"HTTP/1.1 abc\r\n", b"\n",
                     b"HTTP/1.1 200 " + b"x" * MAX_HEAD_BYTES, b"G",
                     b"HTTP/1.1 100 \r\n" + b"x" * MAX_HEAD_BYTES):
            self.assertRaises(ProbeFailed, answer_in, head)

    @given(st.binary(max_size=60) | st.binary(max_size=60).map(b"HTTP/1.1 ".__add__)
           | st.integers(200, 599).map(lambda status: b"HTTP/1.1 %d x\r\nrest" % status))
    def test_byte_by_byte_equals_whole(self, head: bytes) -> None:
        """The verdict doesn't depend on how the bytes come."""
        def verdict(data: bytes) -> int | str | None:
            try:
                return status_of(data)
            except ProbeFailed:
                return "refused"

        first = next((each for length in range(len(head) + 1) if (each := verdict(head[:length])) is not None), None)
        self.assertEqual(first, verdict(head))


class ProberTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.prober = Prober(reactor=self.reactor, monotonic=self.reactor.seconds)
        self.prober.startService()
        self.target = Address("192.0.2.1", 80)

    def connected(self) -> int:
        return len(self.reactor.tcpClients)

    def test_timeout(self) -> None:
        """A host that doesn't answer the connect fails when the time of the probe is over."""
        result = self.prober.probe(self.target, HTTP)
        self.reactor.advance(1.4)
        self.assertNoResult(result)
        self.reactor.advance(0.1)
        self.assertEqual(self.successResultOf(result), ProbeResult(False, "timed out after 1.5 s", 1.5))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """A cancelled probe ends at once, as a result, and leaves no timer."""
        result = self.prober.probe(self.target, HTTP)
        self.reactor.advance(0.5)
        result.cancel()
        self.assertEqual(self.successResultOf(result), ProbeResult(False, "cancelled", 0.5))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_bounded(self) -> None:
        """Only so many probes are under way; the others wait their turn, and their time counts from then."""
        results = [self.prober.probe(self.target, HTTP) for _ in range(MAX_PROBES + 2)]
        self.assertEqual(self.connected(), MAX_PROBES)
        self.reactor.advance(1.5)
        self.assertEqual(self.connected(), MAX_PROBES + 2)
        self.assertNoResult(results[-1])
        results[-1].cancel()
        self.reactor.advance(1.5)
        self.assertEqual(self.successResultOf(results[-2]).duration_s, 1.5)

    def test_stop(self) -> None:
        """A stop ends what is under way and what waits; later probes end at once."""
        results = [self.prober.probe(self.target, HTTP) for _ in range(MAX_PROBES + 1)]
        self.successResultOf(self.prober.stopService())
        for result in (*results, self.prober.probe(self.target, HTTP)):
            self.assertEqual(self.successResultOf(result).detail, "cancelled")
        self.assertEqual(self.connected(), MAX_PROBES)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_names_need_a_resolver(self) -> None:
        """A host name without anybody to resolve it is a failed probe."""
        result = self.successResultOf(self.prober.probe(Address("app.example", 80), TCP))
        self.assertEqual((result.ok, result.detail), (False, "app.example is not an IP address"))

    def test_request_is_one_request(self) -> None:
        """A path can't smuggle headers into the request; a host header that would is refused."""
        self.assertIn(b"GET /health%20check?x=1%0D%0AX:%20y HTTP/1.1\r\nHost: 192.0.2.1:80\r\n",
                      http._request(self.target, HTTP))
        result = self.prober.probe(self.target, Probe(kind="http", host_header="a\r\nb"))
        self.assertFalse(self.successResultOf(result).ok)
        self.assertEqual(self.connected(), 0)
