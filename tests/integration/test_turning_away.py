"""A listener that turns clients away: who is there is served, who comes is not answered."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address, parse_address
from director.ports.binding import bind
from director.traffic.listener import Listener

SYN_SENT = 2  #: tcp_info.tcpi_state (linux/tcp.h)


class TurnAwayTests(SynchronousTestCase):
    def client(self, port: int) -> socket.socket:
        sock = socket.socket()
        self.addCleanup(sock.close)
        sock.setblocking(False)
        self.assertIn(sock.connect_ex(("127.0.0.1", port)), (0, errno.EINPROGRESS))
        return sock

    def test_turned_away(self) -> None:
        """Loopback delivers at once: a client whose SYN was dropped is still sending it, one that waits to be accepted is
        connected, and is served."""
        nobody: Any = None
        [bound] = bind(parse_address("127.0.0.1:0", any_port=True))
        port = bound.getsockname()[1]
        listener = Listener(Address("127.0.0.1", port), nobody, reactor=nobody, sock=bound)
        self.addCleanup(listener.stopService)
        early = self.client(port)
        listener.turn_away()
        late = self.client(port)
        self.assertEqual(late.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0], SYN_SENT)
        listening = socket.socket(fileno=listener.fileno())
        accepted, _ = listening.accept()
        listening.detach()
        self.addCleanup(accepted.close)
        early.setblocking(True)
        early.sendall(b"x")
        accepted.setblocking(True)
        self.assertEqual(accepted.recv(1), b"x")

    def test_of_an_address(self) -> None:
        """Only who comes to it, over either family, until nobody is any more; then all are again, whatever is said later."""
        nobody: Any = None
        [bound] = bind(parse_address("0.0.0.0:0", any_port=True))
        port = bound.getsockname()[1]
        listener = Listener(Address("0.0.0.0", port), nobody, reactor=nobody, sock=bound)
        self.addCleanup(listener.stopService)

        def connects(address: str) -> bool:
            sock = socket.socket()
            self.addCleanup(sock.close)
            sock.setblocking(False)
            sock.connect_ex((address, port))
            return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != SYN_SENT

        listener.turn_away([ip_address("127.0.0.2"), ip_address("2001:db8::1")])
        self.assertEqual((connects("127.0.0.2"), connects("127.0.0.3")), (False, True))
        listener.turn_away([])
        self.assertEqual((connects("127.0.0.2"), connects("127.0.0.3")), (True, True))

    def test_of_an_ipv6_address(self) -> None:
        """As for IPv4."""
        nobody: Any = None
        [bound] = bind(parse_address("[::1]:0", any_port=True))
        listener = Listener(Address("::1", bound.getsockname()[1]), nobody, reactor=nobody, sock=bound)
        self.addCleanup(listener.stopService)
        for away, state in ((["2001:db8::1"], False), (["2001:db8::1", "::1"], True)):
            listener.turn_away([ip_address(each) for each in away])
            sock = socket.socket(socket.AF_INET6)
            self.addCleanup(sock.close)
            sock.setblocking(False)
            sock.connect_ex(("::1", listener.address.port))
            self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == SYN_SENT, state, away)
