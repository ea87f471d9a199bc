"""`director.timing.alarm`: one timer for many deadlines, never before its time."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from director.timing.alarm import Alarm


class AlarmTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rung: list[float] = []
        self.alarm = Alarm(lambda: self.rung.append(self.clock.seconds()), reactor=self.clock, monotonic=self.clock.seconds)

    def test_earliest(self) -> None:
        """It rings once, at the earliest time that was asked for."""
        for when in (5.0, 3.0, 4.0, math.inf):
            self.alarm.at(when)
        self.clock.advance(3.0)
        self.clock.advance(10.0)
        self.assertEqual(self.rung, [3.0])

    def test_past(self) -> None:
        """What is due rings in the reactor's next turn, not within the call."""
        self.clock.advance(10.0)
        self.alarm.at(1.0)
        self.assertEqual(self.rung, [])
        self.clock.advance(0.0)
        self.assertEqual(self.rung, [10.0])

    def test_cancel(self) -> None:
        self.alarm.at(1.0)
        self.alarm.cancel()
        self.clock.advance(2.0)
        self.assertEqual((self.rung, self.clock.getDelayedCalls()), ([], []))

    @given(st.floats(0, 1e9), st.floats(0, 1e9))
    def test_never_early(self, now: float, when: float) -> None:
        """However numbers are rounded, who is called finds its time come: else it would ask for the same moment for ever."""
        clock = Clock()
        clock.advance(now)
        rung: list[float] = []
        Alarm(lambda: rung.append(clock.seconds()), reactor=clock, monotonic=clock.seconds).at(when)
        (call,) = clock.getDelayedCalls()
        clock.rightNow = max(clock.rightNow, call.getTime())
        clock.advance(0)
        self.assertEqual(len(rung), 1)
        self.assertGreaterEqual(rung[0], when)
