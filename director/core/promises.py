"""What keeps the virtual addresses where they are while the store is away: everybody who could lead promised not to.

The holder asks each other member not to campaign for `PROMISE_S`, and counts from when it asked; the member counts from
when it answers, which is later. So, clocks running at one speed, the holder's right ends first. It lasts as long as the
oldest promise of all members: one that is missing makes it nothing. Promises are asked for anew after a third of their
time, so that one answer may be lost; they are never taken back.

Pure; times are seconds of a clock that does not stand still while the machine sleeps.
"""

from __future__ import annotations

import math
from collections.abc import Collection

#: Long enough for three questions in its time, of which two may be lost; short enough that, when the holder dies too, the
#: others are not bound much longer than the store is away.
PROMISE_S = 6.0
RENEW_S = PROMISE_S / 3
#: A member that has not promised yet is asked anew so soon: it may have reached the store a moment ago.
RETRY_S = 0.5


class Promises:
    """The holder's side."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # by member
        self._asked: dict[str, tuple[int, float]] = {}  # the last question, and when
        self._number = 0

    def ask(self, members: Collection[str], now: float) -> list[tuple[str, int]]:
        """Members to ask now, each with the question's number; they count as asked."""
        found = []
        for member in members:
            wait_s = RENEW_S if self._until.get(member, -math.inf) > now else RETRY_S
            if now - self._asked.get(member, (0, -math.inf))[1] >= wait_s:
                self._number += 1
                self._asked[member] = (self._number, now)
                found.append((member, self._number))
        return found

    def granted(self, member: str, number: int) -> None:
        """*member* promised, in answer to question *number*. An answer to an older question says too little to count."""
        asked, at = self._asked.get(member, (0, -math.inf))
        if number == asked:
            self._until[member] = at + PROMISE_S

    def right_s(self, members: Collection[str], now: float) -> float:
        """For how long everybody has promised; all of `PROMISE_S` when there is nobody else."""
        until = min((self._until.get(member, -math.inf) for member in members), default=now + PROMISE_S)
        return max(0.0, until - now)

    def forget(self) -> None:
        """Forget all promises: they are needed no more."""
        self._until.clear()
        self._asked.clear()
