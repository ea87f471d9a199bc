"""Simulated hosts on real sockets: ``python -m bench.live.hosts``, told by one line of JSON on standard input.

A request is a line with its work in seconds of one core; the answer is ``ok``, or ``error``. A host divides its cores evenly
among the requests that it serves (processor sharing), which costs this machine next to nothing. Each reports by an agent's
reporter of its own, if directors are given, and answers HAProxy's agent-check at a second port with the share that is idle.

Says where its hosts listen in one line of JSON, and ends with standard input.
"""

from __future__ import annotations

import json
import sys
import time
from heapq import heappop, heappush
from itertools import count
from typing import Any

from twisted.internet import protocol, stdio
from twisted.internet import reactor as _reactor
from twisted.protocols.basic import LineOnlyReceiver

from agent.config import AgentConfig
from agent.load import Sample
from agent.service import LoadReporter
from bench.live.scenarios import SCENARIOS, Simulated

reactor: Any = _reactor


class Sharing:
    """The cores of one host, shared evenly: served work is counted in *virtual* seconds, which every request gets alike."""

    def __init__(self, host: Simulated, finished: Any) -> None:
        self._host = host
        self._finished = finished
        self._virtual = 0.0
        self._at = self._since = time.monotonic()
        self._busy_s = self._cut_busy_s = 0.0
        self._open: list[tuple[float, int, Any]] = []
        self._serial = count()
        self._noise = 0
        self._timer: Any = None

    def begin(self, work_s: float, who: Any) -> None:
        self._advance()
        heappush(self._open, (self._virtual + work_s, next(self._serial), who))
        self._plan()

    def disturb(self, jobs: int) -> None:
        self._advance()
        self._noise = jobs
        self._plan()

    def utilisation(self) -> float:
        """Busy share of the cores since the last call."""
        self._advance()
        now = time.monotonic()
        busy, self._cut_busy_s = self._busy_s - self._cut_busy_s, self._busy_s
        elapsed, self._since = now - self._since, now
        return min(1.0, busy / max(elapsed, 1e-3) / self._host.cores)

    @property
    def open(self) -> int:
        return len(self._open)

    def _pace(self) -> float:
        jobs = len(self._open) + self._noise
        return self._host.speed * min(1.0, self._host.cores / jobs) if jobs else 0.0

    def _advance(self) -> None:
        now = time.monotonic()
        elapsed, self._at = now - self._at, now
        self._virtual += elapsed * self._pace()
        self._busy_s += elapsed * min(len(self._open) + self._noise, self._host.cores)

    def _plan(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._open:
            self._timer = reactor.callLater(max(0.0, (self._open[0][0] - self._virtual) / self._pace()), self._look)

    def _look(self) -> None:
        self._advance()
        while self._open and self._open[0][0] <= self._virtual + 1e-9:
            self._finished(heappop(self._open)[2])
        self._plan()


class Answering(LineOnlyReceiver):
    delimiter = b"\n"
    began = 0.0

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.factory.established += 1

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.established -= 1

    def lineReceived(self, line: bytes) -> None:
        self.factory.asked(self, float(line))


class Host(protocol.Factory):
    """One host: its port, its cores, its reporter, whose sampler it is."""

    protocol = Answering
    noisy = False

    def __init__(self, spec: Simulated, name: str) -> None:
        self.spec = spec
        self.established = self.served = 0
        self.sharing = Sharing(spec, self.finished)
        self.port: int = reactor.listenTCP(0, self, interface="127.0.0.1", backlog=1000).getHost().port
        self.check: int = reactor.listenTCP(0, _Check(self), interface="127.0.0.1").getHost().port
        self.name = name
        self.reporter: LoadReporter | None = None
        if spec.noise is not None:
            self._noise()

    def report(self, directors: list[str]) -> None:
        """From now on; they listen already."""
        config = AgentConfig(name=self.name, directors=tuple(directors), hosts=(f"all/main/{self.name}",))
        self.reporter = LoadReporter(config, reactor=reactor, sampler=self)
        self.reporter.startService()

    def sample(self) -> Sample:
        return Sample(cpu=self.sharing.utilisation(), memory=0.0, load=0.0, connections=self.established)

    def connections(self) -> int | None:
        return self.established

    def asked(self, who: Answering, work_s: float) -> None:
        who.began = time.monotonic()
        if self.reporter is not None:
            self.reporter.begin()
        if self.spec.fails:
            self._answer(who, False)
        else:
            self.sharing.begin(work_s, who)

    def finished(self, who: Answering) -> None:
        self._answer(who, True)

    def _answer(self, who: Answering, ok: bool) -> None:
        self.served += 1
        if self.reporter is not None:
            self.reporter.finish(ok=ok, latency_s=time.monotonic() - who.began)
        if who.transport.connected:
            who.transport.write(b"ok\n" if ok else b"error\n")

    def _noise(self) -> None:
        noise = self.spec.noise
        assert noise is not None
        self.noisy = not self.noisy
        self.sharing.disturb(noise.jobs if self.noisy else 0)
        reactor.callLater(noise.on_s if self.noisy else noise.every_s - noise.on_s, self._noise)


class _Check(protocol.Factory):
    """HAProxy's agent-check: the share of this host that is idle, at least one percent, smoothed over some checks."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._busy = 0.0

    def buildProtocol(self, addr: Any) -> Any:
        self._busy += 0.3 * (self._host.sharing.utilisation() - self._busy)
        answer = f"{max(1, round(100 * (1 - self._busy)))}%\n".encode()

        class Answer(protocol.Protocol):
            def connectionMade(self) -> None:
                self.transport.write(answer)
                self.transport.loseConnection()

        return Answer()


class _Input(LineOnlyReceiver):
    delimiter = b"\n"

    def __init__(self) -> None:
        self.hosts: list[Host] = []

    def lineReceived(self, line: bytes) -> None:
        told = json.loads(line)
        if "scenario" in told:
            specs = SCENARIOS[told["scenario"]].hosts
            self.hosts = [Host(spec, f"h{number}") for number, spec in enumerate(specs)]
            answer: Any = [[host.port, host.check] for host in self.hosts]
        elif "directors" in told:
            for host in self.hosts:
                host.report(told["directors"])
            answer = None
        else:
            answer = [host.served for host in self.hosts]
        print(json.dumps(answer), flush=True)

    def connectionLost(self, reason: Any = None) -> None:
        reactor.stop()


if __name__ == "__main__":
    stdio.StandardIO(_Input())
    reactor.run()
    sys.exit(0)
