"""`cluster.log.channel`: a description of our own, which does not block, and nobody else's is touched."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
import tempfile
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from cluster.log.channel import PIPE_BUF, Channel, opened, standard

LINE = b"x" * 99 + b"\n"


class ChannelTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "log")

    def owned(self, channel: Channel) -> Channel:
        self.addCleanup(channel.close)
        return channel

    def of(self, fd: int) -> Channel:
        """The channel to *fd*, which must not have become non-blocking."""
        self.addCleanup(os.close, fd)
        with open(os.dup(fd), "w", encoding="utf-8") as stream:
            channel = self.owned(standard(stream))
        self.assertFalse(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)
        return channel

    def filled(self, channel: Channel) -> int:
        """How many bytes it takes until it says that there is no room."""
        size = 0
        with self.assertRaises(BlockingIOError):
            for _ in range(1 << 16):
                size += channel.write(LINE * (channel.most // len(LINE)))
        return size

    def pipe(self) -> tuple[int, int]:
        reads, writes = os.pipe()
        self.addCleanup(os.close, reads)
        return reads, writes

    def test_full(self) -> None:
        """A pipe, a socket and a terminal that nobody reads say so when they are full; room makes them go on."""
        reads, writes = self.pipe()
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        terminal, slave = pty.openpty()
        self.addCleanup(os.close, terminal)
        for reader, writer in ((reads, writes), (theirs.fileno(), ours.detach()), (terminal, slave)):
            channel = self.of(writer)
            self.assertFalse(channel.may_wait)
            size = self.filled(channel)
            self.assertFalse(channel.ready())
            while size > 0:
                size -= len(os.read(reader, 1 << 16).replace(b"\r", b""))
            self.assertTrue(channel.ready())
            self.assertEqual(channel.write(LINE), len(LINE))

    def test_whole_lines(self) -> None:
        """A full pipe takes a batch whole or not at all."""
        reads, writes = self.pipe()
        channel = self.of(writes)
        self.assertEqual(channel.most, PIPE_BUF)
        self.filled(channel)
        os.read(reads, 100)  # less than a page: no room yet
        with self.assertRaises(BlockingIOError):
            channel.write(LINE)

    def test_not_ours_to_open(self) -> None:
        """A pipe that may not be opened again is asked before each write."""
        _, writes = self.pipe()
        with mock.patch("os.open", side_effect=PermissionError):
            channel = self.of(writes)
        self.assertTrue(self.filled(channel) >= PIPE_BUF)

    def test_fifo(self) -> None:
        """A FIFO opens though nobody reads it, and what is written is there for who comes."""
        os.mkfifo(self.path)
        channel = self.owned(opened(self.path))
        self.assertEqual(channel.write(LINE), len(LINE))
        reader = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, reader)
        self.assertEqual(os.read(reader, 1000), LINE)

    def test_file(self) -> None:
        """A file is made, written to at its end, and may wait."""
        for _ in range(2):
            channel = self.owned(opened(self.path))
            self.assertTrue(channel.may_wait)
            channel.write(LINE)
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), LINE * 2)

    def test_closed(self) -> None:
        """A standard stream that was closed from the start swallows all; another descriptor is not taken for it."""
        self.assertEqual(self.owned(standard(None)).write(LINE), len(LINE))

    def test_nobody_reads(self) -> None:
        """A reader that has gone is an error, no signal and no room."""
        ours, theirs = socket.socketpair()
        channel = self.of(ours.detach())
        theirs.close()
        with self.assertRaises(BrokenPipeError):
            channel.write(LINE)
