"""Silence in bulk: when many agents fall silent at once, a director suspects itself.

Definitions, all of hosts whose agents this director hears directly:

- A host is *silent* from the moment its silence is noticed; its *onset* is when it was last heard.
- It is *dead*, for this purpose, when it is silent and failed two probes in a row between which another host passed
  one: then the network is there and the host is not. It stops being dead with its next passed probe.
- The *base* is every host that is heard, and every host that is silent, not dead, and had its onset within
  `RECENT_S`. What died yesterday proves nothing today.

Rules:

1. The mode begins when a host falls silent, and those silent and not dead whose onset is within `WINDOW_S` of its
   onset are at least `LEAST_HOSTS` and more than the panic fraction of the base.
2. It covers those, and every host that falls silent while it lasts.
3. It ends as soon as those covered and not dead are fewer than `LEAST_HOSTS`, or not more than the panic fraction of
   themselves and the heard. Heartbeats that return, goodbyes, removals and dead hosts lead there. While probes reach
   the silent hosts, or none reach any, it stays, which only means that silence is no evidence meanwhile.

So the loss of one host never begins it, and it always ends when all are heard again.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable

#: Fewer silent hosts than this are not "bulk", whatever their share: the loss of 1 of 1 or 1 of 2 is just a loss.
LEAST_HOSTS = 2
#: "At once": two report intervals of 1 s, doubled for agents that were told to report more slowly.
WINDOW_S = 4.0
#: "Recently": longer than any usual silence that ends by itself, shorter than an operator's repair.
RECENT_S = 60.0


class _Silence:
    """One silent host."""

    __slots__ = ("dead", "failing_since", "onset")

    def __init__(self, onset: float) -> None:
        self.onset = onset
        self.failing_since: float | None = None  #: first of the failed probes in a row
        self.dead = False


class Isolation:
    """The verdict of one director on itself. Times are monotonic seconds; every event costs O(log n) comparisons.

    Keys are whatever the caller has for a host. Each event answers whether the verdict changed by it.
    """

    def __init__(self, panic_fraction: float) -> None:
        self._panic_fraction = panic_fraction
        self._heard: set[Hashable] = set()
        self._silent: dict[Hashable, _Silence] = {}
        self._onsets: list[float] = []  #: of those silent and not dead, sorted
        self._passed_at = -math.inf  #: when a probe of any host last passed
        self._covers_from = math.inf  #: least onset that the mode covers
        self.since: float | None = None  #: when the mode began; None outside it

    @property
    def isolated(self) -> bool:
        """Whether silence is no evidence at present."""
        return self.since is not None

    @property
    def silent(self) -> int:
        """How many hosts the mode covers; 0 outside it."""
        return len(self._onsets) - bisect_left(self._onsets, self._covers_from)

    def is_silent(self, key: Hashable) -> bool:
        """Whether *key*'s silence is already known."""
        return key in self._silent

    def heard(self, key: Hashable, now: float) -> bool:
        """A heartbeat came. Cheap when nothing changes by it."""
        if key in self._heard:
            return False
        self._heard.add(key)
        self._end_silence(key)
        return self._ended(now)

    def fell_silent(self, key: Hashable, last_heard: float, now: float) -> bool:
        """A connection broke, or no heartbeat came for too long. Nothing new when it was silent before."""
        if key in self._silent:
            return False
        self._heard.discard(key)
        onset = max(last_heard, self._covers_from) if self.isolated else last_heard
        self._silent[key] = _Silence(onset)
        insort(self._onsets, onset)
        if self.isolated:
            return False
        first = bisect_left(self._onsets, onset - WINDOW_S)
        at_once = bisect_right(self._onsets, onset + WINDOW_S) - first
        recent = len(self._onsets) - bisect_left(self._onsets, now - RECENT_S)
        if not self._is_bulk(at_once, len(self._heard) + max(recent, at_once)):
            return False
        self._covers_from = self._onsets[first]
        self.since = now
        return True

    def gone(self, key: Hashable, now: float) -> bool:
        """The agent said goodbye, or its host was removed: neither heard nor missed."""
        self._heard.discard(key)
        self._end_silence(key)
        return self._ended(now)

    def probed(self, key: Hashable, ok: bool, now: float) -> bool:
        """A probe of any host, with or without an agent, passed or failed."""
        if ok:
            self._passed_at = now
        silence = self._silent.get(key)
        if silence is None:
            return False
        if ok:
            silence.failing_since = None
            if silence.dead:
                silence.dead = False
                insort(self._onsets, silence.onset)
        elif silence.failing_since is None:
            silence.failing_since = now
        elif not silence.dead and self._passed_at > silence.failing_since:
            silence.dead = True
            self._drop_onset(silence.onset)
        return self._ended(now)

    def _end_silence(self, key: Hashable) -> None:
        silence = self._silent.pop(key, None)
        if silence is not None and not silence.dead:
            self._drop_onset(silence.onset)

    def _drop_onset(self, onset: float) -> None:
        del self._onsets[bisect_left(self._onsets, onset)]

    def _is_bulk(self, silent: int, base: int) -> bool:
        return silent >= LEAST_HOSTS and silent > self._panic_fraction * base

    def _ended(self, now: float) -> bool:
        silent = self.silent
        if not self.isolated or self._is_bulk(silent, len(self._heard) + silent):
            return False
        self.since = None
        self._covers_from = math.inf
        return True
