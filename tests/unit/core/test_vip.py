"""When a director may hold virtual addresses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.core.vip import CARRIER_S, OUTLIVES_S, REFRESH_S, VALID_S, Act, Carrier, Custody, linger_s, needed_s


class CarrierTests(SynchronousTestCase):
    def test_lost(self) -> None:
        """A carrier is lost when it stayed away for its time; one that comes back begins anew."""
        carrier = Carrier()
        for now, running, lost in ((0.0, True, False), (1.0, False, False), (1.0 + CARRIER_S / 2, False, False),
                                   (1.01 + CARRIER_S, False, True), (2.0, True, False), (2.1, False, False)):
            self.assertIs(carrier.lost(now, running), lost, now)


class CustodyTests(SynchronousTestCase):
    def test_taken_refreshed_dropped(self) -> None:
        """Taken once while leading, refreshed while the lease lasts, dropped as soon as the right is gone."""
        custody = Custody(OUTLIVES_S)
        steps = [(0.0, 2.0, Act.TAKE), (0.25, 1.75, Act.REFRESH), (0.5, 1.35, Act.REFRESH), (0.75, 1.34, Act.NOTHING),
                 (1.0, 2.0, Act.REFRESH), (1.25, 0.0, Act.DROP), (1.5, 0.0, Act.NOTHING)]
        for now, right_s, act in steps:
            self.assertIs(custody.step(now, right_s, leads=right_s > 0), act, now)

    def test_taken_anew_after_it_lapsed(self) -> None:
        """What was not refreshed for its lifetime has to be told to the neighbours again."""
        custody = Custody(OUTLIVES_S)
        custody.step(0.0, 2.0, leads=True)
        self.assertIs(custody.step(0.9, 0.5, leads=True), Act.NOTHING)
        self.assertIs(custody.step(float(VALID_S), 2.0, leads=True), Act.TAKE)

    def test_only_the_leader_takes(self) -> None:
        """Promises let an owner keep what it holds; they give nothing to anybody."""
        custody = Custody(OUTLIVES_S)
        self.assertIs(custody.step(0.0, 5.0, leads=False), Act.NOTHING)
        custody.step(0.0, 2.0, leads=True)
        self.assertIs(custody.step(0.25, 5.0, leads=False), Act.REFRESH)

    def test_waits_for_a_lingering_address(self) -> None:
        """What a former owner's kernel may show still is waited for."""
        custody = Custody(0.5)
        custody.gained(10.0, 0.7)
        self.assertIs(custody.step(10.6, 1.0, leads=True), Act.NOTHING)
        self.assertIs(custody.step(10.75, 1.0, leads=True), Act.TAKE)

    @given(st.floats(1, 60))
    def test_gone_before_another_takes(self, ttl_s: float) -> None:
        """The last refresh, with the longest that a kernel keeps an address, ends no later than the next owner's wait."""
        self.assertLessEqual(OUTLIVES_S, needed_s(ttl_s) + linger_s(ttl_s) + 1e-9)
        self.assertLess(needed_s(ttl_s), ttl_s)

    @given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 3), st.booleans()), max_size=40))
    def test_never_beyond_the_right(self, steps: list[tuple[float, float, bool]]) -> None:
        """Whatever happens: nothing is added while less than the needed right is left, and what is held without any
        right is dropped in that very step."""
        custody, now = Custody(OUTLIVES_S), 0.0
        for pause, right_s, leads in steps:
            now += pause
            act = custody.step(now, right_s, leads=leads)
            if act in (Act.TAKE, Act.REFRESH):
                self.assertGreaterEqual(right_s, OUTLIVES_S)
            if right_s <= 0:
                self.assertFalse(custody.held)

    def test_refreshed_often_enough(self) -> None:
        """Three refreshes may be missed before the kernel forgets."""
        self.assertLess(3 * REFRESH_S, VALID_S)
