"""The two kinds of ends that a TLS connection has: one with TLS, by OpenSSL on the raw socket, and one without.

As in `director.relay.stream`, *readable* and *writable* say "not known to block". What differs where there is TLS:

- OpenSSL takes a record at a time from the kernel. A short read proves nothing: only "want read" clears *readable*.
- A read may want to write (an answer to a key update): it is `stuck` until the descriptor is writable.
- The end of a stream is a message, close_notify. FIN without it is a truncation: somebody on the way, or the peer's crash,
  cut bytes off. It breaks the end as RST does, so that it arrives as RST at the other end, behind all that came before. A
  peer that we have said goodbye to need not answer that, and few do. OpenSSL is not told of such a FIN: it would send an
  alert to somebody who has gone, and be answered by RST.
"""

from __future__ import annotations

import errno
import os

from OpenSSL import SSL

from cluster.model import Reason
from director.relay.descriptors import unread
from director.relay.link import End
from director.relay.openssl import FIN, errno_of, in_words, receive, send, shake
from director.relay.stream import CHUNK_BYTES, PEER_ERRORS, cannot_read, write

#: What one direction may move before others get their turn: a tenth of a millisecond. Without TLS it is four times as much,
#: which takes no longer.
TURN_BYTES = 131_072


def flow(source: PlainEnd, target: PlainEnd, pipes: object, now_s: float) -> bool:
    """As `director.relay.stream.pump`, without pipes."""
    start, fresh = source.moved, source.empty
    turn_is_over = False
    while target.writable:
        if source.hold is not None:
            target.put(source, source.hold)
        elif not source.readable or source.eof:
            break
        elif source.moved - start >= TURN_BYTES:
            turn_is_over = True
            break
        elif data := source.take():
            target.put(source, data)
    source.moved_since(start, fresh, now_s)
    return turn_is_over


class PlainEnd(End):
    """An end without TLS, of a connection whose other end may have it."""

    __slots__ = ()

    #: The relay's fast path, which reads and writes descriptors, is not for these.
    calm = property(lambda self: False, lambda self, value: None)
    stuck = False

    def take(self) -> bytes:
        """Read once; nothing: it would block, has ended or is broken, as the record says.

        :raises OSError: the kernel refused memory or the like; the peers are not to blame.
        """
        try:
            data = os.read(self.fd, CHUNK_BYTES)
        except OSError as error:
            cannot_read(self, error)
            return b""
        if not data:
            self.eof = True
        elif len(data) < CHUNK_BYTES and not (self.broken or self.urgent):
            self.readable = False
            self.eof = self.finishing
        return data

    def put(self, source: PlainEnd, data: bytes) -> None:
        """Write what was read at *source*; what is not taken stays on hold there. Raises as `take`."""
        write(source, self, data)

    def goodbye(self) -> bool:
        """Say that nothing more will be written; False: there is no room for it, the descriptor must be writable first."""
        return True


class TLSEnd(PlainEnd):
    """An end with TLS.

    :param tls: a connection on the same descriptor.
    """

    __slots__ = ("said_goodbye", "stuck", "tls", "truncated")

    def __init__(self, fd: int, now_s: float, tls: SSL.Connection) -> None:
        super().__init__(fd, now_s)
        self.tls = tls
        self.stuck = False
        self.said_goodbye = False
        self.truncated = False

    def take(self) -> bytes:
        if self.finishing and not self.broken and not unread(self.fd):
            self.eof = True
            self._truncated()
            return b""
        try:
            data = receive(self.tls)
        except SSL.WantWriteError:
            self.readable = self.writable = False
            self.stuck = True
        except SSL.ZeroReturnError:
            self.eof = True
        except SSL.Error as error:
            self.eof = True
            self._breaks(error)
        else:
            if data is not None:
                return data
            self.readable = False
        return b""

    def put(self, source: PlainEnd, data: bytes) -> None:
        try:
            sent = send(self.tls, data)
        except SSL.Error as error:
            source.hold = data
            self.writable = False
            self._breaks(error)
            return
        if not sent:
            source.hold = data  # to be offered again just so
            self.writable = False
        else:
            source.moved += sent
            source.hold = data[sent:] if sent < len(data) else None

    def goodbye(self) -> bool:
        if not self.said_goodbye and not self.broken:
            try:
                self.tls.shutdown()
            except SSL.WantWriteError:
                self.writable = False
                return False
            except SSL.Error as error:  # the peer is gone: its event is under way
                in_words(error)
                return True
            self.said_goodbye = True
        return True

    def shake(self) -> bool:
        """A step of the handshake, which goes before all else; whether it is over.

        :raises SSL.Error: it has failed.
        """
        return not shake(self.tls)

    def why_broken(self) -> Reason:
        if not self.truncated:
            return super().why_broken()
        return Reason.CLIENT_TRUNCATED if self.link is not None and self is self.link.client else Reason.HOST_TRUNCATED

    def _truncated(self) -> None:
        """FIN came before close_notify."""
        if not self.said_goodbye:
            self.truncated = not self.broken
            self.broken = self.broken or errno.ECONNABORTED

    def _breaks(self, error: SSL.Error) -> None:
        number = errno_of(error) if isinstance(error, SSL.SysCallError) else errno.EPROTO
        if number == FIN:
            self._truncated()
        elif number in PEER_ERRORS:
            self.broken = self.broken or number
        else:
            raise OSError(number, os.strerror(number)) from error
