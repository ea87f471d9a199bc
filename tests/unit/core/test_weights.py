"""Effective weights and the ramp of slow start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.core.weights import RAMP_STEPS, SHORTEST_STEP_S, SLOW_START_FLOOR, effective, next_step_s, slow_start

seconds = st.floats(0, 1e5)


class SlowStartTests(SynchronousTestCase):
    def test_table(self) -> None:
        """The ramp is linear from a tenth to all of the weight."""
        for elapsed_s, ramp_s, expected in [
            (0.0, 10.0, 0.1), (5.0, 10.0, 0.55), (10.0, 10.0, 1.0), (11.0, 10.0, 1.0),
            (0.0, 0.0, 1.0), (1e9, 10.0, 1.0), (-1.0, 10.0, 0.1),
        ]:
            self.assertAlmostEqual(slow_start(elapsed_s, ramp_s), expected, msg=f"{elapsed_s} of {ramp_s}")

    @given(seconds, seconds, seconds)
    def test_bounds_and_order(self, first: float, second: float, ramp_s: float) -> None:
        """It never leaves its bounds and never falls as time passes."""
        before, after = slow_start(min(first, second), ramp_s), slow_start(max(first, second), ramp_s)
        self.assertTrue(SLOW_START_FLOOR <= before <= after <= 1.0)

    def test_steps(self) -> None:
        """Another look is due a twentieth later, at the end at the latest, but never sooner than 50 ms."""
        for elapsed_s, ramp_s, expected in [
            (0.0, 10.0, 0.5), (9.8, 10.0, 0.2), (10.0, 10.0, None), (20.0, 10.0, None),
            (0.0, 0.0, None), (0.0, 0.2, SHORTEST_STEP_S), (0.19, 0.2, SHORTEST_STEP_S),
        ]:
            step = next_step_s(elapsed_s, ramp_s)
            if expected is None:
                self.assertIsNone(step)
            else:
                self.assertAlmostEqual(step, expected, msg=f"{elapsed_s} of {ramp_s}")

    @given(st.floats(0.01, 1e4))
    def test_steps_lead_to_the_end(self, ramp_s: float) -> None:
        """Following the steps ends at the full weight after a bounded number of them."""
        elapsed_s, steps = 0.0, 0
        while (step := next_step_s(elapsed_s, ramp_s)) is not None:
            elapsed_s += step
            steps += 1
            self.assertLessEqual(steps, RAMP_STEPS + 2)
        self.assertEqual(slow_start(elapsed_s, ramp_s), 1.0)


class EffectiveTests(SynchronousTestCase):
    def test_table(self) -> None:
        """The factors multiply; those not given are 1."""
        self.assertEqual(effective(3.0), 3.0)
        self.assertAlmostEqual(effective(4.0, 0.5, 0.1, 0.25), 0.05)

    @given(st.floats(1 / 32, 2), st.floats(0.1, 1), st.floats(0, 1))
    def test_zero_is_an_order(self, capacity: float, ramp: float, agent: float) -> None:
        """A configured weight of 0, or the agent's, is exactly 0 whatever the rest."""
        self.assertEqual(effective(0.0, capacity, ramp, agent), 0.0)
        self.assertEqual(effective(5.0, capacity, ramp, 0.0), 0.0)
