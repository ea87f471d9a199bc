"""Script probes as far as no process is made: what it is told, what is shown of what it says, when there is none."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address, parse_address
from cluster.model import HostRef, Probe
from director.checks import child, scripts
from director.checks.probes import ProbeResult
from director.checks.scripts import Scripts, environment
from director.resources.shortages import Shortages

REF = HostRef("web", "blue", "a")


class WordsTests(SynchronousTestCase):
    def test_environment(self) -> None:
        """The host, and of the director's own environment what cannot be a secret."""
        inherited = {"PATH": "/bin", "TXDIRECTOR_TOKEN": "x", "TZ": "UTC"}
        self.assertEqual(environment(Address("192.0.2.1", 80), REF, inherited), {
            "PATH": "/bin", "TZ": "UTC", "TXDIRECTOR_SERVICE": "web", "TXDIRECTOR_GROUP": "blue", "TXDIRECTOR_HOST": "a",
            "TXDIRECTOR_ADDRESS": "192.0.2.1", "TXDIRECTOR_PORT": "80"})
        at_socket = environment(parse_address("unix:/run/a"), REF, {})
        self.assertEqual((at_socket["TXDIRECTOR_ADDRESS"], at_socket["TXDIRECTOR_PORT"]), ("/run/a", ""))
        self.assertEqual(at_socket["PATH"], os.defpath)


class ShortageTests(SynchronousTestCase):
    """What this machine lacks, or was not given, says nothing about a host."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.program = Path(self.directory) / "check"
        self.program.write_text("")
        self.program.chmod(0o755)
        self.shortages = Shortages(monotonic=self.clock.seconds)
        self.lines: list[str] = []

    def start(self, directory: str | None) -> Scripts:
        found = Scripts(directory, reactor=self.clock, monotonic=self.clock.seconds, shortages=self.shortages)
        found.startService()
        return found

    def probe(self, of: Scripts) -> ProbeResult:
        return self.successResultOf(of.probe(Address("192.0.2.1", 80), Probe(kind="script", command=(str(self.program),)), REF))

    def test_not_allowed(self) -> None:
        """There is no result; the operator is told, for as long as it goes on, and once a second."""
        def observe(event: dict[str, object]) -> None:
            if "is not probed by" in str(event.get("log_format")):
                self.lines.append(str(event["why"]))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        probing = self.start(None)
        for _ in range(5):
            self.assertIsNone(self.probe(probing).ok)
        self.assertEqual(len(self.lines), 1)
        self.assertIn("names no directory", probing.problems[0])
        self.clock.advance(scripts.PROBLEM_S)
        self.assertEqual(probing.problems, ())

    def test_no_process(self) -> None:
        """Of these the machine has no more: counted as what they are."""
        probing = self.start(self.directory)
        for error, what in ((errno.EAGAIN, "processes"), (errno.EMFILE, "descriptors"), (errno.ENOMEM, "memory")):
            with mock.patch.object(child.subprocess, "Popen", side_effect=OSError(error, "no")):
                self.assertEqual(self.probe(probing), ProbeResult(None, f"this machine is out of {what}", 0.0))
            self.assertEqual(self.shortages.counts[what, "probe"], 1)
        self.assertEqual(probing.problems, ())

    def test_not_running(self) -> None:
        probing = Scripts(self.directory, reactor=self.clock)
        self.assertEqual(self.probe(probing).detail, "cancelled")
