"""Accepting and connecting, in C and in Python: the same on real sockets."""

from __future__ import annotations

import errno
import os
import select
import socket
import tempfile
from functools import partial
from pathlib import Path
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address, parse_address
from director.ports import sockets
from director.ports.binding import bind


class Mixin:
    """*accept* and *connect* of one implementation; `connect` takes an address."""

    def accept(self, fd: int) -> sockets.Client:
        raise NotImplementedError

    def connect(self, address: Address) -> int:
        raise NotImplementedError

    def connect_from(self, address: Address, source: str) -> int:
        """As `connect`, from *source*."""
        raise NotImplementedError

    def listening(self, text: str) -> tuple[socket.socket, Address]:
        address = parse_address(text, any_port=True)
        [sock] = bind(address)
        self.addCleanup(sock.close)  # type: ignore[attr-defined]
        return sock, address if address.is_unix else address._replace(port=sock.getsockname()[1])

    def meet(self, text: str) -> tuple[socket.socket, sockets.Client, socket.socket]:
        """Connect and accept; the connecting socket, what was accepted, and its socket."""
        listening, address = self.listening(text)
        fd = self.connect(address)
        self.assertGreaterEqual(fd, 0, os.strerror(-fd))  # type: ignore[attr-defined]
        ours = socket.socket(fileno=fd)
        self.addCleanup(ours.close)  # type: ignore[attr-defined]
        select.select([listening], [], [], 10)
        accepted = self.accept(listening.fileno())
        theirs = socket.socket(fileno=accepted[0])
        self.addCleanup(theirs.close)  # type: ignore[attr-defined]
        return ours, accepted, theirs

    def test_families(self) -> None:
        """IPv4 and IPv6: the client's packed address and port, and descriptors that don't block, with the options."""
        for text, loopback in (("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")):
            ours, (_, name), theirs = self.meet(text)
            self.assertEqual(name, socket.inet_pton(ours.family, loopback) + ours.getsockname()[1].to_bytes(2, "big"))
            for sock in (ours, theirs):
                self.assertFalse(os.get_blocking(sock.fileno()))
                self.assertFalse(os.get_inheritable(sock.fileno()))
                self.assertTrue(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                self.assertTrue(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def test_unix(self) -> None:
        """UNIX sockets by path and abstract: clients have no address, bytes pass."""
        with tempfile.TemporaryDirectory() as directory:
            for text in (f"unix:{Path(directory) / 's'}", f"unix:@txdirector-test-{os.getpid()}-{id(self)}"):
                ours, accepted, theirs = self.meet(text)
                self.assertEqual(accepted[1:], (None,))
                ours.send(b"x")
                select.select([theirs], [], [], 10)
                self.assertEqual(theirs.recv(1), b"x")

    def test_nobody(self) -> None:
        """Nobody waits: BlockingIOError; nobody listens: the errno, at once or from the descriptor, and none is left."""
        listening, _ = self.listening("127.0.0.1:0")
        self.assertRaises(BlockingIOError, self.accept, listening.fileno())
        self.assertRaises(OSError, self.accept, os.open(os.devnull, os.O_RDONLY))
        before = len(os.listdir("/proc/self/fd"))
        self.assertEqual(self.connect(parse_address("unix:/nonexistent/socket")), -errno.ENOENT)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


    def test_from_an_address(self) -> None:
        """The other end sees the source; two connects to two hosts may have the same port; one of nobody's is an error that
        says so, and no descriptor is left."""
        for text, source, other in (("127.0.0.1:0", "127.0.0.9", "203.0.113.77"), ("[::1]:0", "::1", "2001:db8::1")):
            listening, address = self.listening(text)
            ours = socket.socket(fileno=self.connect_from(address, source))
            self.addCleanup(ours.close)  # type: ignore[attr-defined]
            self.assertEqual(ours.getsockname()[0], source)
            self.assertEqual(ours.getsockopt(socket.IPPROTO_IP, sockets.IP_BIND_ADDRESS_NO_PORT), 1)
            self.assertTrue(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            select.select([listening], [], [], 10)
            fd, name = self.accept(listening.fileno())
            os.close(fd)
            assert name is not None
            self.assertEqual(name[:-2], socket.inet_pton(ours.family, source))
            before = len(os.listdir("/proc/self/fd"))
            self.assertEqual(self.connect_from(address, other), -errno.EADDRNOTAVAIL)
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class PythonTests(Mixin, SynchronousTestCase):
    """Without the extension."""

    def accept(self, fd: int) -> sockets.Client:
        return sockets._accept(fd)

    def connect(self, address: Address) -> int:
        return partial(sockets._connect, *sockets._sockaddr(address))()

    def connect_from(self, address: Address, source: str) -> int:
        return sockets._connect(*sockets._sockaddr(address), sockets._sockaddr(Address(source, 0))[1])


@skipIf(not sockets.IN_C, "the extension is not built; install a C compiler and the Python headers")
class NativeTests(Mixin, SynchronousTestCase):
    """With the extension."""

    def accept(self, fd: int) -> sockets.Client:
        return sockets.accept(fd)

    def connect(self, address: Address) -> int:
        return sockets.connector(address)()

    def connect_from(self, address: Address, source: str) -> int:
        return sockets.connector(address, (source,))()


class SourceTests(SynchronousTestCase):
    """Several source addresses."""

    def test_in_turn(self) -> None:
        """One after the other; where one will not do, the next; those of another family do not count."""
        (listening,) = bind(parse_address("127.0.0.1:0", any_port=True))
        self.addCleanup(listening.close)
        address = Address("127.0.0.1", listening.getsockname()[1])
        connect = sockets.connector(address, ("127.0.0.5", "::1", "203.0.113.77", "127.0.0.6"))
        seen = []
        for _ in range(4):
            with socket.socket(fileno=connect()) as sock:
                seen.append(sock.getsockname()[0])
        self.assertEqual(seen, ["127.0.0.5", "127.0.0.6", "127.0.0.5", "127.0.0.6"])
        self.assertEqual(sockets.connector(address, ("203.0.113.77", "203.0.113.78"))(), -errno.EADDRNOTAVAIL)
        with socket.socket(fileno=sockets.connector(address, ("::1",))()) as sock:
            self.assertEqual(sock.getsockname()[0], "127.0.0.1")

    def test_whose_fault(self) -> None:
        """EADDRNOTAVAIL is a lack of ports where there is an address to come from; a refusal is the host's."""
        address = Address("127.0.0.1", 9)
        self.assertEqual(sockets.lacked(errno.EADDRNOTAVAIL, address), "ports")
        self.assertEqual(sockets.lacked(errno.EMFILE, address), "descriptors")
        self.assertEqual(sockets.lacked(errno.ECONNREFUSED, address), "")
