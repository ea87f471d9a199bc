"""`cluster.log.datagrams`: records to a socket, whole, without waiting, and to another one of the same name."""

from __future__ import annotations

import os
import socket
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from cluster.log.datagrams import Datagrams, receiver, unreachable
from cluster.log.writer import CLOSE_S, RETRY_S, LineWriter
from tests.unit.cluster.log.log_kit import LogReactor


class TargetTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Where a target's records go; other names are streams and files."""
        for target, found in (
            ("syslog", ("syslog", "/dev/log")), ("syslog:/run/a", ("syslog", "/run/a")), ("stderr", None), ("/var/log/syslog", None),
            ("journal", ("journal", "/run/systemd/journal/socket")), ("journal:/b", ("journal", "/b")), ("journals", None),
        ):
            self.assertEqual(receiver(target), found, target)


class DatagramTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "log")
        self.reactor = LogReactor()

    def daemon(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(found.close)
        found.bind(self.path)
        found.setblocking(False)
        return found

    def heard(self, daemon: socket.socket) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(daemon.recv(1 << 17))
            except BlockingIOError:
                return found

    def writer(self) -> LineWriter:
        made = LineWriter(Datagrams(self.path), lambda count: b"%d dropped" % count, reactor=self.reactor)
        self.addCleanup(made.close)
        self.reactor.begin()
        return made

    def test_whole(self) -> None:
        """Each record is a datagram, however long and whatever is in it."""
        daemon, writer = self.daemon(), self.writer()
        records = [b"one", b"two\nlines\n", b"x" * 60_000]
        for record in records:
            writer.write(record)
        self.assertEqual(self.heard(daemon), records)

    def test_nobody_reads(self) -> None:
        """What a full queue does not take waits; what is too much is dropped, counted and told; in order."""
        daemon, writer = self.daemon(), self.writer()
        records = [b"%07d" % number + b"." * 10_000 for number in range(300)]
        for record in records:
            writer.write(record)
        self.assertTrue(self.reactor.writers)
        self.assertGreater(writer.dropped, 0)
        heard = self.heard(daemon)
        while self.reactor.writers:
            self.reactor.writable()
            heard += self.heard(daemon)
        self.assertEqual(heard, [*records[: 300 - writer.dropped], b"%d dropped" % writer.dropped])

    def test_a_daemon_that_comes_back(self) -> None:
        """Its new socket is found, and what was said meanwhile arrives."""
        daemon, writer = self.daemon(), self.writer()
        daemon.close()
        writer.write(b"one")
        os.unlink(self.path)
        self.reactor.advance(RETRY_S)
        daemon = self.daemon()
        writer.write(b"two")
        self.assertEqual(self.heard(daemon), [])
        self.reactor.advance(RETRY_S)
        self.assertEqual(self.heard(daemon), [b"one", b"two"])
        self.assertEqual(writer.dropped, 0)

    def test_the_end_does_not_wait_long(self) -> None:
        """For a daemon that takes nothing: a second."""
        self.daemon()
        seconds = iter([0.0, 0.0, CLOSE_S + 1, CLOSE_S + 1])
        writer = LineWriter(Datagrams(self.path), lambda count: b"", reactor=self.reactor, monotonic=lambda: next(seconds))
        self.reactor.begin()
        for _ in range(300):
            writer.write(b"x" * 1000)
        writer.close()

    def test_nobody_there(self) -> None:
        self.assertEqual(unreachable(self.path), "No such file or directory")
        self.assertRaises(FileNotFoundError, Datagrams, self.path)
        self.daemon().close()
        self.assertEqual(unreachable(self.path), "Connection refused")
        os.unlink(self.path)
        self.daemon()
        self.assertEqual(unreachable(self.path), "")
