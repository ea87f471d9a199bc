"""X: slowness is seen soon, noise is not, and both are forgotten."""

from __future__ import annotations

import math
import random
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from director.core.schedulers.loadaware.slowness import FLOOR, Slowness, median


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

    def test_median(self) -> None:
        """Hosts without fresh samples do not count."""
        self.assertIsNone(median([Slowness()], 0.0))
        pool = []
        for seconds, at in ((0.1, 10.0), (0.2, 10.0), (0.4, 10.0), (5.0, -100.0)):
            pool.append(Slowness())
            pool[-1].sample(seconds, at)
        self.assertEqual(median(pool, 10.0), math.log(0.2))
        self.assertEqual(median(pool[1:], 10.0), (math.log(0.2) + math.log(0.4)) / 2)
