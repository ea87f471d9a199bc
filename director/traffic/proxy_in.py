"""Reading the PROXY header that a trusted proxy sends before its client's bytes.

The header is peeked at and consumed exactly, so that the client's own bytes stay in the kernel for the relay.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from cluster.model import Proxy
from director.core.access import UNIX_PEERS, parse_networks
from director.core.proxy_protocol import MAX_HEADER_BYTES, Header, decode
from director.ports.sockets import family_of
from director.resources.places import Places
from director.traffic.peeking import Peek, Untold

#: Told of the client's descriptor, which is the caller's again, and of the header, or why there is none: garbage or nothing
#: in time, or the peer has reset the connection, as load balancers that only look whether we are there do.
Done = Callable[[int, Header | Untold], None]


class ProxyHeaders:
    """Those of one service's clients, or of one listener's.

    :param places: where each client has one, which is given back for those that `stop` closes.
    """

    def __init__(self, proxy: Proxy, *, reactor: Any, places: Places) -> None:
        self._reactor = reactor
        self._places = places
        self._reading: set[Peek[Header]] = set()
        self.configure(proxy)

    def configure(self, proxy: Proxy) -> None:
        """From now on; headers that are waited for keep the time that they were given."""
        self._trusted = parse_networks(text for text in proxy.accept_from if text != UNIX_PEERS)
        self._trusts_unix = UNIX_PEERS in proxy.accept_from
        self._timeout_s = proxy.timeout_s

    @property
    def waiting(self) -> int:
        """Clients whose header has not come."""
        return len(self._reading)

    def expected_of(self, name: bytes | None) -> bool:
        """Whether a client begins with one; *name* as in `director.ports.sockets.Client`."""
        return self._trusts_unix if name is None else name[:-2] in self._trusted

    def read(self, fd: int, name: bytes | None, done: Done) -> None:
        """Read the header of the client with that descriptor."""
        family = socket.AF_UNIX if name is None else family_of(name[:-2])

        def told(peek: Peek[Header], header: Header | Untold) -> None:
            self._reading.discard(peek)
            if isinstance(header, Header):
                peek.client.recv(header.consumed)
            done(peek.client.detach(), header)

        peek = Peek(socket.socket(family, socket.SOCK_STREAM, fileno=fd), _parse, told, most=MAX_HEADER_BYTES,
                    reactor=self._reactor, timeout_s=self._timeout_s)
        self._reading.add(peek)
        peek.start()

    def stop(self) -> None:
        """Close those whose header has not come."""
        for peek in self._reading:
            peek.cancel()
            peek.client.close()
            self._places.leave()
        self._reading.clear()


def _parse(data: bytes) -> Header | int:
    return decode(data) or len(data) + 1
