"""Which client is behind a connection to a host: by that connection's local address, which the host sees as its peer's.

Kept only by a director that has a control socket: it costs a getsockname(2) and a place in two tables for each
connection. The kernel chooses the local address when the connect begins, so an answer is there before the host can
have accepted.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director.traffic.connection import Connection

#: An IP address in its shortest spelling, and a port.
Local = tuple[str, int]


class Origins:
    """The connections to hosts over TCP, by their local address."""

    def __init__(self) -> None:
        self._connections: dict[Local, Connection] = {}
        self._locals: dict[Connection, Local] = {}

    def began(self, connection: Connection, fd: int) -> None:
        """A connect to a host began on the socket *fd*; one that *connection* had before is over."""
        self.ended(connection)
        local = _local_name(fd)
        if local is not None:
            self._connections[local] = connection
            self._locals[connection] = local

    def ended(self, connection: Connection) -> None:
        local = self._locals.pop(connection, None)
        if local is not None and self._connections.get(local) is connection:  # else the kernel gave the port away again
            del self._connections[local]

    def behind(self, host: str, port: int) -> Connection | None:
        """Whose connection comes from *host* and *port*, as its host sees them. An IPv4 address may be written as a
        socket for both families writes it, ``::ffff:10.0.0.1``."""
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return None
        ip = getattr(ip, "ipv4_mapped", None) or ip
        return self._connections.get((str(ip), port))


def _local_name(fd: int) -> Local | None:
    """``getsockname`` of a plain descriptor; None for a UNIX socket."""
    # The family only decides how much room the kernel gets for its answer; an IPv6 address needs the most.
    borrowed = socket.SocketType(socket.AF_INET6, socket.SOCK_STREAM, 0, fd)
    try:
        name = borrowed.getsockname()
    finally:
        borrowed.detach()
    return (name[0], name[1]) if isinstance(name, tuple) else None
