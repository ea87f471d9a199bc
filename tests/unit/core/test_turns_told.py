"""Turnarounds on their way from a relay's tallies to schedulers and weights, through the inventory."""

from __future__ import annotations

from director.core.host import Host
from director.core.schedulers.simple import RoundRobin
from director.core.weighing import look_at_turns
from director.relay.turnarounds import Turnarounds
from tests.unit.core.inventory_kit import InventoryTestCase


class Tally:
    """A host's, as the test counts."""

    number = 1

    def __init__(self) -> None:
        self.total, self.seconds, self.unasked = 0, 0.0, 0

    def read(self) -> Turnarounds:
        return Turnarounds(self.total, self.seconds, self.unasked)

    def free(self) -> None: ...


class ToldTests(InventoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.web("a", "b")
        self.told: list[tuple[str, int, float]] = []
        self.tallies = {name: Tally() for name in "ab"}
        for name, tally in self.tallies.items():
            self.entry(name).tally = tally
        case = self

        class Listening(RoundRobin):
            def turned(self, host: Host, count: int, total_s: float, now: float) -> None:
                case.told.append((host.ref.host, count, total_s))

        self.group = self.inventory.services["web"].groups["blue"]
        self.group.pool.replace_scheduler(Listening())

    def second(self, name: str, count: int, seconds: float = 0.0, unasked: int = 0) -> None:
        tally = self.tallies[name]
        tally.total += count
        tally.seconds += seconds
        tally.unasked += unasked
        self.now += 1.0
        self.inventory.clean_up(self.now)

    def test_scheduler(self) -> None:
        """Each second, of each host, how many more and how long they took; nothing of those without any, agents or none."""
        self.second("a", 10, 0.5)
        self.second("b", 1, 2.0)
        self.second("b", 0)
        self.second("a", 4, 0.25)
        self.second("a", 6, 0.25)
        self.assertEqual(self.told, [("a", 10, 0.5), ("b", 1, 2.0), ("a", 4, 0.25), ("a", 6, 0.25)])

    def test_implausible(self) -> None:
        """Where hosts mostly speak unasked, schedulers hear no more of their turnarounds."""
        for _ in range(20):
            self.second("a", 1, 9.0, unasked=10)
        self.assertEqual(self.group.seen.why, "hosts speak without being asked")
        self.assertLess(len(self.told), 5)

    def test_weights(self) -> None:
        """Agents that say nothing but how busy their machines are, and turnarounds: weights move apart."""
        for _ in range(30):
            self.second("a", 100, 1.0)
            self.second("b", 50, 1.0)
            for name in "ab":
                self.report(name, utilisation=0.5)
        self.inventory.recompute(self.now + 1.0)
        self.assertApproximates(self.entry("a").host.weight / self.entry("b").host.weight, 2.0, 0.01)

    def test_looking_twice(self) -> None:
        """A look that finds nothing new tells nothing."""
        self.second("a", 10, 0.5)
        look_at_turns(self.group, iter, self.now)
        self.assertEqual(len(self.told), 1)
