"""X: slowness is seen soon, noise is not, and both are forgotten."""

from __future__ import annotations

import math
import random
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from director.core.schedulers.loadaware.slowness import FLOOR, Slowness, median

#: Gaps before a sample, how long it took, and of how many it is the mean.
SAMPLES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.001, 0.015, 0.03, 0.04, 0.5, 29.0, 30.0, 31.0]),
              st.sampled_from([0.0, 1e-6, 1e-5, 2e-5, 0.01, 0.08, 1.0, 40.0]), st.sampled_from([1, 1, 2, 3, 20])),
    min_size=1, max_size=70,
)


def fed(mean_s: float, count: int, *, seed: int = 1, gap_s: float = 0.01) -> tuple[Slowness, float]:
    """After *count* exponential samples; and when the last one was."""
    draw, slowness, now = random.Random(seed), Slowness(), 0.0
    for _ in range(count):
        now += gap_s
        slowness.sample(draw.expovariate(1 / mean_s), now)
    return slowness, now


class SlownessTests(TestCase):
    def test_unknown(self) -> None:
        """A host that finished nothing is as fast as any."""
        self.assertEqual(Slowness().factor(-4.0, 100.0), 1.0)

    def test_slow(self) -> None:
        """Eight times slower than the median is seen within some dozens of connections, for the most part."""
        usual = median([fed(0.01, 300, seed=seed)[0] for seed in range(1, 6)], 3.0)
        assert usual is not None
        slow, now = fed(0.08, 60)
        self.assertGreater(slow.factor(usual, now), 3.0)

    def test_counted_up(self) -> None:
        """A mean over many counts as many would, for how far it moves and for how much it is trusted."""
        many, one = Slowness(), Slowness()
        for slowness, count in ((many, 20), (one, 1)):
            for number in range(60):
                slowness.sample(0.01, number * 0.01)
            slowness.sample(0.08, 0.65, count)
        self.assertGreater(many.mean - math.log(0.01), 5 * (one.mean - math.log(0.01)))
        self.assertGreater(many.factor(math.log(0.01), 0.65), 1.3)
        self.assertLess(one.factor(math.log(0.01), 0.65), 1.1)

    def test_counted_up_moves_as_many(self) -> None:
        """Two at once move the mean as two that come one after the other, but for their common time."""
        moved = []
        for count, times in ((2, 1), (1, 2)):
            slowness = Slowness()
            for number in range(60):
                slowness.sample(0.01, number * 0.01)
            for _ in range(times):
                slowness.sample(0.08, 0.6, count)
            moved.append(slowness.mean - math.log(0.01))
        self.assertAlmostEqual(moved[0], moved[1], delta=0.02)

    def test_noise(self) -> None:
        """Of hosts alike, next to none is told from the others."""
        pool = [fed(0.01, 300, seed=seed)[0] for seed in range(40)]
        usual = median(pool, 3.0)
        assert usual is not None
        factors = sorted(each.factor(usual, 3.0) for each in pool)
        self.assertGreater(factors[2], 0.9)
        self.assertLess(factors[-3], 1.12)

    def test_one_sample(self) -> None:
        """A single connection, a hundred times as long as usual, is hardly believed."""
        slowness = Slowness()
        slowness.sample(1.0, 1.0)
        self.assertLess(slowness.factor(math.log(0.01), 1.0), 18)
        self.assertLess(Slowness().factor(math.log(0.01), 1.0), 1.1)

    def test_fades(self) -> None:
        """A slow host is forgiven once it has finished nothing for some seconds, and tried again."""
        slow, now = fed(0.08, 100)
        factors = [slow.factor(math.log(0.01), now + idle) for idle in (0.0, 1.0, 2.5, 10.0, 31.0)]
        self.assertEqual(factors, sorted(factors, reverse=True))
        self.assertLess(factors[3], 1.05)
        self.assertEqual(factors[4], 1.0)

    def test_floor(self) -> None:
        """However fast a host fails, that makes it no better than exp(-0.35)."""
        quick, now = fed(0.0001, 300)
        self.assertEqual(quick.factor(math.log(0.05), now), math.exp(FLOOR))

    @given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 60)), min_size=1, max_size=50), st.floats(-12, 9))
    def test_always_a_factor(self, samples: list[tuple[float, float]], usual: float) -> None:
        """Whatever comes, durations of 0 too, X is a finite number above 0."""
        slowness, now = Slowness(), 0.0
        for seconds, gap in samples:
            now += gap
            slowness.sample(seconds, now)
            self.assertTrue(math.exp(FLOOR) <= slowness.factor(usual, now) < math.inf)

    @given(SAMPLES, st.floats(-6, 3), st.floats(0, 29.9), st.sampled_from([1.0, 2.5, 6.0]))
    def test_formula(self, samples: list[tuple[float, float, int]], usual: float, idle_s: float, fade_s: float) -> None:
        """X as it is defined, from each sample's share in the mean of all since the host was last forgotten."""
        slowness, now, before = Slowness(), 1000.0, 0
        steps: list[tuple[float, float, int]] = []
        for gap, seconds, count in samples:
            gap, now = now + gap - now, now + gap  # as exact as clocks are
            slowness.sample(seconds, now, count)
            value = math.log(max(seconds, 1e-5))
            if not steps or gap > 30.0:
                steps, before = [(1.0, value, 1)], count
                variance = math.pi**2 / 6
            else:
                step = 1.0 - (1.0 - min(max(1.0 - math.exp(-gap / 0.5), 0.02), 0.1)) ** count
                if before < 50:
                    step = max(step, count / (before + count))
                off = value - sum(share * each for share, each, _ in steps)
                variance = (1.0 - step) * (variance + step * off**2 * count)
                steps = [(share * (1.0 - step), each, of) for share, each, of in steps] + [(step, value, count)]
                before += count
        mean = sum(share * value for share, value, _ in steps)
        noise = 2.0 * math.sqrt(variance * sum(share**2 / count for share, _, count in steps))
        off = (mean - usual) * math.exp(-idle_s / fade_s)
        beyond = math.copysign(max(abs(off) - noise, 0.0), off)
        x = slowness.factor(usual, now + idle_s, fade_s)
        self.assertAlmostEqual(math.log(x), max(beyond + (off - beyond) / 4, -0.35), 6)
        self.assertEqual((slowness.factor(None, now), slowness.factor(usual, now + 30.1)), (1.0, 1.0))
        self.assertEqual(slowness.factor(usual, now + 1.0), slowness.factor(usual, now + 1.0, 2.5))

    def test_forgotten(self) -> None:
        """What is known counts for 30 s, for the host itself and in the median; the next sample begins anew after more."""
        for gap, mean, x_known in ((30.0, math.log(0.1), True), (30.5, math.log(0.4), False)):
            slowness = Slowness()
            for seconds in (0.1, 0.1, 0.1):
                slowness.sample(seconds, 100.0)
            self.assertEqual(slowness.factor(-9.0, 100.0 + gap) > 1.0, x_known)
            self.assertEqual(median([slowness], 100.0 + gap), math.log(0.1) if x_known else None)
            slowness.sample(0.4, 100.0 + gap)
            self.assertEqual(slowness.mean > (mean + math.log(0.4)) / 2 - 1e-9, not x_known)
            self.assertEqual(slowness.samples, 4 if x_known else 1)

    def test_median(self) -> None:
        """Hosts without fresh samples do not count."""
        self.assertIsNone(median([Slowness()], 0.0))
        pool = []
        for seconds, at in ((0.1, 10.0), (0.2, 10.0), (0.4, 10.0), (5.0, -100.0)):
            pool.append(Slowness())
            pool[-1].sample(seconds, at)
        self.assertEqual(median(pool, 10.0), math.log(0.2))
        self.assertEqual(median(pool[1:], 10.0), (math.log(0.2) + math.log(0.4)) / 2)
