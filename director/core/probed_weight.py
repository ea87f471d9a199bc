"""The factor of a host's weight that its own answers to HTTP probes give.

A host says a number beside the others' (`director.checks.weight_header`): the number of its workers, say. So, with m the
median of what the group's hosts say above 0::

    factor = 0 where it says 0, else clamp(said / m, 1/32, 32)

- A host that says nothing, or nothing that can be read, has the factor 1: the median, as one without reports has.
- When all who say anything say 0, nobody is meant: every factor is 1. (Google's passthrough balancer does the same.)
- What a host said last drifts to 1 by its age, as an agent's report does (`director.core.capacity`): 60 s after its last
  answer, over 60 s; after 180 s it leaves the median.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable
from typing import Generic, NamedTuple, TypeVar

from director.core.capacity import EXPIRY_S, MEDIAN_AGE_S, drift, median_of

#: Bounds of a factor above 0: a host that is left with less is measured no more, and one that counts for more than a rack is
#: a slip of the pen.
LEAST_FACTOR, MOST_FACTOR = 1 / 32, 32.0

Key = TypeVar("Key", bound=Hashable)


class _Said(NamedTuple):
    weight: float
    at: float


class Basis(NamedTuple):
    """What a host's factor rests on."""

    said: float
    median: float  #: of the group's hosts that say more than 0; 0: none does
    age_s: float
    factor: float


class ProbedWeights(Generic[Key]):
    """Of one group's hosts, under whatever keys the caller has. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._said: dict[Key, _Said] = {}
        self._median = 0.0
        self._median_at = -math.inf

    def answered(self, key: Key, weight: float | None, now: float) -> bool:
        """A probe passed; the host said *weight*, or nothing (None). Whether its factor may be another one now. O(1)."""
        before = self._said.get(key)
        if weight is None:
            self._said.pop(key, None)
        else:
            self._said[key] = _Said(weight, now)
        changed = (None if before is None else before.weight) != weight
        if changed and (before is None or weight is None or not before.weight or not weight):
            self._median_at = -math.inf  # whether anybody says anything above 0 tells at once
        return changed

    def said(self, key: Key) -> tuple[float, float] | None:
        """The weight that a host said last, and when."""
        return self._said.get(key)

    def discard(self, key: Key) -> None:
        """Forget a host; no error if it never said anything."""
        self._said.pop(key, None)

    @property
    def keys(self) -> Collection[Key]:
        """The hosts that said something, of whatever age."""
        return self._said.keys()

    def factor(self, key: Key, now: float) -> float:
        """Of one host. O(1), but for a new median every `MEDIAN_AGE_S`."""
        said = self._said.get(key)
        if said is None:
            return 1.0
        if now - self._median_at >= MEDIAN_AGE_S:
            self._median, self._median_at = self._median_now(now), now
        return _factor(said, self._median, now)

    def bases(self, now: float) -> dict[Key, Basis]:
        """Of every host that said something, to be shown; changes nothing. O(n log n)."""
        median = self._median_now(now)
        return {key: Basis(said.weight, median, now - said.at, _factor(said, median, now))
                for key, said in self._said.items()}

    def _median_now(self, now: float) -> float:
        fresh = (each.weight for each in self._said.values() if now - each.at < EXPIRY_S)
        return median_of(weight for weight in fresh if weight > 0)


def _factor(said: _Said, median: float, now: float) -> float:
    if not median:
        return 1.0
    factor = min(max(said.weight / median, LEAST_FACTOR), MOST_FACTOR) if said.weight else 0.0
    return drift(factor, now - said.at)
