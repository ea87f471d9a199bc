"""A listener on a real socket, its frontend the test."""

from __future__ import annotations

import os
import socket

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address, parse_address
from director.ports.binding import bind
from director.traffic.listener import Listener


class ListenerTests(SynchronousTestCase):
    def test_client_that_breaks_its_frontend(self) -> None:
        """An exception about one client neither reaches the reactor, which would stop reading, nor keeps the next waiting."""
        taken = []

        class Frontend:
            def accepted(self, fd: int, name: bytes | None) -> None:
                os.close(fd)
                taken.append(name)
                if len(taken) == 1:
                    raise RuntimeError("broken")

        (sock,) = bind(parse_address("127.0.0.1:0", any_port=True))
        port = sock.getsockname()[1]
        listener = Listener(Address("127.0.0.1", port), Frontend(), reactor=MemoryReactorClock(), sock=sock)
        listener.startService()
        self.addCleanup(listener.stopService)
        for _ in range(2):
            client = socket.create_connection(("127.0.0.1", port))
            self.addCleanup(client.close)
        listener.doRead()
        self.assertEqual((len(taken), len(self.flushLoggedErrors(RuntimeError))), (2, 1))
