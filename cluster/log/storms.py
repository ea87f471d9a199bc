"""An observer before another one: it sums up storms (`cluster.log.limit`).

Events are of one kind when they have their namespace and their format in common. Since formats are constants, that is
the place in the code from which they come, whatever host, agent or client they tell of: nothing that flaps or attacks
can write more than some lines a minute, no matter where it is logged.

Always told: critical events, and those whose field `EACH` is true because each is an order or a fact of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.threadable import getThreadID
from zope.interface import implementer

from cluster.log.limit import HeldBack, LogLimit

#: The field of an event that no limit is for.
EACH = "log_each"


@implementer(ILogObserver)
class Storms:
    """Made in the reactor's thread; events of other threads are taken over into it.

    :param to: the observer that is told, in the reactor's thread.
    :param wall: POSIX seconds, for the times of summaries.
    """

    def __init__(self, to: Callable[[LogEvent], None], *, reactor: Any, monotonic: Callable[[], float] = time.monotonic,
                 wall: Callable[[], float] = time.time) -> None:
        self._to = to
        self._reactor = reactor
        self._monotonic = monotonic
        self._wall = wall
        self._limit: LogLimit[LogEvent] = LogLimit()
        self._timer: Any = None
        self._thread = getThreadID()

    def __call__(self, event: LogEvent) -> None:
        if getThreadID() != self._thread:
            self._reactor.callFromThread(self, event)
        elif _always(event) or self._limit.passes(_kind(event), self._monotonic(), event):
            self._to(event)
        elif self._timer is None:
            self._set_timer()

    def finish(self) -> None:
        """Tell what was held back; before the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._tell(self._limit.rest(self._monotonic()))

    def _set_timer(self) -> None:
        due = self._limit.next_due()
        if due is not None:
            self._timer = self._reactor.callLater(max(0.0, due - self._monotonic()), self._look)

    def _look(self) -> None:
        self._timer = None
        self._tell(self._limit.due(self._monotonic()))
        self._set_timer()

    def _tell(self, summaries: list[HeldBack[LogEvent]]) -> None:
        for held, seconds, last in summaries:
            self._to({
                "log_time": self._wall(),
                "log_level": last.get("log_level", LogLevel.info),
                "log_namespace": last.get("log_namespace", "-"),
                "log_format": "and {held} more like this in {seconds:.3g} s, the last: {last}",
                "held": held, "seconds": round(seconds, 3), "last": formatEvent(last),
            })


def _always(event: LogEvent) -> bool:
    return bool(event.get(EACH)) or event.get("log_level") is LogLevel.critical


def _kind(event: LogEvent) -> tuple[object, object]:
    return event.get("log_namespace"), event.get("log_format")
