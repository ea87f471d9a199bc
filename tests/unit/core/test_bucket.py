"""So many per second, with a burst."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from director.core.bucket import TokenBucket


class TokenBucketTests(SynchronousTestCase):
    def test_burst_then_rate(self) -> None:
        """A full bucket gives its burst at once, then one token for each 1/rate seconds."""
        bucket = TokenBucket(2.0, 3.0, 0.0)
        self.assertEqual([bucket.take(0.0) for _ in range(4)], [True, True, True, False])
        self.assertEqual((bucket.wait(0.0), bucket.take(0.25), bucket.wait(0.25)), (0.5, False, 0.25))
        self.assertEqual((bucket.take(0.5), bucket.take(0.5)), (True, False))

    def test_saves_no_more_than_the_burst(self) -> None:
        bucket = TokenBucket(2.0, 3.0, 0.0)
        self.assertEqual([bucket.take(1000.0) for _ in range(4)], [True, True, True, False])

    def test_debt(self) -> None:
        """Who can only pause afterwards spends what is not there, and is told for how long to pause."""
        bucket = TokenBucket(2.0, 1.0, 0.0)
        self.assertEqual([bucket.spend(0.0), bucket.spend(0.0)], [0.5, 1.0])
        self.assertEqual((bucket.take(0.75), bucket.take(1.0)), (False, True))

    def test_clock_that_steps_back(self) -> None:
        """Takes nothing away."""
        bucket = TokenBucket(1.0, 1.0, 10.0)
        self.assertTrue(bucket.take(5.0))
        self.assertFalse(bucket.take(5.5))
