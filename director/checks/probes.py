"""Active probes: connecting to a host, or asking it something, to see whether it still answers.

`Prober` runs probes; `director.checks.probe_loop` says when, with one timer for all hosts. What a result means, and when
the next one is due, is decided in `director.core.health`.

The host's program does not notice a TCP probe, see `director.checks.knock`, unless it leads to a UNIX socket. Any other
probe leaves a host in peace: it sends FIN, reads what the host still wants to say, and only then closes, so that a
banner or a page that nobody reads does not end in a reset and a line in the host's error log.

Over TLS (`director.checks.probe_tls`) the host has passed once the handshake has ended and its certificate is the host's; a
probe that asks something asks only then (`director.checks.dialogues`).

A probe that this director could not make, for want of a descriptor, a port, memory or a readable file, has no result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore, succeed
from twisted.internet.defer import TimeoutError as ProbeTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionDone, NoRouteError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cluster.address import Address
from cluster.model import Probe
from cluster.shortage import PORTS, OutOfResources, errno_of
from director.checks.bound_client import endpoint_from
from director.checks.dialogues import Dialogue, ProbeFailed, dialogue_of, protocol_of
from director.checks.knock import knock
from director.checks.passwords import Passwords
from director.checks.probe_tls import Handshake, trouble
from director.ports.sockets import lacked, sources_for
from director.resources.shortages import PROBE, Shortages
from director.tls.dialling import Contexts, Unfit

#: Probes under way at the same time; each holds a descriptor. At 200, ten thousand hosts that all time out after 1 s
#: still get a probe every 50 s each, and those that answer in milliseconds never wait.
MAX_PROBES = 200
#: How long, and how much, a host may go on sending after the result is known.
CLOSE_GRACE_S = 0.2
MAX_DISCARDED_BYTES = 262_144


class ProbeResult(NamedTuple):
    """What a probe saw."""

    ok: bool | None  #: None: it could not be made, which says nothing about the host
    detail: str  #: for people: ``connected in 2 ms``, ``refused``, ``timed out after 1 s``, ``HTTP 503``
    duration_s: float  #: until the result was known
    reached: Address | None = None  #: which of the host's addresses answered; None: none did
    weight: float | None = None  #: what the host said of its weight, where that is asked for


class Prober(Service):
    """Runs probes, at most `MAX_PROBES` at a time, in the order they were asked for.

    :param resolve: finds the addresses of a host name; without it only literal addresses can be probed.
    :param monotonic: seconds; measures durations.
    :param shortages: told of every probe that could not be made.
    :param passwords: the directory of those that probes sign in with.
    """

    log = Logger()

    def __init__(
        self, *, reactor: Any, resolve: Callable[[str], Deferred[tuple[str, ...]]] | None = None,
        monotonic: Callable[[], float] = time.monotonic, shortages: Shortages | None = None, passwords: str | None = None,
    ) -> None:
        self.setName("prober")
        self._reactor = reactor
        self._resolve = resolve
        self._monotonic = monotonic
        self._shortages = shortages or Shortages(monotonic=monotonic)
        self._gate = DeferredSemaphore(MAX_PROBES)
        self._running: set[Deferred[Any]] = set()
        self._turns = count()
        self._contexts = Contexts("hosts are not probed")
        self._passwords = Passwords(passwords)

    def probe(
        self, target: Address, spec: Probe, sources: Sequence[str] = (), *, others: Sequence[Address] = (),
        preface: bytes = b"",
    ) -> Deferred[ProbeResult]:
        """Probe *target* as *spec* says (its own address is the caller's business); ``none`` is like ``tcp``.

        Never fails. The timeout counts from when the probe gets its turn. A cancelled probe, or one that is under way
        when the service stops, ends with the detail ``cancelled``.

        :param sources: addresses of this machine to probe from, in turn.
        :param others: where else the host is; tried in order while none can be connected to, in the same time.
        :param preface: sent first over a connection that the host's program notices.
        """
        if not self.running:
            return succeed(ProbeResult(False, "cancelled", 0.0))
        if not others and target.is_ip and _is_quiet(target, spec) and self._gate.tokens:
            return self._knock(target, spec, sources)
        begun = self._monotonic()

        def finish(ok: bool | None, detail: str, reached: Address | None = None, weight: float | None = None) -> None:
            """Hand out the result, once: how the connection's end goes is nobody's concern."""
            if not result.called:
                result.callback(ProbeResult(ok, detail, self._monotonic() - begun, reached, weight))

        def begin() -> Deferred[None]:
            nonlocal begun
            begun = self._monotonic()
            if not self.running:  # the stop let it in, by taking others out
                return succeed(None)
            visiting = Deferred.fromCoroutine(self._visit((target, *others), spec, sources, preface))
            if not visiting.called:
                visiting.addTimeout(spec.timeout_s, self._reactor)
            return visiting.addCallbacks(passed, lambda failure: finish(*self._failed(failure, target, spec)))

        def passed(seen: tuple[_Visit | None, Address]) -> Deferred[None] | None:
            visit, reached = seen
            took = _took(self._monotonic() - begun)
            if visit is None:
                finish(True, f"connected {took}", reached)
                return None
            finish(True, f"{visit.seen} {took}", reached, visit.weight)
            return Deferred.fromCoroutine(visit.leave(self._reactor))

        def cancel(_: object) -> None:
            finish(False, "cancelled")
            task.cancel()

        def ended(_: object) -> None:
            self._running.discard(task)
            finish(False, "cancelled")  # unless it has a result: it never got its turn

        result: Deferred[ProbeResult] = Deferred(cancel)
        task: Deferred[Any] = self._gate.run(begin)
        self._running.add(task)
        task.addBoth(ended)
        return result

    def stopService(self) -> Deferred[Any]:
        """Fires when every probe has ended."""
        super().stopService()
        running = tuple(self._running)
        for task in running:
            task.cancel()
        return DeferredList(running)

    def _knock(self, target: Address, spec: Probe, sources: Sequence[str]) -> Deferred[ProbeResult]:
        """`probe`, where a connect to one address is all and nobody waits for a turn: as thousands of hosts have it."""
        begun = self._monotonic()
        knocking: Deferred[Any] = knock(target, sources, reactor=self._reactor)
        waits = not knocking.called

        def over(seen: Failure | None) -> ProbeResult:
            if waits:
                self._running.discard(knocking)
                self._gate.release()
            took_s = self._monotonic() - begun
            if seen is None:
                return ProbeResult(True, f"connected {_took(took_s)}", took_s, target)
            return ProbeResult(*self._failed(seen, target, spec), took_s)

        if waits:
            self._gate.acquire()
            self._running.add(knocking)
            knocking.addTimeout(spec.timeout_s, self._reactor)
        return knocking.addBoth(over)

    async def _visit(
        self, targets: Sequence[Address], spec: Probe, sources: Sequence[str], preface: bytes,
    ) -> tuple[_Visit | None, Address]:
        """Connect, and ask. Returns the visit, which passed, or None when it is over, and where it led. When this raises,
        it is over too.

        :raises OutOfResources: it could not begin.
        :raises Unfit: nor could it, for files that cannot be read.
        """
        tls = None if spec.tls is None else Handshake(self._contexts.dialling(spec.tls, targets[0], protocol_of(spec)))
        visit = _Visit(preface, dialogue_of(spec, targets[0], self._passwords.of), tls)
        quiet, target = await self._reach(await self._literal(targets), visit, spec, sources)
        if quiet:
            return None, target
        try:
            await visit.answered
        except Exception:
            await visit.abort()
            raise
        return visit, target

    async def _literal(self, targets: Sequence[Address]) -> Sequence[Address]:
        """*targets*, or the addresses of the name that they are.

        :raises OutOfResources: nobody could be asked.
        """
        target = targets[0]
        if target.is_unix or target.is_ip:
            return targets
        if self._resolve is None:
            raise ProbeFailed(f"{target.host} is not an IP address")
        try:
            return [target._replace(host=host) for host in await self._resolve(target.host)]
        except OutOfResources:
            raise
        except Exception as error:
            raise ProbeFailed(str(error)) from error

    async def _reach(
        self, targets: Sequence[Address], visit: _Visit, spec: Probe, sources: Sequence[str],
    ) -> tuple[bool, Address]:
        """Connect to the first of *targets* that can be connected to; each has an even share of the time that is left.
        Returns whether the connection is over already, and where it led."""
        end = self._monotonic() + spec.timeout_s
        for left, target in zip(range(len(targets), 0, -1), targets, strict=True):
            quiet = _is_quiet(target, spec)
            connected: Deferred[None] = (
                knock(target, sources, reactor=self._reactor) if quiet else
                Deferred.fromCoroutine(self._connect(target, spec, visit, sources_for(target, sources))))
            if left == 1:
                await connected
            else:
                try:
                    await connected.addTimeout(max(0.0, end - self._monotonic()) / left, self._reactor)
                except (ConnectError, OSError, ProbeTimeout):
                    continue
            break
        return quiet, target

    async def _connect(self, target: Address, spec: Probe, visit: _Visit, sources: Sequence[str]) -> None:
        """From one of *sources* that has a port left.

        :raises OutOfResources: none has, or something else is lacking.
        """
        first = next(self._turns)
        endpoints = [
            endpoint_from(self._reactor, target.host, target.port, timeout_s=spec.timeout_s,
                          source=sources[(first + i) % len(sources)]) for i in range(len(sources))
        ] or [_endpoint(self._reactor, target, spec.timeout_s)]
        while endpoints:
            try:
                await connectProtocol(endpoints.pop(0), visit)
            except ConnectingCancelledError as error:  # so that the timeout knows its own doing
                raise CancelledError() from error
            except (ConnectError, OSError, MemoryError) as error:
                what = lacked(errno_of(error), target)
                if what == PORTS and endpoints:
                    continue
                if what:
                    raise OutOfResources(what) from error
                raise
            return

    def _failed(self, failure: Failure, target: Address, spec: Probe) -> tuple[bool | None, str]:
        """What that says of the host, and to people."""
        error = failure.value
        if isinstance(error, OutOfResources):
            self._shortages.met(error.what, PROBE, f"cannot probe {target}")
        if isinstance(error, (OutOfResources, Unfit)):
            return None, str(error)
        return False, self._explain(failure, spec)

    def _explain(self, failure: Failure, spec: Probe) -> str:
        match error := failure.value:
            case ProbeFailed():
                return str(error)
            case ProbeTimeout() | ConnectTimeout():
                return f"timed out after {spec.timeout_s:g} s"
            case CancelledError():
                return "cancelled"
            case Refused():
                return "refused"
            case NoRouteError():
                return "no route"
            case ConnectError() if isinstance(error.osError, int):
                return os.strerror(error.osError).lower()
            case ConnectError() | OSError():
                return str(error)
        self.log.failure("a probe broke", failure=failure)
        return "internal error"


@implementer(IHandshakeListener)
class _Visit(Protocol):
    """One connection to a host.

    :param dialogue: what is said; None: connecting is enough.
    :param tls: begins after the preface, and comes before the dialogue, but for what that says in plain.
    """

    def __init__(self, preface: bytes, dialogue: Dialogue | None, tls: Handshake | None = None) -> None:
        self._preface = preface
        self.dialogue = dialogue
        self._discarded = 0
        self._lost = False
        self._tls = tls
        self._secure = ""  # the version of TLS
        self._agreeing = False  # whether the host is asked for TLS
        self.answered: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()

    @property
    def seen(self) -> str:
        """What made it pass."""
        return self._secure or "connected" if self.dialogue is None else self.dialogue.seen

    @property
    def weight(self) -> float | None:
        return None if self.dialogue is None else self.dialogue.weight

    def connectionMade(self) -> None:
        if self._preface:
            self._transport.write(self._preface)
        if self._tls is None:
            self._ask()
        elif self.dialogue is not None and self.dialogue.before_tls:
            self._agreeing = True
            self._transport.write(self.dialogue.before_tls)
        else:
            self._transport.startTLS(self._tls)

    def handshakeCompleted(self) -> None:
        """Of TLS."""
        assert self._tls is not None
        connection = self._transport.getHandle()
        if why := self._tls.refusal(connection):
            self.answered.errback(ProbeFailed(why))
            return
        self._secure = connection.get_protocol_version_name()
        self._ask()

    def _ask(self) -> None:
        if self.dialogue is None:
            self.answered.callback(None)
        else:
            self._transport.write(self.dialogue.begin())

    def dataReceived(self, data: bytes) -> None:
        if self.answered.called or self.dialogue is None:
            self._discarded += len(data)
            if self._discarded > MAX_DISCARDED_BYTES:
                self._transport.abortConnection()
        elif self._agreeing:
            self._agreeing = False
            if data == self.dialogue.agrees:  # and not a byte more: that would be taken for what came over TLS
                self._transport.startTLS(self._tls)
            else:
                self.answered.errback(ProbeFailed("it has no TLS"))
        else:
            try:
                say = self.dialogue.heard(data)
            except ProbeFailed:
                self.answered.errback()
                return
            if say is None:
                self.answered.callback(None)
            else:
                self._transport.write(say)

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        if not self.answered.called and self.dialogue is not None and self.dialogue.passed_anyway():
            self.answered.callback(None)
        elif not self.answered.called:
            why = trouble(reason.value) if reason.value is not None else ""
            self.answered.errback(ProbeFailed(f"TLS: {why}" if why else "closed before it answered"))
        self._lost = True
        self.gone.callback(None)

    async def leave(self, reactor: Any) -> None:
        """Say goodbye and wait for the host's, `CLOSE_GRACE_S` at most."""
        if self._lost:
            return
        if self.dialogue is not None:
            self._transport.write(self.dialogue.farewell)
        if self._tls is None:
            self._transport.loseWriteConnection()
        else:  # says so, and waits for the host to say so, too
            self._transport.loseConnection()
        close = self._transport.loseConnection if self._tls is None else self._transport.abortConnection
        grace = reactor.callLater(CLOSE_GRACE_S, close)
        try:
            await self.gone
        except CancelledError:
            await self.abort()
        finally:
            if grace.active():
                grace.cancel()

    async def abort(self) -> None:
        """Close at once."""
        if not self._lost:
            self.gone = Deferred()  # the one before may have been cancelled
            self._transport.abortConnection()
            await self.gone

    @property
    def _transport(self) -> Any:
        return self.transport


def _took(seconds: float) -> str:
    return f"in {max(1, round(seconds * 1000))} ms"


def _is_quiet(target: Address, spec: Probe) -> bool:
    """Whether the host's program does not notice the probe."""
    return spec.kind in ("tcp", "none") and not target.is_unix and spec.tls is None


def _endpoint(reactor: Any, target: Address, timeout_s: float) -> Any:
    if target.path is not None:
        path = "\0" + target.path[1:] if target.path.startswith("@") else target.path
        return UNIXClientEndpoint(reactor, path, timeout=timeout_s)
    kind = TCP6ClientEndpoint if ":" in target.host else TCP4ClientEndpoint
    return kind(reactor, target.host, target.port, timeout=timeout_s)
