"""A TCP connect that the server's program never hears of: as soon as the other kernel has agreed to it, it is reset.

Servers count who connects and leaves without a word: MariaDB blocks him after a hundred times, OpenSSH's penalties lock
him out. So the last segment of the handshake is withheld, by switching off quick acknowledgements (tcp(7), TCP_QUICKACK;
the kernel waits up to 200 ms for data to send along), and a reset takes its place (SO_LINGER of 0 s): the half-open
connection is dropped before accept(2) could give it to anybody. HAProxy's checks do the same. A reactor that comes
round later than that has connected and reset, which costs a server that counts one of its hundred.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import getConnectError
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from cluster.address import Address
from cluster.shortage import OutOfResources
from director.ports.sockets import knocker, lacked


def knock(target: Address, sources: Sequence[str], *, reactor: Any) -> Deferred[None]:
    """Fires when *target*, a literal IP address, can be connected to; nothing is left of the connection then. Cancellable.

    Fails with a `ConnectError`, or with `OutOfResources` when it could not begin.

    :param sources: addresses of this machine to connect from; the next one is tried where one has no port left.
    """
    fd = knocker(target, sources)()
    if fd < 0:
        return fail(_error(-fd, target))
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET  # which else the kernel is asked for, and two more
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0, fd)
    if _is_connected(sock):  # to this machine: the reactor may be busy for longer than the kernel waits
        sock.close()
        return succeed(None)
    return _Knock(sock, target, reactor).done


@implementer(IReadDescriptor, IWriteDescriptor)
class _Knock:
    """On the reactor while the connect is under way. Any event ends it; what it was the socket knows."""

    def __init__(self, sock: socket.socket, target: Address, reactor: Any) -> None:
        self._sock = sock
        self._target = target
        self._reactor = reactor
        self.done: Deferred[None] = Deferred(lambda _: self._close())
        reactor.addWriter(self)

    def fileno(self) -> int:
        return self._sock.fileno()

    def logPrefix(self) -> str:
        return "knock"

    def doWrite(self) -> None:
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._close()
        if error:
            self.done.errback(_error(error, self._target))
        else:
            self.done.callback(None)

    doRead = doWrite

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw the refusal first."""
        if self._sock.fileno() >= 0:
            self.doWrite()

    def _close(self) -> None:
        self._reactor.removeWriter(self)
        self._sock.close()


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _error(error: int, target: Address) -> Exception:
    what = lacked(error, target)
    if what:
        return OutOfResources(what)
    reason: Exception = getConnectError((error, os.strerror(error)))
    return reason
