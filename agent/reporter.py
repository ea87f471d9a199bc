"""One director's end of an agent: connect, say hello, report, come back when it breaks."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any
from typing import Protocol as Interface

from OpenSSL import SSL
from twisted.application.internet import ClientService
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from agent.config import AgentTLS
from cluster.address import Address
from cluster.misdialled import spoken, tls_trouble
from cluster.pem import PemFiles
from cluster.renewal import Renewed
from cluster.wire import (
    Conversation,
    Hello,
    Instruction,
    Message,
    Moved,
    Refused,
    RemoteProtocolError,
    Role,
    State,
    Welcome,
)

#: Connect and resolve; a director on the same network answers in milliseconds.
CONNECT_TIMEOUT_S = 5.0
#: From connected to welcome: as long as a director gives a handshake, for it may be slowing a storm down.
WELCOME_TIMEOUT_S = 10.0
#: First wait before connecting again, its growth and its end; each wait varies by half either way, so that
#: ten thousand agents of a restarted director come back over seconds.
RETRY_FIRST_S = 0.5
RETRY_GROWTH = 1.6
RETRY_MOST_S = 15.0
#: A director cannot keep an agent away for longer than this.
RETRY_AFTER_MOST_S = 300.0
#: Unacknowledged data after so long means the director's machine is gone (``TCP_USER_TIMEOUT``).
UNANSWERED_S = 10
#: A stopping contact waits so long for its last bytes to be taken.
STOP_TIMEOUT_S = 2.0


class LinkEvents(Interface):
    """Who hears what a director says."""

    def hello(self) -> Hello: ...

    def welcomed(self, contact: Contact, welcome: Welcome) -> None: ...

    def ordered(self, contact: Contact, order: Instruction) -> None: ...


def director_endpoint(reactor: Any, address: Address, tls: TLSOptions | None) -> Any:
    """Where to connect. UNIX sockets never speak TLS."""
    if address.path is not None:
        path = "\0" + address.path[1:] if address.path.startswith("@") else address.path
        return UNIXClientEndpoint(reactor, path, timeout=CONNECT_TIMEOUT_S)
    endpoint = HostnameEndpoint(reactor, address.host, address.port, timeout=CONNECT_TIMEOUT_S)
    return endpoint if tls is None else wrapClientTLS(tls.for_host(address.host), endpoint)


class TLSOptions:
    """Certificates of an agent, of which each new connection gets what the files have then.

    :raises ConfigError: a file cannot be read or is not what it should be.
    """

    def __init__(self, tls: AgentTLS) -> None:
        self._server_name = tls.server_name
        self.files = Renewed("tls", (tls.ca, tls.certificate, tls.key), lambda files: _read(files, tls))

    def for_host(self, host: str) -> _ConnectionCreator:
        """Verify the director as *host*, unless a common server name is configured."""
        return _ConnectionCreator(self.files, self._server_name or host)


@implementer(IOpenSSLClientConnectionCreator)
class _ConnectionCreator:
    """TLS of each connection to the directors of one name."""

    def __init__(self, files: Renewed[tuple[Any, dict[str, Any]]], name: str) -> None:
        self._files = files
        self._name = name

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        self._files.look()  # connections are few
        trust, own = self._files.current()
        options = {"raiseMinimumTo": ssl.TLSVersion.TLSv1_2} | own
        creator = ssl.optionsForClientTLS(self._name, trustRoot=trust, extraCertificateOptions=options)
        return creator.clientConnectionForTLS(tlsProtocol)


def _read(files: PemFiles, tls: AgentTLS) -> tuple[Any, dict[str, Any]]:
    trust = None if tls.ca is None else files.authorities("ca", tls.ca)
    own: dict[str, Any] = {}
    if tls.certificate is not None and tls.key is not None:
        own = files.identity(tls.certificate, tls.key)
    return trust, own


@implementer(IPushProducer)
class _LinkProtocol(Protocol):
    """One connection to a director."""

    transport: Any  # TCP, TLS or UNIX

    def __init__(self, contact: Contact, reactor: Any) -> None:
        self._contact = contact
        self._reactor = reactor
        self._wire = Conversation(Role.AGENT)
        self._timer: Any = None
        self._paused = False
        self._heard = False
        self._before: ClientService | None = None

    def leave_with(self, service: ClientService) -> None:
        """It is not to be connected by *service* again, once it ends."""
        self._before = service

    def leave(self) -> None:
        """Close it for good."""
        self.transport.unregisterProducer()  # TLS does not close while there is one
        if self._before is not None:
            self._before.stopService()

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        _notice_death(self.transport)
        self._timer = self._reactor.callLater(WELCOME_TIMEOUT_S, self.transport.abortConnection)
        self._contact.connected(self)

    def dataReceived(self, data: bytes) -> None:
        other = "" if self._heard else spoken(data)
        self._heard = True
        if other:
            self._contact.misdialled(other)
            self.transport.abortConnection()
            return
        self._wire.receive_data(data)
        try:
            while (message := self._wire.next_message()) is not None:
                if isinstance(message, Welcome):
                    self._cancel_timer()
                self._contact.heard(message)
        except RemoteProtocolError as error:
            self._contact.complain(error)
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._cancel_timer()
        if self._before is not None:
            self._before.stopService()
        self._contact.disconnected(self, reason, heard=self._heard)

    @property
    def open(self) -> bool:
        """Welcomed, and the director takes what is sent."""
        return self._wire.state is State.OPEN and not self._paused

    def send(self, message: Message) -> None:
        self.transport.write(self._wire.send(message))

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def pauseProducing(self) -> None:
        """The director does not take more: what would be old when it arrives is not sent at all."""
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""


class Contact:
    """A connection to one director, made again whenever it breaks.

    :param random: uniform in [0, 1), for the jitter.
    """

    _log = Logger()

    def __init__(
        self, address: Address, events: LinkEvents, *, tls: TLSOptions | None, configured: bool,
        reactor: Any, monotonic: Callable[[], float], random: Callable[[], float],
    ) -> None:
        self.address = address
        self.configured = configured  #: named by our configuration, not learned from a director
        self.director: str | None = None  #: its name, once it said it
        self.advertised: tuple[str, ...] = ()  #: where it says that directors are
        self.interval_s: float | None = None  #: what it asks for
        self._events = events
        self._reactor = reactor
        self._monotonic = monotonic
        self._random = random
        self._failures = 0
        self._not_before = 0.0
        self._lost_at = float("-inf")
        self._told = ""
        self._protocol: _LinkProtocol | None = None
        self._leaving: _LinkProtocol | None = None  # its director has moved; closed once we are welcome again
        self._tls = tls
        self._service = self._connecting()
        self._secure = tls is not None and address.path is None
        self._stopped = False

    def _connecting(self) -> ClientService:
        factory = Factory.forProtocol(lambda: _LinkProtocol(self, self._reactor))
        factory.noisy = False
        return ClientService(director_endpoint(self._reactor, self.address, self._tls), factory, retryPolicy=self._delay,
                             clock=self._reactor)

    def start(self) -> None:
        self._service.startService()
        self._service.whenConnected(failAfterFailures=1).addErrback(self._not_connected)

    def stop(self) -> Deferred[Any]:
        """Close, after what was said is sent; the Deferred fires once the connection is gone."""
        self._stopped = True
        self._let_go()
        if self._protocol is not None:
            self._protocol.transport.unregisterProducer()  # TLS does not close while there is one
        stopped: Deferred[Any] = self._service.stopService()
        if self._protocol is not None:
            abort = self._reactor.callLater(STOP_TIMEOUT_S, self._protocol.transport.abortConnection)

            def cancel(result: Any) -> Any:
                if abort.active():
                    abort.cancel()
                return result

            stopped.addBoth(cancel)
        return stopped

    @property
    def open(self) -> bool:
        """The director listens to us."""
        return self._protocol is not None and self._protocol.open

    @property
    def lost_s(self) -> float:
        """Seconds without a connection; 0 with one."""
        return 0.0 if self._protocol is not None else self._monotonic() - self._lost_at

    def send(self, message: Message) -> None:
        """Send *message* if the director listens; else it is lost, like every report nobody heard."""
        if self._protocol is not None and self._protocol.open:
            self._protocol.send(message)

    # --- from the connection

    def connected(self, protocol: _LinkProtocol) -> None:
        self._protocol = protocol
        protocol.send(self._events.hello())

    def _move(self) -> None:
        """Connect anew, and keep the connection until that has come about."""
        if self._leaving is None and self._protocol is not None:
            self._log.info("director {name} at {address} is another process now: connecting there", name=self.director,
                           address=self.address)
            self._leaving, before = self._protocol, self._service
            self._service = self._connecting()
            self._service.startService()
            self._leaving.leave_with(before)

    def _let_go(self) -> None:
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            leaving.leave()

    def heard(self, message: Message) -> None:
        if self._stopped:
            return
        if isinstance(message, Moved):
            self._move()
        elif isinstance(message, Welcome):
            self._let_go()
            if self.director is None or self._failures:
                self._log.info("connected to director {name} at {address}", name=message.director, address=self.address)
            for host, why in message.refused.items():
                self._log.warn("director {name} does not accept {host}: {why}",
                               name=message.director, host=host, why=why)
            self._failures, self._told = 0, ""
            self.director = message.director
            self.advertised = tuple(message.directors)
            self.interval_s = message.interval_s
            self._events.welcomed(self, message)
        elif isinstance(message, Refused):
            self._not_before = self._monotonic() + min(message.retry_after_s, RETRY_AFTER_MOST_S)
            self._tell(f"refused: {message.reason}{_hint(message.reason)}", news=True)
        elif isinstance(message, Instruction):
            self._events.ordered(self, message)

    def complain(self, error: RemoteProtocolError) -> None:
        self._tell(str(error), news=True)

    def misdialled(self, other: str) -> None:
        """Something else answers there."""
        self._tell(f"{other} is spoken there ({_WRONG_PORTS.get(other, _WRONG_PORT)})", news=True)

    def disconnected(self, protocol: _LinkProtocol, reason: Failure, *, heard: bool) -> None:
        if protocol is self._leaving:
            self._leaving = None
        if protocol is not self._protocol:
            return
        self._protocol = None
        self._lost_at = self._monotonic()
        why = tls_trouble(reason) or reason.getErrorMessage()
        silent = "perhaps the port speaks no TLS" if self._secure else "perhaps the port takes TLS (--tls, or [tls])"
        self._tell(why if heard else f"{why} (nothing was said there: {silent}, or is no director's for agents)")

    def _not_connected(self, reason: Failure) -> None:
        self._tell(reason.getErrorMessage())

    def _tell(self, why: str, *, news: bool = False) -> None:
        """Log what is wrong once, not with every try; and again when the director says something else (*news*)."""
        if (not self._told or (news and why != self._told)) and not self._stopped:
            self._told = why
            self._log.warn("no connection to the director at {address}: {why}", address=self.address, why=why)

    def _delay(self, _attempt: int) -> float:
        """Seconds until the next try. Failures count until a welcome, not just until a connect."""
        wait = min(RETRY_MOST_S, RETRY_FIRST_S * RETRY_GROWTH ** min(self._failures, 20))
        self._failures += 1
        return max(wait, self._not_before - self._monotonic()) * (0.5 + self._random())


def _hint(reason: str) -> str:
    """What may be done about a refusal; '' when nothing is known."""
    hint = _HINTS.get(reason)
    return f" ({hint})" if hint else ""


_WRONG_PORT = "agents connect to an address of node.agents.listen"
_WRONG_PORTS = {
    "TLS": "give --tls and --ca, or [tls]",
    "HTTP": f"perhaps the director's admin: {_WRONG_PORT}",
}
_HINTS = {
    "name_in_use": "another agent of this name is connected: give each its own name",
    "contested": "another agent of this name and identity is connected and alive: give each its own name",
    "stale_boot": "another agent of this name has taken over: give each its own name",
    "unauthenticated": "the director knows no identity with this token or certificate",
}


def _notice_death(transport: Any) -> None:
    """Let the kernel give a connection up when its peer's machine vanishes."""
    raw = getattr(transport, "socket", None)
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_S * 1000)
