"""Both relays, whatever events come together: the scenarios that relay_events.py generates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import hatch_build
from tests.contract.relay_events import EVERY, OPTIONS

ROOT = Path(__file__).parents[2]
#: That many scenarios make sense; far beyond what they take on any machine.
SCENARIOS, TIMEOUT_S = 6_974, 500


class EventTests(SynchronousTestCase):
    def check(self, kind: str, environment: dict[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.contract.relay_events", kind],
            cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        self.assertEqual(found, {"count": -(-SCENARIOS // EVERY), "wrong": [], "open": 0, "spliced": True, "leaked": 0})

    def test_python(self) -> None:
        """The Python relay delivers what a plain copy would, in order and to the end."""
        self.check("python", {})

    def test_native(self) -> None:
        """So does the native one, built so that its worker looks when it is told to."""
        with tempfile.TemporaryDirectory() as directory:
            try:
                hatch_build.build(Path(directory), (*OPTIONS, "-Werror"))
            except hatch_build.BuildFailed as why:
                if os.environ.get("CI"):
                    raise
                raise SkipTest(f"no native relay: {why}") from why
            self.check("native", {"TEST_RELAY_BUILD": directory})
