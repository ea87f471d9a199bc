"""Listening sockets: every address of a name, and whose a UNIX socket's file is."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from director.ports.binding import BindError, FileAccess, bind, change_access, remove


class UnixTests(SynchronousTestCase):
    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = Path(holder.name) / "socket"
        self.address = Address("", 0, str(self.path))

    def bind(self, access: FileAccess = FileAccess()) -> socket.socket:  # noqa: B008 - immutable
        [sock] = bind(self.address, access=access)
        self.addCleanup(sock.close)
        return sock

    def test_mode(self) -> None:
        """It is what was asked for, whatever the umask, and can be changed."""
        for umask in (0, 0o077):
            self.addCleanup(os.umask, os.umask(umask))
            for mode in (0o600, 0o660, 0o666):
                self.bind(FileAccess(mode))
                self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), mode)
                remove(self.address)
        self.bind()
        change_access(self.address, FileAccess(0o666))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o666)

    @skipUnless(os.geteuid() == 0, "only root gives files away")
    def test_owner(self) -> None:
        """By name and by number."""
        self.bind(FileAccess(0o600, owner="nobody", group="12345"))
        found = self.path.stat()
        self.assertEqual((found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)), (65534, 12345, 0o600))

    def test_unknown_owner(self) -> None:
        """A sentence, and nothing is left behind."""
        for access, what in ((FileAccess(owner="no-such"), "user"), (FileAccess(group="no-such"), "group")):
            with self.assertRaisesRegex(BindError, f"^cannot listen on unix:.*: there is no {what} 'no-such'$"):
                self.bind(access)
            self.assertFalse(self.path.exists())

    def test_stale(self) -> None:
        """What nobody serves is replaced."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))
        self.bind()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))

    def test_answering(self) -> None:
        """What somebody serves is not, be it that his queue is full."""
        with socket.socket(socket.AF_UNIX) as alive:
            alive.bind(str(self.path))
            alive.listen(0)
            for _ in range(3):  # the first looks fill the queue
                with self.assertRaisesRegex(BindError, "Address already in use"):
                    self.bind()
            self.assertTrue(self.path.exists())

    def test_no_socket(self) -> None:
        """A link, a file or a directory is nothing of ours, wherever it leads to."""
        stale = self.path.with_name("stale")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(stale))
        for make, what in ((lambda: self.path.symlink_to(stale), "a symbolic link"), (self.path.touch, "a file"),
                           (self.path.mkdir, "a directory")):
            make()
            with self.assertRaisesRegex(BindError, f"{what} is there, and no socket$"):
                self.bind()
            self.path.rmdir() if self.path.is_dir() else self.path.unlink()
        self.assertTrue(stale.exists())


class NameTests(SynchronousTestCase):
    def resolving(self, *ips: str) -> None:
        """Every name has these addresses."""
        def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
            return [(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "",
                     (ip, port, 0, 0) if ":" in ip else (ip, port)) for ip in ips]

        self.patch(socket, "getaddrinfo", getaddrinfo)

    def bound(self, port: int = 0) -> list[tuple[str, int]]:
        found = bind(Address("some.example", port))
        for sock in found:
            self.addCleanup(sock.close)
        return [sock.getsockname()[:2] for sock in found]

    def test_each_address(self) -> None:
        """Of both families, each once, all with one port."""
        self.resolving("::1", "127.0.0.1", "127.0.0.2", "::1")
        found = self.bound()
        self.assertEqual([ip for ip, _ in found], ["::1", "127.0.0.1", "127.0.0.2"])
        self.assertEqual(len({port for _, port in found}), 1)

    def test_not_here(self) -> None:
        """An address that this machine does not have is left out, unless it is the only one."""
        self.resolving("192.0.2.1", "127.0.0.1")
        self.assertEqual([ip for ip, _ in self.bound()], ["127.0.0.1"])
        self.resolving("192.0.2.1")
        with self.assertRaisesRegex(BindError, "^cannot listen on some.example:0: Cannot assign requested address$"):
            self.bound()

    def test_taken(self) -> None:
        """One that is taken keeps the others from being had."""
        one, other = "127.93.0.1", "127.93.0.2"  # where nobody else has that port
        with socket.create_server((other, 0)) as taken:
            port = taken.getsockname()[1]
            self.resolving(one, other)
            with self.assertRaisesRegex(BindError, "Address already in use"):
                self.bound(port)
            with socket.create_server((one, port)):
                pass

    def test_unknown(self) -> None:
        """A sentence."""
        with self.assertRaisesRegex(BindError, r"^cannot listen on no-such\.invalid:1: "):
            bind(Address("no-such.invalid", 1))
