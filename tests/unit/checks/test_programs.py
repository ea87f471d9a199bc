"""Which programs may be run as script probes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from director.checks.programs import refusal


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory())) / "scripts"
        (self.directory / "more").mkdir(parents=True)
        for name, mode in (("good", 0o755), ("plain", 0o644), ("more/good", 0o700), ("../outside", 0o755)):
            (self.directory / name).write_text("")
            (self.directory / name).chmod(mode)

    def test_table(self) -> None:
        """Only files that can be executed, of the directory that this node names."""
        for name, why in (("good", ""), ("more/good", ""), ("more/../good", ""), ("plain", "it is not executable"),
                          ("gone", "there is no such file"), ("more", "it is no file"),
                          ("../outside", "it is not in"), ("more/../../outside", "it is not in")):
            for directory in (str(self.directory), f"{self.directory}/"):
                self.assertRegex(refusal(f"{self.directory}/{name}", directory), f"^{why}" if why else "^$", name)
        self.assertIn("it is not in", refusal(f"{self.directory}-evil/good", str(self.directory)))
        self.assertIn("names no directory", refusal(str(self.directory / "good"), None))
