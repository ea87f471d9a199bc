"""Reading the PROXY header that a trusted proxy sends before its client's bytes.

The header is peeked at and consumed exactly, so that the client's own bytes stay in the kernel for the relay. While it
is incomplete, SO_RCVLOWAT keeps the descriptor quiet until there is more than was seen; UNIX sockets know no such
thing, so they are looked at again after a while.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from cluster.errors import RemoteError
from cluster.model import Reason
from director.core.proxy_protocol import MAX_HEADER_BYTES, Header, decode

#: Between looks at a UNIX socket with part of a header: most are written whole.
UNIX_LOOK_S = 0.01


@implementer(IReadDescriptor)
class HeaderReader:
    """Reads one connection's header, then hands the socket back.

    :param done: called once, with the header, or why there is none: garbage or nothing in time, or the peer has reset
        the connection, as load balancers that only look whether we are there do. *client* is its to own then.
    :ivar why: there is none, in words.
    """

    def __init__(
        self, client: socket.socket, done: Callable[[HeaderReader, Header | Reason], None], *, reactor: Any,
        timeout_s: float,
    ) -> None:
        self.client = client
        self.why = "the connection ended before it"
        self._done = done
        self._reactor = reactor
        self._timer = reactor.callLater(timeout_s, self._timed_out)
        self._look: Any = None
        reactor.addReader(self)

    def fileno(self) -> int:
        return self.client.fileno()

    def logPrefix(self) -> str:
        return "HeaderReader"

    def connectionLost(self, reason: Any) -> None:
        """The reactor's own end; whoever owns the reader has ended it before."""

    def doRead(self) -> None:
        try:
            seen = self.client.recv(MAX_HEADER_BYTES, socket.MSG_PEEK)
            header = decode(seen) if seen else None
            if header is not None:
                self.client.recv(header.consumed)
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            elif seen:
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(seen) + 1)
                if self._more_to_come():
                    if self.client.family == socket.AF_UNIX:
                        self._reactor.removeReader(self)
                        self._look = self._reactor.callLater(UNIX_LOOK_S, self._look_again)
                    return
        except BlockingIOError:
            return
        except OSError:
            self._finish(Reason.CLIENT_RESET)
        except RemoteError as error:
            self.why = str(error)
            self._finish(Reason.BAD_PROXY_HEADER)
        else:
            self._finish(header or Reason.BAD_PROXY_HEADER)

    def _more_to_come(self) -> bool:
        """False after the peer's FIN: an incomplete header stays incomplete."""
        poll = select.poll()
        poll.register(self.client, select.POLLRDHUP)
        return not poll.poll(0)

    def _look_again(self) -> None:
        self._look = None
        self._reactor.addReader(self)

    def _timed_out(self) -> None:
        self._timer = None
        self.why = "it did not come in time"
        self._finish(Reason.BAD_PROXY_HEADER)

    def cancel(self) -> None:
        """Stop reading; *done* is not called."""
        self._reactor.removeReader(self)
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, header: Header | Reason) -> None:
        self.cancel()
        self._done(self, header)
