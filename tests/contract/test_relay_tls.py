"""The relay of connections with TLS keeps the relays' contract, and what TLS adds to it."""

from __future__ import annotations

import socket

from twisted.trial.unittest import TestCase

from cluster.model import Reason
from tests.contract.relay_kit import blocking, pattern, receive, receive_all, receive_until_reset
from tests.contract.test_relay import Connects, Endurance, RelayContract, Resets, Steering, Streams, Timeouts
from tests.contract.tls_kit import TLSRelayKit


class TLSRelayTests(Streams, Resets, Connects, Timeouts, Steering, Endurance, TestCase):
    """Clients speak TLS."""

    kind = "tls"
    splices = False
    make_kit = TLSRelayKit

    test_without_pipes = test_more_streams_than_pipes = None  # type: ignore[assignment]  # there are none


class GoodbyeTests(RelayContract, TestCase):
    """close_notify, and what it tells from a truncation."""

    kind = "tls"
    make_kit = TLSRelayKit

    @blocking
    def test_truncation(self) -> None:
        """FIN without close_notify arrives as RST, behind all that came before, and is counted as such."""
        for size in (0, 5, 300_000):
            relayed = self.kit.relayed()
            receiving = self.kit.run(receive_until_reset, relayed.server)
            relayed.client.sendall(pattern(size, "cut"))
            relayed.client.sock.shutdown(socket.SHUT_WR)  # type: ignore[attr-defined]
            assert receiving.result() == (pattern(size, "cut"), True)
            assert self.kit.events.final(relayed.token)[:2] == (Reason.CLIENT_TRUNCATED, size)

    @blocking
    def test_end_in_return(self) -> None:
        """Who was told goodbye may close without a word: that is no truncation."""
        relayed = self.kit.relayed()
        relayed.server.sendall(b"answer")
        relayed.server.shutdown(socket.SHUT_WR)
        assert receive_all(relayed.client) == b"answer"
        relayed.client.sock.close()  # type: ignore[attr-defined]
        assert receive_all(relayed.server) == b""
        relayed.server.close()
        assert self.kit.events.final(relayed.token).reason is Reason.HOST_CLOSED

    @blocking
    def test_garbage(self) -> None:
        """Bytes that are no TLS break the connection; what came before arrives."""
        relayed = self.kit.relayed()
        relayed.client.sendall(b"sound")
        assert receive(relayed.server, 5) == b"sound"
        relayed.client.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))  # type: ignore[attr-defined]
        assert receive_until_reset(relayed.server) == (b"", True)
        assert self.kit.events.final(relayed.token).reason is Reason.CLIENT_RESET
