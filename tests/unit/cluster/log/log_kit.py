"""A clock with what a log asks of a reactor: writers that the test wakes, and a pool that the test lets work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock


class LogReactor(Clock):
    """Runs from `begin` on; work of the pool waits for `work`."""

    def __init__(self) -> None:
        super().__init__()
        self.running = False
        self.writers: set[Any] = set()
        self._hooks: list[Callable[[], None]] = []
        self._ends: list[Callable[[], None]] = []
        self._jobs: list[Callable[[], None]] = []

    def begin(self) -> None:
        self.running = True
        for hook in self._hooks:
            hook()

    def end(self) -> None:
        for hook in self._ends:
            hook()

    def work(self) -> None:
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job()

    def writable(self) -> None:
        for writer in tuple(self.writers):
            writer.doWrite()

    def callWhenRunning(self, hook: Callable[[], None]) -> None:
        self._hooks.append(hook)

    def addSystemEventTrigger(self, phase: str, event: str, hook: Callable[[], None]) -> None:
        assert (phase, event) == ("during", "shutdown")
        self._ends.append(hook)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def getThreadPool(self) -> LogReactor:
        return self

    def callInThreadWithCallback(self, told: Callable[[bool, Any], None], work: Callable[..., Any], *args: Any) -> None:
        self._jobs.append(lambda: told(True, work(*args)))

    def callFromThread(self, call: Callable[..., Any], *args: Any) -> None:
        call(*args)
