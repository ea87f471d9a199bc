"""A backend with its agent inside: ``python -m deploy.lab.backend NAME ADDRESS PORT DIRECTOR[,DIRECTOR…] [HOST]``.

It says its name in a line, echoes what it hears, and closes when the client has finished. HOST is what the agent speaks
for, ``web/main/NAME`` by default.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from agent.config import AgentConfig
from agent.service import LoadReporter

reactor: Any = _reactor


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    factory: Any

    def connectionMade(self) -> None:
        self.factory.reporter.begin()
        self.transport.write(self.factory.greeting)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """`connectionLost` follows."""

    def connectionLost(self, reason: object = None) -> None:
        self.factory.reporter.finish(latency_s=0.001)


def main() -> None:
    name, address, port, directors, *rest = sys.argv[1:]
    site = Factory.forProtocol(Echo)
    site.noisy = False
    site.greeting = name.encode() + b"\n"
    site.reporter = LoadReporter(
        AgentConfig(name=name, directors=tuple(directors.split(",")), hosts=(rest[0] if rest else f"web/main/{name}",),
                    leave_deadline_s=1.0, insecure=True, token="lab"),
        reactor=reactor,
    )
    reactor.listenTCP(int(port), site, interface=address, backlog=1024)
    reactor.callWhenRunning(site.reporter.startService)
    reactor.addSystemEventTrigger("before", "shutdown", site.reporter.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
