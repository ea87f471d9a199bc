"""The control socket: backends ask over a UNIX socket who the client behind a connection is.

AMP (Asynchronous Messaging Protocol, ``twisted.protocols.amp``) with one command, the ancestors' own, so that servers
written for them can go on asking; see ``docs/reference/control-socket.md``. The modern answer to the same question is
the PROXY protocol.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from cluster.address import Address
from director.ports.side_port import SidePort
from director.traffic.origins import Origins

#: Who may ask: the director's user and group. Backends are put into that group.
MODE = 0o660
#: Characters of a question's error that the log has.
MAX_LOGGED = 200


class UnknownPort(Exception):
    """No connection to a host comes from there, or its client has no address (it connected over a UNIX socket)."""


class GetClientAddress(amp.Command):
    """Who is behind the connection whose peer a host sees at *host* and *port*; answers the client's."""

    arguments = [(b"host", amp.String()), (b"port", amp.Integer())]  # noqa: RUF012
    response = [(b"host", amp.String()), (b"port", amp.Integer())]  # noqa: RUF012
    errors = {UnknownPort: b"UNKNOWN_PORT"}  # noqa: RUF012


class _Answers(amp.AMP):
    """One asking backend. Whoever the socket's mode lets in is trusted to read the answers to what it asks."""

    log = Logger()
    factory: _AnswersFactory
    transport: Any

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.connections.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.discard(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        try:
            super().dataReceived(data)
        except Exception as error:  # boxes that are neither question nor answer, and answers that nobody asked for
            self._drop(error)

    def unhandledError(self, failure: Failure) -> None:
        self._drop(failure.value)

    def _drop(self, error: BaseException | None) -> None:
        self.log.info("a backend's question cannot be read: {why}", why=repr(error)[:MAX_LOGGED])
        self.transport.abortConnection()

    def dispatchCommand(self, box: amp.AmpBox) -> Deferred[Any]:
        def told(failure: Failure) -> Failure:
            if failure.check(amp.RemoteAmpError):
                return failure
            return Failure(amp.RemoteAmpError(b"MALFORMED", f"the question cannot be read: {type(failure.value).__name__}"))

        asked: Deferred[Any] = maybeDeferred(super().dispatchCommand, box)
        return asked.addErrback(told)

    @GetClientAddress.responder
    def client_address(self, host: bytes, port: int) -> dict[str, object]:
        connection = self.factory.origins.behind(host.decode("ascii", "replace"), port)
        address = None if connection is None else connection.address
        if address is None:
            raise UnknownPort(f"no client with an address is behind port {port}")
        return {"host": address.host.encode(), "port": address.port}


class _AnswersFactory(Factory[_Answers]):
    noisy = False
    protocol = _Answers

    def __init__(self, origins: Origins) -> None:
        self.origins = origins
        self.connections: set[_Answers] = set()


class ControlSocket(SidePort):
    """Listens on *path*."""

    def __init__(self, path: str, origins: Origins, *, reactor: Any) -> None:
        super().__init__(f"control socket {path}", Address("", 0, path), _AnswersFactory(origins), reactor=reactor,
                         mode=MODE)
