"""A director that is a process of its own: started, told to stop, told once more."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from director.log import Output

if TYPE_CHECKING:
    from director.service import DirectorService

#: The exit code of a director that could not start.
EXIT_FAILED = 1

_STOP = (signal.SIGTERM, signal.SIGINT)


class Process:
    """Runs a service tree until it is told to stop.

    SIGTERM or SIGINT stops the reactor, and the tree lets its connections finish. A second one ends the process there
    and then. SIGUSR1 reopens the log.
    """

    log = Logger()

    def __init__(self, tree: DirectorService, output: Output, *, reactor: Any) -> None:
        self._tree = tree
        self._output = output
        self._reactor = reactor
        self._stopping = False
        self.why_failed = ""  #: why the director could not start

    def run(self) -> int:
        """Returns when all is over, with the exit code."""
        self._reactor.callWhenRunning(self._start)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._reactor.run()
        return EXIT_FAILED if self.why_failed else 0

    def _start(self) -> None:
        for number in _STOP:
            signal.signal(number, self._told_to_stop)
        signal.signal(signal.SIGUSR1, lambda *_: self._reactor.callFromThread(self._output.reopen))
        try:
            self._tree.startService()
        except Exception:
            self._failed(Failure())
        else:
            self._tree.ready.addCallbacks(lambda _: self.log.info("ready"), self._failed)

    def _failed(self, failure: Failure) -> None:
        self.why_failed = failure.getErrorMessage()
        self.log.critical("cannot start: {why}", why=self.why_failed)
        if self._reactor.running and not self._stopping:
            self._stopping = True
            self._reactor.stop()

    def _stop(self) -> Deferred[None] | None:
        return self._tree.stopService() if self._tree.running else None

    def _told_to_stop(self, number: int, _frame: object) -> None:
        if self._stopping:
            os._exit(128 + number)  # whatever the reactor is busy with
        self._stopping = True
        self._reactor.callFromThread(self._begin_to_stop, signal.Signals(number).name)

    def _begin_to_stop(self, name: str) -> None:
        self.log.info("{signal}: stopping; once more to stop without waiting for connections", signal=name)
        self._reactor.stop()
