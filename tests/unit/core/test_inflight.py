"""n: one's own count for short connections, the report's for long ones."""

from __future__ import annotations

import math
from unittest import TestCase

from cluster.model import LoadReport
from director.core.schedulers.loadaware.inflight import MOST_SCALE, InFlight, MeanDuration, PoolLoad, pool_load


def reported(utilisation: float | None, total: float | None, own: int, at: float = 0.0) -> InFlight:
    record = InFlight()
    record.reported(LoadReport(utilisation=utilisation, in_flight=total), own, at)
    return record


class InFlightTests(TestCase):
    def test_blend(self) -> None:
        """Reports count for what lives longer than they are apart, and less as they grow old."""
        self.assertEqual(InFlight().blend(10.0, 0.0), 0.0)
        record = reported(0.5, 10.0, 5)
        for mean_s, at, low, high in (
            (0.0, 0.0, 0, 0), (0.05, 0.0, 0, 0), (0.5, 0.0, 0.36, 0.38), (10.0, 0.0, 0.94, 0.96), (10.0, 10.0, 0.34, 0.36),
            (10.0, 60.0, 0, 0),
        ):
            blend = record.blend(mean_s, at)
            self.assertTrue(low <= blend <= high, f"{mean_s} {at} {blend}")

    def test_far_apart(self) -> None:
        """How far apart reports are is learnt, whatever the clock's time: on average one is half as old."""
        record = InFlight()
        for number in range(200):
            record.reported(LoadReport(utilisation=0.5), 5, 1e5 + 4.0 * number)
        self.assertAlmostEqual(record.interval_s, 4.0, 3)
        self.assertAlmostEqual(record.blend(2.0, record.at), math.exp(-1.0), 3)

    def test_no_utilisation(self) -> None:
        """An agent that does not know how busy its host is implies nothing."""
        self.assertEqual(reported(None, 10.0, 5).blend(10.0, 0.0), 0.0)

    def test_short(self) -> None:
        """Without a blend it is the own count, whatever others have."""
        self.assertEqual(reported(0.9, 500.0, 5).count(7, 0.0, 1.0, PoolLoad(4.0, 100.0)), 7)

    def test_long(self) -> None:
        """The report's utilisation, and what was opened and closed since, scaled to all directors."""
        record, pool = reported(0.5, 20.0, 5), PoolLoad(scale=4.0, per_utilisation=60.0)
        self.assertEqual(record.count(5, 1.0, 1.0, pool), 30.0)
        self.assertEqual(record.count(7, 1.0, 1.0, pool), 38.0)
        self.assertEqual(record.count(5, 1.0, 0.5, pool), 15.0)
        self.assertEqual(record.count(5, 0.5, 1.0, pool), 17.5)

    def test_a_liar(self) -> None:
        """A host that claims to be idle counts for half of the connections it is known to have."""
        self.assertEqual(reported(0.0, 20.0, 5).count(5, 1.0, 1.0, PoolLoad(4.0, 60.0)), 10.0)

    def test_scale(self) -> None:
        """At least what is one's own, at most sixteen directors' worth; 1 where there is nothing to compare."""
        for total, own, scale in ((1000.0, 1, MOST_SCALE), (2.0, 5, 1.0), (7.0, 0, 1.0), (None, 5, 1.0), (20.0, 5, 4.0)):
            self.assertEqual(pool_load([(reported(0.5, total, own), own, 1.0)]).scale, scale)

    def test_who_says_nothing(self) -> None:
        """Hosts that do not say how busy they are leave out themselves alone, wherever they stand; so do those that count nothing."""
        said = [(reported(0.5, 20.0, 5), 5, 1.0), (reported(0.5, None, 7), 7, 1.0)]
        silent = [(InFlight(), 9, 1.0), (reported(None, 80.0, 9), 9, 1.0)]
        for pool in ([*silent, *said], [*said, *silent], [silent[0], *said, silent[1]]):
            self.assertEqual(pool_load(pool), PoolLoad(4.0, 48.0))

    def test_per_utilisation(self) -> None:
        """Implied connections add up to those that there are, on the hosts that report."""
        pool = [(reported(0.2, 10.0, 5), 5, 1.0), (reported(0.8, 20.0, 10), 10, 0.5), (InFlight(), 9, 1.0)]
        load = pool_load(pool)
        self.assertAlmostEqual(sum(each.count(own, 1.0, weight, load) for each, own, weight in pool[:2]), 30.0)
        self.assertEqual(pool_load([]), PoolLoad())

    def test_mean_duration(self) -> None:
        """The first ones are a plain mean; later it follows within some dozens."""
        mean = MeanDuration()
        for seconds in (1.0, 3.0):
            mean.sample(seconds)
        self.assertEqual(mean.seconds, 2.0)
        for _ in range(300):
            mean.sample(10.0)
        self.assertGreater(mean.seconds, 9.5)
