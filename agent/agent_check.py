"""Answers HAProxy's agent-check (`cluster.agent_check`) with what the agent reports to directors.

- The weight is headroom: what is left of the utilisation, smoothed. HAProxy asks every other second and follows at once, so
  that without smoothing a host which was full a moment ago would get everything the next, and be full again.
- ``up`` is said always: it takes back a ``down`` of this agent, and never overrides HAProxy's own check.
- ``ready`` takes back an operator's drain or maintenance in HAProxy, too. So it is said only to take back what this agent
  said: for `RETRACT_S` after a ``drain``, or after its start, since it may have said ``drain`` before it was stopped.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from agent.config import AgentCheck, listening
from cluster.agent_check import Answer, compose
from cluster.errors import ConfigError, Problem
from cluster.model import LoadReport

#: How long ``ready`` is said; longer than whoever asks takes to ask again, and to fail at it a few times.
RETRACT_S = 60.0
#: Connections that wait to be closed; HAProxy has one for each of its servers that is this host.
MAX_CONNECTIONS = 64
#: How long one who asked may take to close.
CLOSE_S = 2.0
#: How much of what it sends (``agent-send``) is taken: left unread, it would make of the close a reset, and lose the answer.
MAX_DISCARDED_BYTES = 4096


class Words:
    """What is to be said of each report. No clock.

    :param weight: say a weight from the utilisation.
    :param least_percent: of the weight; 0 % would take all traffic away, and with it the reason to be full.
    :param smooth_s: time constant of the utilisation's average.
    """

    def __init__(self, now: float, *, weight: bool, least_percent: int, smooth_s: float) -> None:
        self._weight = weight
        self._least_percent = least_percent
        self._smooth_s = smooth_s
        self._utilisation: float | None = None
        self._at = now
        self._retract_until = now + RETRACT_S

    def say(self, report: LoadReport, now: float) -> Answer:
        """What *report* comes to at *now*."""
        ready = report.state == "ready"
        if report.state == "drain":
            self._retract_until = now + RETRACT_S
        retract = ready and now < self._retract_until
        return Answer(
            percent=self._percent(report, now),
            max_connections=report.max_connections or None,
            admin="drain" if report.state == "drain" else "ready" if retract else None,
            health="down" if report.state == "down" else "up",
        )

    def _percent(self, report: LoadReport, now: float) -> int | None:
        """Headroom, times what the application lowers its weight to."""
        if report.utilisation is not None:
            before = report.utilisation if self._utilisation is None else self._utilisation
            share = 1.0 if not self._smooth_s else 1.0 - math.exp(-max(0.0, now - self._at) / self._smooth_s)
            self._utilisation = before + (report.utilisation - before) * share
        self._at = now
        if not self._weight or self._utilisation is None:
            return None if report.weight is None else round(100 * report.weight)
        percent = max(self._least_percent, round(100 * (1.0 - self._utilisation)))
        return percent if report.weight is None else round(percent * report.weight)


class Responder(Service):
    """Listens for those who ask. The socket is bound at once, so that a port in use is a mistake of the configuration.

    :param report: the load as it is now.
    :raises ConfigError: it cannot be bound.
    """

    def __init__(self, config: AgentCheck, report: Callable[[], LoadReport], *, reactor: Any,
                 monotonic: Callable[[], float]) -> None:
        self.setName("agent-check")
        self._words = Words(monotonic(), weight=config.weight == "headroom", least_percent=config.least_percent,
                            smooth_s=config.smooth_s)
        self._report = report
        self._reactor = reactor
        self._monotonic = monotonic
        self._socket = _bind(config.listen)
        self._port: Any = None
        self._factory = _Factory(self)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._socket.getsockname()[1]
        return port

    def answer(self) -> bytes:
        """The line for one who asks now."""
        return compose(self._words.say(self._report(), self._monotonic()))

    def startService(self) -> None:
        super().startService()
        self._port = self._reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, self._factory)

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        for asking in list(self._factory.asking):
            asking.abort()
        self._socket.close()
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening) if port is not None else maybeDeferred(lambda: None)

    def call_later(self, seconds: float, what: Callable[[], None]) -> Any:
        return self._reactor.callLater(seconds, what)


def _bind(listen: str) -> socket.socket:
    host, port = listening(listen)
    try:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                                     backlog=MAX_CONNECTIONS)
        bound.setblocking(False)
        return bound
    except OSError as error:
        raise ConfigError([Problem("agent_check.listen", f"cannot listen on {listen}: {error.strerror}")]) from error


class _Factory(Factory[Protocol]):
    noisy = False

    def __init__(self, responder: Responder) -> None:
        self.responder = responder
        self.asking: set[_Asking] = set()

    def buildProtocol(self, _: Any) -> Protocol | None:
        return _Asking(self) if len(self.asking) < MAX_CONNECTIONS else None


class _Asking(Protocol):
    """One who asks: answered at once, then given a while to close first."""

    def __init__(self, factory: _Factory) -> None:
        self._site = factory
        self._discarded = 0
        self._end: Any = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self._site.asking.add(self)
        self._end = self._site.responder.call_later(CLOSE_S, self.abort)
        transport.write(self._site.responder.answer())
        transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED_BYTES:
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._site.asking.discard(self)
        if self._end.active():
            self._end.cancel()

    def abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
