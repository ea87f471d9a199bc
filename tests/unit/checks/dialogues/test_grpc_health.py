"""gRPC's health check, with h2's own server side as the host."""

from __future__ import annotations

import struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from cluster.model import Probe, ProbeTLS
from director.checks.dialogues import ProbeFailed
from director.checks.dialogues.grpc_health import MAX_MESSAGE_BYTES, Grpc
from tests.unit.checks.dialogues.kit import both_ways

HOST = Address("192.0.2.1", 50051)
HEAD = (("content-type", "application/grpc"),)


def framed(message: bytes) -> bytes:
    return struct.pack("!BI", 0, len(message)) + message


def grpc(**more: Any) -> Grpc:
    return Grpc(HOST, Probe(kind="grpc", **more))


class Server:
    """What it hears, and what it answers."""

    def __init__(self, asked: bytes) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.headers: dict[Any, Any] = {}
        self.body = b""
        for event in self.h2.receive_data(asked):
            if isinstance(event, RequestReceived):
                self.headers = dict(event.headers)
            if isinstance(event, DataReceived):
                self.body += event.data

    def answer(self, body: bytes = framed(b"\x08\x01"), status: str = "0", http: str = "200") -> bytes:
        self.h2.send_headers(1, [(":status", http), *HEAD])
        if body:
            self.h2.send_data(1, body)
        self.h2.send_headers(1, [("grpc-status", status)], end_stream=True)
        return self.h2.data_to_send()


class GrpcTests(SynchronousTestCase):
    def verdict(self, **answer: Any) -> str:
        return both_ways(grpc, Server(grpc().begin()).answer(**answer))

    def test_request(self) -> None:
        """POST of a framed message that names the service; the authority is the host, or the server's name."""
        server = Server(grpc(grpc_service="shop.Cart").begin())
        self.assertEqual(server.headers, {
            ":method": "POST", ":scheme": "http", ":authority": "192.0.2.1:50051", ":path": "/grpc.health.v1.Health/Check",
            "te": "trailers", "content-type": "application/grpc", "user-agent": "txdirector-probe"})
        self.assertEqual(server.body, framed(b"\x0a\x09shop.Cart"))
        long = Server(grpc(grpc_service="x" * 200, tls=ProbeTLS(server_name="host.example")).begin())
        self.assertEqual(long.body, framed(b"\x0a\xc8\x01" + b"x" * 200))
        self.assertEqual((long.headers[":scheme"], long.headers[":authority"]), ("https", "host.example"))

    def test_answers(self) -> None:
        for answer, wanted in (
            ({}, "passed: SERVING"), ({"body": framed(b"\x08\x02")}, "failed: NOT_SERVING"), ({"body": framed(b"")}, "failed: UNKNOWN"),
            ({"body": framed(b"\x08\x03")}, "failed: SERVICE_UNKNOWN"), ({"body": framed(b"\x08\x09")}, "failed: its answer is none"),
            ({"body": framed(b"\x10\x80\x01\x08\x01")}, "passed: SERVING"), ({"body": framed(b"\x0a\x01x")}, "failed: its answer is none"),
            ({"body": framed(b"\x08")}, "failed: its answer is none"), ({"body": framed(b"\x08" + b"\xff" * 11)}, "failed: its answer is none"),
            ({"body": b""}, "failed: its answer is none"), ({"body": b"\1\0\0\0\2\x08\1"}, "failed: its answer is none"),
            ({"status": "12", "body": b""}, "failed: grpc-status UNIMPLEMENTED"), ({"status": "5", "body": b""}, "failed: grpc-status NOT_FOUND"),
            ({"status": "13"}, "failed: grpc-status 13"), ({"http": "502"}, "failed: HTTP 502"),
        ):
            self.assertEqual(self.verdict(**answer), wanted, answer)

    def test_trailers_only(self) -> None:
        """An answer that is nothing but its end, as errors are."""
        server = Server(grpc().begin())
        server.h2.send_headers(1, [(":status", "200"), *HEAD, ("grpc-status", "12")], end_stream=True)
        self.assertEqual(both_ways(grpc, server.h2.data_to_send()), "failed: grpc-status UNIMPLEMENTED")

    def test_ends(self) -> None:
        """A call that is reset, a connection that is ended, and something else than HTTP/2."""
        for end in (lambda h2: h2.reset_stream(1, 7), lambda h2: h2.close_connection(2)):
            server = Server(grpc().begin())
            end(server.h2)
            self.assertIn("failed: ended the call", both_ways(grpc, server.h2.data_to_send()))
        self.assertEqual(both_ways(grpc, b"HTTP/1.1 400 Bad Request\r\n\r\n"), "failed: not HTTP/2")

    def test_limits(self) -> None:
        """An answer without an end, and pings without one."""
        server = Server(grpc().begin())
        self.assertEqual(both_ways(grpc, server.answer(body=framed(b"x" * MAX_MESSAGE_BYTES))),
                         f"failed: an answer of more than {MAX_MESSAGE_BYTES} bytes")
        server = Server(grpc().begin())
        dialogue = grpc()
        dialogue.begin()
        with self.assertRaises(ProbeFailed):
            for number in range(10_000):
                server.h2.ping(number.to_bytes(8, "big"))
                dialogue.heard(server.h2.data_to_send())

    @given(st.binary(max_size=100), st.integers(0, 60))
    def test_garbage(self, said: bytes, after: int) -> None:
        """Parses, waits, or is no HTTP/2."""
        self.assertTrue(both_ways(grpc, Server(grpc().begin()).answer()[:after] + said))
