"""A listener that turns clients away: who is there is served, who comes is not answered."""

from __future__ import annotations

import errno
import socket
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
