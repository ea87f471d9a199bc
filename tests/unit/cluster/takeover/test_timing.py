"""Constants keep the inequalities, or are refused by name."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import Misuse
from cluster.takeover.timing import MS, Timing


class TimingTests(SynchronousTestCase):
    def test_defaults_hold(self) -> None:
        self.assertEqual(Timing().broken(), [])

    def test_each_inequality(self) -> None:
        """Whichever is broken alone is named."""
        for name, change in {
            "I1": {"count_ns": 440 * MS},
            "I2": {"etcd_count_ns": 440 * MS},
            "I3": {"wait_ns": 445 * MS},
            "I4": {"etcd_count_ns": 460 * MS, "wait_ns": 600 * MS},
            "I5": {"etcd_ns": 240 * MS},
            "I6": {"silence_ns": 290 * MS},
            "I7": {"silence_ns": 310 * MS},
        }.items():
            with self.assertRaises(Misuse) as raised:
                Timing(**change)
            broken = [each[:2] for each in self.unchecked(**change).broken()]
            self.assertIn(name, broken, raised.exception)
            self.assertIn(broken[0], str(raised.exception))

    def unchecked(self, **change: int) -> Timing:
        class Unchecked(Timing, frozen=True):
            def __post_init__(self) -> None:
                pass

        return Unchecked(**change)

    def test_in_proportion(self) -> None:
        """An operator sets the promise; all the rest follows. What is too short for a clock's margin is refused."""
        self.assertEqual(Timing.of(0.45), Timing())
        for promise_s in (0.2, 2.0, 60.0):
            self.assertEqual(Timing.of(promise_s).broken(), [])
        with self.assertRaises(Misuse) as raised:
            Timing.of(0.01)
        self.assertIn("takeover", str(raised.exception))

    def test_tickets(self) -> None:
        """What nftables alone costs of the fence is part of I5."""
        Timing(ticket_ns=30 * MS)
        with self.assertRaises(Misuse) as raised:
            Timing(ticket_ns=230 * MS)
        self.assertIn("I5", str(raised.exception))

    def test_no_nonsense(self) -> None:
        for change in ({"beat_ns": 0}, {"late_ns": -1}):
            self.assertRaises(Misuse, Timing, **change)

    def test_covers(self) -> None:
        """What another counts on is covered by the own promise and the own wait, or it is not."""
        timing = Timing()
        self.assertTrue(timing.covers(timing.count_ns))
        self.assertFalse(timing.covers(timing.promise_ns))
        self.assertFalse(msgspec.structs.replace(timing, promise_ns=450 * MS).covers(437 * MS))
