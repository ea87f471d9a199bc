"""One timer for many deadlines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


class Alarm:
    """Calls *ring* once at the earliest time asked for; whoever is called asks again.

    :param reactor: schedules (``callLater``).
    :param monotonic: the clock that the asked times are of.
    """

    def __init__(self, ring: Callable[[], None], *, reactor: Any, monotonic: Callable[[], float]) -> None:
        self._ring = ring
        self._reactor = reactor
        self._monotonic = monotonic
        self._call: Any = None
        self._at = math.inf

    def at(self, when: float) -> None:
        """Ring at *when* (or before, if that was asked already); infinity asks for nothing."""
        if when < self._at:
            self.cancel()
            self._at = when
            now = self._monotonic()
            wait_s = max(0.0, when - now)
            while now + wait_s < when:  # rounded down: whoever is called would find nothing due, and ask for the same again
                wait_s = math.nextafter(wait_s, math.inf)
            self._call = self._reactor.callLater(wait_s, self._rung)

    def cancel(self) -> None:
        """Forget what was asked."""
        if self._call is not None:
            self._call.cancel()
        self._call, self._at = None, math.inf

    def _rung(self) -> None:
        self._call, self._at = None, math.inf
        self._ring()
