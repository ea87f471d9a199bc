"""The native relay: threads of the C extension `_relay` move the bytes, outside of the interpreter.

This module is the border: calls go down as they are, events come up in batches, by one descriptor of the reactor. How
the engine works is told at the top of ``_relay.h``.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cluster.errors import Misuse
from cluster.model import Reason
from director.relay import _relay
from director.relay.interface import Counters, Limits, Progress, RelayEvents
from director.relay.pipes import MAX_PIPES
from director.relay.turnarounds import NO_TALLY, Turnarounds
from director.timing.seldom import Seldom, more

#: Events told in one turn of the reactor; the rest comes in the next.
EVENTS_PER_TURN = 512
#: The handle of a connection that the engine had no room for. It finds nothing: the engine's are even.
NO_HANDLE = 1

#: By the number that the engine uses: first those it gives itself.
_OWN = tuple(Reason(name) for name in _relay.REASONS)
REASONS = _OWN + tuple(reason for reason in Reason if reason not in _OWN)
_NUMBERS = {reason: number for number, reason in enumerate(REASONS)}


@implementer(IReadDescriptor)
class NativeRelay:
    """See `director.relay.interface.Relay`.

    :param threads: how many threads relay; a connection goes to the one with the fewest.
    :param pipes: at most, in equal parts to the threads.
    """

    name = "native"
    _log = Logger()

    def __init__(self, *, reactor: Any, threads: int = 1, pipes: int = MAX_PIPES) -> None:
        self._reactor = reactor
        self._threads = threads
        self._pipes = pipes
        self._events: RelayEvents | None = None
        self._engine: _relay.Engine | None = None
        self._outbox: deque[tuple[int, tuple[Any, ...]]] = deque()
        self._soon: IDelayedCall | None = None
        self._seldom = Seldom()
        self._last = Counters(0, 0, 0, 0, 0, 0, 0)

    # --- Relay

    def start(self, events: RelayEvents) -> None:
        """:raises OSError: no descriptors or threads to be had."""
        self._events = events
        self._engine = _relay.start(self._threads, REASONS, self._pipes)
        self._reactor.addReader(self)

    def relay(
        self, token: object, client: int, host: int, limits: Limits, preface: bytes = b"", tally: int = NO_TALLY
    ) -> int:
        if self._engine is None:
            raise Misuse("the relay is not running")
        try:
            return self._engine.relay(token, client, host, limits, preface, tally)
        except MemoryError:
            if (held := self._seldom.due("memory")) is not None:
                self._log.warn("no memory for one more connection{more}", more=more(held))
            _reset(client)
            _reset(host)
            self._outbox.append((2, (token, Reason.RELAY_ERROR, 0, 0)))
            if self._soon is None or not self._soon.active():
                self._soon = self._reactor.callLater(0, self._deliver)
            return NO_HANDLE

    def kill(self, handle: int, reason: Reason) -> None:
        if self._engine is not None:
            self._engine.kill(handle, _NUMBERS[reason])

    def progress(self, handle: int) -> Progress | None:
        got = self._engine.progress(handle) if self._engine is not None else None
        return None if got is None else Progress(*got)

    def tokens(self) -> list[object]:
        return [] if self._engine is None else self._engine.tokens()

    def counters(self) -> Counters:
        if self._engine is not None:
            self._last = Counters(*self._engine.counters())
        return self._last

    def owes_s(self) -> float:
        return 0.0 if self._engine is None else self._engine.owes() / 1000

    def tally(self) -> int:
        try:
            return NO_TALLY if self._engine is None else self._engine.tally()
        except MemoryError:
            return NO_TALLY

    def free_tally(self, number: int) -> None:
        if self._engine is not None:
            self._engine.free_tally(number)

    def turnarounds(self, number: int) -> Turnarounds:
        if self._engine is None:
            return Turnarounds()
        count, micros, unasked = self._engine.turnarounds(number)
        return Turnarounds(count, micros / 1e6, unasked)

    def stop(self) -> None:
        if self._engine is None:
            return
        self._reactor.removeReader(self)
        engine, self._engine = self._engine, None
        self._outbox.extend(engine.stop())
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        self._deliver()

    # --- the reactor's descriptor

    def fileno(self) -> int:
        return -1 if self._engine is None else self._engine.fileno()

    def logPrefix(self) -> str:
        return "relay"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor lets go of us: when it stops."""
        self.stop()

    def doRead(self) -> None:
        if self._engine is not None:
            self._outbox.extend(self._engine.drain(EVENTS_PER_TURN))
            self._deliver()

    def _deliver(self) -> None:
        """Tell all that is in the outbox. A callback that stops the relay tells the rest from there."""
        events, outbox = self._events, self._outbox
        assert events is not None
        tell = (events.connected, events.connect_failed, events.closed)
        while outbox:
            which, about = outbox.popleft()
            try:
                tell[which](*about)
            except Exception:
                self._log.failure("an event of the relay was not handled")


def _reset(fd: int) -> None:
    """Close with RST: a cut must not look like an end."""
    with socket.socket(fileno=fd) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
