"""An agent that is a process of its own."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from agent.agent_check import Responder
from agent.config import LEAVE_S, AgentConfig
from agent.service import LoadReporter
from cluster.systemd import Notifier

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class AgentProcess(MultiService):
    """Holds the reporter. The first signal stops the reactor and so begins the leaving; a second one, which the reactor
    would only call a mistake, ends the wait. systemd is told, if it started the process."""

    def __init__(self, config: AgentConfig, *, reactor: Any) -> None:
        super().__init__()
        self.setName("director-agent")
        self.reporter = LoadReporter(config, reactor=reactor)
        self.reporter.setServiceParent(self)
        self.responder = None if config.agent_check is None else Responder(
            config.agent_check, lambda: self.reporter.current, reactor=reactor, monotonic=time.monotonic)
        self._leave_s = LEAVE_S if config.leave_deadline_s is None else config.leave_deadline_s
        self._systemd = Notifier(os.environ, reactor=reactor, status=self._in_a_line)
        self._leaving = False
        self._reactor = reactor

    def startService(self) -> None:
        super().startService()
        if self.responder is not None:
            self.responder.startService()
        self._systemd.ready()
        self._systemd.start()

    def stopService(self) -> Deferred[Any]:
        """The reporter leaves first: meanwhile the responder says so."""
        self._leaving = True
        self._systemd.stopping(within_s=self._leave_s)
        before = {number: signal.signal(number, self._again) for number in _SIGNALS}
        stopped: Deferred[Any] = super().stopService()
        responder = self.responder
        if responder is not None:
            stopped.addBoth(lambda _: responder.stopService())

        def restore(result: Any) -> Any:
            for number, action in before.items():
                signal.signal(number, action)
            self._systemd.stop()
            return result

        return stopped.addBoth(restore)

    def _in_a_line(self) -> str:
        """What `systemctl status` shows."""
        directors, hosts = self.reporter.directors.values(), self.reporter.config.hosts
        if not hosts:
            return "leaving" if self._leaving else "answering agent checks"
        speaks = hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts"
        does = "leaving" if self._leaving else "reporting"
        return f"{does} for {speaks}; {sum(directors)} of {len(directors)} directors listen"

    def _again(self, _number: int, _frame: object) -> None:
        self._reactor.callFromThread(self.reporter.hurry)  # the way into the reactor from a signal
