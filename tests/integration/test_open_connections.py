"""Connections of one address, as the kernel counts them."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_address

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from director.ha.open_connections import end_connections, open_connections


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

    def test_ended(self) -> None:
        """Those at that address alone, of both families; listening sockets stay."""
        if os.geteuid():
            raise SkipTest("ending other processes' connections needs CAP_NET_ADMIN: run it as root")
        here = ip_address("127.0.0.72")
        server, other = self.listening(socket.AF_INET, str(here)), self.listening(socket.AF_INET, "127.0.0.73")
        dual = self.listening(socket.AF_INET6, "::", both=True)
        clients = [socket.create_connection(server.getsockname()), socket.create_connection((str(here), dual.getsockname()[1])),
                   socket.create_connection(other.getsockname())]
        accepted = [each.accept()[0] for each in (server, dual, other)]
        self.addCleanup(lambda: [each.close() for each in (*clients, *accepted)])
        try:
            self.assertEqual(end_connections(here), 2)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            raise SkipTest("this kernel cannot end connections: CONFIG_INET_DIAG_DESTROY") from error
        for sock in accepted[:2]:
            self.assertRaises(ConnectionAbortedError, sock.recv, 1)
        clients[2].sendall(b"x")
        self.assertEqual(accepted[2].recv(1), b"x")
        self.assertEqual(end_connections(here), 0)
        socket.create_connection(server.getsockname()).close()
