"""A wheel that rings when something is due, by one timed call, which is there only while something is in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from director.relay.wheel import T, Wheel


class TimedWheel(Wheel[T]):
    """See the module.

    :param ring: called when something is due; it takes that out, puts back what it wants to, and winds the wheel up.
    """

    __slots__ = ("_reactor", "_ring", "_timer", "_timer_at")

    def __init__(self, ring: Callable[[], None], *, reactor: Any) -> None:
        super().__init__()
        self._ring = ring
        self._reactor = reactor
        self._timer: IDelayedCall | None = None
        self._timer_at = 0.0

    def wind(self, now_s: float) -> None:
        """Ring at the earliest bucket. A timer for a bucket that emptied since is left to run out."""
        at = self.next_s()
        if at is None:
            return
        if self._timer is not None and self._timer.active():
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._reactor.callLater(max(at - now_s, 0), self._ring)

    def stop(self) -> None:
        """Ring no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
