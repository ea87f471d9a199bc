"""The Python relay for connections of which either end, or both, speak TLS.

A relay of its own, with an epoll object of its own, so that connections without TLS pay nothing for it. Handshakes with
clients are over before a connection comes here (`director.tls.handshakes`); one with a host is part of the connect, and
fails as a connect does: by then nothing of the client's was read. The other rules are `director.relay.python`'s; what
differs is how an end is read and written, which the ends know (`director.relay.tls_end`).
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

from OpenSSL import SSL

from director.relay.descriptors import error_of
from director.relay.link import End, Link
from director.relay.openssl import FIN, errno_of, in_words
from director.relay.python import PythonRelay
from director.relay.tls_end import PlainEnd, TLSEnd, flow

_OUT = select.EPOLLOUT


class Dials(Protocol):
    """TLS with one host, for one connection."""

    def connection(self, fd: int) -> SSL.Connection:
        """The client's side on *fd*, before its handshake."""

    def refusal(self, connection: SSL.Connection) -> str:
        """Why the one who answered is not to be trusted, although the handshake went well; empty: it is."""


class Secured(Protocol):
    """A token of this relay's, which says what TLS a connection has."""

    @property
    def client_tls(self) -> SSL.Connection | None:
        """On the client's descriptor, its handshake done. None: the client speaks no TLS."""

    @property
    def host_tls(self) -> Dials | None:
        """None: the host speaks no TLS."""

    def host_refused(self, why: str) -> None:
        """TLS with the host did not come about; ``connect_failed`` with EPROTO follows."""


class TLSRelay(PythonRelay):
    """See `director.relay.interface.Relay`; *token* is a `Secured`.

    A preface goes to the host before TLS does. A kill, a reset and a timeout end TLS without close_notify: a cut must not
    look like an end.
    """

    name = "tls"
    _flow = staticmethod(flow)  # type: ignore[assignment]

    def __init__(self, *, reactor: Any, seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__(reactor=reactor, seconds=seconds, pipes=0)

    def _new_ends(self, token: object, client: int, host: int, now: float) -> tuple[End, End]:
        secured = cast(Secured, token)
        tls, dials = secured.client_tls, secured.host_tls
        return (PlainEnd(client, now) if tls is None else TLSEnd(client, now, tls),
                PlainEnd(host, now) if dials is None else TLSEnd(host, now, dials.connection(host)))

    def _host_answered(self, link: Link, mask: int) -> None:
        if not isinstance(link.host, TLSEnd):
            super()._host_answered(link, mask)
            return
        if mask & (select.EPOLLERR | select.EPOLLHUP) and (error := error_of(link.host.fd)):
            self._give_back(link, error)
        elif mask & (select.EPOLLOUT | select.EPOLLIN):
            self._shake(link, link.host)

    def _shake(self, link: Link, host: TLSEnd) -> None:
        token = cast(Secured, link.token)
        try:
            if (preface := link.client.hold) is not None:  # a fresh socket has room for it
                if os.write(host.fd, preface) < len(preface):
                    raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
                link.client.hold, link.client.moved = None, 0
            if not host.shake():
                return
        except SSL.SysCallError as failed:
            number = errno_of(failed)
            self._give_back(link, errno.ECONNRESET if number == FIN else number)
            return
        except SSL.Error as failed:
            token.host_refused(f"TLS: {in_words(failed)}")
            self._give_back(link, errno.EPROTO)
            return
        except OSError as failed:
            self._give_back(link, failed.errno or errno.EIO)
            return
        assert token.host_tls is not None
        if why := token.host_tls.refusal(host.tls):
            token.host_refused(f"TLS: {why}")
            self._give_back(link, errno.EPROTO)
            return
        host.readable = True  # what came with the end of the handshake makes no further event
        super()._host_answered(link, select.EPOLLOUT)

    def _ready(self, end: End, mask: int) -> None:
        if mask & _OUT and cast(PlainEnd, end).stuck:
            cast(TLSEnd, end).stuck = False
            mask |= select.EPOLLIN  # what it wanted to read waits there still
        PythonRelay._ready(self, end, mask)

    def _move(self, source: End) -> None:
        PythonRelay._move(self, source)
        if source.stuck and source.link is not None:  # type: ignore[attr-defined]  # a cast is a call, on the hottest way
            self._await_writable(source)

    def _pass_end(self, link: Link, source: End) -> None:
        target = cast(PlainEnd, source.other)
        if target.goodbye():
            super()._pass_end(link, source)
        else:
            self._await_writable(target)
