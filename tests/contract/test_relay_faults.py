"""The native relay when memory or descriptors are refused: one connection is lost and counted, nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import hatch_build

ROOT = Path(__file__).parents[2]


class FaultTests(SynchronousTestCase):
    """Each scenario of relay_faults.py, on a build whose system calls fail on order."""

    directory: ClassVar[Any]

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.TemporaryDirectory()
        try:
            hatch_build.build(Path(cls.directory.name), ("-DRELAY_FAULTS", "-Werror"))
        except hatch_build.BuildFailed as why:
            cls.directory.cleanup()
            if os.environ.get("CI"):
                raise
            raise SkipTest(f"no native relay: {why}") from why

    @classmethod
    def tearDownClass(cls) -> None:
        cls.directory.cleanup()

    def found(self, scenario: str) -> dict[str, Any]:
        """What the scenario found; nothing leaked, and every connection had its one final event."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.contract.relay_faults", scenario],
            cwd=ROOT, env={**os.environ, "TEST_RELAY_BUILD": self.directory.name}, capture_output=True, text=True,
            timeout=120, check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        ends = {key: found.pop(key) for key in ("violations", "unfinished", "leaked")}
        self.assertEqual(ends, {"violations": [], "unfinished": [], "leaked": 0})
        return found

    def loses_one(self, scenario: str, **more: object) -> None:
        found = self.found(scenario)
        self.assertEqual(
            found, {"reason": "relay_error", "reset": [True, True], "bystander": True, "next": True, **more}
        )

    def test_read(self) -> None:
        """ENOMEM from recv."""
        self.loses_one("read_refused")

    def test_write(self) -> None:
        """ENOBUFS from send."""
        self.loses_one("write_refused")

    def test_splice(self) -> None:
        """ENOMEM or ENOBUFS from splice, into the pipe and out of it."""
        self.loses_one("splice_in_refused")
        self.loses_one("splice_out_refused")

    def test_waiting(self) -> None:
        """ENOMEM from epoll_ctl when a send blocks."""
        self.loses_one("waiting_refused")

    def test_buffer(self) -> None:
        """No memory for what a slow reader did not take."""
        self.loses_one("no_buffer")

    def test_hand_over(self) -> None:
        """ENOSPC (max_user_watches) from epoll_ctl, for either descriptor; the connect is not reported as a success."""
        self.loses_one("client_refused", connected=False)
        self.loses_one("host_refused", connected=False)

    def test_growth(self) -> None:
        """No memory for a preface, or for more connections; the many before are untouched."""
        self.loses_one("no_preface", connected=False)
        self.loses_one("no_slot", connected=False, many=True)

    def test_pipe(self) -> None:
        """EMFILE for a pipe costs nothing but speed."""
        self.assertEqual(self.found("no_pipe"), {"whole": True, "spliced": 0, "pipes": 0, "bystander": True})

    def test_start(self) -> None:
        """EMFILE at any point of the start leaves nothing behind."""
        found = self.found("cannot_start")
        self.assertTrue(found["bystander"])
        self.assertGreaterEqual(found["failures"], 7)

    def test_stuck(self) -> None:
        """A thread that does not come around owes a sign of life for ever longer, until it does."""
        self.assertEqual(self.found("held"), {"grown": True, "bystander": True})
