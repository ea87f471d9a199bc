"""A host that goes down again and again: for how long it is kept out each time (rule 7 of `director.core.health`).

The penalty doubles with each time that it goes down, and halves with every `FLAP_HALF_LIFE_S` in rotation, as routers damp
routes that flap (RFC 2439).
"""

from __future__ import annotations

from cluster.model import Health

#: How long in rotation halves the penalty for having gone down: after a few minutes it is as good as forgotten.
FLAP_HALF_LIFE_S = 60.0


class Flapping:
    """One host's penalty. Times are monotonic seconds."""

    __slots__ = ("_back_since", "_penalty_s")

    def __init__(self, now: float) -> None:
        self._penalty_s = 0.0  # as it was when the host last went down
        self._back_since = now

    def went_down(self, now: float, policy: Health) -> float:
        """For how many seconds it is kept out: for none the first time, or after long enough in rotation."""
        left_s = self._penalty_s * 0.5 ** ((now - self._back_since) / FLAP_HALF_LIFE_S)
        flaps = 2 * left_s >= policy.interval_s
        self._penalty_s = min(2 * left_s if flaps else policy.interval_s, policy.flap_hold_s)
        return self._penalty_s if flaps else 0.0

    def came_back(self, now: float) -> None:
        """It is in rotation again."""
        self._back_since = now
