"""Probes come in time, in order, and not all in one turn."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from director.checks.probe_loop import REST_S, START_BATCH, ProbeLoop


class LoopTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.started: list[tuple[Any, float]] = []
        self.loop = ProbeLoop(reactor=self.clock, monotonic=self.clock.seconds)
        self.loop.startService()

    def schedule(self, key: Hashable, at: float) -> None:
        self.loop.schedule(key, at, lambda: self.started.append((key, self.clock.seconds())))

    def test_in_order_with_one_timer(self) -> None:
        """Every key is called once at its time, and there is never more than one timer."""
        for key, at in (("b", 2.0), ("a", 1.0), ("c", 2.0), ("past", -1.0)):
            self.schedule(key, at)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([0, 1, 1, 1])
        self.assertEqual(self.started, [("past", 0), ("a", 1), ("b", 2), ("c", 2)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_thousands_share_looks(self) -> None:
        """Of many keys none is called early or later than a rest, and the reactor is woken once for all that come in one."""
        timers: list[float] = []
        call_later = self.clock.callLater

        def counted(delay: float, *rest: Any) -> Any:
            timers.append(delay)
            return call_later(delay, *rest)

        self.patch(self.clock, "callLater", counted)
        for number in range(1000):
            self.schedule(number, 1 + number / 1000)
        self.clock.pump([0.001] * 2100)
        self.assertEqual(sorted(key for key, _ in self.started), list(range(1000)))
        for key, at in self.started:
            self.assertTrue(0 <= at - (1 + key / 1000) <= REST_S + 0.002, (key, at))
        self.assertLess(len(timers), 150)

    def test_replaced_and_forgotten(self) -> None:
        """The last schedule of a key counts, whether earlier or later; a forgotten key is not called."""
        self.schedule("a", 1)
        self.schedule("a", 3)
        self.schedule("b", 3)
        self.schedule("b", 2)
        self.schedule("c", 1)
        self.loop.forget("c")
        self.loop.forget("never known")
        self.clock.pump([1, 1, 1, 1])
        self.assertEqual(self.started, [("b", 2), ("a", 3)])

    def test_stop_and_start(self) -> None:
        """A stopped loop has no timer and calls nobody; started again it catches up."""
        self.schedule("a", 1)
        self.loop.stopService()
        self.schedule("b", 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(5)
        self.loop.startService()
        self.clock.advance(0)
        self.assertEqual(self.started, [("a", 5), ("b", 5)])

    def test_many_at_once(self) -> None:
        """Ten thousand keys due together are started in batches, so that the reactor gets its turns."""
        for key in range(10_000):
            self.schedule(key, 1)
        between: list[int] = []
        self.clock.callLater(1, lambda: between.append(len(self.started)))
        self.clock.advance(1)
        self.assertEqual(between, [START_BATCH])
        self.assertEqual([key for key, _ in self.started], list(range(10_000)))

    def test_superseded_entries_do_not_pile_up(self) -> None:
        """A key scheduled over and over costs bounded memory."""
        for at in range(10_000):
            self.schedule("a", 10_000 - at)
        self.assertLess(len(self.loop._heap), 100)

    def test_broken_start(self) -> None:
        """A start that raises is logged and stops nobody else."""
        self.loop.schedule("bad", 0, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        self.schedule("good", 0)
        self.clock.advance(0)
        self.assertEqual(self.started, [("good", 0)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
