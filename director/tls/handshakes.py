"""TLS handshakes with clients, apart from established traffic.

They cost far more than anything else that a client can ask for. So they have an epoll object of their own, one descriptor of
the reactor, of which a few are served in a turn: a flood of handshakes makes handshakes wait, and nothing else. What is
under way has a deadline, and there is a most of it, beyond which the oldest is given up: a client that speaks at once is
never that.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from OpenSSL import SSL
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from director.relay.openssl import in_words, shake
from director.timing.courtesy import give_way

#: Steps of handshakes in one turn of the reactor: with RSA one takes up to a millisecond, with P-256 a third of that.
STEPS_PER_TURN = 4
#: Between looks for those that take too long, all of them: a client that is late is late by so much more.
LOOK_S = 0.25


class Shaken(NamedTuple):
    """How a handshake ended: well, or the peer and we do not agree, or it has gone, or it was too slow for us."""

    how: Literal["well", "badly", "gone", "late"]
    why: str = ""  #: in words


WELL = Shaken("well")


class Handshake:
    """One that is under way."""

    __slots__ = ("deadline", "done", "fd", "mask", "tls")

    def __init__(self, fd: int, tls: SSL.Connection, done: Callable[[Shaken], None], deadline: float) -> None:
        self.fd = fd
        self.tls = tls
        self.done = done
        self.deadline = deadline
        self.mask = select.EPOLLIN


@implementer(IReadDescriptor)
class Handshakes:
    """Those of one service.

    :param monotonic: seconds.
    """

    _log = Logger()

    def __init__(self, *, reactor: Any, monotonic: Callable[[], float]) -> None:
        self._reactor = reactor
        self._monotonic = monotonic
        self._epoll: select.epoll | None = None
        self._under_way: dict[int, Handshake] = {}  # by descriptor, in the order of time
        self._timer: IDelayedCall | None = None  # while any is under way

    def __len__(self) -> int:
        return len(self._under_way)

    def start(self) -> None:
        """Once is enough, before the first one."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)

    def begin(self, fd: int, tls: SSL.Connection, done: Callable[[Shaken], None], *, timeout_s: float, most: int) -> None:
        """Shake hands on *fd*, a connected non-blocking socket that *tls* is on, which stays the caller's.

        :param done: called once.
        :param most: under way; the oldest makes room.
        :raises OSError: the kernel has no memory for one more.
        """
        assert self._epoll is not None
        self._epoll.register(fd, select.EPOLLIN)
        self._under_way[fd] = Handshake(fd, tls, done, self._monotonic() + timeout_s)
        if self._timer is None:
            self._timer = self._reactor.callLater(LOOK_S, self._look)
        if len(self._under_way) > most:
            oldest = next(iter(self._under_way.values()))
            self._over(oldest, Shaken("late", f"{most} others are under way"))

    def abandon(self, fd: int) -> bool:
        """Forget the handshake on *fd*, of which nobody is told; whether there was one."""
        handshake = self._under_way.get(fd)
        if handshake is not None:
            self._forget(handshake)
        return handshake is not None

    def stop(self) -> None:
        """Those that are under way are to be abandoned before."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._epoll is not None:
            self._reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None

    # IReadDescriptor

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "handshakes"

    def connectionLost(self, reason: Any) -> None:
        """The reactor's own end; whoever owns this has stopped it before."""

    def doRead(self) -> None:
        """A few; the others are reported again in the next turn, after whatever else is ready."""
        assert self._epoll is not None
        for fd, _ in self._epoll.poll(0, STEPS_PER_TURN):
            handshake = self._under_way.get(fd)
            if handshake is not None:
                self._step(handshake)
                give_way()

    # inside

    def _step(self, handshake: Handshake) -> None:
        try:
            mask = shake(handshake.tls)
        except SSL.SysCallError as error:
            self._over(handshake, Shaken("gone", in_words(error)))
        except SSL.Error as error:
            self._over(handshake, Shaken("badly", in_words(error)))
        else:
            if not mask:
                self._over(handshake, WELL)
            elif mask != handshake.mask:
                assert self._epoll is not None
                handshake.mask = mask
                self._epoll.modify(handshake.fd, mask)

    def _look(self) -> None:
        self._timer = None
        now = self._monotonic()
        for handshake in [each for each in self._under_way.values() if each.deadline <= now]:
            if self._under_way.get(handshake.fd) is handshake:  # what followed another one did not end it
                self._over(handshake, Shaken("late", "it did not end in time"))
        if self._under_way and self._timer is None and self._epoll is not None:
            self._timer = self._reactor.callLater(LOOK_S, self._look)

    def _over(self, handshake: Handshake, shaken: Shaken) -> None:
        self._forget(handshake)
        try:
            handshake.done(shaken)
        except Exception:  # one client's trouble is not that of the others in this turn
            self._log.failure("what follows a handshake failed")

    def _forget(self, handshake: Handshake) -> None:
        assert self._epoll is not None
        self._epoll.unregister(handshake.fd)
        del self._under_way[handshake.fd]
