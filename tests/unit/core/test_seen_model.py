"""Windows and their rates beside a model that keeps every look and reads the description anew each time."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.core.seen import Seen, Totals, Window

LOOKS = st.lists(
    st.tuples(
        st.integers(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.0, 1.0, 2.0, 10.0, 60.0]),  # host, and seconds since the last look
        st.tuples(st.sampled_from([0, 0, 1, 3, 8, 40]), st.sampled_from([0, 0, 1, 9, 30]), st.sampled_from([0, 1, 2, 3, 20]),
                  st.sampled_from([0, 0, 0, 1, 3])),  # turnarounds, unasked bursts, ended, failed
        st.integers(0, 40), st.none() | st.sampled_from([0.0, 0.25, 1.0]), st.none() | st.sampled_from([0.0, 3.0, 50.0, 4000.0]),
        st.integers(1, 5),
    ),
    min_size=1, max_size=25,
)


class Look(NamedTuple):
    at: float
    totals: Totals
    utilisation: float | None


class Model:
    def __init__(self) -> None:
        self.looks: dict[int, list[Look]] = {}  # since the window's begin, that one included
        self.own: dict[int, float] = {}
        self.agents: dict[int, float | None] = {}
        self.windows: dict[int, Window] = {}
        self.evidence = [0.0, 0.0, 0.0]
        self.judged_at: float | None = None
        self.source, self.why = "turnarounds", ""

    def judge(self, turned: int, unasked: int, finished: int, now: float) -> None:
        kept = 0.0 if self.judged_at is None else math.exp((self.judged_at - now) / 60.0)
        self.judged_at = now
        turns, bursts, ends = self.evidence = [kept * old + new for old, new in
                                               zip(self.evidence, (turned, unasked, finished), strict=True)]
        if turns + bursts + ends < 10.0:
            return
        counted = self.source == "turnarounds"
        self.why = ("hosts speak without being asked" if bursts > turns * (1.0 if counted else 0.5)
                    else "connections end without an answer" if turns < ends * (0.5 if counted else 0.75) else "")
        if bool(self.why) is counted:
            self.source = "connections" if self.why else "turnarounds"
            for looks in self.looks.values():
                del looks[:-1]

    def reported(self, key: int, look: Look, in_flight: float | None) -> Window | None:
        if key not in self.looks:
            self.looks[key], self.own[key], self.agents[key] = [look], look.totals.in_flight, in_flight
            return None
        looks = self.looks[key]
        kept = math.exp((looks[-1].at - look.at) / 10.0)
        self.own[key] = kept * self.own[key] + (1 - kept) * look.totals.in_flight
        agents = self.agents[key]
        self.agents[key] = in_flight if in_flight is None or agents is None else kept * agents + (1 - kept) * in_flight
        looks.append(look)
        first, lasted = looks[0].totals, look.at - looks[0].at
        turns, failed = look.totals.turnarounds - first.turnarounds, look.totals.failed - first.failed
        done = (turns if self.source == "turnarounds" else look.totals.finished - first.finished) + failed
        if lasted < 0.5 or done < 3:
            if lasted >= 10.0:
                del looks[:-1]
            return None
        known = [(one.at - before.at, one.utilisation) for before, one in pairwise(looks)
                 if one.utilisation is not None]
        known_s = sum(seconds for seconds, _ in known)
        self.windows[key] = Window(
            self.source, done, done / lasted * self.scale(key),  # type: ignore[arg-type]
            sum(seconds * busy for seconds, busy in known) / known_s if known_s else None,
            failed / done, (look.totals.seconds - first.seconds) / turns if turns else None)
        del looks[:-1]
        return self.windows[key]

    def scale(self, key: int) -> float:
        agents = self.agents.get(key)
        return 1.0 if agents is None else min(max((agents + 2.0) / (self.own[key] + 2.0), 1.0), 16.0)


class ModelTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(LOOKS)
    def test_like_its_model(self, steps: list[tuple[int, float, tuple[int, int, int, int], int, float | None, float | None, int]]
                            ) -> None:
        """Whatever hosts do and agents say, each window, what it counts and by how much it is scaled are as described."""
        seen: Seen[int] = Seen()
        model = Model()
        totals = [Totals(turnarounds=7, seconds=3.0), Totals()]
        now = 500.0
        for key, pause, (turned, unasked, finished, failed), own, utilisation, agents, times in steps:
            for _ in range(times):
                now += pause
                before = totals[key]
                after = totals[key] = Totals(before.turnarounds + turned, before.seconds + 0.125 * turned, before.unasked + unasked,
                                             before.finished + finished, before.failed + failed, own)
                seen.judge(before, after, now)
                model.judge(turned, unasked, finished, now)
                self.assertEqual((seen.source, seen.why), (model.source, model.why))
                found = seen.reported(key, after, utilisation, agents, now)
                expected = model.reported(key, Look(now, after, utilisation), agents)
                self.assertEqual(found is None, expected is None)
                for each in (0, 1):
                    self.same(seen.window(each), model.windows.get(each))
                    self.assertAlmostEqual(seen.scale(each), model.scale(each), 9)
                words = "rates count turnarounds" if not model.why else f"connections that ended, not turnarounds: {model.why}"
                self.assertIn(words if model.windows else "", seen.words)
                self.assertEqual(bool(seen.words), bool(model.windows))

    def same(self, window: Window | None, expected: Window | None) -> None:
        if window is None or expected is None:
            self.assertIs(window, expected)
            return
        self.assertEqual(window[:2], expected[:2])
        for one, other in zip(window[2:], expected[2:], strict=True):
            if one is None or other is None:
                self.assertIs(one, other)
            else:
                self.assertTrue(math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12), f"{window} {expected}")
