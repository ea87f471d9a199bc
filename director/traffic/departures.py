"""Noticing clients that go while nobody reads from them: in a queue, or while a host's UNIX socket is full.

Each has its descriptor in one epoll object for all services, which is one descriptor of the reactor. Only errors and
hang-ups are told, edge-triggered: so neither bytes nor a FIN wake anybody, and nothing is told twice.

A reset is a departure. A FIN is not: the client may wait for its answer. Over UNIX sockets, which know no reset, it is one
when a client closed its socket and has sent nothing; what it sent is for the host, though nobody is there for the answer.
"""

from __future__ import annotations

import array
import fcntl
import select
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

#: Departures taken from the kernel at once: those of a whole queue, as a rule.
BATCH = 1024


@implementer(IReadDescriptor)
class Departures:
    """Tells who has gone. Without a descriptor or memory to notice it, clients wait until their turn or their timeout."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        self._gone: dict[int, Callable[[], None]] = {}
        self.watched = self._gone.keys()  #: descriptors

    def watch(self, fd: int, gone: Callable[[], None]) -> None:
        """Call *gone* once, when the client of *fd* departs, unless it is forgotten before."""
        if fd < 0 or fd in self._gone:
            return
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
                self._reactor.addReader(self)
            self._epoll.register(fd, select.EPOLLET)
        except OSError:  # EMFILE, ENOMEM, ENOSPC
            return
        self._gone[fd] = gone

    def forget(self, fd: int) -> None:
        """*fd* is about to be closed or handed over; of one that is not watched nothing is to forget."""
        if self._gone.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(fd)

    def look(self) -> bool:
        """Tell of all that have departed by now; whether there was one."""
        found = False
        while self._epoll is not None:
            batch = self._epoll.poll(0, BATCH)
            for fd, mask in batch:
                gone = self._gone.get(fd)
                if gone is not None and (mask & select.EPOLLERR or not _unread(fd)):
                    found = True
                    self.forget(fd)
                    gone()
            if len(batch) < BATCH:
                break
        return found

    def stop(self) -> None:
        """Watch nobody any more, for good or until somebody is watched anew."""
        self._gone.clear()
        if self._epoll is not None:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # IReadDescriptor

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "Departures"

    def connectionLost(self, reason: Any) -> None:
        """The reactor's own end."""

    def doRead(self) -> None:
        self.look()


def _unread(fd: int) -> int:
    """Bytes that wait to be read."""
    size = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return size[0]
