"""Asking a responder of HAProxy's agent-check, as other load balancers do: connect, maybe say something, read a line.

What the line means is `cluster.agent_check`'s business. Failing to get one says nothing about the host: that is what probes
are for.
"""

from __future__ import annotations

import os
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from cluster.address import Address
from cluster.agent_check import MAX_LINE_BYTES, first_line
from cluster.model import AgentCheck
from director.checks.bound_client import endpoint_from
from director.ports.sockets import lacked, sources_for
from director.resources.shortages import PROBE, Shortages


class NoAnswer(Exception):
    """Says why there was none."""


class Asker:
    """Asks.

    :param shortages: told when this machine lacks what it takes.
    """

    def __init__(self, *, reactor: Any, shortages: Shortages) -> None:
        self._reactor = reactor
        self._shortages = shortages
        self._turns = count()

    def ask(self, address: Address, spec: AgentCheck, sources: tuple[str, ...] = ()) -> Deferred[bytes]:
        """The line of the responder at *address*, a literal, without its end. Fails with `NoAnswer`, or when cancelled.

        :param sources: addresses of this machine to ask from, in turn.
        """
        asked = Deferred.fromCoroutine(self._ask(address, spec, sources))
        return asked.addTimeout(spec.timeout_s, self._reactor).addErrback(self._explain, address, spec)

    async def _ask(self, address: Address, spec: AgentCheck, sources: tuple[str, ...]) -> bytes:
        fitting = sources_for(address, sources)
        kind = TCP6ClientEndpoint if ":" in address.host else TCP4ClientEndpoint
        endpoint = (endpoint_from(self._reactor, address.host, address.port, timeout_s=spec.timeout_s,
                                  source=fitting[next(self._turns) % len(fitting)]) if fitting else
                    kind(self._reactor, address.host, address.port, timeout=spec.timeout_s))
        asking = _Asking(spec.send.encode())
        try:
            await connectProtocol(endpoint, asking)
        except ConnectingCancelledError as error:  # so that the timeout knows its own doing
            raise CancelledError from error
        return await asking.line

    def _explain(self, failure: Failure, address: Address, spec: AgentCheck) -> Failure:
        error = failure.value
        number = getattr(error, "osError", getattr(error, "errno", None))
        what = lacked(number, address) if isinstance(number, int) else ""
        if what:
            self._shortages.met(what, PROBE, f"cannot ask the responder at {address}")
            return Failure(NoAnswer(what))
        match error:
            case NoAnswer() | CancelledError():
                return failure
            case Late() | ConnectTimeout():
                return Failure(NoAnswer(f"timed out after {spec.timeout_s:g} s"))
            case Refused():
                return Failure(NoAnswer("refused"))
            case ConnectError() | OSError():
                return Failure(NoAnswer(os.strerror(number).lower() if isinstance(number, int) else str(error)))
        return failure


class _Asking(Protocol):
    """One connection. *line* fires once it is over."""

    def __init__(self, send: bytes) -> None:
        self._send = send
        self._data = b""
        self.line: Deferred[bytes] = Deferred(lambda _: self._close())

    def connectionMade(self) -> None:
        if self._send:
            transport: Any = self.transport
            transport.write(self._send)

    def dataReceived(self, data: bytes) -> None:
        if self.line.called:
            return
        self._data += data
        line = first_line(self._data)
        if line is not None:
            self._end(line)
        elif len(self._data) >= MAX_LINE_BYTES:
            self._end(NoAnswer(f"its line is longer than {MAX_LINE_BYTES} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.line.called:
            self._end(NoAnswer("its line does not end" if self._data else "it closed without an answer"))

    def _end(self, result: bytes | NoAnswer) -> None:
        self._close()
        if isinstance(result, bytes):
            self.line.callback(result)
        else:
            self.line.errback(result)

    def _close(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
