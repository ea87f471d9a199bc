"""Ways to write a log's bytes that never make the caller wait.

Setting O_NONBLOCK on an inherited standard stream would set it for everybody who shares its open file description: the
shell, the reader, the other commands of a pipeline. So:

- a **pipe**, a **FIFO** and a **terminal** are opened once more, through /proc/self/fd; that gives a description of our own,
  and that one does not block;
- a **socket** (the journal's) cannot be opened again, but each send may say MSG_DONTWAIT;
- a **file** takes no notice of O_NONBLOCK: a write that finds the disk slow waits. `Channel.may_wait` says so, and the
  writer leaves it to the reactor's pool;
- a pipe or terminal that we **may not open again** (another user's, or no /proc) is asked by poll(2) whether it has room
  for `PIPE_BUF` bytes, and given no more. A write waits then only if another process filled it in between.

A pipe gets at most `PIPE_BUF` bytes at once. The kernel takes those whole or not at all, so that lines do not mix with
those of other processes that write to the same pipe.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from typing import IO

#: Into a pipe; POSIX's limit for writes that are not torn.
PIPE_BUF = select.PIPE_BUF
#: Into a file at once: some 400 lines, which a disk that works takes in a millisecond.
BATCH = 1 << 16


class Channel:
    """One open target; it owns *fd*.

    :param ask: *fd* blocks; each write must be preceded by a poll.
    """

    whole = False  #: `write` takes bytes, lines or parts of them

    def __init__(self, fd: int, *, ask: bool = False) -> None:
        self.fd = fd
        self._ask = ask
        mode = os.fstat(fd).st_mode
        self.may_wait = stat.S_ISREG(mode)  #: `write` waits for a slow disk
        self.most = BATCH if self.may_wait else PIPE_BUF  #: bytes that one `write` may be given
        self._socket = socket.socket(fileno=fd) if stat.S_ISSOCK(mode) else None

    def write(self, data: bytes) -> int:
        """How many bytes were taken.

        :raises BlockingIOError: there is no room now.
        :raises OSError: nobody reads, the disk is full, and the like.
        """
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        if self._ask and not self.ready():
            raise BlockingIOError
        return os.write(self.fd, data)

    def ready(self, wait_s: float = 0.0) -> bool:
        """Whether `write` would find room or fail at once; waits for that at most *wait_s*."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(wait_s * 1000))

    def close(self) -> None:
        """Give *fd* back. Never raises."""
        try:
            if self._socket is not None:
                self._socket.close()
            else:
                os.close(self.fd)
        except OSError:
            pass  # a disk that tells late of a failed write


def standard(stream: IO[str] | None) -> Channel:
    """A channel to where *stream*, one of the standard ones, writes to; it stays open and as it is. None stands for one that
    was closed when we were started; nobody reads it.

    :raises OSError: it has been closed since.
    """
    if stream is None:
        return opened(os.devnull)
    fd = stream.fileno()
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return Channel(os.dup(fd))
    try:
        return Channel(_own(f"/proc/self/fd/{fd}", 0))
    except OSError:
        return Channel(os.dup(fd), ask=True)


def opened(path: str) -> Channel:
    """A channel to the file at *path*, made when there is none. A FIFO need not have a reader.

    :raises OSError: it cannot be opened.
    """
    return Channel(_own(path, os.O_APPEND | os.O_CREAT))


def _own(path: str, flags: int) -> int:
    """A description of our own, which does not block."""
    flags |= os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(path, os.O_WRONLY | flags, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.open(path, os.O_RDWR | flags)  # a FIFO that nobody reads now; with us as a reader it opens
