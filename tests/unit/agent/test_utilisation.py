"""How busy a service is, of what it could have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from agent.cgroups import Ticks
from agent.utilisation import Level, Reading, Use, use


def busy(own: float, *, machine: float, cores: int = 2, seconds: float = 1.0, allowed: frozenset[int] | None = None,
         **levels: tuple[float, float | None, int]) -> Use | None:
    """The use of a service that took *own* cores while each of the machine's was *machine* busy. Levels: quota, cores used
    and periods throttled of ten a second."""
    before = Reading(5.0, "web", 100.0, {name: Level(quota, None if used is None else 7.0, 40, 3)
                                         for name, (quota, used, _) in levels.items()},
                     dict.fromkeys(range(cores), Ticks(1000, 2000)), allowed)
    after = Reading(5.0 + seconds, "web", 100.0 + own * seconds, {
        name: Level(quota, None if used is None else 7.0 + used * seconds, 40 + round(10 * seconds), 3 + stops)
        for name, (quota, used, stops) in levels.items()
    }, dict.fromkeys(range(cores), Ticks(1000 + round(1000 * seconds * (1 - machine)), 2000 + round(1000 * seconds))), allowed)
    return use(before, after)


class Shares(SynchronousTestCase):
    def assert_use(self, found: Use | None, utilisation: float, own: float | None = None,
                   throttled: float | None = None) -> None:
        assert found is not None
        self.assertAlmostEqual(found.utilisation, utilisation, places=2)
        if own is not None:
            self.assertAlmostEqual(found.own, own, places=2)
        self.assertEqual(found.throttled, throttled)

    def test_throttled_at_a_fifth_of_a_core(self) -> None:
        """At its quota it is at 100 %, though the machine is at 10 %."""
        self.assert_use(busy(0.2, machine=0.1, web=(0.2, 0.2, 9)), 1.0, 1.0, 0.9)
        self.assert_use(busy(0.1, machine=0.05, web=(0.2, 0.1, 0)), 0.5, 0.5, 0.0)

    def test_alone_on_a_machine(self) -> None:
        """Without quotas: the machine's share."""
        for share in (0.0, 0.25, 0.85, 1.0):
            self.assert_use(busy(2 * share, machine=share), share, share)

    def test_a_noisy_neighbour(self) -> None:
        """Nothing left: 1. Some left: own use of what it and the rest make."""
        self.assert_use(busy(0.3, machine=1.0), 1.0, 0.15)
        self.assert_use(busy(0.5, machine=0.75), 0.5, 0.25)
        self.assert_use(busy(0.3, machine=1.0, web=(1.0, 0.3, 0)), 1.0, 0.3, 0.0)

    def test_a_full_machine_is_nobodys(self) -> None:
        """An idle service on a machine that others fill is not idle; the change is gradual."""
        self.assert_use(busy(0.0, machine=1.0), 1.0)
        self.assert_use(busy(0.0, machine=0.95), 0.5)
        self.assert_use(busy(0.0, machine=0.9), 0.0)

    def test_siblings_below_one_quota(self) -> None:
        """What a sibling takes of the parent's quota is not to be had."""
        self.assert_use(busy(0.2, machine=0.5, web=(0.5, 0.2, 0), above=(1.0, 1.0, 10)), 1.0, 0.4, 1.0)
        self.assert_use(busy(0.2, machine=0.3, web=(0.8, 0.2, 0), above=(1.0, 0.6, 0)), 1 / 3, 0.25, 0.0)

    def test_the_tighter_ancestor(self) -> None:
        """A wide quota below a narrow one is as good as the narrow one."""
        self.assert_use(busy(0.1, machine=0.05, web=(2.0, 0.1, 0), above=(0.2, 0.1, 0)), 0.5, 0.5, 0.0)

    def test_a_level_of_unknown_use(self) -> None:
        """A level that does not tell its use has at least the service's own."""
        self.assert_use(busy(0.1, machine=0.05, above=(0.2, None, 0)), 0.5, 0.5, 0.0)

    def test_pinned_to_some_cpus(self) -> None:
        """Only the CPUs that the service may use count."""
        before = Reading(0.0, "web", 0.0, {}, {0: Ticks(0, 0), 1: Ticks(0, 0)}, frozenset({1}))
        after = Reading(1.0, "web", 0.5, {}, {0: Ticks(0, 100), 1: Ticks(50, 100)}, frozenset({1}))
        self.assert_use(use(before, after), 0.5, 0.5)

    def test_a_quota_that_changed(self) -> None:
        """The new one holds."""
        machine = {0: Ticks(0, 0)}, {0: Ticks(80, 100)}
        before = Reading(0.0, "web", 0.0, {"own": Level(0.4, 0.0)}, machine[0])
        after = Reading(1.0, "web", 0.2, {"own": Level(0.2, 0.2)}, machine[1])
        self.assert_use(use(before, after), 1.0, 1.0, 0.0)
        self.assert_use(use(before._replace(levels={}), after), 1.0, 1.0, 0.0)

    def test_what_tells_nothing(self) -> None:
        """Another service, no time, a counter that began anew, no CPU in common: None."""
        before = Reading(0.0, "web", 5.0, {}, {0: Ticks(0, 0)})
        after = Reading(1.0, "web", 5.5, {}, {0: Ticks(50, 100)})
        self.assertIsNotNone(use(before, after))
        for other in (after._replace(who="db"), after._replace(at=0.01), after._replace(used_s=4.0),
                      after._replace(machine={1: Ticks(50, 100)}), after._replace(machine=before.machine),
                      after._replace(allowed=frozenset({7}))):
            self.assertIsNone(use(before, other))

    @given(st.floats(0, 8), st.floats(0, 1), st.integers(1, 64), st.floats(0.01, 64), st.floats(0, 64), st.integers(0, 10))
    def test_always_a_share(self, own: float, machine: float, cores: int, quota: float, used: float, stops: int) -> None:
        """Whatever is read, all figures are shares."""
        found = busy(own, machine=machine, cores=cores, web=(quota, used, stops))
        assert found is not None and found.throttled is not None
        for figure in found:
            self.assertTrue(0.0 <= figure <= 1.0, found)
