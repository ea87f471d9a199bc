"""Waiting until the first bytes of a connection tell something, without consuming them.

They are peeked at, so that they stay in the kernel for the relay. While there are too few, SO_RCVLOWAT keeps the descriptor
quiet until there may be enough; UNIX sockets know no such thing, nor does TCP when its buffer is full of small pieces, so
those are looked at again after a while.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from cluster.errors import RemoteError
from director.timing.courtesy import give_way

T = TypeVar("T")

#: Between looks at what would not keep quiet: most of it is written whole.
LOOK_S = 0.01


class Untold(NamedTuple):
    """Why the bytes told nothing.

    :ivar how: they are wrong, the peer has reset the connection, or finished it, or the time was up.
    :ivar silent: there were none at all.
    """

    how: Literal["wrong", "reset", "ended", "late"]
    why: str  #: in words
    silent: bool = False
    error: RemoteError | None = None  #: of those that are wrong


@implementer(IReadDescriptor)
class Peek(Generic[T]):
    """Looks at one connection, then hands its socket back.

    :param parse: the bytes so far to what they tell, or how many there must be at least; raises RemoteError. All answers but
        an integer are what they tell.
    :param done: called once, perhaps by `start` already. *client* is its to own then.
    :param most: bytes that *parse* needs at most.
    """

    def __init__(self, client: socket.socket, parse: Callable[[bytes], T | int], done: Callable[[Peek[T], T | Untold], None],
                 *, most: int, reactor: Any, timeout_s: float) -> None:
        self.client = client
        self._parse = parse
        self._done = done
        self._most = most
        self._reactor = reactor
        self._timeout_s = timeout_s
        self._timer: Any = None
        self._again: Any = None
        self._low = 1  # SO_RCVLOWAT
        self._seen = 0

    def start(self) -> None:
        """Look, and wait if that was too early."""
        if not self._look():
            self._timer = self._reactor.callLater(self._timeout_s, self._timed_out)
            if self._again is None:
                self._reactor.addReader(self)

    def cancel(self) -> None:
        """Look no more; *done* is not called."""
        self._reactor.removeReader(self)
        for call in (self._again, self._timer):
            if call is not None:
                call.cancel()
        self._again = self._timer = None

    # IReadDescriptor

    def fileno(self) -> int:
        return self.client.fileno()

    def logPrefix(self) -> str:
        return "Peek"

    def connectionLost(self, reason: Any) -> None:
        """The reactor's own end; whoever owns this has ended it before."""

    def doRead(self) -> None:
        self._look()
        give_way()

    # inside

    def _look(self) -> bool:
        """Whether it is done."""
        try:
            data = self.client.recv(self._most, socket.MSG_PEEK)
            told: T | int | Untold = self._parse(data) if data else 0
            if isinstance(told, int):
                if data and not self._has_finished():
                    self._wait(len(data), told)
                    return False
                reset = self.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # what came before it is there still
                told = Untold("reset" if reset else "ended", "the connection ended before it", silent=not data)
        except BlockingIOError:
            return False
        except RemoteError as error:
            told = Untold("wrong", str(error), error=error)
        except OSError:
            told = Untold("reset", "the connection was reset before it")
        self._finish(told)
        return True

    def _wait(self, seen: int, least: int) -> None:
        """For *least* bytes, of which *seen* are there."""
        if least != self._low:
            self._low = least
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
        if self.client.family == socket.AF_UNIX or seen == self._seen:
            self._reactor.removeReader(self)
            self._again = self._reactor.callLater(LOOK_S, self._look_again)
        self._seen = seen

    def _has_finished(self) -> bool:
        """After the peer's FIN: what is incomplete stays so."""
        poll = select.poll()
        poll.register(self.client, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _look_again(self) -> None:
        self._again = None
        if not self._look() and self._again is None:
            self._reactor.addReader(self)

    def _timed_out(self) -> None:
        self._timer = None
        self._finish(Untold("late", "it did not come in time", silent=not self._seen))

    def _finish(self, told: T | Untold) -> None:
        self.cancel()
        if self._low > 1:  # whatever it told, the next who reads may want each byte
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._done(self, told)
