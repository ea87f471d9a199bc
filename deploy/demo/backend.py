"""One of the demo's backends: a real HTTP server of a given speed, with the agent inside.

    python -m deploy.demo.backend NAME PORT SERVICE_TIME_S DIRECTOR

It serves `WORKERS` requests at a time, each for about the service time; others wait their turn.
"""

from __future__ import annotations

import random
import sys

from twisted.internet import reactor
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from agent.config import AgentConfig
from agent.service import LoadReporter

WORKERS = 4


class Slow(Resource):
    """Answers with the backend's name after its service time."""

    isLeaf = True

    def __init__(self, name: str, service_s: float, reporter: LoadReporter) -> None:
        super().__init__()
        self._name = name
        self._service_s = service_s
        self._reporter = reporter
        self._workers = DeferredSemaphore(WORKERS)

    def render_GET(self, request: Request) -> int:
        tracked = self._reporter.track()
        tracked.__enter__()
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        work = self._workers.run(deferLater, reactor, self._service_s * random.uniform(0.5, 1.5))

        def answer(_: object) -> None:
            tracked.__exit__(None, None, None)
            if not gone:
                request.setHeader("X-Backend", self._name)
                request.write(f"{self._name}\n".encode())
                request.finish()

        work.addCallback(answer)
        return NOT_DONE_YET


def main() -> None:
    name, port, service_s, director = sys.argv[1:]
    reporter = LoadReporter(
        AgentConfig(
            name=name, directors=(director,), hosts=(f"web/main/{name}",), max_in_flight=WORKERS, leave_deadline_s=2.0
        ),
        reactor=reactor,
    )
    site = Site(Slow(name, float(service_s), reporter))
    reactor.listenTCP(int(port), site, interface="127.0.0.1", backlog=1024)
    reactor.callWhenRunning(reporter.startService)
    reactor.addSystemEventTrigger("before", "shutdown", reporter.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
