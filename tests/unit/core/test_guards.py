"""The guards: hosts that hang, and hosts that draw too much."""

from __future__ import annotations

import math
from unittest import TestCase

from cluster.model import LoadReport
from director.core.host import Host
from director.core.schedulers.loadaware.guards import TRIED, WINDOW, Shares, Trial, stall
from tests.unit.core.core_pools import ref


class StallTests(TestCase):
    def test_stall(self) -> None:
        """Quiet for eight usual durations with two connections or more; a single one may just be long."""
        for own, quiet_s, usual_s, expected in (
            (0, 9.0, 0.1, 1.0), (1, 9.0, 0.1, 1.0), (2, 0.8, 0.1, 1.0), (2, 1.6, 0.1, 3.0), (50, 8.0, 0.1, 11.0),
            (5, 9.0, float("inf"), 1.0), (5, float("-inf"), 0.1, 1.0),
        ):
            self.assertAlmostEqual(stall(own, quiet_s, usual_s), expected)


class SharesTests(TestCase):
    def setUp(self) -> None:
        self.hosts = [Host(ref(f"h{n}")) for n in range(4)]
        self.shares = Shares()
        self.shares.resize(4, 4.0)

    def pick(self, number: int, count: int) -> None:
        for _ in range(count):
            self.shares.picked(self.hosts[number])

    def test_cap(self) -> None:
        """Beyond one and a half fair shares of the window a host costs at least twice, and more the further beyond."""
        self.pick(0, 3 * WINDOW // 2)
        self.assertEqual(self.shares.cap(self.hosts[0]), 1.0)
        self.pick(0, WINDOW // 2)
        self.assertEqual(self.shares.cap(self.hosts[0]), 2.0 + 10.0 * 0.5)
        self.assertEqual(self.shares.cap(self.hosts[1]), 1.0)

    def test_shares(self) -> None:
        """Whatever part of the window: ten times what is beyond one and a half fair shares, and two; without a weight, without end."""
        for count in (47, 48, 49, 61, 83, 128):
            self.setUp()
            self.pick(0, count)
            share = count / WINDOW
            self.assertAlmostEqual(self.shares.cap(self.hosts[0]), 2.0 + 10.0 * (share - 1.5) if share > 1.5 else 1.0)
        self.hosts[0].weight = 0.0
        self.assertEqual((self.shares.cap(self.hosts[0]), self.shares.cap(self.hosts[1])), (math.inf, 1.0))
        copy = self.shares.copy()
        self.shares.resize(1, 1.0)
        self.assertEqual(copy.cap(self.hosts[0]), math.inf)
        copy.picked(self.hosts[1])
        self.assertEqual(self.shares.cap(self.hosts[1]), 1.0)

    def test_window(self) -> None:
        """Picks count until as many others were made as the window holds; whose was forgotten is said."""
        self.pick(0, 4 * WINDOW - 1)
        self.assertIsNone(self.shares.picked(self.hosts[0]))
        self.assertGreater(self.shares.cap(self.hosts[0]), 2.0)
        self.assertIs(self.shares.picked(self.hosts[1]), self.hosts[0])
        self.pick(1, 4 * WINDOW - 1)
        self.assertEqual(self.shares.cap(self.hosts[0]), 1.0)
        self.assertIs(self.shares.picked(self.hosts[2]), self.hosts[1])

    def test_weights(self) -> None:
        """A fair share goes by weight."""
        self.hosts[0].weight = 3.0
        self.shares.resize(4, 6.0)
        self.pick(0, 2 * WINDOW)
        self.assertEqual(self.shares.cap(self.hosts[0]), 1.0)
        self.pick(1, 2 * WINDOW)
        self.assertGreater(self.shares.cap(self.hosts[1]), 2.0)

    def test_smaller(self) -> None:
        """A pool that shrinks forgets what its window no longer holds."""
        self.pick(0, 2 * WINDOW)
        self.pick(1, 2 * WINDOW)
        self.shares.resize(2, 2.0)
        self.assertEqual(self.shares.cap(self.hosts[0]), 1.0)
        self.assertGreater(self.shares.cap(self.hosts[1]), 2.0)


class TrialTests(TestCase):
    def test_trial(self) -> None:
        """A host that fails gets three clients between two reports, whatever the report, until one says that it does not."""
        trial = Trial()
        said: tuple[tuple[LoadReport, bool], ...] = (
            (LoadReport(errors=0.0, completions=9.0), False),
            (LoadReport(errors=0.2, completions=9.0), True),
            (LoadReport(utilisation=0.1), True),  # an agent that counts none says nothing of it
            (LoadReport(errors=0.0, rate=0.0, completions=0.0), True),
            (LoadReport(errors=0.0, rate=3.0), False),
            (LoadReport(errors=1.0, rate=3.0), True),
            (LoadReport(errors=0.19, completions=3.0), False),
        )
        for report, failing in said:
            trial.reported(report)
            caps = []
            for _ in range(5):
                caps.append(trial.factor)
                trial.picked()
            self.assertEqual(caps, [1.0, 1.0, 1.0, TRIED, TRIED] if failing else [1.0] * 5, report)
