"""A simulated host: cores that its requests share equally (processor sharing), and the agent that reports them."""

from __future__ import annotations

import math
from heapq import heappop, heappush

from cluster.model import LoadReport

#: An error is answered in this time, whatever else the host does.
FAILURE_S = 0.001


class Request:
    """One request on its way."""

    __slots__ = ("began", "connection", "director", "failed", "finish", "gone", "ticket")

    def __init__(self, began: float, director: int) -> None:
        self.began = began
        self.director = director
        self.ticket: object = None  #: of a connection that ends with its only request
        self.finish = 0.0  #: in the backend's virtual time
        self.failed = False
        self.gone = False  #: answered, or given up


class Backend:
    """*cores* that work at *speed*; each request uses one core at most. Times are seconds from the simulation's start.

    Virtual time is the work done so far for a request that was there from the beginning, so a request of *work* seconds is
    done when virtual time has grown by that much: one heap, and no request is touched while others come and go.
    """

    def __init__(self, name: str, cores: float, speed: float) -> None:
        self.name = name
        self.cores = cores
        self.speed = speed
        self.stolen = 0.0  #: cores that a neighbour on the machine uses
        self.failing = 0.0  #: share of the requests that fail at once
        self.version = 0  #: of the next completion; an event that carries another one is void
        self.active = 0
        self.connections = 0  #: open at this host, from all directors
        self._virtual = 0.0
        self._at = 0.0
        self._jobs: list[tuple[float, int, Request]] = []
        self._count = 0
        # since the last report
        self.busy_s = 0.0  #: core seconds, the neighbour's included
        self.finished = 0
        self.failures = 0
        self.latency_s = 0.0
        self._reported_at = 0.0

    def capacity(self) -> float:
        """Seconds of work that it can do in a second."""
        return max(self.cores - self.stolen, 0.0) * self.speed

    def rate(self) -> float:
        return self.speed * min(1.0, max(self.cores - self.stolen, 0.0) / self.active) if self.active else 0.0

    def advance(self, now: float) -> None:
        elapsed = now - self._at
        if elapsed > 0.0:
            self._virtual += elapsed * self.rate()
            self.busy_s += elapsed * min(self.cores, self.stolen + min(self.active, self.cores - self.stolen))
        self._at = now

    def start(self, request: Request, work: float, now: float) -> None:
        self.advance(now)
        self._count += 1
        request.finish = self._virtual + work
        heappush(self._jobs, (request.finish, self._count, request))
        self.active += 1

    def next_completion(self) -> float:
        """When the next request is done, if nothing changes."""
        jobs = self._jobs
        while jobs and jobs[0][2].gone:
            heappop(jobs)
        rate = self.rate()
        if not jobs or rate <= 0.0:
            return math.inf
        return self._at + max(jobs[0][0] - self._virtual, 0.0) / rate

    def complete(self, now: float) -> Request:
        """Take out the request that is done now."""
        self.advance(now)
        while True:
            request = heappop(self._jobs)[2]
            if not request.gone:
                break
        request.gone = True
        self.active -= 1
        return request

    def give_up(self, request: Request, now: float) -> None:
        """The client hung up."""
        self.advance(now)
        request.gone = True
        self.active -= 1

    def answered(self, latency_s: float, *, failed: bool) -> None:
        """For the agent: a request ended."""
        self.finished += 1
        self.failures += failed
        self.latency_s += latency_s

    def report(self, now: float, *, application: bool) -> LoadReport:
        """What its agent has to say. *application*: it knows of requests, beside utilisation and connections."""
        self.advance(now)
        elapsed = max(now - self._reported_at, 1e-9)
        utilisation = min(self.busy_s / (elapsed * self.cores), 1.0)
        finished, failures, latency_s = self.finished, self.failures, self.latency_s
        self.busy_s, self.finished, self.failures, self.latency_s, self._reported_at = 0.0, 0, 0, 0.0, now
        if not application:
            return LoadReport(utilisation=utilisation, in_flight=float(self.connections))
        return LoadReport(
            utilisation=utilisation, in_flight=float(self.connections), rate=finished / elapsed,
            completions=float(finished), errors=failures / finished if finished else 0.0,
            latency_s=latency_s / finished if finished else None,
        )
