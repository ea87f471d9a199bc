"""One POST: what is sent, and which answers are answers."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.web import parse_url
from director.hooks.posting import MAX_HEAD_BYTES, Posted, PostFailed, request, status_in


class RequestTests(SynchronousTestCase):
    def test_whole(self) -> None:
        self.assertEqual(
            request(parse_url("https://hooks.example:8443/a?b=c"), b"{}\n", "s3cret"),
            b"POST /a?b=c HTTP/1.1\r\nHost: hooks.example:8443\r\nUser-Agent: txdirector\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: 3\r\nAuthorization: Bearer s3cret\r\n\r\n{}\n")


class AnswerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.posted = Posted(b"request")
        self.transport: Any = StringTransport()
        self.posted.makeConnection(self.transport)

    def test_statuses(self) -> None:
        """The final one counts; what begins like an answer waits for more."""
        for head, status in (
            (b"HTTP/1.1 204 No Content\r\n", 204), (b"HTTP/1.0 500\r\n", 500), (b"HTTP/1.1 20", None), (b"", None), (b"HT", None),
            (b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 201 Created\r\n", 201),
            (b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n", None), (b"HTTP/1.1 100 Continue\r\n\r\n", None),
        ):
            self.assertEqual(status_in(head), status, head)

    def test_no_answers(self) -> None:
        for head in (b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 999 x\r\n", b"HTTP/1.1 103 x\r\n" + b"a" * MAX_HEAD_BYTES):
            self.assertRaises(PostFailed, status_in, head)

    @given(st.binary(max_size=80))
    def test_garbage(self, head: bytes) -> None:
        """Is no answer, and nothing worse."""
        for whole in (head, b"HTTP/1." + head, b"HTTP/1.1 103 x\r\n\r\n" + head):
            with contextlib.suppress(PostFailed):
                self.assertIn(status_in(whole), [None, *range(200, 600)])

    def test_only_the_status_is_read(self) -> None:
        """However the answer comes, and whatever follows."""
        self.assertEqual(self.transport.value(), b"request")
        for byte in b"HTTP/1.1 200 OK\r\n":
            self.posted.dataReceived(bytes([byte]))
        self.assertTrue(self.transport.disconnecting or self.transport.disconnected or self.transport.aborting)
        self.posted.dataReceived(b"x" * 10 * MAX_HEAD_BYTES)
        self.posted.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.successResultOf(self.posted.status), 200)

    def test_closed_without_an_answer(self) -> None:
        self.posted.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(self.posted.status, PostFailed)

    def test_cancelled(self) -> None:
        """The connection is cut."""
        self.posted.status.cancel()
        self.failureResultOf(self.posted.status)
        self.posted.connectionLost(Failure(ConnectionDone()))
