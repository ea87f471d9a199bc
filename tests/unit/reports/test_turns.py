"""Who shakes hands next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.reports.turns import BURST, KNOWN_BURST, LINE_WAIT_S, MAX_KNOWN, Turns


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns: Turns[str] = Turns(10.0, 0.0)
        for number in range(int(BURST)):
            self.assertIs(self.turns.arrive(f"first{number}", "10.0.0.1", 0.0), True)

    def test_lines_take_turns(self) -> None:
        """However long one is."""
        for number in range(9):
            self.assertIs(self.turns.arrive(f"flood{number}", "10.0.0.1", 0.0), False)
        for number in range(2):
            self.assertIs(self.turns.arrive(f"honest{number}", f"10.0.1.{number}", 0.0), False)
        self.assertEqual(self.turns.due(0.0), [])
        self.assertAlmostEqual(self.turns.wait_s(0.0) or 0.0, 0.1)
        self.assertEqual(self.turns.due(0.45), ["flood0", "honest0", "honest1", "flood1"])
        self.assertEqual(len(self.turns), 7)

    def test_a_network_of_one_machine_is_one_line(self) -> None:
        """Whatever address of its 64 bits it uses; of another network is another."""
        for who, ip in (("a", "2001:db8::1"), ("b", "2001:db8::ffff:2"), ("c", "2001:db8:0:1::1"), ("d", "fe80::1%eth0")):
            self.turns.arrive(who, ip, 0.0)
        self.assertEqual(self.turns.due(10.0), ["a", "c", "d", "b"])

    def test_known_ones_go_first(self) -> None:
        """As often as agents do, no more."""
        self.turns.arrive("waits", "10.0.0.1", 0.0)
        self.turns.proven("10.0.0.2", 0.0)
        said = [self.turns.arrive(f"agent{number}", "10.0.0.2", 0.0) for number in range(int(KNOWN_BURST) + 1)]
        self.assertEqual((said.count(True), said[-1]), (int(KNOWN_BURST), False))

    def test_no_more_are_remembered_than_there_are(self) -> None:
        """The oldest are forgotten."""
        for number in range(MAX_KNOWN + 1):
            self.turns.proven(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
        self.assertIs(self.turns.arrive("a", "10.0.0.0", 0.0), False)
        self.assertIs(self.turns.arrive("b", "10.0.0.1", 0.0), True)

    def test_lines_are_short(self) -> None:
        """One is, and all together are."""
        said = [self.turns.arrive(f"flood{number}", "10.0.0.1", 0.0) for number in range(int(10 * LINE_WAIT_S) + 5)]
        self.assertEqual(said[-5:], [None] * 5)
        for number in range(200):
            self.turns.arrive(f"other{number}", f"10.0.1.{number}", 0.0)
        self.assertEqual(len(self.turns), 100)

    @given(st.lists(st.tuples(st.sampled_from("adf"), st.integers(0, 30), st.integers(0, 3)), max_size=60))
    def test_nobody_is_lost(self, steps: list[tuple[str, int, int]]) -> None:
        """Who waits is told once, or forgotten; whatever happens."""
        turns: Turns[int] = Turns(1.0, 0.0)
        now, waiting = 0.0, set()
        for _ in range(int(BURST)):
            turns.arrive(-1, "10.0.0.0", now)
        for kind, who, where in steps:
            now += 0.5
            if kind == "a" and who not in waiting:
                if turns.arrive(who, f"10.0.0.{where}", now) is False:
                    waiting.add(who)
            elif kind == "d":
                due = turns.due(now)
                self.assertEqual(len(set(due)), len(due))
                self.assertLessEqual(set(due), waiting)
                waiting -= set(due)
            else:
                turns.forget(who)
                waiting.discard(who)
            self.assertEqual(len(turns), len(waiting))
        self.assertEqual(set(turns.due(now + 1e6)), waiting)
