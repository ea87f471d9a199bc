"""The relays' contract as an ordinary user, for whom the kernel counts pipes."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parents[2]


class OrdinaryUserTests(SynchronousTestCase):
    def test_contract(self) -> None:
        """Everything in test_relay.py passes as user nobody, and nothing is skipped; outside of CI, what uses pipes."""
        if os.getuid() != 0:
            raise SkipTest("this user is an ordinary one already: test_relay.py itself is this test")
        nobody = pwd.getpwnam("nobody")
        with tempfile.TemporaryDirectory() as directory:
            os.chown(directory, nobody.pw_uid, nobody.pw_gid)
            # With one privilege left, of opening files, because the interpreter may lie in root's home.
            left = "-all,+dac_override"
            command = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups",
                       f"--inh-caps={left}", f"--ambient-caps={left}", sys.executable, "-m", "pytest", "-q",
                       "-p", "no:cacheprovider", "--basetemp", f"{directory}/t", "tests/contract/test_relay.py",
                       *([] if os.environ.get("CI") else ["-k", "pipes or both_ways or boundary or stall"])]
            done = subprocess.run(
                command, cwd=ROOT, env={**os.environ, "HOME": directory, "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True, text=True, timeout=300, check=False,
            )
        self.assertRegex(done.stdout, re.compile(r"^\d+ passed(, \d+ deselected)? in [^,]+$", re.M), done.stdout + done.stderr)
