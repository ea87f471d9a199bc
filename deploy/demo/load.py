"""The demo's clients: requests at a steady rate on new connections, each one's fate remembered."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

#: A request that takes longer has failed, as it would for an impatient user.
PATIENCE_S = 10.0


class Fate:
    """One request."""

    __slots__ = ("backend", "began", "ended", "error")

    def __init__(self, began: float) -> None:
        self.began = began
        self.ended: float | None = None
        self.backend = ""
        self.error = ""


class _Request(Protocol):
    def __init__(self, fate: Fate, load: Load) -> None:
        self._fate = fate
        self._load = load
        self._received = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"GET / HTTP/1.0\r\nHost: demo\r\n\r\n")
        self._timer = self._load.reactor.callLater(PATIENCE_S, self.transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._timer.active():
            self._timer.cancel()
        head, _, body = self._received.partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1:2] == [b"200"] and body.endswith(b"\n"):
            self._fate.backend = body.decode().strip()
            self._load.over(self._fate, "")
        else:
            text = "closed without an answer" if reason.check(ConnectionDone) else reason.getErrorMessage()
            self._load.over(self._fate, text)


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, fate: Fate, load: Load) -> None:
        self._fate = fate
        self._load = load

    def buildProtocol(self, addr: Any) -> Protocol:
        return _Request(self._fate, self._load)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._load.over(self._fate, reason.getErrorMessage())


class Load:
    """Requests arrive at random (Poisson), *rate* a second, whatever becomes of the former ones."""

    def __init__(self, port: int, rate: float, *, reactor: Any) -> None:
        self.reactor = reactor
        self.fates: list[Fate] = []
        self.open = 0
        self._port = port
        self._rate = rate
        self._next: Any = None

    def start(self) -> None:
        self._next = self.reactor.callLater(random.expovariate(self._rate), self._send)

    def stop(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _send(self) -> None:
        fate = Fate(self.reactor.seconds())
        self.fates.append(fate)
        self.open += 1
        self.reactor.connectTCP("127.0.0.1", self._port, _Factory(fate, self))
        self.start()

    def over(self, fate: Fate, error: str) -> None:
        fate.ended, fate.error = self.reactor.seconds(), error
        self.open -= 1

    def shares(self, seconds: float) -> dict[str, float]:
        """Each backend's part of the answers of the last *seconds*; 0 for those with none."""
        since = self.reactor.seconds() - seconds
        counts = Counter(fate.backend for fate in self.fates if fate.backend and (fate.ended or 0.0) >= since)
        total = counts.total() or 1
        return defaultdict(float, {name: count / total for name, count in counts.items()})

    def answers(self) -> Counter[str]:
        return Counter(fate.backend for fate in self.fates if fate.backend)
