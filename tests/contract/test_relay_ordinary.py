"""What an ordinary user's relays may do less of than root's, for whom the kernel counts no pipes: move bulk through them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase
from twisted.trial.util import DEFAULT_TIMEOUT_DURATION

from tests.contract.relay_kit import ORDINARY

ROOT = Path(__file__).parents[2]
#: What takes pipes from the pool, fills them or waits with them. The rest of the contract asks for nothing that a user may
#: lack; what exceeds the quota (`test_without_pipes`, `test_more_streams_than_pipes`) becomes an ordinary user by itself.
TAKE_PIPES = (
    "test_both_ways_at_once", "test_counters", "test_fin_behind_a_stall", "test_reset_behind_a_stall",
    "test_sizes_around_every_boundary", "test_stalled_readers",
)
CLASSES = ("PythonRelayTests", "NativeRelayTests", "NativeRelayThreadsTests")
#: Each test ends by itself after trial's own timeout, however slow the machine: only a run that hangs takes longer.
TIMEOUT_S = len(TAKE_PIPES) * len(CLASSES) * DEFAULT_TIMEOUT_DURATION


class OrdinaryUserTests(SynchronousTestCase):
    def test_contract(self) -> None:
        """Every relay moves bulk through pipes as a user without rights, too, and nothing is skipped."""
        if os.getuid() != 0:
            raise SkipTest("this user is an ordinary one already: test_relay.py itself is this test")
        wanted = [f"tests/contract/test_relay.py::{kind}::{name}" for kind in CLASSES for name in TAKE_PIPES]
        with tempfile.TemporaryDirectory() as directory:
            os.chown(directory, ORDINARY, ORDINARY)
            # With one privilege left, of opening files, because the interpreter may lie in root's home.
            left = "-all,+dac_override"
            command = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups",
                       f"--inh-caps={left}", f"--ambient-caps={left}", sys.executable, "-m", "pytest", "-q",
                       "-p", "no:cacheprovider", "--basetemp", f"{directory}/t", *wanted]
            done = subprocess.run(
                command, cwd=ROOT, env={**os.environ, "HOME": directory, "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )
        self.assertRegex(done.stdout, rf"(?m)^{len(wanted)} passed in [^,]+$", done.stdout + done.stderr)
