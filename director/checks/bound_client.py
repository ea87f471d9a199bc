"""TCP connections of Twisted's from an address of this machine; the port is left to the connect.

Bound the ordinary way, a source address would have only as many ports as there are, whatever the number of hosts, and none
where clients' connections took them.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint

from director.ports.sockets import IP_BIND_ADDRESS_NO_PORT


class _Client(tcp.Client):
    def createInternetSocket(self) -> socket.socket:
        sock: socket.socket = super().createInternetSocket()
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        return sock


class _Connector(tcp.Connector):
    def _makeTransport(self) -> tcp.Client:
        return _Client(self.host, self.port, self.bindAddress, self, self.reactor)


class _Connects:
    """What client endpoints ask of a reactor."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        connector = _Connector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector


def endpoint_from(reactor: Any, host: str, port: int, *, timeout_s: float, source: str) -> Any:
    """A client endpoint for the literal address *host*, of *source*'s family."""
    kind = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
    return kind(_Connects(reactor), host, port, timeout=timeout_s, bindAddress=(source, 0))
