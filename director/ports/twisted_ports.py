"""Listening for ordinary Twisted protocols: agents, peers, operators."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import unix
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.protocols.tls import TLSMemoryBIOFactory

from cluster.address import Address
from director.ports.binding import BACKLOG, OURS, BindError, FileAccess, bind, remove
from director.ports.passing import SOCKETS


class Secured(TLSMemoryBIOFactory):
    """TLS before a factory that may refuse a connection, by None, which Twisted's own does not know of."""

    def buildProtocol(self, addr: Any) -> Any:
        inner: Any = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(self, inner)


class Ports:
    """Every listening socket of one address, from now on until `stopListening`.

    :param tls: options of a context; UNIX sockets never speak TLS, unless they are told to.
    :raises BindError:
    :ivar address: as bound.
    """

    def __init__(self, address: Address, factory: Any, *, reactor: Any, access: FileAccess = OURS,
                 tls: Any = None) -> None:
        wanted = factory if tls is None else Secured(tls, False, factory)
        sockets = bind(address, access=access)
        self.address = address if address.is_unix else address._replace(port=sockets[0].getsockname()[1])
        self._ports: list[Any] = []
        self._paused = False
        try:
            for sock in sockets:
                self._ports.append(_adopt(sock, wanted, reactor))
        except OSError as error:  # no more descriptors
            self.stopListening()
            raise BindError(f"cannot listen on {address}: {error.strerror or error}") from error
        finally:
            for sock in sockets:
                sock.close()  # the ports have duplicates
        SOCKETS.join(self)

    def pauseProducing(self) -> None:
        self._paused = True
        self.hold()

    def resumeProducing(self) -> None:
        self._paused = False
        if not SOCKETS.held:
            self.release()

    def hold(self) -> None:
        """Accept nobody until `release`, whatever else is asked."""
        for port in self._ports:
            port.pauseProducing()

    def release(self) -> None:
        if not self._paused:
            for port in self._ports:
                port.resumeProducing()

    def descriptors(self) -> list[int]:
        return [port.fileno() for port in self._ports]

    def stopListening(self) -> Deferred[Any]:
        remove(self.address)
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)


def _adopt(sock: socket.socket, factory: Any, reactor: Any) -> Any:
    if sock.family != socket.AF_UNIX:
        return reactor.adoptStreamPort(sock.fileno(), sock.family, factory)
    # as `adoptStreamPort`, which makes the file everybody's
    port: Any = unix.Port._fromListeningDescriptor(reactor, sock.fileno(), factory)
    port._bindPath = b"\0" + port._bindPath.lstrip(b"\0")  # outside of the file system, for Twisted: its file is ours
    port.backlog = BACKLOG
    port.startListening()
    return port
