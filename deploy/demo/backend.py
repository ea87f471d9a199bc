"""One of the demo's backends: a real HTTP server of a given speed, with the agent inside.

    python -m deploy.demo.backend NAME PORT SERVICE_TIME_S DIRECTOR [WORKERS]

It serves as many requests at a time as it has workers (4), each for about the service time; others wait their turn.
"""

from __future__ import annotations

import random
import sys
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.task import LoopingCall, deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from agent.config import AgentConfig
from agent.service import LoadReporter

WORKERS = "4"


class Slow(Resource):
    """Answers with the backend's name after its service time."""

    isLeaf = True

    def __init__(self, name: str, service_s: float, workers: int, reporter: LoadReporter) -> None:
        super().__init__()
        self._name = name
        self._service_s = service_s
        self._reporter = reporter
        self._workers = DeferredSemaphore(workers)
        self._busy_s = 0.0
        self._stated_at = time.monotonic()

    def render_GET(self, request: Request) -> int:
        self._reporter.begin()
        arrived = time.monotonic()
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def answer(_: object) -> None:
            self._reporter.finish(latency_s=time.monotonic() - arrived)
            if not gone:
                request.write(f"{self._name}\n".encode())
                request.finish()

        self._workers.run(self._work).addCallback(answer)
        return NOT_DONE_YET

    def _work(self) -> Deferred[None]:
        takes = self._service_s * random.uniform(0.5, 1.5)
        self._busy_s += takes
        return deferLater(reactor, takes)

    def state(self) -> None:
        """Tell the agent how busy the workers were: all backends share this machine, so its CPU says nothing."""
        now = time.monotonic()
        self._reporter.report(utilisation=min(1.0, self._busy_s / (self._workers.limit * (now - self._stated_at))))
        self._busy_s, self._stated_at = 0.0, now


def main() -> None:
    name, port, service_s, director, workers = [*sys.argv[1:], WORKERS][:5]
    reporter = LoadReporter(
        AgentConfig(name=name, directors=(director,), hosts=(f"web/main/{name}",), leave_deadline_s=2.0),
        reactor=reactor,
    )
    slow = Slow(name, float(service_s), int(workers), reporter)
    reactor.listenTCP(int(port), Site(slow), interface="127.0.0.1", backlog=1024)
    reactor.callWhenRunning(LoopingCall(slow.state).start, 1.0)
    reactor.callWhenRunning(reporter.startService)
    reactor.addSystemEventTrigger("before", "shutdown", reporter.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
