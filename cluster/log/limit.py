"""Sums up storms: the first events of a kind pass, of the rest there is a count.

A kind has a bucket of `burst` passes, which regains one every `every_s`. What finds it empty is held back. One second after
the first that was held a summary is due; while the storm goes on, the next one takes twice as long, up to
`LONGEST_SUMMARY_S`. An interval in which nothing was held ends the storm.

Invariant: every event either passed or is counted in exactly one summary (`LogLimit.rest` gives what is not yet due).
Pure: whoever asks passes the time, monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, NamedTuple, TypeVar

#: A dozen hosts that fail together are told one by one; at two hundred a count says more.
BURST = 20
#: An endless storm costs 12 lines a minute, and what happens more rarely than that is always told.
EVERY_S = 5.0
FIRST_SUMMARY_S = 1.0
LONGEST_SUMMARY_S = 60.0
#: Kinds known at once; our code has some 150. The others share one bucket, so that no text from outside can make the
#: table grow.
MAX_KINDS = 500

Kept = TypeVar("Kept")
_OTHERS = object()


class HeldBack(NamedTuple, Generic[Kept]):
    """What was held back of one kind."""

    held: int
    seconds: float  #: since the summary before, or since the first that was held
    last: Kept


class _Kind:
    __slots__ = ("begun_at", "due_at", "held", "interval_s", "last", "passes", "seen_at")

    def __init__(self, burst: float, now: float) -> None:
        self.passes = burst
        self.seen_at = now  # when passes was true
        self.held = 0
        self.last: Any = None  # what was kept of the last that was held
        self.interval_s = 0.0  # of the summary that is due; 0 when there is no storm
        self.begun_at = self.due_at = now


class LogLimit(Generic[Kept]):
    """One bucket for each kind.

    :param burst: events of a kind that pass at once.
    :param every_s: seconds until one more passes.
    """

    def __init__(self, *, burst: int = BURST, every_s: float = EVERY_S, max_kinds: int = MAX_KINDS) -> None:
        self._burst = burst
        self._every_s = every_s
        self._max_kinds = max_kinds
        self._kinds: dict[Hashable, _Kind] = {}

    def passes(self, kind: Hashable, now: float, kept: Kept) -> bool:
        """Whether the event passes. If not it is counted, and *kept* is what its summary shows if it was the last."""
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= self._max_kinds:
                self._forget(now)
            if len(self._kinds) >= self._max_kinds:
                kind = _OTHERS
            known = self._kinds.setdefault(kind, _Kind(self._burst, now))
        self._regain(known, now)
        if known.passes >= 1:
            known.passes -= 1
            return True
        if not known.interval_s:
            known.interval_s = FIRST_SUMMARY_S
            known.begun_at, known.due_at = now, now + FIRST_SUMMARY_S
        known.held += 1
        known.last = kept
        return False

    def due(self, now: float) -> list[HeldBack[Kept]]:
        """The summaries whose time has come."""
        found = []
        for known in self._kinds.values():
            if not known.interval_s or known.due_at > now:
                continue
            if known.held:
                found.append(_taken(known, now))
                known.interval_s = min(2 * known.interval_s, LONGEST_SUMMARY_S)
                known.begun_at, known.due_at = now, now + known.interval_s
            else:
                known.interval_s = 0.0
        return found

    def next_due(self) -> float | None:
        """When to ask `due` again; None while nothing is held back."""
        return min((each.due_at for each in self._kinds.values() if each.interval_s), default=None)

    def rest(self, now: float) -> list[HeldBack[Kept]]:
        """The summaries of all that is held back, due or not: at the end."""
        return [_taken(each, now) for each in self._kinds.values() if each.held]

    def _regain(self, known: _Kind, now: float) -> None:
        known.passes = min(self._burst, known.passes + (now - known.seen_at) / self._every_s)
        known.seen_at = now

    def _forget(self, now: float) -> None:
        """Drop the kinds that a new one would equal."""
        for kind, known in list(self._kinds.items()):
            self._regain(known, now)
            if known.passes >= self._burst and not known.interval_s:
                del self._kinds[kind]


def _taken(known: _Kind, now: float) -> HeldBack[Any]:
    summary = HeldBack(known.held, now - known.begun_at, known.last)
    known.held, known.last = 0, None
    return summary
