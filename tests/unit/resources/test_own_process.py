"""The process's own figures are those of prometheus-client's collector, by name, type and value."""

from __future__ import annotations

import os
from unittest.mock import patch

from prometheus_client import CollectorRegistry, ProcessCollector
from twisted.trial.unittest import SynchronousTestCase

from director.resources.own_process import OwnProcess


class OwnProcessTests(SynchronousTestCase):
    def test_as_everywhere(self) -> None:
        ours, theirs = OwnProcess(), ProcessCollector(registry=CollectorRegistry())
        expected = {each.name: (each.type, each.samples[0]) for each in theirs.collect()}
        found = {each.name: (each.type, each.samples[0]) for each in ours.collect()}
        self.assertEqual({name: kind for name, (kind, _) in found.items()}, {name: kind for name, (kind, _) in expected.items()})
        for name, (_, sample) in found.items():
            other = expected[name][1]
            self.assertEqual(sample.name, other.name)
            self.assertLess(abs(sample.value - other.value), max(2.0, 0.05 * other.value), name)

    def test_lists_nothing(self) -> None:
        """Where the kernel counts descriptors, a scrape does not list them, however many there are."""
        if not os.stat("/proc/self/fd").st_size:
            self.skipTest("Linux counts them since 6.2")
        with patch("os.listdir", side_effect=AssertionError("listed")):
            list(OwnProcess().collect())
