"""What the bench of faults makes of what its observers saw."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.watching import GAP_NS, MS_NS, Seen, doubled_ms, owners, served_again_s

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


class WatchingTests(SynchronousTestCase):
    def test_two_owners(self) -> None:
        """A millisecond counts in which both answered, unless the one stopped before the other began."""
        for answers, doubled in (
            ([(0, A), (1, A), (2 * MS_NS, B)], 0),
            ([(0, A), (1, A), (2, B), (MS_NS, B)], 0),
            ([(0, A), (1, B), (2, A), (MS_NS, B)], 1),
            ([(at * MS_NS + n, mac) for at in range(5) for n, mac in enumerate((A, B, A))], 5),
        ):
            self.assertEqual(doubled_ms(answers), doubled, answers)
        self.assertEqual(owners([(0, A), (1, A), (2, B), (3, A)]), [A, B, A])

    def test_served_again(self) -> None:
        """The longest time without a handshake counts, from the fault on; a short one, or one of the observer's own, does not."""
        ms = MS_NS
        steady = list(range(0, 1_000 * ms, 5 * ms))
        self.assertEqual(served_again_s(Seen(steady, [], 0), 100 * ms, 990 * ms), (0.0, 0.0))
        gap = [each for each in steady if not 200 * ms < each < 700 * ms]
        self.assertEqual(served_again_s(Seen(gap, [], 0), 100 * ms, 990 * ms), (0.6, 0.5))
        self.assertEqual(served_again_s(Seen(gap, [], 500 * ms - GAP_NS), 100 * ms, 990 * ms), (0.0, 0.0))
        self.assertEqual(served_again_s(Seen([], [], 0), 100 * ms, 990 * ms), (0.89, 0.89), "never")
