"""Connections of one address, as the kernel counts them."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from director.ha.open_connections import open_connections


class OpenConnectionsTests(SynchronousTestCase):
    def listening(self, family: int, address: str, *, both: bool = False) -> socket.socket:
        sock = socket.socket(family)
        self.addCleanup(sock.close)
        if both:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((address, 0))
        sock.listen()
        return sock

    def test_counted(self) -> None:
        """Accepted or not, of that address alone; neither listening sockets nor what is over. IPv4 through a socket of both
        families counts, too."""
        here, there = ip_address("127.0.0.71"), ip_address("127.0.0.7")
        server = self.listening(socket.AF_INET, "127.0.0.71")
        dual = self.listening(socket.AF_INET6, "::", both=True)
        self.assertEqual((open_connections(here), open_connections(there)), (0, 0))
        clients = [socket.create_connection(server.getsockname()) for _ in range(3)]
        clients.append(socket.create_connection(("127.0.0.71", dual.getsockname()[1])))
        self.assertEqual((open_connections(here), open_connections(there)), (4, 0))
        accepted = [server.accept()[0], server.accept()[0], server.accept()[0], dual.accept()[0]]
        self.assertEqual(open_connections(here), 4)
        for sock in (*clients, *accepted):
            sock.close()
        self.assertEqual(open_connections(here), 0)

    def test_many(self) -> None:
        """More than one answer of the kernel's holds; both ends of each are here, and one address's."""
        server = self.listening(socket.AF_INET6, "::1")
        before = open_connections(ip_address("::1"))
        held = []
        for _ in range(300):
            held += [socket.create_connection(server.getsockname()[:2]), server.accept()[0]]
        self.addCleanup(lambda: [sock.close() for sock in held])
        self.assertEqual(open_connections(ip_address("::1")) - before, 600)
