"""Asking DNS servers for the addresses of a name: the I/O below `director.checks.resolver`, without a cache of its own.

`twisted.names` encodes and decodes the messages. Its client is not used, because it would wait out its timeouts where
a dead server's kernel says so at once, would not turn to the next server when one answers SERVFAIL, and leaves sockets
and timers behind when it is cancelled. Here every question has a connected UDP socket of its own: the kernel picks the
port at random, drops what other hosts send, and reports a refusal.
"""

from __future__ import annotations

import ipaddress
import os
import random
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.internet.defer import TimeoutError as AnswerTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from cluster.address import parse_address
from cluster.model import HOST_NAME_PATTERN
from cluster.shortage import OutOfResources, errno_of, short_of
from director.checks.system_dns import RESOLV_CONF, ResolvConf, Server, WatchedFile, parse_resolv_conf
from director.core.discovered import Service

#: How long each round waits for one server. A healthy one answers in milliseconds, one that has to recurse in a
#: second; with three servers a name is given up after 9 s.
TRY_TIMEOUTS_S = (1.0, 2.0)
#: Chains of aliases longer than this are loops or mistakes.
MAX_ALIASES = 16
#: RFC 1035, 2.3.4.
MAX_LABEL, MAX_NAME = 63, 253

_HOST_NAME = re.compile(HOST_NAME_PATTERN)
_CODES = {dns.EFORMAT: "FORMERR", dns.ESERVER: "SERVFAIL", dns.ENOTIMP: "NOTIMP", dns.EREFUSED: "REFUSED"}


class LookupFailed(Exception):
    """Nobody gave a usable answer; says why. Nothing is known about the name."""


class Answer(NamedTuple):
    """What the servers know about a name."""

    v4: tuple[str, ...] | None  #: None: that family's question failed, the other one's did not
    v6: tuple[str, ...] | None
    ttl_s: float | None  #: the shortest of all records on the way; None: the servers did not say
    why: str = ""  #: why there are no addresses, or none of a family


class _Records(NamedTuple):
    addresses: tuple[str, ...]
    ttl_s: float | None
    exists: bool


#: The family that is not asked for.
_NOT_ASKED = _Records((), None, exists=False)


class NameServers:
    """Asks for A and AAAA records, or for SRV records.

    :param servers: recursive servers as ``ip:port``, asked in order; empty: those of *resolv_conf*, whose search
        domains count either way.
    :raises ValueError: when a server is not ``ip:port``.
    """

    def __init__(self, *, reactor: Any, servers: Sequence[str] = (), resolv_conf: str = RESOLV_CONF) -> None:
        self._reactor = reactor
        self._servers = tuple(_server(text) for text in servers)
        self._system = WatchedFile(resolv_conf, parse_resolv_conf)

    def services(self, name: str) -> Deferred[Answer]:
        """The SRV records of *name*, in place of IPv4 addresses: as texts of `director.core.discovered.Service`. Fails as
        `lookup`."""
        return Deferred.fromCoroutine(self._lookup(name, (dns.SRV,)))

    def lookup(self, name: str) -> Deferred[Answer]:
        """Look *name* up. Fails with `LookupFailed`, or with `OutOfResources` where there was nothing to ask with. When
        cancelled, sockets and timers are gone when it fires."""
        return Deferred.fromCoroutine(self._lookup(name, (dns.A, dns.AAAA)))

    async def _lookup(self, name: str, kinds: Sequence[int]) -> Answer:
        system = self._system.value()
        configuration = ResolvConf(self._servers or system.servers, system.search, system.ndots)
        why, ttl_s = "no such name", None
        for candidate in configuration.candidates(name.lower()):
            if not _is_name(candidate):
                continue
            # Both families of one candidate together: a mix of two candidates' would be two different machines.
            outcomes = await DeferredList(
                [Deferred.fromCoroutine(self._ask(configuration.servers, candidate, kind))
                 for kind in kinds], consumeErrors=True)
            found: list[Any] = [_unless_failed(outcome) for _, outcome in outcomes]
            failed = next((outcome for outcome in found if isinstance(outcome, Exception)), None)
            v4, v6 = (None if isinstance(each, Exception) else each for each in (*found, _NOT_ASKED)[:2])
            ttl_s = min((each.ttl_s for each in (v4, v6) if each is not None and each.ttl_s is not None), default=None)
            if (v4 is not None and v4.addresses) or (v6 is not None and v6.addresses):
                return Answer(v4 and v4.addresses, v6 and v6.addresses, ttl_s, str(failed or ""))
            for outcome in found:
                if isinstance(outcome, OutOfResources):
                    raise outcome
            if failed is not None:
                raise failed
            if any(each is not None and each.exists for each in (v4, v6)):
                why = "the name has no addresses" if dns.A in kinds else "the name has no SRV records"
        return Answer((), (), ttl_s, why)

    async def _ask(self, servers: Sequence[Server], name: str, kind: int) -> _Records:
        """One question, to each server in turn, until one answers it."""
        why = LookupFailed("no servers")
        for timeout_s in TRY_TIMEOUTS_S:
            for server in servers:
                try:
                    message = await self._exchange(server, name, kind, timeout_s)
                except LookupFailed as error:
                    why = error
                    continue
                if message.rCode in (dns.OK, dns.ENAME):
                    return _records(message, name, kind)
                code = _CODES.get(message.rCode, f"code {message.rCode}")
                why = LookupFailed(f"DNS server {server} answered {code}")
        raise why

    async def _exchange(self, server: Server, name: str, kind: int, timeout_s: float) -> dns.Message:
        """Ask one server over UDP, and over TCP when its answer was cut."""
        question = _Question(name, kind)
        try:
            message = await self._by_udp(server, question, timeout_s)
            return await self._by_tcp(server, question, timeout_s) if message.trunc else message
        except (AnswerTimeout, ConnectTimeout) as error:
            raise LookupFailed(f"DNS server {server} did not answer in {timeout_s:g} s") from error
        except ConnectingCancelledError as error:
            raise CancelledError() from error
        except (OSError, MemoryError, CannotListenError, ConnectError, ConnectionClosed) as error:
            if what := short_of(errno_of(error)):
                raise OutOfResources(what) from error
            raise LookupFailed(f"DNS server {server} can't be reached: {_text(error)}") from error

    async def _by_udp(self, server: Server, question: _Question, timeout_s: float) -> dns.Message:
        protocol = _Datagrams(question)
        port = self._reactor.listenUDP(0, protocol, interface="::" if ":" in server.host else "")
        try:
            send = _connected(port, server)
            send(question.encoded)
            return await protocol.answer.addTimeout(timeout_s, self._reactor)
        finally:
            await maybeDeferred(port.stopListening)
            protocol.answer.addErrback(lambda _: None)  # nobody may have come to wait for it

    async def _by_tcp(self, server: Server, question: _Question, timeout_s: float) -> dns.Message:
        kind = TCP6ClientEndpoint if ":" in server.host else TCP4ClientEndpoint
        protocol = _Stream(question)
        await connectProtocol(kind(self._reactor, server.host, server.port, timeout=timeout_s), protocol)
        try:
            return await protocol.answer.addTimeout(timeout_s, self._reactor)
        finally:
            protocol.abort()
            await protocol.gone


class _Question:
    """A question on the wire, and which messages answer it."""

    def __init__(self, name: str, kind: int) -> None:
        self._id = random.SystemRandom().getrandbits(16)
        self._query = dns.Query(name.encode("ascii"), kind, dns.IN)
        message = dns.Message(self._id, recDes=1)
        message.queries = [self._query]
        self.encoded: bytes = message.toStr()

    def answered_by(self, data: bytes) -> dns.Message | None:
        """The message in *data* when it answers this question, else None: forged and broken ones are ignored."""
        message = dns.Message()
        try:
            message.fromStr(data)
        except Exception:  # the decoder raises whatever its structs and payloads do on hostile bytes
            return None
        return message if message.answer and message.id == self._id and message.queries == [self._query] else None


class _Datagrams(DatagramProtocol):
    """A question's UDP socket."""

    def __init__(self, question: _Question) -> None:
        self._question = question
        self.answer: Deferred[dns.Message] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        message = self._question.answered_by(datagram)
        if message is not None and not self.answer.called:
            self.answer.callback(message)

    def connectionRefused(self) -> None:
        if not self.answer.called:
            self.answer.errback(Failure(ConnectionRefusedError("refused")))

    def stopProtocol(self) -> None:
        """An ICMP error closes the port under the reactors that see it as a hang-up (epoll, poll)."""
        self.connectionRefused()


class _Stream(Int16StringReceiver):
    """A question's TCP connection."""

    def __init__(self, question: _Question) -> None:
        self._question = question
        self.answer: Deferred[dns.Message] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.sendString(self._question.encoded)

    def stringReceived(self, string: bytes) -> None:
        message = self._question.answered_by(string)
        if message is not None and not self.answer.called:
            self.answer.callback(message)

    def abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = Failure(ConnectionClosed())) -> None:  # noqa: B008
        if not self.answer.called:
            self.answer.errback(Failure(ConnectionClosed("it closed the connection")))
        self.gone.callback(None)


def _connected(port: Any, server: Server) -> Callable[[bytes], Any]:
    """Have *port* speak with *server* only; returns what sends to it.

    Twisted leaves out the scope of a link-local address.
    """
    if "%" not in server.host:
        port.connect(server.host, server.port)
        return port.write  # type: ignore[no-any-return]
    name = socket.getaddrinfo(server.host, server.port, socket.AF_INET6, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0][4]
    sock: socket.socket = port.getHandle()
    sock.connect(name)
    return sock.send


def _server(text: str) -> Server:
    address = parse_address(text)
    if not address.is_ip:
        raise ValueError(f"{text!r}: a DNS server is given by its IP address")
    return Server(address.host, address.port)


def _is_name(name: str) -> bool:
    return name.isascii() and len(name) <= MAX_NAME and all(0 < len(label) <= MAX_LABEL for label in name.split("."))


def _text(error: Exception) -> str:
    if isinstance(error, ConnectError) and isinstance(error.osError, int):
        return os.strerror(error.osError)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _unless_failed(outcome: Any) -> _Records | LookupFailed | OutOfResources:
    """A question's outcome as a value; anything but its success, `LookupFailed` or `OutOfResources` is raised."""
    if not isinstance(outcome, Failure):
        records: _Records = outcome
        return records
    outcome.trap(LookupFailed, OutOfResources)
    error = outcome.value
    assert isinstance(error, LookupFailed | OutOfResources)
    return error


def _records(message: dns.Message, name: str, kind: int) -> _Records:
    """The addresses in *message*, through its aliases; without any, how long that may be believed (RFC 2308, 5)."""
    answers: list[Any] = list(message.answers)
    authority: list[Any] = list(message.authority)
    aliases = {_key(each): each for each in answers if each.type == dns.CNAME}
    key, ttls = name.encode("ascii"), []
    for _ in range(MAX_ALIASES):
        alias = aliases.get(key)
        if alias is None:
            break
        ttls.append(alias.ttl)
        key = alias.payload.name.name.lower()
    found = [each for each in answers if each.type == kind and _key(each) == key]
    ttls.extend(each.ttl for each in found)
    if not found:
        ttls.extend(min(each.ttl, each.payload.minimum) for each in authority if each.type == dns.SOA)
    texts = (_service(each.payload) if kind == dns.SRV else str(ipaddress.ip_address(each.payload.address))
             for each in found)
    return _Records(tuple(text for text in texts if text), min(ttls, default=None), message.rCode == dns.OK)


def _service(record: dns.Record_SRV) -> str:
    """Empty where it says that there is no such service, or names what no host can be called."""
    target = record.target.name.decode("ascii", "replace").lower().rstrip(".")
    fits = record.port and _HOST_NAME.match(target) and _is_name(target)
    return str(Service(record.priority, record.weight, record.port, target)) if fits else ""


def _key(record: dns.RRHeader) -> bytes:
    name: bytes = record.name.name
    return name.lower()
