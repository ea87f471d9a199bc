"""Deadlines in buckets, and the timer that goes with them."""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from director.relay.timed_wheel import TimedWheel
from director.relay.wheel import HORIZON_S, TICK_S, Wheel


class Item:
    def __init__(self) -> None:
        self.bucket = 0


class WheelTests(SynchronousTestCase):
    def test_in_time(self) -> None:
        """An item comes due at its deadline, a tick early or by 1/8 of the wait and two ticks late at most; beyond the horizon it comes to be
        looked at again."""
        draw = random.Random(7)
        for _ in range(500):
            wheel: Wheel[Item] = Wheel()
            item, now, wait = Item(), draw.uniform(0, 1e6), draw.choice((0.0, 0.005, 0.1, 1.0, 10.0, 100.0)) * draw.random()
            wheel.put(item, now + wait, now)
            at = wheel.next_s()
            assert at is not None
            if wait < HORIZON_S:
                self.assertGreater(at, now + wait - TICK_S)
                self.assertLessEqual(at, now + wait * 1.125 + 2 * TICK_S)
            self.assertLessEqual(at, now + HORIZON_S * 1.125 + 2 * TICK_S)
            self.assertEqual(wheel.due(at - TICK_S), [])
            self.assertEqual((wheel.due(at + TICK_S / 2), item.bucket), ([item], 0))

    def test_sooner_only(self) -> None:
        """An item moves to an earlier bucket, never to a later one."""
        wheel: Wheel[Item] = Wheel()
        item = Item()
        wheel.put(item, 5.0, 0.0)
        first = item.bucket
        wheel.sooner(item, 9.0, 0.0)
        self.assertEqual(item.bucket, first)
        wheel.sooner(item, 1.0, 0.0)
        self.assertLess(item.bucket, first)
        self.assertEqual((wheel.due(2.0), wheel.due(99.0)), ([item], []))

    def test_discarded(self) -> None:
        """What was taken out does not come due, and leaves nothing behind."""
        wheel: Wheel[Item] = Wheel()
        item = Item()
        wheel.put(item, 1.0, 0.0)
        wheel.discard(item)
        wheel.discard(item)
        self.assertEqual((wheel.next_s(), wheel.due(9.0), item.bucket), (None, [], 0))


class TimedWheelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rung: list[list[Item]] = []
        self.wheel: TimedWheel[Item] = TimedWheel(self.ring, reactor=self.clock)

    def ring(self) -> None:
        self.rung.append(self.wheel.due(self.clock.seconds()))
        self.wheel.wind(self.clock.seconds())

    def test_rings_for_the_earliest(self) -> None:
        """One timed call, for whatever is due first, and again while there is something."""
        late, early = Item(), Item()
        self.wheel.put(late, 2.0, 0.0)
        self.wheel.put(early, 1.0, 0.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([0.01] * 300)
        self.assertEqual([items for items in self.rung if items], [[early], [late]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """No call is left."""
        self.wheel.put(Item(), 2.0, 0.0)
        self.wheel.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.wheel.stop()
