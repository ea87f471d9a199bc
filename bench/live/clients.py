"""Clients that do not wait for each other::

    python -m bench.live.clients PORT[,PORT] SECONDS SEED RATE WORK_S [FROM TO PER_S]

Several ports take turns. Open loop: requests begin at random moments (Poisson) which the answers do not move, and latency
counts from the moment at which a request should have begun. Without FROM and TO each request has a connection of its own;
else connections live between FROM and TO seconds, and each has PER_S requests a second, one after the other.

The work of each request is drawn from the seed: so every peer that is measured gets the same. Prints one line of JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import deque
from itertools import cycle
from typing import Any

from twisted.internet import protocol
from twisted.internet import reactor as _reactor
from twisted.protocols.basic import LineOnlyReceiver

reactor: Any = _reactor

#: A request without an answer after so long is lost.
TIMEOUT_S = 30.0


class Tally:
    """What became of the requests, in ms from when they should have begun."""

    def __init__(self, measure_from: float) -> None:
        self.measure_from = measure_from
        self.latencies_ms: list[float] = []
        self.errors = self.lost = self.open = 0

    def ended(self, due: float, answer: bytes | None) -> None:
        self.open -= 1
        if due < self.measure_from:
            return
        if answer == b"ok":
            self.latencies_ms.append(1000 * (time.monotonic() - due))
        elif answer is None:
            self.lost += 1
        else:
            self.errors += 1


class Asking(LineOnlyReceiver):
    """One connection: asks what is due, one request at a time, and closes once its time is over."""

    delimiter = b"\n"

    def __init__(self, tally: Tally, last: bool) -> None:
        self._tally = tally
        self.due: deque[tuple[float, float]] = deque()
        self._asked: float | None = None
        self.last = last  #: nothing more will be due
        self._up = False
        self._timer: Any = None

    def put(self, due: float, work_s: float) -> None:
        self._tally.open += 1
        self.due.append((due, work_s))
        self._next()

    def finish(self) -> None:
        self.last = True
        self._next()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._up = True
        self._next()

    def lineReceived(self, line: bytes) -> None:
        self._end(line)
        self._next()

    def connectionLost(self, reason: Any = None) -> None:
        self._up = False
        self.lose()

    def lose(self) -> None:
        self._end(None)
        while self.due:
            self._tally.ended(self.due.popleft()[0], None)

    def _end(self, answer: bytes | None) -> None:
        if self._asked is not None:
            self._tally.ended(self._asked, answer)
            self._asked = None
            self._timer.cancel()

    def _next(self) -> None:
        if not self._up or self._asked is not None:
            return
        if self.due:
            self._asked, work_s = self.due.popleft()
            self._timer = reactor.callLater(TIMEOUT_S, self._late)
            self.sendLine(b"%.6f" % work_s)
        elif self.last:
            self.transport.loseConnection()

    def _late(self) -> None:
        self._timer = reactor.callLater(0, lambda: None)
        self._end(None)
        self.transport.abortConnection()


class _Dial(protocol.ClientFactory):
    noisy = False

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def buildProtocol(self, addr: Any) -> Asking:
        return self._asking

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self._asking.lose()


def main() -> None:
    ports = cycle(map(int, sys.argv[1].split(",")))
    seconds, seed, rate = float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    work_s = float(sys.argv[5])
    lives = tuple(map(float, sys.argv[6:8])) if len(sys.argv) > 6 else None
    per_s = float(sys.argv[8]) if lives else 0.0
    drawn = random.Random(seed)
    start = time.monotonic() + 0.2
    warm_s = seconds / 3
    tally = Tally(start + warm_s)

    def dial(last: bool) -> Asking:
        asking = Asking(tally, last)
        reactor.connectTCP("127.0.0.1", next(ports), _Dial(asking), timeout=TIMEOUT_S)
        return asking

    def single(at: float) -> None:
        dial(True).put(at, drawn.expovariate(1 / work_s))

    def living(at: float) -> None:
        asking, ends = dial(False), at + drawn.uniform(*lives)

        def ask(due: float) -> None:
            asking.put(due, drawn.expovariate(1 / work_s))
            following = due + drawn.expovariate(per_s)
            if following < min(ends, start + seconds):
                plan(following, ask)
            else:
                asking.finish()

        ask(at)

    def plan(at: float, what: Any) -> None:
        reactor.callLater(max(0.0, at - time.monotonic()), what, at)

    def arrive(at: float) -> None:
        (living if lives else single)(at)
        following = at + drawn.expovariate(arrivals)
        if following < start + seconds:
            plan(following, arrive)
        else:
            reactor.callLater(0.1, finished, time.monotonic() + TIMEOUT_S)

    def finished(deadline: float) -> None:
        if tally.open and time.monotonic() < deadline:
            reactor.callLater(0.1, finished, deadline)
        else:
            reactor.stop()

    # a connection asks once when it begins, and then per_s times a second
    arrivals = rate / (1 + per_s * sum(lives) / 2) if lives else rate
    plan(start, arrive)
    reactor.run()
    print(json.dumps({"latencies_ms": tally.latencies_ms, "errors": tally.errors, "lost": tally.lost + tally.open}))


if __name__ == "__main__":
    main()
