"""A bounded stock of pipes for splice(2).

Pages of pipes count against a quota per user that root does not see (``pipe-user-pages-soft``, 16,384 pages): a
process of an ordinary user gets about 1,024 pipes of the default size and after that tiny ones. So the stock is
bounded, a pipe is borrowed only while bytes are inside, and `take` may answer "none": the caller then copies. The first
`LARGE_PIPES` are made larger, if the kernel lets them: each round trip through a pipe then moves eight times as much.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import NamedTuple

#: What a pipe of full size is said to hold: 16 pages, the kernel's default.
PIPE_BYTES = 65_536
#: A large pipe. Beyond this, bulk gains nothing and small messages wait longer.
LARGE_PIPE_BYTES = 524_288
#: With the others they stay within two thirds of an ordinary user's pages: 32 × 128 + 480 × 16 of 16,384.
LARGE_PIPES = 32
#: Asked of one splice. A pipe's slot holds a page or, on loopback and with GRO, up to 32 KiB: more than PIPE_BYTES.
SPLICE_BYTES = 524_288
#: In use and idle together: half of what an ordinary user may have.
MAX_PIPES = 512
#: Kept for the next burst; more are closed when they come back.
MAX_IDLE_PIPES = 64
#: After the kernel refused a pipe, this many requests are answered "none" before it is asked again.
PATIENCE = 1_000


class Pipe(NamedTuple):
    """Two non-blocking descriptors."""

    reader: int
    writer: int


class PipePool:
    """Lends pipes; every pipe is either idle here or with exactly one borrower."""

    def __init__(self, *, maximum: int = MAX_PIPES) -> None:
        self._maximum = maximum
        self._idle: list[Pipe] = []
        self._refuse = 0
        self.count = 0  #: idle and lent
        self.spliced_bytes = 0  #: what went into pipes so far; kept by the borrowers

    def take(self) -> Pipe | None:
        """An empty pipe, or None: the bound is reached, or the kernel refuses a pipe of full size."""
        if self._idle:
            return self._idle.pop()
        if self.count >= self._maximum:
            return None
        if self._refuse:
            self._refuse -= 1
            return None
        try:
            pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:  # EMFILE, ENFILE: copying needs no descriptors
            self._refuse = PATIENCE
            return None
        self.count += 1
        if fcntl.fcntl(pipe.writer, fcntl.F_GETPIPE_SZ) < PIPE_BYTES:  # beyond the quota: one or two pages
            self.drop(pipe)
            self._refuse = PATIENCE
            return None
        if self.count <= LARGE_PIPES:
            with contextlib.suppress(OSError):  # EPERM: an ordinary user's quota; it keeps its size
                fcntl.fcntl(pipe.writer, fcntl.F_SETPIPE_SZ, LARGE_PIPE_BYTES)
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Bring back a drained pipe."""
        if len(self._idle) < MAX_IDLE_PIPES:
            self._idle.append(pipe)
        else:
            self.drop(pipe)

    def drop(self, pipe: Pipe) -> None:
        """Close a lent pipe, which may still hold bytes."""
        os.close(pipe.reader)
        os.close(pipe.writer)
        self.count -= 1

    def close(self) -> None:
        """Close the idle ones."""
        while self._idle:
            self.drop(self._idle.pop())
