"""Timers that no setting of the machine's clock moves.

Twisted's reactors count the time of their timers on ``time.time`` (`twisted.internet.base.ReactorBase.seconds`): set back
by an hour, it makes every timer an hour late. What is here has a reactor count on CLOCK_MONOTONIC, as `time.monotonic` does:
the kernel counts the time-outs of ``epoll_wait`` on it, and our decisions are made on it. It stands still while the machine
sleeps, so that nobody is taken for silent at a time when we could not hear. What was promised to others, leases and
leadership, runs on through a sleep and has a clock of its own, CLOCK_BOOTTIME.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.python import runtime


def run_on_monotonic(reactor: Any) -> None:
    """Let *reactor* count on a monotonic clock from now on; again does nothing.

    It goes on from what it says now: calls that are scheduled already keep the time that is left to them, and who takes
    ``reactor.seconds()`` for the time of day, as Twisted's web server does in its access log, is right for as long as nobody
    sets the clock. A reactor with another clock than Twisted's own, such as a test's, is left alone.
    """
    if getattr(reactor, "seconds", None) is not runtime.seconds:
        return
    epoch: float = reactor.seconds() - time.monotonic()

    def seconds() -> float:
        return time.monotonic() + epoch

    reactor.seconds = seconds
    for call in reactor.getDelayedCalls():
        call.seconds = seconds  # it asks when it is put off
