"""The pair's tutorial as printed, on bare machines that have the Debian packages."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from deploy.lab import net
from tests.chaos import guide_kit
from tests.packages.chroot import command, without
from tests.packages.test_deb import packages


class PairTests(SynchronousTestCase):
    def test_pair(self) -> None:
        """The tutorial as printed, on bare machines with what the packages bring: a redundant pair, a takeover, a scrape."""
        if reason := net.why_not() or guide_kit.why_not():
            without(reason)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            unpacked = Path(name) / "unpacked"
            for file in packages().values():
                command("dpkg-deb", "--extract", file, unpacked)
            began = time.monotonic()
            machines = guide_kit.Machines(Path(name), ("lb1", "lb2", "app1"), unpacked)
            try:
                machines.follow("tutorials/pair.md")
                ran = machines.all["lb1"].types("readlink --canonicalize $(command -v director)")
            finally:
                machines.close()
        print(f"\nthe pair's tutorial with the packages: {time.monotonic() - began:.0f} s", file=sys.__stdout__)
        self.assertEqual(ran, "/opt/txdirector-director/bin/director\n")
