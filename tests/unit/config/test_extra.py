"""`director.config.extra`: a director without its dependencies says what to install."""

from __future__ import annotations

import sys

from click.testing import CliRunner
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from director.cli import main
from director.config import extra
from director.tap import Options


class MissingTests(SynchronousTestCase):
    def hide(self, name: str) -> None:
        hidden = dict.fromkeys([name, *(each for each in sys.modules if each.startswith(f"{name}."))])
        patch = dict(sys.modules) | hidden
        self.patch(sys, "modules", patch)

    def test_complete(self) -> None:
        """Nothing is missing here."""
        self.assertEqual(extra.missing(), "")

    def test_missing(self) -> None:
        """Commands and plugin name the absent module and the extra to install, and do nothing else."""
        self.hide("prometheus_client")
        for command in ("run", "check"):
            result = CliRunner().invoke(main, [command, "nowhere.toml"])
            self.assertEqual(result.exit_code, 1)
            self.assertIn("prometheus_client", result.output)
            self.assertIn("pip install 'txdirector[director]'", result.output)
        with self.assertRaises(UsageError) as caught:
            Options().parseOptions(["--config", "nowhere.toml"])
        self.assertIn("txdirector[director]", str(caught.exception))

    def test_others_work(self) -> None:
        """The version and tokens need no extra."""
        self.hide("prometheus_client")
        self.assertEqual(CliRunner().invoke(main, ["--version"]).exit_code, 0)
        self.assertEqual(CliRunner().invoke(main, ["token"]).exit_code, 0)
