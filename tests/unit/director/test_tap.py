"""`director.tap`: the options of ``twist director``."""

from __future__ import annotations

import os
import tempfile

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Configuration
from director.tap import Options


class OptionsTests(SynchronousTestCase):
    def parsed(self, text: str) -> Configuration:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "director.toml")
            with open(path, "w") as file:
                file.write(text)
            options = Options()
            options.parseOptions(["--config", path])
            configuration: Configuration = options["configuration"]
            return configuration

    def test_good(self) -> None:
        """The file is read when the options are parsed."""
        self.assertEqual(self.parsed('node.name = "lb1"').node.name, "lb1")

    def test_errors(self) -> None:
        """Every error of the file is a usage error, with its line."""
        with self.assertRaises(UsageError) as caught:
            self.parsed('node.nmae = "x"\nnode.store = "disk"')
        self.assertIn("director.toml:1: node.nmae", str(caught.exception))
        self.assertIn("director.toml:2: node.store", str(caught.exception))

    def test_config_is_required(self) -> None:
        """Without a file nothing runs."""
        with self.assertRaises(UsageError):
            Options().parseOptions([])
