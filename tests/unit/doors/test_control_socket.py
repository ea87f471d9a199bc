"""The control socket: whatever bytes a backend sends, it is answered or cut, and the log has no traceback."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from director.doors.control_socket import _AnswersFactory
from director.traffic.origins import Origins


class _Nobody:
    """Knows no connection."""

    def behind(self, host: str, port: int) -> None:
        return None


class _Cut(StringTransport):
    def loseConnection(self) -> None:
        self.disconnecting = True


def box(**values: bytes) -> bytes:
    """As AMP sends it."""
    pairs = [(name.encode(), value) for name, value in values.items()]
    return b"".join(len(each).to_bytes(2, "big") + each for pair in pairs for each in pair) + b"\0\0"


ASK = {"_ask": b"1", "_command": b"GetClientAddress"}


class GarbageTests(SynchronousTestCase):
    def said(self, data: bytes) -> tuple[bytes, bool]:
        """What is answered, and whether the connection is cut."""
        protocol = _AnswersFactory(cast(Origins, _Nobody())).buildProtocol(UNIXAddress(None))
        assert protocol is not None
        transport = _Cut(None, UNIXAddress(None))
        protocol.makeConnection(transport)
        protocol.dataReceived(data)
        self.assertEqual(self.flushLoggedErrors(), [])
        return transport.value(), transport.disconnecting or transport.disconnected

    def test_no_question(self) -> None:
        """Boxes that ask nothing, or answer what nobody asked, cut the connection."""
        for data in (b"\0\0", box(host=b"a"), box(_answer=b"1"), box(_error=b"1", _error_code=b"x", _error_description=b"y"),
                     b"\xff\xff", b"\0\0" * 100):
            self.assertEqual(self.said(data), (b"", True), data)

    def test_unreadable_questions(self) -> None:
        """Questions that cannot be read are answered with an error that says so."""
        for values in ({}, {"host": b"127.0.0.1"}, {"port": b"1"}, {"host": b"", "port": b"x"},
                       {"host": b"127.0.0.1", "port": b"9" * 5000}, {"host": b"127.0.0.1", "port": b""}):
            answer, cut = self.said(box(**ASK, **values))
            self.assertIn(b"MALFORMED", answer, values)
            self.assertFalse(cut)
        self.assertIn(b"UNKNOWN_PORT", self.said(box(**ASK, host=b"\xff", port=b"-1"))[0])
        self.assertIn(b"UNHANDLED", self.said(box(_ask=b"1", _command=b"Nothing"))[0])

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """Nothing breaks."""
        self.said(data)
        self.said(box(**ASK) + data)
