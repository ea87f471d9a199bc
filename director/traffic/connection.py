"""One client's connection, and how what a relay says of it finds its way.

Every connection is one small object, from accept to close; its `director.traffic.frontend.Frontend` decides about it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cluster.address import Address
from cluster.model import Reason
from director.core.host import Host
from director.core.pool import Ticket
from director.core.proxy_protocol import encode
from director.ports.sockets import family_of, local_name
from director.traffic.tries import Tries

if TYPE_CHECKING:
    from director.traffic.frontend import Frontend

#: In place of a descriptor that a relay has.
CONNECTING, ESTABLISHED = -1, -2


class Closed(Protocol):
    """Told of every connection's end, for the access log."""

    def __call__(self, connection: Connection, reason: Reason, to_host: int, to_client: int, now: float) -> None: ...


class Connection:
    """One client. Tens of thousands may live at once: slots only, nothing derived is stored."""

    __slots__ = ("accepted_at", "fd", "frontend", "handle", "name", "tail", "ticket")

    def __init__(self, frontend: Frontend, fd: int, name: bytes | None, now: float) -> None:
        self.frontend = frontend
        self.fd = fd  #: ours while no relay has it, else `CONNECTING` or `ESTABLISHED`
        self.name = name  #: the packed address and two bytes of port; None for a UNIX client
        self.accepted_at = now
        self.ticket: Ticket | None = None
        self.handle = 0  #: the relay's; 0 while not relayed
        self.tail: Tries | None = None

    @property
    def established(self) -> bool:
        """Its host has answered the connect."""
        return self.fd == ESTABLISHED

    @property
    def host(self) -> Host | None:
        return self.ticket.host if self.ticket is not None else None

    @property
    def ip(self) -> bytes | None:
        """Packed."""
        return None if self.name is None else self.name[:-2]

    @property
    def address(self) -> Address | None:
        """The client's; None for a UNIX client."""
        if self.name is None:
            return None
        ip, port = self.name[:-2], self.name[-2:]
        return Address(socket.inet_ntop(family_of(ip), ip), int.from_bytes(port, "big"))

    @property
    def peer(self) -> str:
        """The client's address as text."""
        return str(self.address or "unix")


def preface_of(connection: Connection, version: Literal["v1", "v2"]) -> bytes:
    """The PROXY header to send to its host; a client that can't be asked any more gets an UNKNOWN one."""
    source, tail = connection.address, connection.tail
    destination, extensions = (tail.destination, tail.extensions) if tail is not None else (None, b"")
    if source is not None and destination is None:
        name = local_name(connection.fd, socket.AF_INET6 if ":" in source.host else socket.AF_INET)
        destination = Address(name[0], name[1]) if name else None
    return encode(version, source, destination, extensions=extensions)


class Router:
    """The relay's `RelayEvents`: each event goes to the frontend of its connection."""

    def connected(self, token: Any) -> None:
        token.frontend.connected(token)

    def connect_failed(self, token: Any, client: int, error: int) -> None:
        token.frontend.connect_failed(token, client, error)

    def closed(self, token: Any, reason: Reason, to_host: int, to_client: int) -> None:
        token.frontend.closed(token, reason, to_host, to_client)
