"""Where agents connect: listeners, connections and their time-outs. What agents may do is the `Roster`'s decision.

One connection of an agent is an ordinary Twisted protocol: there is one for each backend host, not for each client.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from OpenSSL import SSL
from twisted.application.service import MultiService
from twisted.internet import ssl
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cluster.address import Address
from cluster.errors import Misuse
from cluster.misdialled import spoken, tls_trouble
from cluster.model import AgentListeners, HostRef
from cluster.wire import (
    MAX_DIRECTORS,
    VERSION,
    Conversation,
    Hello,
    Instruction,
    Leaving,
    Message,
    Moved,
    Refused,
    RemoteProtocolError,
    Report,
    Role,
    Welcome,
)
from director.core.bucket import TokenBucket
from director.ports.tls import certificate_names, server_options
from director.reports.agent_connection import UNKNOWN_RELEASE, AgentConnection
from director.reports.listening import ACCEPT_BURST, ACCEPTS_PER_HANDSHAKE, AgentPort, checked_addresses
from director.reports.roster import LEFT, RETRY_REFUSED_S, AgentSink, PeerFacts, Refusal, Reject, Roster, Speaker
from director.reports.turns import Turns
from director.timing.courtesy import give_way

__all__ = ["LEFT", "AgentConnection", "AgentListener", "AgentSink", "Reject"]

#: From accept to hello, TLS included: generous for a machine that swaps, short for one that plays dead.
HANDSHAKE_TIMEOUT_S = 10.0
#: Between two looks at whose turn it is: several at once cost fewer timers.
TURN_S = 0.01
#: A connection from which nothing came for so long is cut. Health knows after seconds; this frees the descriptor.
SILENCE_TIMEOUT_S = 60.0
#: For agents to be welcomed by another process of this director; those that do not understand are cut then, and come back.
MOVE_S = 5.0
#: Open connections, those still shaking hands included: ten thousand hosts, each reconnecting at once.
MAX_CONNECTIONS = 20_000


@implementer(IPushProducer)
class _AgentProtocol(Protocol):
    """One connection: bytes to messages, messages to the roster, answers back."""

    transport: Any  # TCP, TLS or UNIX

    def __init__(self, listener: AgentListener) -> None:
        self._listener = listener
        self._wire = Conversation(Role.DIRECTOR)
        self._timer: Any = None
        self._over = False
        self._heard = False
        self.speaker: Speaker | None = None
        self.since = 0.0
        self.release = UNKNOWN_RELEASE

    def connectionMade(self) -> None:
        ip = self._evidence().ip
        turn = True if not ip else self._listener.arrived(self, ip)
        if turn is None:
            self.abort("too many wait for a handshake")
        elif turn:
            self.go_on()
        else:
            self.transport.pauseProducing()
        give_way()

    def go_on(self) -> None:
        """It is this connection's turn to shake hands."""
        if self._over:
            return
        self.transport.resumeProducing()
        self._timer = self._listener.reactor.callLater(HANDSHAKE_TIMEOUT_S, self._handshake_timed_out)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        other = "" if self._heard else spoken(data)
        self._heard = True
        if other:
            self._listener.sink.rejected(Reject.MALFORMED)
            self._listener.misdialled(self._evidence(), f"{other} is spoken to a port for agents without that")
            self.abort("no agent")
            return
        self._wire.receive_data(data)
        try:
            while not self._over:
                message = self._wire.next_message()
                if message is None:
                    break
                self._handle(message)
        except RemoteProtocolError as error:
            self._listener.sink.rejected(error.reason)
            self.abort(str(error))
        give_way()

    def _handle(self, message: Message) -> None:
        now = self._listener.monotonic()
        roster = self._listener.roster
        if isinstance(message, Hello):
            evidence = self._evidence()
            answer = roster.hello(message, evidence, now)
            if isinstance(answer, Refusal):
                self._listener.refused(message, evidence, answer.reason)
                self.refuse(answer.reason, answer.retry_after_s)
                return
            self._listener.proven(evidence.ip)
            self._greeted(message, answer.speaker)
            if answer.replaced is not None:
                self._listener.refuse(answer.replaced, Reject.REPLACED, answer.stay_away_s)
            return
        assert self.speaker is not None
        if self._listener.moved:
            return  # another process listens
        if isinstance(message, Report):
            problem = roster.report(self.speaker, message, now)
            if problem is not None:
                self.refuse(problem, RETRY_REFUSED_S)
        elif isinstance(message, Leaving):
            roster.leaving(self.speaker, message.deadline_s, now)

    def _greeted(self, hello: Hello, speaker: Speaker) -> None:
        self.speaker = speaker
        self.release = hello.release or UNKNOWN_RELEASE
        self.since = self._listener.wall()
        self._timer.cancel()
        self._timer = self._listener.reactor.callLater(SILENCE_TIMEOUT_S, self._check_silence)
        self.send(self._listener.welcome(speaker))
        self._listener.joined(self)

    def _evidence(self) -> PeerFacts:
        peer = self.transport.getPeer()
        names = certificate_names(self.transport)
        if not isinstance(peer, IPv4Address | IPv6Address):
            return PeerFacts("unix", "", True, names)
        ip = ipaddress.ip_address(peer.host.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return PeerFacts(str(Address(str(ip), peer.port)), str(ip), ip.is_loopback, names)

    # --- out

    def send(self, message: Message) -> None:
        if not self._over:
            self.transport.write(self._wire.send(message))

    def refuse(self, reason: Reject, retry_after_s: float = 0.0) -> None:
        """Say why, and close."""
        self.send(Refused(reason=reason.value, retry_after_s=retry_after_s))
        self.leave(reason.value)

    def leave(self, why: str) -> None:
        """Close once what was said is sent; cut if the peer does not take it."""
        if self._timer is None:
            self.abort(why)  # waits for its turn: nothing was said
        elif not self._over:
            self._finish(why)
            self._timer = self._listener.reactor.callLater(HANDSHAKE_TIMEOUT_S, self.transport.abortConnection)
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self, why: str) -> None:
        """Close at once."""
        if not self._over:
            self._finish(why)
            self.transport.abortConnection()

    def _finish(self, why: str) -> None:
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self.speaker is not None:
            self._listener.gone(self, why)

    # --- silence, stalls, loss

    def _handshake_timed_out(self) -> None:
        self._listener.sink.rejected(Reject.HANDSHAKE_TIMEOUT)
        self.abort("no hello in time")

    def _check_silence(self) -> None:
        """Look now and then instead of moving a timer with every report."""
        assert self.speaker is not None
        left = self.speaker.heard_at + SILENCE_TIMEOUT_S - self._listener.monotonic()
        if left > 0:
            self._timer = self._listener.reactor.callLater(left, self._check_silence)
        else:
            self._listener.sink.rejected(Reject.SILENT)
            self.abort("silent")

    def pauseProducing(self) -> None:
        """The transport's buffer is full: the agent does not read the little that it is told."""
        self._listener.sink.rejected(Reject.STALLED)
        self.abort("does not read")

    def resumeProducing(self) -> None:
        """Never paused, only cut."""

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.speaker is None and not self._over and reason.check(SSL.Error, ssl.VerificationError):
            self._listener.sink.rejected(Reject.TLS)
            self._listener.misdialled(self._evidence(), tls_trouble(reason) or reason.getErrorMessage())
        if not self._over:
            self._finish("the connection closed" if reason.check(ConnectionDone) else "the connection broke")
        elif self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._listener.closed(self)


class AgentListener(MultiService):
    """The director's side of the heartbeat protocol: a service with one `AgentPort` for each address.

    :param config: where to listen, TLS, identities, intervals.
    :param sink: who is told.
    :param name: this director's.
    :param monotonic: seconds; ages and deadlines.
    :param wall: POSIX seconds; for people.
    :raises ConfigError: files of TLS that do not do; an address beyond this machine without TLS and without
        ``insecure``; no identities though an address is beyond this machine.
    """

    _log = Logger()

    def __init__(
        self,
        config: AgentListeners,
        sink: AgentSink,
        *,
        reactor: Any,
        name: str,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        super().__init__()
        addresses = checked_addresses(config)
        options = None if config.tls is None else server_options(config.tls, place="node.agents.tls")
        self.setName("agents")
        self.certificates = [] if options is None else [options.files]  #: that these ports need
        self.config = config
        self.sink = sink
        self.reactor = reactor
        self.director = name
        self.monotonic = monotonic
        self.wall = wall
        self.roster = Roster(config.identities, sink)
        self.accepts = TokenBucket(config.handshakes_per_s * ACCEPTS_PER_HANDSHAKE, ACCEPT_BURST, monotonic())
        self._turns: Turns[_AgentProtocol] = Turns(config.handshakes_per_s, monotonic())
        self._next_turn: Any = None
        self.ports = tuple(AgentPort(self, address, options) for address in addresses)
        for port in self.ports:
            port.setServiceParent(self)
        self._directors = config.advertise[:MAX_DIRECTORS]
        self._leader: str | None = None
        self._open: set[_AgentProtocol] = set()
        self._joined: dict[Speaker, _AgentProtocol] = {}
        self._stopping: list[Deferred[None]] = []  # fired when the last connection is closed
        self.moved = False  #: agents belong to another process of this director

    # --- for the node

    def order(self, ref: HostRef, order: Instruction) -> bool:
        """Send *order*, about *ref* alone, to the agent that speaks for it; whether there is one."""
        speaker = self.roster.speaker(ref)
        protocol = None if speaker is None else self._joined.get(speaker)
        if protocol is None:
            return False
        protocol.send(Instruction(order=order.order, hosts=[str(ref)], deadline_s=order.deadline_s,
                            interval_s=order.interval_s))
        return True

    def announce(self, *, directors: Sequence[str], leader: str | None) -> None:
        """Tell every agent, now and from now on, where the directors are and who leads them.

        :raises Misuse: more directors than one welcome may name.
        """
        if len(directors) > MAX_DIRECTORS:
            raise Misuse(f"agents are told of at most {MAX_DIRECTORS} directors")
        self._directors, self._leader = tuple(directors), leader
        for speaker, protocol in list(self._joined.items()):
            protocol.send(self.welcome(speaker))

    def move(self) -> None:
        """Another process of this director is where agents belong now; what they say here is not heard any more."""
        self.moved = True
        for protocol in list(self._joined.values()):
            protocol.send(Moved())

    async def let_go(self) -> None:
        """After `move`: until every agent has gone, or has had its time to."""
        end = self.monotonic() + MOVE_S
        while self._joined and self.monotonic() < end:
            await deferLater(self.reactor, TURN_S)

    def connections(self) -> tuple[AgentConnection, ...]:
        """The agents connected now."""
        now = self.monotonic()
        return tuple(
            AgentConnection(
                agent=speaker.agent,
                identity=speaker.identity,
                boot_id=speaker.boot_id,
                address=speaker.address,
                since=protocol.since,
                heard_s=now - speaker.heard_at,
                seq=speaker.record.seq,
                hosts=tuple(text for text, ref in speaker.claims.items() if self.roster.speaker(ref) is speaker),
                refused=dict(speaker.refused),
                leaving=speaker.leaving,
            )
            for speaker, protocol in self._joined.items()
        )

    def releases(self) -> Counter[str]:
        """How many of the agents connected now are of each release."""
        return Counter(protocol.release for protocol in self._joined.values())

    def stopService(self) -> Deferred[Any]:
        """Stop listening and close every agent's connection; agents come back when somebody listens again."""
        stopped = maybeDeferred(super().stopService)
        closed: Deferred[None] = Deferred()
        self._stopping.append(closed)
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        for protocol in list(self._open):
            protocol.leave("the director stops")
        self._check_stopped()
        return DeferredList([stopped, closed], fireOnOneErrback=True, consumeErrors=True)

    # --- for connections

    def admit(self) -> _AgentProtocol | None:
        """A protocol for a connection just accepted; None (it is closed) when there are too many."""
        if len(self._open) >= MAX_CONNECTIONS:
            self.sink.rejected(Reject.TOO_MANY_AGENTS)
            return None
        protocol = _AgentProtocol(self)
        self._open.add(protocol)
        return protocol

    def arrived(self, protocol: _AgentProtocol, ip: str) -> bool | None:
        """See `Turns.arrive`; *protocol* is told to go on."""
        turn = self._turns.arrive(protocol, ip, self.monotonic())
        if turn is None:
            self.sink.rejected(Reject.NO_TURN)
        self._set_turn()
        return turn

    def _set_turn(self) -> None:
        wait_s = self._turns.wait_s(self.monotonic())
        if wait_s is not None and self._next_turn is None:
            self._next_turn = self.reactor.callLater(max(TURN_S, wait_s), self._take_turns)

    def _take_turns(self) -> None:
        self._next_turn = None
        for protocol in self._turns.due(self.monotonic()):
            protocol.go_on()
        self._set_turn()

    def welcome(self, speaker: Speaker) -> Welcome:
        """What *speaker* is told of us."""
        return Welcome(
            version=VERSION,
            director=self.director,
            directors=list(self._directors),
            interval_s=self.config.interval_s,
            leader=self._leader,
            refused=speaker.refused,
        )

    def joined(self, protocol: _AgentProtocol) -> None:
        speaker = protocol.speaker
        assert speaker is not None
        self._joined[speaker] = protocol
        self._log.info("agent {agent} connected from {address}", agent=speaker.agent, address=speaker.address)

    def proven(self, ip: str) -> None:
        """An agent of *ip* may speak."""
        if ip:
            self._turns.proven(ip, self.monotonic())

    def refuse(self, speaker: Speaker, reason: Reject, retry_after_s: float) -> None:
        """Close *speaker*'s connection with a reason."""
        protocol = self._joined.get(speaker)
        if protocol is not None:
            protocol.refuse(reason, retry_after_s)

    def refused(self, hello: Hello, evidence: PeerFacts, reason: Reject) -> None:
        """Tell the operator; many of one kind are one line (`cluster.log.storms`)."""
        self._log.warn("agent {agent} at {address} refused: {reason}", agent=hello.agent, address=evidence.address,
                       reason=reason.value)

    def misdialled(self, evidence: PeerFacts, why: str) -> None:
        """Somebody connects who is no agent, or one with another idea of TLS."""
        self._log.info("no agent at {address}: {why}", address=evidence.address, why=why)

    def gone(self, protocol: _AgentProtocol, why: str) -> None:
        """*protocol* speaks no more."""
        speaker = protocol.speaker
        assert speaker is not None
        del self._joined[speaker]
        if self.moved:
            return
        self._log.info("agent {agent} disconnected: {why}", agent=speaker.agent, why=why)
        self.roster.lost(speaker, why)

    def closed(self, protocol: _AgentProtocol) -> None:
        """*protocol*'s descriptor is free."""
        self._open.discard(protocol)
        self._turns.forget(protocol)
        self._check_stopped()

    def _check_stopped(self) -> None:
        if not self._open:
            stopping, self._stopping = self._stopping, []
            for closed in stopping:
                closed.callback(None)
