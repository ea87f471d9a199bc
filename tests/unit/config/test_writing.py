"""`director.config.init.writing`: all files or none, with their modes, and never over something."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from director.config.init.writing import AlreadyThere, File, refuse_if_there, replace, write_tree

FILES = {"a/b/key": File(b"secret", 0o600), "a/public": File(b"known"), "top": File(b"")}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class WritingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.parent = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.there = self.parent / "cluster"

    def nothing_beside(self) -> None:
        self.assertEqual([each for each in os.listdir(self.parent) if each != "cluster"], [])


class TreeTests(WritingTestCase):
    def test_written(self) -> None:
        """Everything with its mode, whatever the umask; directories with secrets are nobody else's, the others a passage."""
        for umask in (0o000, 0o077):
            before = os.umask(umask)
            try:
                write_tree(self.there / f"{umask}" if umask else self.there, FILES)
            finally:
                os.umask(before)
        self.assertEqual((self.there / "a/b/key").read_bytes(), b"secret")
        for where in (self.there, self.there / "63"):
            self.assertEqual([mode(where / name) for name in ("", "a", "a/b", "a/b/key", "a/public", "top")],
                             [0o711, 0o711, 0o700, 0o600, 0o644, 0o644])
        self.nothing_beside()

    def test_empty_directory(self) -> None:
        """One that is there and empty will do."""
        self.there.mkdir()
        refuse_if_there(self.there)
        write_tree(self.there, FILES)
        self.assertEqual((self.there / "a/public").read_bytes(), b"known")

    def test_there(self) -> None:
        """Whatever is there stays; nothing is left beside it."""
        def file() -> None:
            self.there.write_text("mine")

        def directory() -> None:
            self.there.mkdir()
            (self.there / "mine").write_text("mine")

        def link() -> None:
            self.there.symlink_to("nowhere")

        for make in (file, directory, link):
            make()
            before = sorted(os.walk(self.parent))
            self.assertRaises(AlreadyThere, refuse_if_there, self.there)
            self.assertRaises(AlreadyThere, write_tree, self.there, FILES)
            self.assertEqual(sorted(os.walk(self.parent)), before)
            self.nothing_beside()
            if self.there.is_dir():
                (self.there / "mine").unlink()
                self.there.rmdir()
            else:
                self.there.unlink()

    def test_missing_above(self) -> None:
        """Directories above it that are not there are made; on a bare machine that is /etc/txdirector. A failure leaves none."""
        self.assertRaises(OSError, write_tree, self.parent / "etc/txdirector/main", {**FILES, "x" * 300: File(b"")})
        self.assertEqual(os.listdir(self.parent), [])
        write_tree(self.parent / "etc/txdirector/main", FILES)
        self.assertEqual((self.parent / "etc/txdirector/main/a/public").read_bytes(), b"known")
        self.assertEqual(os.listdir(self.parent / "etc"), ["txdirector"])

    def test_fails_amid(self) -> None:
        """A file that cannot be written leaves nothing of the others."""
        self.assertRaises(OSError, write_tree, self.there, {**FILES, "x" * 300: File(b"")})
        self.assertEqual(os.listdir(self.parent), [])


class ReplaceTests(WritingTestCase):
    def test_replaced(self) -> None:
        """New content, the old mode; an open file keeps the old content."""
        write_tree(self.there, FILES)
        with open(self.there / "a/b/key", "rb") as held:
            replace({self.there / "a/b/key": b"new", self.there / "a/public": b"too"})
            self.assertEqual(held.read(), b"secret")
        self.assertEqual([(self.there / name).read_bytes() for name in ("a/b/key", "a/public")], [b"new", b"too"])
        self.assertEqual([mode(self.there / name) for name in ("a/b/key", "a/public")], [0o600, 0o644])

    def test_all_or_none(self) -> None:
        """One that cannot be written changes none."""
        write_tree(self.there, FILES)
        self.assertRaises(OSError, replace, {self.there / "top": b"new", self.there / "a/none": b"new"})
        self.assertEqual((self.there / "top").read_bytes(), b"")
        self.assertEqual(sorted(os.listdir(self.there)), ["a", "top"])
