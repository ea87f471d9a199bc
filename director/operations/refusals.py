"""How many refusals of one caller are worth a line: the first few a minute; of the others the number. Pure."""

from __future__ import annotations

from collections import OrderedDict

#: Of one caller within `WINDOW_S`: an operator who tries this and that stays below it.
MOST = 10
WINDOW_S = 60.0
#: Callers that are remembered, the longest silent forgotten first.
MAX_CALLERS = 1000


class Refusals:
    """By caller."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, tuple[float, int]] = OrderedDict()  #: when the window began, and how many since

    def told(self, who: str, now: float) -> int | None:
        """How many of *who* were left out before this one, which is worth a line; None: this one is left out.

        :param now: monotonic seconds."""
        began, count = self._of.pop(who, (now, 0))
        left_out = 0
        if now - began >= WINDOW_S:
            began, count, left_out = now, 0, max(0, count - MOST)
        self._of[who] = began, count + 1
        if len(self._of) > MAX_CALLERS:
            self._of.popitem(last=False)
        return left_out if count < MOST else None
