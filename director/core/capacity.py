"""W of SCHEDULING: how much a host can carry beside its pool, learnt from its agent's reports, slowly.

The *sample* of a report is ``rate * (1 - e) / max(utilisation, 0.05)``: what the host would finish per second if it
were busy throughout. It is taken only from reports with ``e < 0.2`` and at least 3 completions, and smoothed with a
time constant of 30 s (the first ones as a plain mean). Reports with fewer are gathered until they have 3 together: to
take only those that happen to have 3 by themselves would flatter, and a host that is slow would never be measured. Then,
for each host::

    W = clamp(believed(capacity / median of the pool's capacities) * (1 - e)^4, 1/32, 2)

where *believed* turns a ratio above 4 into 1. Readings of the source that this module settles:

- *e*, the error ratio of the penalty, is a state: each report's ratio counts by its completions against the old
  estimate's weight of 3, so that one failure among few is no verdict; most of three or more count at once; a report
  without completions lets it decay in 10 s, so that a healed host is tried again.
- The median is of capacities *before* the penalty: when most of a pool fails, its failing half must not become the
  norm beside which healthy hosts look too good to be believed.
- The penalty applies to hosts that are not believed, and to those whose capacity is not known, too: errors only ever
  lower a host's own weight, so there is nothing to gain by inventing them.
- A capacity rests on its last usable sample, the penalty on the last report of any kind; each drifts to 1 by the age of
  what it rests on. A failing host that yields no sample is thus not forgiven while it goes on reporting failures.
- An agent's own estimate (``LoadReport.capacity``) stands in for the sample, under all the same guards: it counts only
  with traffic that proves the host works, it is smoothed, and above 4 times the median it is not believed.
- An idle host gives no sample: below a utilisation of 0.05, averaged over 5 s, what would be measured is how much it was
  given, so that whoever were given less would seem able to carry less. It can take more, whatever was found before: what is
  below the median rises to it within some 10 s. So a host that was slow and lost its share is tried anew.
- An agent that knows no rate has that which directors see (`director.core.seen`) put in its place, again under all the
  same guards, and some of its own:

  - A rate counts turnarounds, connections or what an application calls a completion: each is compared with the median of
    those that count the same, and whoever begins to count something else begins anew.
  - It is idle below a utilisation of 0.1: what the machine does for itself would be taken for the service's.
  - A fall counts with 5 s, not with 30, while the host is saturated and its turnarounds take longer than they usually do. At
    saturation nothing is extrapolated: the rate *is* the capacity; and a host whose CPU somebody else burns is to lose its
    share within seconds. Without the second condition a machine that another's patient work keeps at 100 % would
    look saturated for ever, and every dip of its rate would cost it share, and so rate.
- Where a report lacks its count of completions, rate x time since the last report stands in. Utilisation without a rate
  gives nothing: weights from CPU alone spiral.

In a pool of two, one liar can claim up to twice the mean, and nobody can tell which of the two lies.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from statistics import median
from typing import Any, Generic, NamedTuple, TypeVar

from cluster.model import LoadReport
from director.core.seen import Window

#: Time constant of the capacity's average: at 1 s, weights chase noisy neighbours (SCHEDULING: p99 163 instead of 55).
SMOOTHING_S = 30.0
#: Below this a host is idle: its utilisation is noise, and dividing by it would make giants.
LEAST_UTILISATION = 0.05
#: Reports with more errors say how fast the host fails, not how fast it works.
MOST_ERRORS = 0.2
#: Reports with more errors count at once: a trial that failed must not make the next one come sooner.
HOPELESS = 0.5
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
#: The same for rates that directors see.
IDLE_UTILISATION = 0.1
#: Time constant by which an idle host's capacity rises to the median.
IDLE_S = 10.0
#: Time constant of the utilisation that is compared with it: else only those of an idle host's reports would count that
#: are busy by chance.
BUSY_S = 5.0
#: From this utilisation on a host is saturated, if its turnarounds take longer than usual by this factor, too.
SATURATED = 0.9
SLOWER = 1.25
#: Time constant of a saturated host's fall, and of what its turnarounds usually take.
FALL_S = 5.0
USUAL_S = 30.0
#: What a rate counts, where the agent says it.
REPORTED = "reported"
#: How old the median may be when a single host is asked for; the others always take a new one.
MEDIAN_AGE_S = 0.05
#: A move of the median below this share is no news to those that did not report.
MEDIAN_STEP = 0.01


Key = TypeVar("Key", bound=Hashable)


class _Known:
    """What is known about one host."""

    __slots__ = ("busy", "capacity", "errors", "gathered", "reported_at", "sampled_at", "samples", "source", "usual_s")

    def __init__(self, now: float) -> None:
        self.capacity = 0.0  #: completions per second; 0 while unknown
        self.samples = 0
        self.sampled_at = -math.inf
        self.errors = 0.0
        self.reported_at = now
        self.source = REPORTED  #: what its rate counts
        self.usual_s: float | None = None  #: mean of its turnarounds
        self.busy: float | None = None  #: mean of its utilisation
        #: Of reports since the last sample: completions, those that were no errors, seconds, of these how many busy.
        self.gathered = (0.0, 0.0, 0.0, 0.0)

    def gather(self, completions: float, errors: float, seconds: float, utilisation: float) -> float | None:
        """A sample, once there are enough completions."""
        every, well, lasted, busy = self.gathered
        every += completions
        well += completions * (1.0 - errors)
        lasted += seconds
        busy += seconds * utilisation
        if every < LEAST_COMPLETIONS or lasted <= 0.0:
            self.gathered = every, well, lasted, busy
            return None
        self.gathered = (0.0, 0.0, 0.0, 0.0)
        return well / max(busy, LEAST_UTILISATION * lasted)

    def learn(self, sample: float, source: str, now: float, smoothing_s: float = SMOOTHING_S) -> None:
        if source != self.source:
            self.source, self.capacity, self.samples, self.sampled_at = source, 0.0, 0, -math.inf
        self.samples += 1
        share = max(1.0 / self.samples, 1.0 - math.exp(-max(now - self.sampled_at, 0.0) / smoothing_s))
        self.capacity += (sample - self.capacity) * share
        self.sampled_at = now


class Basis(NamedTuple):
    """What a host's W rests on."""

    capacity: float  #: completions per second if it were busy throughout; 0: not known
    median: float  #: of the group's hosts that count the same; 0: of none lately
    errors: float  #: share of completions, smoothed
    sample_age_s: float  #: of what the capacity rests on; inf: nothing

    @property
    def believed(self) -> bool:
        return not self.median or self.capacity <= MOST_BELIEVED * self.median


class Capacity(Generic[Key]):
    """The factors W of one group's hosts, under whatever keys the caller has. Times are monotonic seconds.

    A host that never reported, or whose reports are stale, has the factor 1: the pool's median.
    """

    def __init__(self) -> None:
        self._known: dict[Key, _Known] = {}
        self._reported: set[Key] = set()  # since the last `news` or `factors`
        self._medians: dict[str, float] = {}  # by what is counted
        self._median_at = -math.inf
        self._told_medians: dict[str, float] = {}  # under which all factors were told last

    def reported(self, key: Key, report: LoadReport, now: float, seen: Window | None = None) -> None:
        """Learn from a report, and from what this director has *seen* of the host up to then. O(1), but for the median."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known(now)
        self._reported.add(key)
        elapsed = max(now - known.reported_at, 0.0)
        known.reported_at = now
        rate, completions, errors = report.rate, report.completions, report.errors
        blind = rate is None and completions is None
        if blind and seen is not None:
            completions = float(seen.completions)
            errors = seen.errors if errors is None else errors
        elif completions is None:
            completions = 0.0 if rate is None else rate * elapsed
        errors = errors or 0.0
        if completions > 0.0:
            known.errors += (errors - known.errors) * completions / (completions + LEAST_COMPLETIONS)
            if errors > HOPELESS and completions >= LEAST_COMPLETIONS:
                known.errors = max(known.errors, errors)
        else:
            known.errors *= math.exp(-elapsed / FORGIVE_S)
        if report.utilisation is not None:
            busy = report.utilisation if known.busy is None else known.busy
            known.busy = busy + (report.utilisation - busy) * (1.0 - math.exp(-elapsed / BUSY_S))
        if report.capacity is None and (known.busy or 0.0) < (IDLE_UTILISATION if blind else LEAST_UTILISATION):
            self._rest(known, report, elapsed, now)
        elif errors >= MOST_ERRORS:
            known.gathered = (0.0, 0.0, 0.0, 0.0)
        elif rate is not None and report.capacity is None and report.utilisation is not None:
            sample = known.gather(completions, errors, completions / rate if rate else elapsed, report.utilisation)
            if sample is not None:
                known.learn(sample, REPORTED, now)
        elif completions < LEAST_COMPLETIONS:
            return
        elif report.capacity is not None:
            known.learn(report.capacity, REPORTED, now)
        elif blind and seen is not None and seen.utilisation is not None:
            sample = seen.rate * (1.0 - errors) / max(seen.utilisation, LEAST_UTILISATION)
            falls = _slower(known, seen, now) and sample < known.capacity and seen.utilisation >= SATURATED
            known.learn(sample, seen.source, now, FALL_S if falls else SMOOTHING_S)

    def _rest(self, known: _Known, report: LoadReport, elapsed: float, now: float) -> None:
        """It is idle, as far as is known: so it can take more than what was found when it was not."""
        if report.utilisation is None:
            return
        if now - self._median_at >= MEDIAN_AGE_S:
            self._take_median(now)
        middle = self._medians.get(known.source, 0.0)
        if 0.0 < known.capacity < middle:
            known.capacity += (middle - known.capacity) * (1.0 - math.exp(-elapsed / IDLE_S))

    def known(self, key: Key) -> dict[str, Any] | None:
        """What is known of a host, for `recall` in another process; None: nothing."""
        known = self._known.get(key)
        return None if known is None else {name: getattr(known, name) for name in _Known.__slots__}

    def recall(self, key: Key, values: Mapping[str, Any]) -> None:
        """Know of a host what another process did; what this release does not know of is left out."""
        known = self._known[key] = _Known(0.0)
        for name in values.keys() & set(_Known.__slots__):
            setattr(known, name, values[name])
        self._reported.add(key)
        self._median_at = -math.inf

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
        told = self._told_medians
        if any(abs(middle - told.get(source, 0.0)) > MEDIAN_STEP * told.get(source, 0.0)
               for source, middle in self._medians.items()):
            return self._all(now)
        reported, self._reported = self._reported, set()
        return {key: self._factor(self._known[key], now) for key in reported}

    def _all(self, now: float) -> dict[Key, float]:
        self._reported.clear()
        self._told_medians = self._medians
        return {key: self._factor(known, now) for key, known in self._known.items()}

    def factor(self, key: Key, now: float) -> float:
        """W of one host; 1 if it never reported. O(1), but for a new median every `MEDIAN_AGE_S`."""
        known = self._known.get(key)
        if known is None:
            return 1.0
        if now - self._median_at >= MEDIAN_AGE_S:
            self._take_median(now)
        return self._factor(known, now)

    def bases(self, now: float) -> dict[Key, Basis]:
        """Of every host that reported, to be shown; changes nothing. O(n log n)."""
        medians = self._medians_at(now)
        return {key: Basis(each.capacity, medians.get(each.source, 0.0), each.errors, now - each.sampled_at)
                for key, each in self._known.items()}

    def _take_median(self, now: float) -> None:
        self._medians, self._median_at = self._medians_at(now), now

    def _medians_at(self, now: float) -> dict[str, float]:
        oldest = now - EXPIRY_S
        values: dict[str, list[float]] = {}
        for known in self._known.values():
            if known.sampled_at >= oldest:
                values.setdefault(known.source, []).append(known.capacity)
        return {source: median(each) for source, each in values.items()}

    def _factor(self, known: _Known, now: float) -> float:
        ratio = 1.0
        middle = self._medians.get(known.source, 0.0)
        if 0.0 < known.capacity <= MOST_BELIEVED * middle:
            ratio = known.capacity / middle
        factor = drift(ratio, now - known.sampled_at) * drift((1.0 - known.errors) ** PENALTY_POWER,
                                                                now - known.reported_at)
        return min(max(factor, LEAST_FACTOR), MOST_FACTOR)


def _slower(known: _Known, seen: Window, now: float) -> bool:
    """Whether its turnarounds take longer now than they usually do; learns what is usual."""
    if seen.turnaround_s is None:
        return False
    usual = seen.turnaround_s if known.usual_s is None else known.usual_s
    share = 1.0 - math.exp(-min(now - known.sampled_at, USUAL_S) / USUAL_S)
    known.usual_s = usual + (seen.turnaround_s - usual) * share
    return seen.turnaround_s > SLOWER * usual


def median_of(unsorted: Iterable[float]) -> float:
    """Their median; 0 of none."""
    values = list(unsorted)
    return median(values) if values else 0.0


def drift(value: float, age_s: float) -> float:
    """*value* while what it rests on is fresh, moving to 1 as that grows old."""
    if age_s <= STALE_S:
        return value
    return value + (1.0 - value) * min((age_s - STALE_S) / DRIFT_S, 1.0)
