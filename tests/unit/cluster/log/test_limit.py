"""`cluster.log.limit`: the first of a storm pass, the rest is counted, nothing is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.log.limit import BURST, EVERY_S, LONGEST_SUMMARY_S, HeldBack, LogLimit

EVENTS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.01, 0.3, 2.0, 70.0])), max_size=200)


def storm(limit: LogLimit[str], *, seconds: int, each_s: int) -> tuple[int, list[tuple[int, HeldBack[str]]]]:
    """How many passed of *each_s* events a second, and the summaries with the second in which they came."""
    passed, summaries = 0, []
    for second in range(seconds):
        summaries += [(second, each) for each in limit.due(second)]
        for number in range(each_s):
            passed += limit.passes("a", second + number / each_s, f"{second}.{number}")
    return passed, summaries


class LimitTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Bursts pass, storms do not, and what comes seldom always passes."""
        for burst, every_s, seconds, each_s, passed in (
            (20, 5.0, 1, 20, 20),  # a burst
            (20, 5.0, 1, 200, 20),  # a storm
            (20, 5.0, 100, 60, 20 + 19),  # an endless one
            (1, 1.0, 10, 1, 10),  # as often as the bucket is filled
            (1, 1.0, 10, 100, 10),  # at most one a second
            (1, 5.0, 10, 1, 2),
        ):
            found, _ = storm(LogLimit(burst=burst, every_s=every_s), seconds=seconds, each_s=each_s)
            self.assertEqual(found, passed, (burst, every_s, seconds, each_s))

    def test_summaries(self) -> None:
        """The first summary comes a second after the first that was held, each later one after twice as long."""
        _, summaries = storm(LogLimit(burst=1, every_s=1000.0), seconds=300, each_s=2)
        self.assertEqual([second for second, _ in summaries], [2, 4, 8, 16, 32, 64, 124, 184, 244])
        self.assertEqual(summaries[1][1], HeldBack(4, 2.0, "3.1"))

    def test_over(self) -> None:
        """A quiet interval ends a storm: the next one is summed up after a second again."""
        limit: LogLimit[str] = LogLimit(burst=1, every_s=1000.0)
        storm(limit, seconds=60, each_s=2)
        self.assertEqual(len(limit.due(200.0)), 1)
        self.assertEqual(limit.due(200.0 + LONGEST_SUMMARY_S), [])
        self.assertIsNone(limit.next_due())
        limit.passes("a", 500.0, "late")
        self.assertEqual(limit.next_due(), 501.0)

    def test_kinds(self) -> None:
        """A storm of one kind takes no other kind's place."""
        limit: LogLimit[str] = LogLimit()
        storm(limit, seconds=1, each_s=100)
        self.assertTrue(limit.passes("b", 1.0, ""))

    def test_bounded(self) -> None:
        """Kinds beyond the maximum share one bucket; those that are quiet again give their room back."""
        limit: LogLimit[str] = LogLimit(burst=1, every_s=5.0, max_kinds=3)
        self.assertEqual([limit.passes(number, 0.0, "") for number in range(6)], [True] * 4 + [False] * 2)
        self.assertEqual([limit.passes(number, 100.0, "") for number in range(3)], [True] * 3)
        self.assertTrue(limit.passes(99, 200.0, ""))

    @given(EVENTS)
    def test_none_lost(self, events: list[tuple[int, float]]) -> None:
        """Of each kind, those that passed and those in summaries are all; none passes beyond its bucket."""
        limit: LogLimit[int] = LogLimit(burst=2, every_s=1.0, max_kinds=4)
        now, passed, counted = 0.0, 0, 0
        for kind, later in events:
            now += later
            counted += sum(each.held for each in limit.due(now))
            passed += limit.passes(kind, now, kind)
        rest = limit.rest(now)
        self.assertEqual(passed + counted + sum(each.held for each in rest), len(events))
        self.assertTrue(all(each.held > 0 for each in rest))
        self.assertLessEqual(passed, 5 * (2 + now))
        self.assertEqual(limit.rest(now), [])

    @given(EVENTS)
    def test_told_in_time(self, events: list[tuple[int, float]]) -> None:
        """While anything is held back a summary is due within the longest interval."""
        limit: LogLimit[int] = LogLimit(burst=1)
        now = 0.0
        for kind, later in events:
            now += later
            limit.due(now)
            if not limit.passes(kind, now, kind):
                due = limit.next_due()
                self.assertTrue(due is not None and now <= due <= now + LONGEST_SUMMARY_S)

    def test_defaults(self) -> None:
        """An endless storm of the defaults costs a line in five seconds, and a summary a minute."""
        passed, summaries = storm(LogLimit(), seconds=3600, each_s=60)
        self.assertLessEqual(passed + len(summaries), BURST + 3600 / EVERY_S + 3600 / LONGEST_SUMMARY_S + 10)
