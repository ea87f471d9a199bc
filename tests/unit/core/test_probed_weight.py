"""What a host's own word about its weight is worth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Health, Probe, Service
from director.core.capacity import DRIFT_S, EXPIRY_S, MEDIAN_AGE_S, STALE_S
from director.core.probed_weight import LEAST_FACTOR, MOST_FACTOR, ProbedWeights
from tests.unit.core.inventory_kit import InventoryTestCase, group


class FactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.weights: ProbedWeights[str] = ProbedWeights()

    def said(self, *weights: float | None) -> list[float]:
        """The factors of hosts that say so; None is a host that says nothing."""
        for index, weight in enumerate(weights):
            self.weights.answered(f"h{index}", weight, self.now)
        self.now += MEDIAN_AGE_S
        return [self.weights.factor(f"h{index}", self.now) for index in range(len(weights))]

    def test_beside_the_median(self) -> None:
        """Weights count beside each other; who says nothing is as the median, who says 0 gets nobody."""
        for weights, factors in (
            ((3.0, 3.0, 3.0), [1.0, 1.0, 1.0]), ((1.0, 1.0, 4.0), [1.0, 1.0, 4.0]), ((100.0, 50.0, None), [4 / 3, 2 / 3, 1.0]),
            ((0.0, 5.0, 5.0), [0.0, 1.0, 1.0]), ((0.0, 0.0, 5.0), [0.0, 0.0, 1.0]), ((None, None), [1.0, 1.0]),
        ):
            self.weights = ProbedWeights()
            self.assertEqual(self.said(*weights), factors, weights)

    def test_nobody_is_meant(self) -> None:
        """When all say 0, all are as good as any, and at once."""
        self.assertEqual(self.said(0.0, 0.0), [1.0, 1.0])
        self.assertEqual(self.said(0.0, 2.0), [0.0, 1.0])
        self.weights.answered("h1", 0.0, self.now)
        self.assertEqual(self.weights.factor("h0", self.now), 1.0)

    def test_bounds(self) -> None:
        self.assertEqual(self.said(1.0, 1.0, 1000.0, 0.001), [1.0, 1.0, MOST_FACTOR, LEAST_FACTOR])
        self.assertEqual((MOST_FACTOR, LEAST_FACTOR), (32.0, 1 / 32))

    def test_age_of_the_median(self) -> None:
        """It is less than a twentieth of a second old, and of what was said within three minutes."""
        for host, weight in (("a", 1.0), ("b", 1.0)):
            self.weights.answered(host, weight, 0.0)
        self.assertEqual(self.weights.factor("a", 0.0), 1.0)
        self.weights.answered("b", 3.0, 0.0)
        self.assertEqual([self.weights.factor("a", now) for now in (0.04, 0.05)], [1.0, 0.5])
        for now, factor in ((179.0, 1.5), (180.0, 1.0)):
            self.weights.answered("b", 3.0, now)
            self.assertEqual(self.weights.factor("b", now), factor)

    def test_age(self) -> None:
        """What was said long ago drifts to 1, a 0 too, and leaves the median."""
        self.said(4.0, 0.0, 1.0, 1.0)
        begun = self.now - MEDIAN_AGE_S
        for age_s, factors in ((STALE_S, [4.0, 0.0]), (STALE_S + DRIFT_S / 2, [2.5, 0.5]), (STALE_S + DRIFT_S, [1.0, 1.0])):
            self.now = begun + age_s
            for host in ("h2", "h3"):
                self.weights.answered(host, 1.0, self.now)
            self.assertEqual([self.weights.factor(host, self.now) for host in ("h0", "h1")], factors)
        self.now = begun + EXPIRY_S
        for host in ("h2", "h3"):
            self.weights.answered(host, 3.0, self.now)
        self.assertEqual(self.weights.factor("h2", self.now + 1), 1.0)

    def test_what_is_too_old_to_compare_with(self) -> None:
        """From the limit on, however long ago: a host that alone said something since is compared with itself."""
        for age_s, factor in ((EXPIRY_S - 1.0, 4.0), (EXPIRY_S, 1.0), (EXPIRY_S + 1.0, 1.0), (10 * EXPIRY_S, 1.0)):
            self.setUp()
            self.said(1.0, 1.0)
            now = 100.0 + age_s
            self.weights.answered("h2", 4.0, now)
            self.assertEqual(self.weights.factor("h2", now), factor)

    def test_says_no_more(self) -> None:
        """An answer without it, or a host that has gone, is forgotten."""
        self.said(4.0, 1.0, 1.0)
        self.assertTrue(self.weights.answered("h0", None, self.now))
        self.assertFalse(self.weights.answered("h0", None, self.now))
        self.assertEqual(self.weights.factor("h0", self.now), 1.0)
        self.weights.discard("h1")
        self.weights.discard("h1")
        self.assertEqual(set(self.weights.keys), {"h2"})

    @given(st.lists(st.none() | st.floats(0, 1000), min_size=1, max_size=8), st.floats(0, 400))
    def test_always_bounded(self, weights: list[float | None], age_s: float) -> None:
        """Whatever hosts say, and however long ago; and never everybody 0."""
        self.setUp()
        for index, weight in enumerate(weights):
            self.weights.answered(f"h{index}", weight, self.now)
        factors = [self.weights.factor(f"h{index}", self.now + age_s) for index in range(len(weights))]
        self.assertTrue(all(factor == 0 or LEAST_FACTOR <= factor <= MOST_FACTOR for factor in factors if age_s <= STALE_S))
        self.assertTrue(all(0 <= factor <= MOST_FACTOR for factor in factors))
        self.assertGreater(max(factors), 0)


class InventoryTests(InventoryTestCase):
    """The factor in a host's effective weight."""

    def setUp(self) -> None:
        super().setUp()
        probe = Probe(kind="http", weight_header=True)
        health = Health(jitter=0.0, slow_start_s=0.0, probe=probe)
        self.apply(Service(groups={"blue": group("a", "b", "c", health=health)}))

    def probed(self, name: str, weight: float | None, ok: bool = True) -> None:
        self.inventory.probe_result(self.entry(name), ok, "", 0.0, self.now, weight)

    def weights(self) -> dict[str, float]:
        self.now += 1.0
        self.inventory.clean_up(self.now)
        return {entry.ref.host: entry.host.weight for entry in self.inventory.hosts.values()}

    def test_weight(self) -> None:
        """It holds once a probe has passed; a failed one leaves it; 0 takes the host out of rotation."""
        for name, weight in (("a", 2.0), ("b", 1.0), ("c", 1.0)):
            self.probed(name, weight)
        self.assertEqual(self.weights(), {"a": 2.0, "b": 1.0, "c": 1.0})
        self.probed("a", None, ok=False)
        self.assertEqual(self.weights()["a"], 2.0)
        self.probed("a", 0.0)
        self.assertEqual(self.rotation(), {"b", "c"})
        self.probed("a", None)
        self.assertEqual(self.weights()["a"], 1.0)

    def test_beside_other_factors(self) -> None:
        """It multiplies what the agent asks for."""
        for name in "abc":
            self.probed(name, 2.0 if name == "a" else 1.0)
        self.report("a", weight=0.5)
        self.now += 0.1
        self.inventory.recompute(self.now)
        self.assertEqual(self.entry("a").host.weight, 1.0)

    def test_stale(self) -> None:
        """By itself, with the time, though the host has no agent."""
        self.probed("a", 3.0)
        self.probed("b", 1.0)
        self.probed("c", 1.0)
        self.now += STALE_S + DRIFT_S
        self.assertEqual(self.weights()["a"], 1.0)
