"""The Python relay for connections of which either end, or both, speak TLS.

A relay of its own, with an epoll object of its own, so that connections without TLS pay nothing for it. Handshakes with
clients are over before a connection comes here (`director.tls.handshakes`). Its rules are `director.relay.python`'s; what
differs is how an end is read and written, which the ends know (`director.relay.tls_end`).
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any, Protocol, cast

from OpenSSL import SSL

from director.relay.link import End, Link
from director.relay.python import PythonRelay
from director.relay.tls_end import PlainEnd, TLSEnd, flow


class Secured(Protocol):
    """A token of this relay's, which says what TLS a connection has."""

    @property
    def client_tls(self) -> SSL.Connection | None:
        """On the client's descriptor, its handshake done. None: the client speaks no TLS."""


class TLSRelay(PythonRelay):
    """See `director.relay.interface.Relay`; *token* is a `Secured`.

    A kill, a reset and a timeout end TLS without close_notify: a cut must not look like an end.
    """

    name = "tls"
    _flow = staticmethod(flow)  # type: ignore[assignment]

    def __init__(self, *, reactor: Any, seconds: Callable[[], float] = time.monotonic) -> None:
        super().__init__(reactor=reactor, seconds=seconds, pipes=0)

    def _new_ends(self, token: object, client: int, host: int, now: float) -> tuple[End, End]:
        tls = cast(Secured, token).client_tls
        client_end = PlainEnd(client, now) if tls is None else TLSEnd(client, now, tls)
        return client_end, PlainEnd(host, now)

    def _ready(self, end: End, mask: int) -> None:
        if mask & select.EPOLLOUT and cast(PlainEnd, end).stuck:
            cast(TLSEnd, end).stuck = False
            mask |= select.EPOLLIN  # what it wanted to read waits there still
        super()._ready(end, mask)

    def _move(self, source: End) -> None:
        super()._move(source)
        if cast(PlainEnd, source).stuck and source.link is not None:
            self._await_writable(source)

    def _pass_end(self, link: Link, source: End) -> None:
        target = cast(PlainEnd, source.other)
        if target.goodbye():
            super()._pass_end(link, source)
        else:
            self._await_writable(target)
