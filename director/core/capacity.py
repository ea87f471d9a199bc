"""W of SCHEDULING: how much a host can carry beside its pool, learnt from its agent's reports, slowly.

The *sample* of a report is ``rate * (1 - e) / max(utilisation, 0.05)``: what the host would finish per second if it
were busy throughout. It is taken only from reports with ``e < 0.2`` and at least 3 completions, and smoothed with a
time constant of 30 s (the first ones as a plain mean). Then, for each host::

    W = clamp(believed(capacity / median of the pool's capacities) * (1 - e)^4, 1/32, 2)

where *believed* turns a ratio above 4 into 1. Readings of the source that this module settles:

- *e*, the error ratio of the penalty, is a state: each report's ratio counts by its completions against the old
  estimate's weight of 3, so that one failure among few is no verdict; a report without completions lets it decay in
  10 s, so that a healed host is tried again.
- The median is of capacities *before* the penalty: when most of a pool fails, its failing half must not become the
  norm beside which healthy hosts look too good to be believed.
- The penalty applies to hosts that are not believed, and to those whose capacity is not known, too: errors only ever
  lower a host's own weight, so there is nothing to gain by inventing them.
- A capacity rests on its last usable sample, the penalty on the last report of any kind; each drifts to 1 by the age of
  what it rests on. A failing host that yields no sample is thus not forgiven while it goes on reporting failures.
- An agent's own estimate (``LoadReport.capacity``) stands in for the sample, under all the same guards: it counts only
  with traffic that proves the host works, it is smoothed, and above 4 times the median it is not believed.
- Where a report lacks its count of completions, rate x time since the last report stands in. Utilisation without a rate
  gives nothing: weights from CPU alone spiral.

In a pool of two, one liar can claim up to twice the mean, and nobody can tell which of the two lies.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

from cluster.model import LoadReport

#: Time constant of the capacity's average: at 1 s, weights chase noisy neighbours (SCHEDULING: p99 163 instead of 55).
SMOOTHING_S = 30.0
#: Below this an idle host's utilisation is noise, and dividing by it would make giants.
LEAST_UTILISATION = 0.05
#: Reports with more errors say how fast the host fails, not how fast it works.
MOST_ERRORS = 0.2
#: Fewer completions in a report say nothing about a rate.
LEAST_COMPLETIONS = 3.0
#: Makes a fifth of errors cost more than half of the weight.
PENALTY_POWER = 4
#: Time constant by which the error ratio of a host without traffic is forgotten.
FORGIVE_S = 10.0
#: Above this multiple of the median a claim is not believed; such a host needs a configured weight.
MOST_BELIEVED = 4.0
#: Bounds of W: the floor keeps every host measured, the ceiling keeps a flatterer from drawing a pool's traffic.
LEAST_FACTOR = 1 / 32
MOST_FACTOR = 2.0
#: Age from which a report loses its say, and how long the loss takes.
STALE_S = 60.0
DRIFT_S = 60.0
#: Age at which a capacity leaves the median.
EXPIRY_S = 180.0
#: How old the median may be when a single host is asked for; the others always take a new one.
MEDIAN_AGE_S = 0.05
#: A move of the median below this share is no news to those that did not report.
MEDIAN_STEP = 0.01


Key = TypeVar("Key", bound=Hashable)


class _Known:
    """What is known about one host."""

    __slots__ = ("capacity", "errors", "reported_at", "sampled_at", "samples")

    def __init__(self, now: float) -> None:
        self.capacity = 0.0  #: completions per second; 0 while unknown
        self.samples = 0
        self.sampled_at = -math.inf
        self.errors = 0.0
        self.reported_at = now


class Capacity(Generic[Key]):
    """The factors W of one group's hosts, under whatever keys the caller has. Times are monotonic seconds.

    A host that never reported, or whose reports are stale, has the factor 1: the pool's median.
    """

    def __init__(self) -> None:
        self._known: dict[Key, _Known] = {}
        self._reported: set[Key] = set()  # since the last `news` or `factors`
        self._median = 0.0
        self._median_at = -math.inf
        self._told_median = 0.0  # under which all factors were told last

    def reported(self, key: Key, report: LoadReport, now: float) -> None:
        """Learn from a report. O(1)."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known(now)
        self._reported.add(key)
        elapsed = max(now - known.reported_at, 0.0)
        known.reported_at = now
        rate, completions = report.rate, report.completions
        if completions is None:
            completions = 0.0 if rate is None else rate * elapsed
        errors = report.errors or 0.0
        if completions > 0.0:
            known.errors += (errors - known.errors) * completions / (completions + LEAST_COMPLETIONS)
        else:
            known.errors *= math.exp(-elapsed / FORGIVE_S)
        if errors >= MOST_ERRORS or completions < LEAST_COMPLETIONS:
            return
        if report.capacity is not None:
            sample = report.capacity
        elif rate and report.utilisation is not None:
            sample = rate * (1.0 - errors) / max(report.utilisation, LEAST_UTILISATION)
        else:
            return
        known.samples += 1
        share = max(1.0 / known.samples, 1.0 - math.exp(-max(now - known.sampled_at, 0.0) / SMOOTHING_S))
        known.capacity += (sample - known.capacity) * share
        known.sampled_at = now

    def discard(self, key: Key) -> None:
        """Forget a host; no error if it never reported."""
        self._known.pop(key, None)
        self._reported.discard(key)

    def factors(self, now: float) -> dict[Key, float]:
        """W of every host that reported, within [1/32, 2]. O(n log n)."""
        self._take_median(now)
        return self._all(now)

    def news(self, now: float) -> dict[Key, float]:
        """W of the hosts that reported since the last answer of this or `factors`.

        Of every host when the median has moved by more than `MEDIAN_STEP` since all were answered. Until then the others'
        W differ from what was answered by at most twice that, and by what the age of their reports takes from them: call
        `factors` now and then.
        """
        self._take_median(now)
        if abs(self._median - self._told_median) > MEDIAN_STEP * self._told_median:
            return self._all(now)
        reported, self._reported = self._reported, set()
        return {key: self._factor(self._known[key], now) for key in reported}

    def _all(self, now: float) -> dict[Key, float]:
        self._reported.clear()
        self._told_median = self._median
        return {key: self._factor(known, now) for key, known in self._known.items()}

    def factor(self, key: Key, now: float) -> float:
        """W of one host; 1 if it never reported. O(1), but for a new median every `MEDIAN_AGE_S`."""
        known = self._known.get(key)
        if known is None:
            return 1.0
        if now - self._median_at >= MEDIAN_AGE_S:
            self._take_median(now)
        return self._factor(known, now)

    def _take_median(self, now: float) -> None:
        oldest = now - EXPIRY_S
        values = sorted(known.capacity for known in self._known.values() if known.sampled_at >= oldest)
        middle = len(values) // 2
        if not values:
            self._median = 0.0
        elif len(values) % 2:
            self._median = values[middle]
        else:
            self._median = (values[middle - 1] + values[middle]) / 2
        self._median_at = now

    def _factor(self, known: _Known, now: float) -> float:
        ratio = 1.0
        if 0.0 < known.capacity <= MOST_BELIEVED * self._median:
            ratio = known.capacity / self._median
        factor = _drift(ratio, now - known.sampled_at) * _drift((1.0 - known.errors) ** PENALTY_POWER,
                                                                now - known.reported_at)
        return min(max(factor, LEAST_FACTOR), MOST_FACTOR)


def _drift(value: float, age_s: float) -> float:
    """*value* while what it rests on is fresh, moving to 1 as that grows old."""
    if age_s <= STALE_S:
        return value
    return value + (1.0 - value) * min((age_s - STALE_S) / DRIFT_S, 1.0)
