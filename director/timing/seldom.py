"""A line of the log that may be due a thousand times a second, written once."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

#: Between two lines about the same thing.
EVERY_S = 1.0
#: Things remembered at a time; those beyond it share one line.
MAX_KEYS = 1_000


class Seldom:
    """Says whether a line is due, and counts those that were not.

    :param monotonic: seconds.
    :param every_s: between two lines about the same key.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic, every_s: float = EVERY_S) -> None:
        self._monotonic = monotonic
        self._every_s = every_s
        self._held: dict[Hashable, tuple[float, int]] = {}  # when a line was last due, and how many were not since

    def due(self, key: Hashable) -> int | None:
        """None: say nothing. Else say it, and that it happened so many times since the last line without one."""
        now = self._monotonic()
        if key not in self._held and len(self._held) >= MAX_KEYS:
            self._held = {each: (at, held) for each, (at, held) in self._held.items() if now - at < self._every_s}
            if len(self._held) >= MAX_KEYS:
                key = None
        at, held = self._held.get(key, (float("-inf"), 0))
        if now - at < self._every_s:
            self._held[key] = at, held + 1
            return None
        self._held[key] = now, 0
        return held


def more(held: int) -> str:
    """How a line ends that stands for *held* others too."""
    return f" ({held} more since the last such line)" if held else ""
