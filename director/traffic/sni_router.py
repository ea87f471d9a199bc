"""A listener that several services share: each client goes to one of them by its ClientHello, which is peeked at only.

Accept → PROXY header, where a trusted proxy connects → ClientHello → the service's frontend, as if it had been its own
listener's client. What comes before a client's service is known goes by the settings of the listener's leader, which is its
default service, or the first by name (`director.core.server_names.leader_of`).

A client that no service takes is closed; it is counted here, by why, and not as any service's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

from cluster.address import Address
from cluster.errors import RemoteError
from director.core.arrivals import network_of
from director.core.client_hello import MAX_HELLO_BYTES, Hello, NotTLS, decode
from director.core.crowd import Crowd
from director.core.proxy_protocol import Header
from director.core.server_names import ServerNames, leader_of
from director.metrics.hellos import Hellos, Outcome
from director.ports.sockets import family_of, packed_name
from director.resources.places import Places
from director.timing.seldom import Seldom, more
from director.traffic.frontend import Frontend
from director.traffic.peeking import Peek, Untold
from director.traffic.proxy_in import ProxyHeaders

#: Clients of one listener whose hello has not come: those of a tenth of a second at 10,000 a second. Beyond it one is closed
#: of the network that has most (`director.core.crowd`), so that whoever opens connections and says nothing takes neither all
#: places nor the turn of those who speak, be it slowly.
MAX_WAITING = 1024

#: How an `Untold` counts.
_OUTCOMES: Mapping[str, Outcome] = {
    "wrong": "bad_hello", "reset": "client_reset", "ended": "client_closed", "late": "timeout",
}


class SniRouter:
    """The clients of one listener, until their service is known.

    :param address: the listener's.
    :param places: of which each client has one, as a `Frontend` says.
    """

    log = Logger()

    def __init__(self, address: Address, frontends: Mapping[str, Frontend], *, reactor: Any, places: Places,
                 hellos: Hellos) -> None:
        self._address = address
        self._reactor = reactor
        self._places = places
        self._outcomes = hellos.of(str(address), lambda: self.waiting)
        self._seldom = Seldom()
        self._waiting: Crowd[Peek[Hello]] = Crowd(MAX_WAITING)
        self._headers: ProxyHeaders | None = None
        self.share(frontends)

    def share(self, frontends: Mapping[str, Frontend]) -> None:
        """Among the services of these, at least one, as they are configured now."""
        self._frontends = frontends
        services = {name: frontend.service.spec for name, frontend in frontends.items()}
        self._names = ServerNames(services)
        leader = services[leader_of(services)]
        self._timeout_s = leader.timeouts.hello_s
        if self._headers is None:
            self._headers = ProxyHeaders(leader.proxy, reactor=self._reactor, places=self._places)
        self._headers.configure(leader.proxy)

    @property
    def waiting(self) -> int:
        """Clients whose service is not known yet."""
        return len(self._waiting) + (self._headers.waiting if self._headers is not None else 0)

    def accepted(self, fd: int, name: bytes | None) -> None:
        """See `director.traffic.listener.Accepts`."""
        self._places.taken += 1
        assert self._headers is not None
        if self._headers.expected_of(name):
            self._headers.read(fd, name, lambda fd, header: self._header_read(fd, name, header))
        else:
            self._greet(fd, name, None)

    def _header_read(self, fd: int, name: bytes | None, header: Header | Untold) -> None:
        if isinstance(header, Header):
            self._greet(fd, name, header)
        else:
            outcome: Outcome = "client_reset" if header.how == "reset" else "bad_proxy_header"
            self._refuse(fd, outcome, f"no PROXY header: {header.why}")

    def _greet(self, fd: int, name: bytes | None, header: Header | None) -> None:
        """Look at the client's hello, once it is there."""
        family = socket.AF_UNIX if name is None else family_of(name[:-2])
        client = socket.socket(family, socket.SOCK_STREAM, fileno=fd)
        try:  # most come whole at once, and cost no more than this
            hello = decode(client.recv(MAX_HELLO_BYTES, socket.MSG_PEEK))
        except (OSError, RemoteError):
            hello = 0
        if isinstance(hello, Hello):
            self._route(client.detach(), name, header, hello)
            return

        def told(peek: Peek[Hello], hello: Hello | Untold) -> None:
            self._waiting.leave(peek)
            self._route(peek.client.detach(), name, header, hello)

        peek = Peek(client, decode, told, most=MAX_HELLO_BYTES, reactor=self._reactor, timeout_s=self._timeout_s)
        source = header.source if header is not None else None
        ip = packed_name(source)[:-2] if source is not None and source.is_ip else None if name is None else name[:-2]
        self._waiting.join(peek, b"" if ip is None else network_of(ip))
        peek.start()
        if (crowded := self._waiting.too_many(peek)) is not None:
            crowded.cancel()
            self._waiting.leave(crowded)
            self._refuse(crowded.client.detach(), "crowded_out", f"{MAX_WAITING} others wait for their ClientHello to come")

    def _route(self, fd: int, name: bytes | None, header: Header | None, hello: Hello | Untold) -> None:
        if isinstance(hello, Untold):
            if hello.how == "reset" or not (hello.silent or isinstance(hello.error, NotTLS)):
                self._refuse(fd, _OUTCOMES[hello.how], f"no ClientHello: {hello.why}")
                return
            service, asked = self._names.default, "speaks no TLS"
        else:
            service = self._names.service_of(hello.server_name, hello.protocols)
            asked = f"asks for {hello.server_name or 'no name'}"
        if service is None:
            self._refuse(fd, "no_service", f"no service has a client that {asked}")
            return
        self._outcomes["default" if service == self._names.default else "named"] += 1
        self._frontends[service].introduced(fd, name, header)

    def _refuse(self, fd: int, outcome: Outcome, why: str) -> None:
        os.close(fd)
        self._places.leave()
        self._outcomes[outcome] += 1
        if outcome != "client_reset" and (held := self._seldom.due(outcome)) is not None:
            self.log.info("{listener}: a client is closed: {why}{more}", listener=str(self._address), why=why,
                          more=more(held))

    def stop(self) -> None:
        """Close those whose service is not known yet."""
        for peek in tuple(self._waiting):
            self._waiting.leave(peek)
            peek.cancel()
            peek.client.close()
            self._places.leave()
        if self._headers is not None:
            self._headers.stop()
