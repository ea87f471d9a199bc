"""`cluster.log.writer`: it never waits, goes on by itself, and the last lines are not lost."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import time

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.log import writer as writer_module
from cluster.log.backlog import MAX_BYTES
from cluster.log.channel import Channel, opened, standard
from cluster.log.writer import RETRY_S, LineWriter
from tests.unit.cluster.log.log_kit import LogReactor


def told(count: int) -> bytes:
    return b"-%d\n" % count


class WriterTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "log")
        self.reactor = LogReactor()
        self.patch(writer_module, "CLOSE_S", 0.05)

    def writer(self, channel: Channel) -> LineWriter:
        made = LineWriter(channel, told, reactor=self.reactor)
        self.addCleanup(made.close)
        return made

    def to_pipe(self) -> tuple[LineWriter, int]:
        reads, writes = os.pipe()
        self.addCleanup(os.close, reads)
        os.set_blocking(reads, False)
        with open(writes, "w", encoding="utf-8") as stream:
            return self.writer(standard(stream)), reads

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def limit_files(self, size: int) -> None:
        """Let no file of this process grow beyond *size*, like a full disk."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)
        self.assertEqual(signal.getsignal(signal.SIGXFSZ), signal.SIG_IGN)

    def test_at_once(self) -> None:
        """A line to a pipe with room is there when the call returns, before the reactor runs and after."""
        writer, reads = self.to_pipe()
        writer.write(b"one\n")
        self.reactor.begin()
        writer.write(b"two\n")
        self.assertEqual(os.read(reads, 100), b"one\ntwo\n")
        self.assertEqual(self.reactor.writers, set())

    def test_stopped_reader(self) -> None:
        """With a reader that reads nothing, writing goes on at once, within bounded memory; when it reads again, all that
        waited comes, with a line where lines are missing."""
        writer, reads = self.to_pipe()
        self.reactor.begin()
        line, count = b"x" * 99 + b"\n", 3 * MAX_BYTES // 100
        for _ in range(count):
            writer.write(line)
        self.assertEqual(self.reactor.writers, {writer})
        dropped = writer.dropped
        self.assertTrue(MAX_BYTES // 100 < dropped < 2 * MAX_BYTES // 100)
        found = b""
        while self.reactor.writers:
            found += os.read(reads, 1 << 16)
            self.reactor.writable()
        writer.write(b"last\n")
        while not found.endswith(b"last\n"):
            found += os.read(reads, 1 << 16)
        lines = found.splitlines(keepends=True)
        self.assertEqual(lines[-2:], [told(dropped), b"last\n"])
        self.assertEqual(lines[:-2], [line] * (count - dropped))
        self.assertEqual(writer.dropped, dropped)

    def test_reader_gone(self) -> None:
        """Without a reader it tries again now and then; one that comes gets what waited."""
        os.mkfifo(self.path)
        first = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        writer = self.writer(opened(self.path))
        self.reactor.begin()
        os.close(first)
        writer.write(b"one\n")
        self.reactor.advance(RETRY_S)
        second = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, second)
        self.reactor.advance(RETRY_S)
        self.assertEqual(os.read(second, 100), b"one\n")

    def test_reader_gone_while_waiting(self) -> None:
        """The reactor's word that the reader is gone is one more reason to try later."""
        writer, _ = self.to_pipe()
        self.reactor.begin()
        while not self.reactor.writers:
            writer.write(b"x" * 99 + b"\n")
        self.reactor.writers.clear()
        writer.connectionLost(Failure(ConnectionDone()))
        self.reactor.advance(RETRY_S)
        self.assertEqual(self.reactor.writers, {writer})

    def test_file(self) -> None:
        """A file is written to by the pool, one batch at a time and in order; directly before and after the reactor."""
        writer = self.writer(opened(self.path))
        writer.write(b"one\n")
        self.assertEqual(self.read(self.path), b"one\n")
        self.reactor.begin()
        for line in (b"two\n", b"three\n", b"four\n"):
            writer.write(line)
        self.assertEqual(self.read(self.path), b"one\n")
        self.reactor.work()
        self.assertEqual(self.read(self.path), b"one\ntwo\n")
        self.reactor.work()
        self.assertEqual(self.read(self.path), b"one\ntwo\nthree\nfour\n")
        self.reactor.end()
        writer.write(b"five\n")
        self.assertEqual(self.read(self.path), b"one\ntwo\nthree\nfour\nfive\n")

    def test_hung_disk(self) -> None:
        """While a write hangs nobody waits for it, not even the end; what no longer fits is counted."""
        writer = self.writer(opened(self.path))
        self.reactor.begin()
        for _ in range(2 * MAX_BYTES // 100):
            writer.write(b"x" * 99 + b"\n")
        self.assertTrue(writer.dropped)
        writer.close()
        self.assertEqual(self.read(self.path), b"")

    def test_full_disk(self) -> None:
        """A full disk stops nothing; when there is room the rest of the line follows, and all that waited."""
        writer = self.writer(opened(self.path))
        self.reactor.begin()
        self.limit_files(10)
        for number in range(4):
            writer.write(b"line %d\n" % number)
            self.reactor.work()
        self.assertEqual(self.read(self.path), b"line 0\nlin")
        self.limit_files(1000)
        self.reactor.advance(RETRY_S)
        self.reactor.work()
        self.assertEqual(self.read(self.path), b"line 0\nline 1\nline 2\nline 3\n")

    def test_replaced(self) -> None:
        """Another target takes over at once; a line that the old one has in part is whole in the new one."""
        writer = self.writer(opened(self.path))
        self.reactor.begin()
        self.limit_files(10)
        for number in range(3):
            writer.write(b"line %d\n" % number)
            self.reactor.work()
        new = self.path + ".new"
        self.limit_files(1000)
        writer.replace(opened(new))
        self.reactor.work()
        self.assertEqual(self.read(new), b"line 1\nline 2\n")

    def test_replaced_amid_a_batch(self) -> None:
        """A batch that the pool is writing goes to the old target whole, what follows to the new one; the old is closed."""
        before = opened(self.path)
        writer = self.writer(before)
        self.reactor.begin()
        writer.write(b"one\n")
        new = self.path + ".new"
        writer.replace(opened(new))
        writer.write(b"two\n")
        self.reactor.work()
        self.reactor.work()
        self.assertEqual((self.read(self.path), self.read(new)), (b"one\n", b"two\n"))
        with self.assertRaises(OSError):
            os.fstat(before.fd)

    def test_replaced_while_waiting(self) -> None:
        """A stuck pipe is waited for no more once another target took over."""
        writer, _ = self.to_pipe()
        self.reactor.begin()
        while not self.reactor.writers:
            writer.write(b"x" * 99 + b"\n")
        writer.replace(opened(self.path))
        self.assertEqual(self.reactor.writers, set())
        self.reactor.work()
        self.assertEqual(self.read(self.path), b"x" * 99 + b"\n")

    def test_close(self) -> None:
        """What waits is still written to a target that takes it, a batch that is over is not written twice."""
        writer = self.writer(opened(self.path))
        self.reactor.begin()
        writer.write(b"one\n")
        writer.write(b"two\n")
        batch = writer._batch
        assert batch is not None
        batch.write()  # the pool was joined; its answer comes no more
        self.reactor.end()
        writer.close()
        self.assertEqual(self.read(self.path), b"one\ntwo\n")

    def test_close_without_a_reader(self) -> None:
        """The end waits for a stopped reader no longer than it says."""
        writer, _ = self.to_pipe()
        self.reactor.begin()
        while not self.reactor.writers:
            writer.write(b"x" * 99 + b"\n")
        self.reactor.end()
        began = time.monotonic()
        writer.close()
        self.assertLess(time.monotonic() - began, 5)
        writer.write(b"too late\n")
        self.assertEqual(self.reactor.writers, set())
