"""gRPC's health checking protocol (grpc/grpc, doc/health-checking.md): one call of grpc.health.v1.Health/Check over HTTP/2.

HTTP/2 is h2's. The two messages have a field each, and are written and read here (protobuf.dev, "Encoding").
"""

from __future__ import annotations

import struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from cluster.address import Address
from cluster.model import Probe
from director.checks.dialogues.exchange import shown
from director.checks.dialogues.interface import Dialogue, ProbeFailed

#: An answer has two bytes and a head of five.
MAX_MESSAGE_BYTES = 1024
#: Of everything that the host says: settings, headers, pings.
MAX_BYTES = 65_536

#: The first frame is SETTINGS (RFC 9113, 3.4), and where it says so.
_TYPE_AT, _SETTINGS = 3, 4

_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
#: Of grpc-status, those that a health check meets (grpc/grpc, doc/statuscodes.md).
_CODES = {"5": "NOT_FOUND", "12": "UNIMPLEMENTED", "14": "UNAVAILABLE", "16": "UNAUTHENTICATED"}


class Grpc(Dialogue):
    """Asks for the health of `Probe.grpc_service`, which is empty for that of the whole server."""

    def __init__(self, target: Address, spec: Probe) -> None:
        super().__init__()
        name = spec.host_header or (spec.tls.server_name if spec.tls is not None else None)
        self._authority = name or ("localhost" if target.is_unix else str(target))
        self._scheme = "http" if spec.tls is None else "https"
        self._service = spec.grpc_service.encode()
        self._connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._message = b""
        self._heard = 0
        self._status: str | None = None

    def begin(self) -> bytes:
        h2 = self._connection
        h2.initiate_connection()
        h2.send_headers(1, [
            (":method", "POST"), (":scheme", self._scheme), (":authority", self._authority),
            (":path", "/grpc.health.v1.Health/Check"), ("te", "trailers"), ("content-type", "application/grpc"),
            ("user-agent", "txdirector-probe"),
        ])
        body = (b"\x0a" + _varint(len(self._service)) + self._service) if self._service else b""
        h2.send_data(1, struct.pack("!BI", 0, len(body)) + body, end_stream=True)
        return h2.data_to_send()

    def heard(self, data: bytes) -> bytes | None:
        if self._heard <= _TYPE_AT < self._heard + len(data) and data[_TYPE_AT - self._heard] != _SETTINGS:
            raise ProbeFailed("not HTTP/2")  # h2 would wait for a frame as long as whatever this is says
        self._heard += len(data)
        if self._heard > MAX_BYTES:
            raise ProbeFailed(f"said more than {MAX_BYTES} bytes")
        try:
            events = self._connection.receive_data(data)
        except ProtocolError:
            raise ProbeFailed("not HTTP/2") from None
        for event in events:
            if self._met(event):
                self._judge()
                self._connection.close_connection()
                self.farewell = self._connection.data_to_send()
                return None
        return self._connection.data_to_send()

    def _met(self, event: Any) -> bool:
        """Whether the answer is complete."""
        match event:
            case ResponseReceived() | TrailersReceived():
                headers: dict[Any, Any] = dict(event.headers)
                if (status := headers.get(":status", "200")) != "200":
                    raise ProbeFailed(f"HTTP {shown(status.encode())}")
                self._status = headers.get("grpc-status", self._status)
            case DataReceived():
                self._message += event.data
                if len(self._message) > MAX_MESSAGE_BYTES:
                    raise ProbeFailed(f"an answer of more than {MAX_MESSAGE_BYTES} bytes")
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamReset() | ConnectionTerminated():
                raise ProbeFailed(f"ended the call: error {event.error_code}")
        return isinstance(event, StreamEnded)

    def _judge(self) -> None:
        if self._status != "0":
            name = _CODES.get(self._status or "", shown((self._status or "none").encode()))
            raise ProbeFailed(f"grpc-status {name}")
        status = _status_in(self._message)
        if status != 1:
            raise ProbeFailed(_STATUSES[status] if 0 <= status < len(_STATUSES) else "its answer is none")
        self.seen = _STATUSES[status]


def _status_in(framed: bytes) -> int:
    """The status of a HealthCheckResponse, whose only field it is, in gRPC's frame; -1: that is none. What a later release
    may add to the message is skipped where it is a number."""
    if len(framed) < 5 or framed[0] or len(framed) != 5 + int.from_bytes(framed[1:5], "big"):
        return -1
    message, status = framed[5:], 0
    while message:
        if message[0] & 7 or message[0] >= 0x80 or len(message) < 2:
            return -1
        value, used = 0, 1
        for shift, byte in enumerate(message[1:11]):
            value |= (byte & 0x7F) << 7 * shift
            used += 1
            if byte < 0x80:
                break
        else:
            return -1
        if message[0] == 0x08:
            status = value
        message = message[used:]
    return status


def _varint(number: int) -> bytes:
    written = b""
    while number > 0x7F:
        written, number = written + bytes((number & 0x7F | 0x80,)), number >> 7
    return written + bytes((number,))
