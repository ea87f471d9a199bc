"""`make wheels`: what it makes, and a director that runs from it in an environment of its own."""

from __future__ import annotations

import re
import shutil
import socket
import sys
import tarfile
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from deploy.packaging.deb import ROOT
from deploy.packaging.wheels import build
from tests.integration.test_cli import SERVICE, CliTestCase, Running, address, listening
from tests.packages.chroot import command, sources, without


class WheelTests(CliTestCase):
    built: ClassVar[Path]
    archive: ClassVar[Path]
    wheel: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if find_spec("auditwheel") is None:
            without("auditwheel is not installed: make test-packages")
        cls.built = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.built)
        cls.archive, cls.wheel = build(cls.built / "dist", sources(cls.built / "sources"))

    def test_names_and_contents(self) -> None:
        """One wheel for all Pythons, of a platform that others have; sources that have all that a build needs."""
        self.assertRegex(self.wheel.name, r"^txdirector-[\d.]+-cp311-abi3-(manylinux_2_\d+_\w+\.?)+\.whl$")
        with zipfile.ZipFile(self.wheel) as wheel:
            names = [name for name in wheel.namelist() if not name.endswith("/")]
        self.assertIn("director/relay/_relay.abi3.so", names)
        tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
        self.assertEqual(tops, {"agent", "cluster", "director", "twisted"})
        self.assertEqual([name for name in names if name.startswith("twisted/") and not name.startswith("twisted/plugins/txdirector")], [])
        with tarfile.open(self.archive) as archive:
            members = {name.partition("/")[2] for name in archive.getnames()}
        self.assertLessEqual({"hatch_build.py", "director/relay/_relay_module.c", "LICENSE", "README.md", "docs/tutorials/one-node.md"}, members)
        self.assertEqual({name for name in members if name.endswith((".so", ".pyc")) or name.startswith((".venv", "build/"))}, set())

    def test_a_director_of_it(self) -> None:
        """Installed where nothing else is, it serves clients with the native relay."""
        venv = self.built / "venv"
        command(sys.executable, "-m", "venv", venv)
        command(venv / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", f"{self.wheel}[director]")
        with listening() as backend:
            file = self.directory / "director.toml"
            file.write_text(SERVICE.format(port=0, host=address(backend)))
            program = str(venv / "bin/director")
            director = Running("-c", f"import os; os.chdir('/'); os.execv({program!r}, [{program!r}, 'run', {str(file)!r}])")
            self.addCleanup(director.end)
            port = director.says(r"web listens on 127\.0\.0\.1:(\d+)")[1]
            with socket.create_connection(("127.0.0.1", int(port)), 30) as client:
                served, _ = backend.accept()
                with served:
                    served.sendall(b"hello")
                    self.assertEqual(client.recv(10), b"hello")
        self.assertTrue(re.search(r"(?i)native relay|relay native|relay: native", director.output), director.output)
