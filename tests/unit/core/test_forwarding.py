"""Which reports directors forward to each other."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import HostRef
from director.core.forwarding import FRESH_S, Delta, Forwarding

A, B = HostRef("web", "blue", "a"), HostRef("web", "blue", "b")


class Side:
    """One director: what it hears, and its `Forwarding`."""

    def __init__(self) -> None:
        self.heard: dict[HostRef, float] = {}
        self.forwarding = Forwarding(lambda ref: self.heard.get(ref, -math.inf))


class MissingTests(SynchronousTestCase):
    def test_changes_only(self) -> None:
        """What is missed is told as it changes: hosts never heard, those that fell silent, those that are back."""
        side = Side()
        side.heard = {A: 0.0}
        self.assertEqual(side.forwarding.look([A, B], 1.0), Delta((B,), ()))
        self.assertEqual(side.forwarding.look([A, B], FRESH_S), Delta((), ()))
        self.assertEqual(side.forwarding.look([A, B], FRESH_S + 0.1), Delta((A,), ()))
        self.assertEqual(side.forwarding.missing, {A, B})
        side.heard[A] = 3.0
        self.assertEqual(side.forwarding.look([A, B], 3.1), Delta((), (A,)))
        self.assertEqual(side.forwarding.look([A], 3.2), Delta((), (B,)), "a host that is no more is not missed")


class DueTests(SynchronousTestCase):
    def test_each_report_once(self) -> None:
        """What a peer misses is forwarded once for each report, with its age, and only while it is fresh."""
        side = Side()
        side.forwarding.wants("d2", [A, B], [], anew=True)
        self.assertEqual(side.forwarding.due("d2", 1.0), [], "nothing was heard")
        side.heard[A] = 0.5
        self.assertEqual(side.forwarding.due("d2", 1.0), [(A, 0.5)])
        self.assertEqual(side.forwarding.due("d2", 1.5), [])
        side.heard[A] = 1.5
        self.assertEqual(side.forwarding.due("d2", 1.75), [(A, 0.25)])
        side.heard[B] = 2.0
        self.assertEqual(side.forwarding.due("d2", 2.0 + FRESH_S + 0.1), [], "too old")

    def test_nothing_for_who_misses_nothing(self) -> None:
        """Peers that hear for themselves, or are gone, get nothing; one that came back gets the last report again."""
        side = Side()
        side.heard[A] = 1.0
        self.assertEqual(side.forwarding.due("d2", 1.0), [])
        side.forwarding.wants("d2", [A], [], anew=True)
        self.assertEqual(len(side.forwarding.due("d2", 1.0)), 1)
        side.forwarding.wants("d2", [], [A], anew=False)
        side.heard[A] = 1.5
        self.assertEqual(side.forwarding.due("d2", 1.5), [])
        side.forwarding.wants("d2", [A], [], anew=True)
        self.assertEqual(len(side.forwarding.due("d2", 1.5)), 1)
        side.forwarding.left("d2")
        side.heard[A] = 2.0
        self.assertEqual(side.forwarding.due("d2", 2.0), [])


class TakeTests(SynchronousTestCase):
    def test_own_ears_first(self) -> None:
        """A forwarded report counts only while nothing of one's own is fresh."""
        side = Side()
        side.heard[A] = 1.0
        self.assertFalse(side.forwarding.take(A, 0.1, 2.0))
        self.assertTrue(side.forwarding.take(A, 0.1, 1.0 + FRESH_S + 0.1))

    def test_old_and_repeated(self) -> None:
        """What is too old, or was forwarded by another as new or newer, is no news."""
        side = Side()
        self.assertFalse(side.forwarding.take(A, FRESH_S + 0.1, 10.0))
        self.assertTrue(side.forwarding.take(A, 0.5, 10.0))
        self.assertFalse(side.forwarding.take(A, 0.6, 10.1), "the same report, by way of a third")
        self.assertFalse(side.forwarding.take(A, 1.0, 10.1))
        self.assertTrue(side.forwarding.take(A, 0.1, 10.1))

    @given(st.lists(st.tuples(st.sampled_from("12"), st.floats(0.05, 1.5)), max_size=60))
    def test_two_directors(self, beats: list[tuple[str, float]]) -> None:
        """An agent that reaches one director only, then the other, then none: between reports that are news on
        either side no age grows, and whoever hears itself takes nothing."""
        sides = {"1": Side(), "2": Side()}
        for name, side in sides.items():
            side.forwarding.wants("12".replace(name, ""), [], [], anew=True)
        now = 100.0
        for reaches, pause in beats:
            now += pause
            sides[reaches].heard[A] = now
            for name, side in sides.items():
                other = "12".replace(name, "")
                change = side.forwarding.look([A], now)
                sides[other].forwarding.wants(name, change.add, change.remove, anew=False)
            for name, side in sides.items():
                other = "12".replace(name, "")
                for ref, age_s in side.forwarding.due(other, now):
                    self.assertEqual(age_s, now - side.heard[ref])
                    fresh = now - sides[other].heard.get(ref, -math.inf) <= FRESH_S
                    self.assertIs(sides[other].forwarding.take(ref, age_s, now), not fresh)
                    self.assertFalse(fresh, "nobody forwards what is not missed")
