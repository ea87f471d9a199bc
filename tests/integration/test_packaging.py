"""What an installation has: both plugins, and the native relay or a word about its absence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parents[2]
NOT_SOURCES = shutil.ignore_patterns(".*", "build", "dist", "*.so", "__pycache__", "results")


class Failed(Exception):
    """A command did; says what it printed."""


def run(*command: str | Path, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], env={**os.environ, "TXDIRECTOR_NATIVE": "", **env}, capture_output=True, text=True, timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(done.stdout + done.stderr)
    return done.stdout + done.stderr


class PackagingTests(SynchronousTestCase):
    """On a copy of the sources, so that nothing that was built before is there."""

    directory: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = Path(tempfile.mkdtemp())
        cls.sources = cls.directory / "sources"
        shutil.copytree(ROOT, cls.sources, ignore=NOT_SOURCES)
        try:
            run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", cls.directory, "hatchling")
        except Failed as why:
            cls.tearDownClass()
            if os.environ.get("CI"):
                raise
            raise SkipTest(f"no package index to build with: {why}") from why

    @classmethod
    def tearDownClass(cls) -> None:
        shutil.rmtree(cls.directory)

    def wheel(self, **env: str) -> tuple[Path, str]:
        """Build one; returns it, and what was said."""
        into = Path(tempfile.mkdtemp(dir=self.directory))
        said = run(sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "-w", into, self.sources, **env)
        [wheel] = into.glob("txdirector-*.whl")
        return wheel, said

    def installed(self, *what: str | Path) -> Path:
        """The commands of a fresh virtual environment with this in it."""
        venv = Path(tempfile.mkdtemp(dir=self.directory))
        run(sys.executable, "-m", "venv", venv)
        pip = (venv / "bin" / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt")
        run(*pip, *what, TXDIRECTOR_NATIVE="require")
        return venv / "bin"

    def is_whole(self, commands: Path) -> None:
        plugins = run(commands / "twist", "--help")
        self.assertRegex(plugins, r"(?m)^ +director +\S")
        self.assertRegex(plugins, r"(?m)^ +director-agent +\S")
        self.assertIn("relay native (the fastest there is)", run(commands / "director", "--version"))

    def test_wheel(self) -> None:
        """A wheel with the extension is a platform's; installed, it has both plugins and the native relay."""
        wheel, _ = self.wheel(TXDIRECTOR_NATIVE="require")
        self.assertRegex(wheel.name, r"-cp311-abi3-linux_\w+\.whl$")
        self.is_whole(self.installed(f"{wheel}[director]"))

    def test_editable(self) -> None:
        """So has an editable install."""
        self.is_whole(self.installed("-e", f"{self.sources}[director]"))

    def test_without_a_compiler(self) -> None:
        """Without a compiler the wheel is anybody's, and the build says what is missing; unless it is required."""
        wheel, said = self.wheel(CC="no-such-compiler")
        self.assertTrue(wheel.name.endswith("-py3-none-any.whl"), wheel.name)
        self.assertIn("building without the native relay: no-such-compiler: No such file or directory", said)
        with self.assertRaisesRegex(Failed, "no-such-compiler"):
            self.wheel(CC="no-such-compiler", TXDIRECTOR_NATIVE="require")
