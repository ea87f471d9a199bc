"""For how long a host is kept out that goes down again and again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Health
from director.core.flapping import FLAP_HALF_LIFE_S, Flapping

POLICY = Health(interval_s=2.0, flap_hold_s=10.0)


class FlappingTests(SynchronousTestCase):
    def test_doubles_up_to_the_most(self) -> None:
        """The first time costs nothing; each further one twice what the one before did, up to ``flap_hold_s``."""
        flapping, held = Flapping(0.0), []
        for _ in range(5):
            held.append(flapping.went_down(0.0, POLICY))
            flapping.came_back(0.0)
        self.assertEqual(held, [0.0, 4.0, 8.0, 10.0, 10.0])

    def test_halves_in_rotation(self) -> None:
        flapping = Flapping(0.0)
        for _ in range(2):
            flapping.went_down(0.0, POLICY)
            flapping.came_back(0.0)
        self.assertEqual(flapping.went_down(FLAP_HALF_LIFE_S, POLICY), 4.0)

    def test_forgotten(self) -> None:
        """After long enough in rotation the next time is a first one."""
        flapping = Flapping(0.0)
        for _ in range(4):
            flapping.went_down(0.0, POLICY)
            flapping.came_back(0.0)
        self.assertEqual(flapping.went_down(5 * FLAP_HALF_LIFE_S, POLICY), 0.0)

    def test_off(self) -> None:
        """Without a longest hold nobody is held."""
        policy, flapping = Health(flap_hold_s=0.0), Flapping(0.0)
        self.assertEqual([flapping.went_down(0.0, policy) for _ in range(4)], [0.0] * 4)

    def test_at_the_bound(self) -> None:
        """A penalty of which half an interval is left is one still: then it is out for twice that."""
        for after_s, held in ((FLAP_HALF_LIFE_S, 2.0), (1.2 * FLAP_HALF_LIFE_S, 0.0)):
            flapping = Flapping(0.0)
            flapping.went_down(0.0, POLICY)
            flapping.came_back(0.0)
            self.assertEqual(flapping.went_down(after_s, POLICY), held)

    def test_short_of_the_bound(self) -> None:
        """With less than half an interval left it is a first time, whatever the interval."""
        for interval_s in (1.0, 2.0, 5.0, 30.0):
            policy, flapping = Health(interval_s=interval_s, flap_hold_s=1000.0), Flapping(0.0)
            flapping.went_down(0.0, policy)
            flapping.came_back(0.0)
            self.assertEqual(flapping.went_down(1.05 * FLAP_HALF_LIFE_S, policy), 0.0)
