"""The peer link's sockets: one connection to every other director that lives.

Of two directors the one whose name sorts first dials. What goes over the links is others' business: they send by
`Peers.send`, hear by `Peers.hear`, and have something to say at every *beat* (`Peers.on_beat`). A peer that is silent for
`SILENCE_S` is cut off, and dialled again.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cluster.address import Address, parse_address
from cluster.lines import RemoteProtocolError
from cluster.misdialled import spoken, tls_trouble
from cluster.model import Member
from cluster.model import Peers as Config
from cluster.peer_wire import NONCE_BYTES, Challenge, Hello, Message, PeerConversation, Role, State, Traffic, Welcome
from cluster.renewal import Renewed
from director.config.secret import read_secret
from director.ports.tls import certificate_names, client_options, server_options
from director.ports.twisted_ports import Ports

#: Between two beats: three may be lost or late before a peer counts as silent.
BEAT_S = 0.5
SILENCE_S = 2.0
#: From the connection to the welcome, TLS included: other directors are near, or they are of no use.
HANDSHAKE_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 2.0
#: Between two attempts to dial, growing to the last; varied by half, so that a cluster does not dial in step.
DIAL_S, DIAL_MOST_S = 0.25, 4.0
#: Open connections, unproven ones included: directors are few, and whoever knocks without a secret must cost little.
MAX_CONNECTIONS = 64
#: For links to close at a stop.
CLOSE_TIMEOUT_S = 1.0

T = TypeVar("T", bound=Message)


class PeerState(NamedTuple):
    """One link, for an operator's eye."""

    director: str
    boot_id: str
    address: str
    since: float  #: POSIX seconds
    heard_s: float  #: since its last line


@implementer(IPushProducer)
class _PeerProtocol(Protocol):
    """One connection: bytes to messages, messages to `Peers`."""

    transport: Any  # TCP or TLS

    def __init__(self, peers: Peers, role: Role, to: str | None = None) -> None:
        self._peers = peers
        self.to = to  #: whom we dialled
        self.link = peers.new_link(role)
        self.heard_at = peers.monotonic()
        self.since = 0.0
        self.congested = False
        self.closing = False  #: by us
        self.trouble = ""  #: why it came to nothing, if that is known
        self._timer: Any = None

    @property
    def open(self) -> bool:
        return self.link.state is State.OPEN and not self.closing

    @property
    def address(self) -> str:
        peer = self.transport.getPeer()
        return str(Address(peer.host, peer.port))

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._timer = self._peers.reactor.callLater(HANDSHAKE_TIMEOUT_S, self.cut, "no welcome in time")
        self.transport.registerProducer(self, True)
        if self.link.role is Role.ACCEPTOR:
            self.transport.write(self.link.challenge())

    def dataReceived(self, data: bytes) -> None:
        other = spoken(data) if self.link.state in (State.IDLE, State.CHALLENGED) else ""
        if other:
            self.cut(f"{other} is spoken there, and no peer link of ours")
            return
        self.link.receive_data(data)
        try:
            while not self.closing and (message := self.link.next_message()) is not None:
                self.heard_at = self._peers.monotonic()
                if isinstance(message, Challenge):
                    assert self.to is not None
                    self.transport.write(self.link.hello(self.to))
                elif isinstance(message, Hello):
                    self._greeted(message)
                elif isinstance(message, Welcome):
                    self._opened()
                elif isinstance(message, Traffic):
                    self._peers.heard(self, message)
                else:
                    self.cut(f"refused: {getattr(message, 'reason', '')}")
        except RemoteProtocolError as error:
            self.cut(str(error))

    def _greeted(self, hello: Hello) -> None:
        refusal = self._peers.objection(self, hello.director)
        if refusal:
            self.transport.write(self.link.refuse(refusal))
            self.cut(f"{hello.director} refused: {refusal}")
            return
        self.transport.write(self.link.welcome())
        self._opened()

    def _opened(self) -> None:
        self._timer.cancel()
        self.since = self._peers.wall()
        self._peers.opened(self)

    def send(self, message: Traffic) -> None:
        self.transport.write(self.link.send(message))

    def cut(self, why: str) -> None:
        """Close at once."""
        if not self.closing:
            self._peers.log.info("peer {address} cut off: {why}", address=self.address, why=why)
            self.closing = True
            self.trouble = why
            self.transport.abortConnection()

    def close(self) -> None:
        """Close once what was said is sent."""
        if not self.closing:
            self.closing = True
            self._stop_timer()
            self._timer = self._peers.reactor.callLater(CLOSE_TIMEOUT_S, self.transport.abortConnection)
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        self.trouble = self.trouble or tls_trouble(reason)
        by_peer = not self.closing and reason.check(ConnectionDone, ConnectionLost) is not None
        self.closing = True
        self._peers.closed(self, by_peer=by_peer)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    # IPushProducer: the peer reads more slowly than we write

    def pauseProducing(self) -> None:
        self.congested = True

    def resumeProducing(self) -> None:
        self.congested = False

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""


class _Factory(Factory[Any]):
    noisy = False

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def buildProtocol(self, addr: Any) -> Any:
        return self._make()


def _hang_up(protocol: Any) -> bool:
    protocol.transport.abortConnection()
    return False


class Peers(Service):
    """Listens and dials while it runs.

    Listen to it by *on_joined* (a peer's name), *on_left* (its name, and whether its own kernel closed the connection: then
    its process is gone, or going) and *on_beat*.

    :raises ConfigError: a file that is of no use.
    """

    log = Logger()

    def __init__(self, config: Config, *, cluster: str, director: str, boot_id: str, reactor: Any,
                 monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.setName("peers")
        self.director = director
        self.reactor = reactor
        self.monotonic = monotonic
        self.wall = wall
        self.on_joined: list[Callable[[str], None]] = []
        self.on_left: list[Callable[[str, bool], None]] = []
        self.on_beat: list[Callable[[], None]] = []
        self._config = config
        self._cluster = cluster
        self._boot_id = boot_id
        self._secret = None if config.secret_file is None else read_secret(config.secret_file)
        self._server = None if config.tls is None else server_options(config.tls, place="node.peers.tls")
        self._client: Callable[[str], Any] | None = None
        self.certificates: list[Renewed[Any]] = []  #: that this port and its connections need
        if config.tls is not None and self._server is not None:
            renewed, self._client = client_options(config.tls, place="node.peers.tls")
            self.certificates = [self._server.files, renewed]
        self._hearers: dict[type[Message], Callable[[str, Any], None]] = {}
        self._members: Mapping[str, Member] = {}
        self._links: dict[str, _PeerProtocol] = {}
        self._open: set[_PeerProtocol] = set()
        self._dialling: dict[str, Deferred[Any]] = {}
        self._redial: dict[str, Any] = {}
        self._waits: dict[str, float] = {}
        self._told: dict[str, str] = {}  # why there is no link, by peer
        self._ports: Ports | None = None
        self._beat: Any = None
        self._stopping: list[Deferred[None]] = []  # fired when the last connection is closed

    # --- for others

    @property
    def names(self) -> tuple[str, ...]:
        """The peers that are linked now."""
        return tuple(self._links)

    @property
    def address(self) -> Address | None:
        """As bound."""
        return None if self._ports is None else self._ports.address

    def states(self) -> tuple[PeerState, ...]:
        now = self.monotonic()
        return tuple(
            PeerState(name, each.link.peer_boot_id, each.address, each.since, now - each.heard_at)
            for name, each in sorted(self._links.items())
        )

    def hear(self, kind: type[T], tell: Callable[[str, T], None]) -> None:
        """Call *tell* with the peer's name and each message of that *kind*."""
        self._hearers[kind] = tell

    def send(self, peer: str, message: Traffic, *, droppable: bool = False) -> bool:
        """Send to *peer*; False, and nothing sent, when it is not linked, or *droppable* and it reads too slowly."""
        protocol = self._links.get(peer)
        if protocol is None or (droppable and protocol.congested):
            return False
        protocol.send(message)
        return True

    def knock(self, name: str) -> Deferred[bool]:
        """Whether *name*'s machine says that nobody listens there. False for everything else, its silence included."""
        member = self._members.get(name)
        if member is None or member.peers is None:
            return succeed(False)
        try:
            host, port, _ = parse_address(member.peers)
        except ValueError:
            return succeed(False)
        knocking: Deferred[Any] = HostnameEndpoint(self.reactor, host, port, timeout=CONNECT_TIMEOUT_S).connect(
            _Factory(Protocol))
        return knocking.addCallbacks(_hang_up, lambda failure: failure.check(Refused) is not None)

    def set_members(self, members: Mapping[str, Member]) -> None:
        """The directors that live, this one among them."""
        self._members = dict(members)
        for name in members:
            self._dial(name)

    # --- running

    def startService(self) -> None:
        """:raises director.binding.BindError:"""
        assert self._config.listen is not None
        if self._ports is not None:
            return
        address = parse_address(self._config.listen, any_port=True)
        self._ports = Ports(address, _Factory(self._accepted), reactor=self.reactor, tls=self._server)
        super().startService()
        self._beat = self.reactor.callLater(BEAT_S, self._beaten)
        self.set_members(self._members)

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        for timer in self._redial.values():
            timer.cancel()
        self._redial.clear()
        for dialling in list(self._dialling.values()):
            dialling.cancel()
        ports, self._ports = self._ports, None
        closed: Deferred[None] = Deferred()
        self._stopping.append(closed)
        stopped = DeferredList([closed, *([ports.stopListening()] if ports is not None else [])], consumeErrors=True)
        for protocol in list(self._open):
            protocol.close()
        self._check_stopped()
        return stopped

    def _check_stopped(self) -> None:
        if not self._open:
            stopping, self._stopping = self._stopping, []
            for closed in stopping:
                closed.callback(None)

    def _beaten(self) -> None:
        self._beat = self.reactor.callLater(BEAT_S, self._beaten)
        now = self.monotonic()
        for protocol in list(self._links.values()):
            if now - protocol.heard_at > SILENCE_S:
                protocol.cut(f"silent for {now - protocol.heard_at:.1f} s")
        for told in self.on_beat:
            self._tell(told)

    def _tell(self, told: Callable[..., None], *news: Any) -> None:
        try:
            told(*news)
        except Exception:  # one that fails must not cost the link, nor the others their turn
            self.log.failure("news of the peer link could not be followed")

    # --- dialling

    def _dial(self, name: str) -> None:
        member = self._members.get(name)
        if (not self.running or member is None or member.peers is None or name <= self.director or name in self._links
                or name in self._dialling or name in self._redial):
            return
        try:
            host, port, _ = parse_address(member.peers)
        except ValueError as error:
            self.log.error("{peer} says that it listens where nobody can: {why}", peer=name, why=error)
            return
        endpoint: Any = HostnameEndpoint(self.reactor, host, port, timeout=CONNECT_TIMEOUT_S)
        if self._client is not None:
            endpoint = wrapClientTLS(self._client(self._certificate_name(name)), endpoint)
        protocol = _PeerProtocol(self, Role.DIALER, to=name)
        dialling = self._dialling[name] = endpoint.connect(_Factory(lambda: protocol))
        dialling.addCallbacks(lambda _: self._dialled(protocol), lambda failure: self._not_dialled(name, failure))

    def _dialled(self, protocol: _PeerProtocol) -> None:
        """Connected; whether it is whom we want, its `_dialling` entry lasts until the welcome or the end."""
        self._open.add(protocol)
        if not self.running:
            protocol.close()

    def _not_dialled(self, name: str, failure: Failure) -> None:
        self._dialling.pop(name, None)
        if not failure.check(CancelledError):
            self._say_why(name, failure.getErrorMessage())
            self._dial_later(name)

    def _dial_later(self, name: str) -> None:
        wait = self._waits.get(name, DIAL_S)
        self._waits[name] = min(2 * wait, DIAL_MOST_S)
        if self.running and name not in self._redial:
            self._redial[name] = self.reactor.callLater(wait * random.uniform(0.5, 1.5), self._dial_again, name)

    def _dial_again(self, name: str) -> None:
        del self._redial[name]
        self._dial(name)

    # --- for connections

    def new_link(self, role: Role) -> PeerConversation:
        return PeerConversation(
            role, cluster=self._cluster, director=self.director, boot_id=self._boot_id, secret=self._secret,
            nonce=os.urandom(NONCE_BYTES),
        )

    def _accepted(self) -> _PeerProtocol | None:
        if len(self._open) >= MAX_CONNECTIONS:
            return None
        protocol = _PeerProtocol(self, Role.ACCEPTOR)
        self._open.add(protocol)
        return protocol

    def objection(self, protocol: _PeerProtocol, name: str) -> str:
        """Why *name*, which knows the secret if there is one, is not let in; empty when it is."""
        if self._server is not None and self._certificate_name(name).lower() not in certificate_names(protocol.transport):
            return f"the certificate is not {name}'s"
        return ""

    def _certificate_name(self, director: str) -> str:
        return f"{director}.{self._config.certificate_domain}"

    def opened(self, protocol: _PeerProtocol) -> None:
        name = protocol.link.peer
        assert name is not None
        self._dialling.pop(name, None)
        self._waits.pop(name, None)
        self._told.pop(name, None)
        former = self._links.pop(name, None)
        if former is not None:
            former.cut("replaced by a newer connection")
            self._left(name, by_peer=former.link.peer_boot_id != protocol.link.peer_boot_id)
        self._links[name] = protocol
        self.log.info("linked with {peer} ({address})", peer=name, address=protocol.address)
        for told in self.on_joined:
            self._tell(told, name)

    def heard(self, protocol: _PeerProtocol, message: Traffic) -> None:
        hearer = self._hearers.get(type(message))
        if hearer is not None and protocol.link.peer is not None:
            self._tell(hearer, protocol.link.peer, message)

    def closed(self, protocol: _PeerProtocol, *, by_peer: bool) -> None:
        self._open.discard(protocol)
        name = protocol.link.peer
        if name is not None and self._links.get(name) is protocol:
            del self._links[name]
            self._left(name, by_peer=by_peer)
        if protocol.to is not None:
            if not protocol.since and self.running:
                self._say_why(protocol.to, protocol.trouble or self._suspicion())
            self._dialling.pop(protocol.to, None)
            if protocol.to not in self._links:
                self._dial_later(protocol.to)
        self._check_stopped()

    def _suspicion(self) -> str:
        what = "secret" if self._client is None else "secret, authority and certificate_domain"
        return f"it closed the connection without a welcome: has it the same cluster, {what}?"

    def _say_why(self, name: str, why: str) -> None:
        """Log what keeps us from *name*, once until it changes or they are linked."""
        if self._told.get(name) != why:
            self._told[name] = why
            self.log.warn("no link with {peer}: {why}", peer=name, why=why)

    def _left(self, name: str, *, by_peer: bool) -> None:
        self.log.info("{peer} is linked no more", peer=name)
        for told in self.on_left:
            self._tell(told, name, by_peer)
