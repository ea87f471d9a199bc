"""Messages that are lines of JSON, as every protocol of ours has them: bytes in, messages out, bounded.

A line is an object whose ``type`` names the message. Lines that are no message of the protocol raise
`RemoteProtocolError`; well-formed ones of a type that nobody knows are ignored, up to a number, so that a newer peer can
speak to an older one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Generic, TypeVar

import msgspec

from cluster.errors import RemoteError

M = TypeVar("M")

#: A line without its newline. An ordinary report has 300 bytes a host, so this carries 64 of them three times over, and ten
#: thousand connections that stop in mid-line cost no more than 640 MB.
MAX_LINE_BYTES = 64 * 1024
#: Messages of unknown types on one connection: enough for a newer peer to announce itself, too few for a flood.
MAX_UNKNOWN = 100


class RemoteProtocolError(RemoteError):
    """The peer broke the protocol. *reason* is one of ``malformed``, ``oversized``, ``unexpected``,
    ``unknown_type``, ``unauthenticated``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class _Envelope(msgspec.Struct):
    type: str


_envelope = msgspec.json.Decoder(_Envelope).decode


class Reader(Generic[M]):
    """What one peer says.

    :param decode: a line into a message; raises ValueError for what is none.
    :param known: the types of the protocol, whoever sends them: one of these that does not decode is malformed.
    """

    def __init__(self, decode: Callable[[bytes], M], known: Collection[str]) -> None:
        self._decode = decode
        self._known = known
        self._buffer = bytearray()
        self._searched = 0  # bytes at the start of the buffer known to hold no newline
        self._unknown = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def clear(self) -> None:
        self._buffer.clear()
        self._searched = 0

    def next(self, unseal: Callable[[bytes], bytes] | None = None) -> M | None:
        """The next message; None until more bytes arrive.

        :param unseal: takes off what a line is wrapped in; may raise `RemoteProtocolError`.
        :raises RemoteProtocolError: the line is too long, or no message, or there were too many of unknown types.
        """
        while (line := self._line()) is not None:
            if unseal is not None:
                line = unseal(line)
            try:
                return self._decode(line)
            except (ValueError, RecursionError) as error:
                if not self._of_unknown_type(line):
                    raise RemoteProtocolError("malformed", str(error)) from None
        return None

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if (len(self._buffer) if end < 0 else end) > MAX_LINE_BYTES:
            raise RemoteProtocolError("oversized", f"a line of more than {MAX_LINE_BYTES} bytes")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    def _of_unknown_type(self, line: bytes) -> bool:
        """Whether *line* is well-formed and of a type nobody knows; counts it."""
        try:
            kind = _envelope(line).type
        except (ValueError, RecursionError):
            return False
        if kind in self._known:
            return False
        self._unknown += 1
        if self._unknown > MAX_UNKNOWN:
            raise RemoteProtocolError("unknown_type", f"more than {MAX_UNKNOWN} messages of unknown types")
        return True
