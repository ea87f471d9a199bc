"""The relay of connections with TLS keeps the relays' contract, and what TLS adds to it."""

from __future__ import annotations

import contextlib
import errno
import socket

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cluster.model import Reason
from director.relay.interface import Limits
from director.relay.openssl import send
from tests.contract.relay_kit import LIMITS, Final, blocking, pattern, receive, receive_all, receive_until_reset
from tests.contract.test_relay import Connects, Endurance, RelayContract, Resets, Steering, Streams, Timeouts
from tests.contract.tls_kit import CLIENT, SERVER, TLSBothWaysKit, TLSRelayKit, TLSToHostsKit, Trusting


class TLSOfClientsTests(Streams, Resets, Connects, Timeouts, Steering, Endurance, TestCase):
    """Clients speak TLS."""

    kind = "tls"
    splices = False
    make_kit = TLSRelayKit

    test_without_pipes = test_more_streams_than_pipes = None  # type: ignore[assignment]  # there are none


class TLSOfHostsTests(TLSOfClientsTests):
    """Hosts do."""

    make_kit = TLSToHostsKit

    test_host_is_killed_in_mid_transfer = None  # type: ignore[assignment]  # it knows no TLS
    test_answer_without_reading_the_request = None  # type: ignore[assignment]  # its goodbye comes before the reset
    test_stalled_readers = None  # type: ignore[assignment]  # of the child's own kit


class TLSOfBothTests(TLSOfHostsTests):
    """Both do."""

    make_kit = TLSBothWaysKit


class WritingTests(SynchronousTestCase):
    def test_whole(self) -> None:
        """A write is of all that is offered, not of a record."""
        ends = [SSL.Connection(context) for context in (SERVER, CLIENT)]
        server, client = ends
        server.set_accept_state()
        client.set_connect_state()
        for one, other in (ends, ends[::-1]):
            for shaking, peer in ((client, server), (server, client)) * 2:
                with contextlib.suppress(SSL.WantReadError):
                    shaking.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    peer.bio_write(shaking.bio_read(65_536))
            self.assertEqual(send(one, bytes(40_000)), 40_000)
            other.bio_write(one.bio_read(65_536))


class HandshakeTests(RelayContract, TestCase):
    """TLS with a host is part of the connect."""

    kind = "tls"
    make_kit = TLSToHostsKit

    def hand_over(self, dials: Trusting | None, answer: bytes | None = b"", limits: Limits = LIMITS) -> tuple[int, Final, int]:
        """A client that has spoken, and a host that answers a ClientHello with that, and closes; None: it goes on waiting."""
        client, accepted = self.kit.client()
        client.sendall(b"early")
        self.kit.host_tls = dials  # type: ignore[attr-defined]
        with self.kit.listener() as listener:
            token, _ = self.kit.hand_over(accepted, self.kit.connecting(listener), limits)
            if dials is not None and dials.why:
                self.kit.accept(listener)
            else:
                server = self.kit.keep(listener.accept()[0])
                assert server.recv(4096)[:1] == b"\x16"
                if answer is not None:
                    server.sendall(answer)
                    server.close()
        return token, self.kit.events.final(token), accepted

    @blocking
    def test_failures(self) -> None:
        """A host that is not the right one, speaks no TLS, or hangs up, has not taken the connect: the client comes back unread."""
        ways: list[tuple[Trusting, bytes | None, Limits, int, str]] = [
            (Trusting("not the one"), b"", LIMITS, errno.EPROTO, "TLS: not the one"),
            (Trusting(), b"HTTP/1.0 400 Bad Request\r\n\r\n", LIMITS, errno.EPROTO, "TLS: "),
            (Trusting(), b"", LIMITS, errno.ECONNRESET, ""),
            (Trusting(), None, LIMITS._replace(connect_s=0.2), errno.ETIMEDOUT, ""),
        ]
        for dials, answer, limits, error, why in ways:
            token, final, accepted = self.hand_over(dials, answer, limits)
            assert (final.client, final.error) == (accepted, error)
            assert token.why.startswith(why)  # type: ignore[attr-defined]
            with socket.socket(fileno=final.client) as mine:
                assert receive(mine, 5) == b"early"


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
