"""A token bucket: so many per second, with a burst."""

from __future__ import annotations


class TokenBucket:
    """*rate* tokens per second, up to *burst* saved. It starts full."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take one token if there is one; whether there was."""
        self._fill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def spend(self, now: float) -> float:
        """Take one token even into debt, for callers that can only pause afterwards.

        :returns: seconds until there is a token again; 0 if there is one.
        """
        self._fill(now)
        self._tokens -= 1
        return max(0.0, (1 - self._tokens) / self._rate)

    def wait(self, now: float) -> float:
        """Seconds until `take` has a token; 0 if it has one."""
        self._fill(now)
        return max(0.0, (1 - self._tokens) / self._rate)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
