"""X of SCHEDULING: how much slower than its pool a host has been just now, by this director's own connections, fast.

What is averaged is the logarithm of durations, for slowness multiplies: a host twice as slow differs by ln 2 from the
others, whatever the work. The average's step is ``1 - exp(-dt / 0.5 s)``, *dt* since the host's last sample, within [0.02,
0.1]: half a second is what a neighbour's burst lasts, and below or above those bounds a busy host would average nothing
but noise, an idle one believe every single connection. Then, with *m* the average less the pool's median::

    m' = m * exp(-idle / 2.5 s)                       nothing is known of a host that has long finished nothing
    e = sign(m') * max(|m'| - 2 * noise, 0)           *noise*: the standard deviation of the average
    X = exp(max(e + (m' - e) / 4, -0.35))

The noise comes from the samples' own variance, so that heavy tails are not acted upon; a quarter of what was taken for
noise is added back, for some of it is not. The floor keeps a host that fails fast from attracting clients by that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

#: Time constant of the average, and the bounds of its step.
SMOOTHING_S = 0.5
LEAST_STEP = 0.02
MOST_STEP = 0.1
#: The first samples are a plain mean, as many as the least step would make it anyway.
FIRST = 50
#: Time constant by which a host that finishes nothing is forgotten.
FADE_S = 2.5
#: Deviations from the median below so many standard deviations are noise.
NOISE = 2.0
#: Share of what was taken for noise that is acted upon all the same.
REST = 0.25
#: X is at least exp of this.
FLOOR = -0.35
#: Variance of the log of a duration before anything is known: that of exponential ones, pi^2 / 6.
PRIOR_VARIANCE = math.pi**2 / 6
#: Shortest duration that is told apart: below, clocks are noise, and 0 has no logarithm.
LEAST_S = 1e-5
#: A host's average leaves the median after so long without a sample.
EXPIRY_S = 30.0


class Slowness:
    """One host's."""

    __slots__ = ("at", "mean", "samples", "spread", "variance")

    def __init__(self) -> None:
        self.at = -math.inf  #: of the last sample
        self.mean = 0.0  #: of logarithms of seconds
        self.samples = 0
        self.variance = PRIOR_VARIANCE
        self.spread = 1.0  #: variance of the mean over that of a sample: the sum of squared shares

    def sample(self, seconds: float, now: float, count: int = 1) -> None:
        """So many things ended that took *seconds* each on average."""
        value = math.log(seconds) if seconds > LEAST_S else math.log(LEAST_S)
        if now - self.at > EXPIRY_S:
            self.mean, self.variance, self.spread, self.samples = value, PRIOR_VARIANCE, 1.0, 0
        else:
            step = 1.0 - math.exp((self.at - now) / SMOOTHING_S)
            step = LEAST_STEP if step < LEAST_STEP else MOST_STEP if step > MOST_STEP else step
            if count > 1:
                step = 1.0 - (1.0 - step) ** count
            if self.samples < FIRST:
                step = max(step, count / (self.samples + count))
            off = value - self.mean
            self.mean += step * off
            self.variance = (1.0 - step) * (self.variance + step * off * off * count)
            self.spread = (1.0 - step) ** 2 * self.spread + step * step / count
        self.samples += count
        self.at = now

    def factor(self, median: float | None, now: float, fade_s: float = FADE_S) -> float:
        """X. *median*: of the pool's means, as `median` gives it."""
        idle = now - self.at
        if median is None or idle > EXPIRY_S:
            return 1.0
        off = (self.mean - median) * math.exp(-idle / fade_s)
        noise = NOISE * math.sqrt(self.variance * self.spread)
        beyond = off - noise if off > noise else off + noise if off < -noise else 0.0
        return math.exp(max(beyond + REST * (off - beyond), FLOOR))


def median(pool: Iterable[Slowness], now: float) -> float | None:
    """Of the means of those with a sample not too old; None when there are none."""
    oldest = now - EXPIRY_S
    means = sorted(each.mean for each in pool if each.at >= oldest)
    middle = len(means) // 2
    if not means:
        return None
    return means[middle] if len(means) % 2 else (means[middle - 1] + means[middle]) / 2
