"""Passwords of probes: files of one directory."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from director.checks.passwords import MAX_BYTES, Passwords
from director.tls.dialling import Unfit


class PasswordTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.passwords = Passwords(str(self.folder))

    def test_read(self) -> None:
        """Without the end of its line, and as it is now."""
        for content, password in ((b"secret", "secret"), (b"secret\n", "secret"), (b" a b \r\n", " a b "), ("pä\n".encode(), "pä")):
            (self.folder / "pg").write_bytes(content)
            self.assertEqual((self.passwords.of("pg"), self.passwords.missing("pg")), (password, ""))

    def test_none(self) -> None:
        """Why there is none; a pipe that nobody writes to does not hold the director."""
        os.mkfifo(self.folder / "pipe")
        for name, content in (("empty", b"\n"), ("long", b"x" * (MAX_BYTES + 1)), ("binary", b"\xff\xfe")):
            (self.folder / name).write_bytes(content)
        for name in ("missing", "empty", "long", "binary", "pipe", ".", ".."):
            self.assertRaises(Unfit, self.passwords.of, name)
            self.assertTrue(self.passwords.missing(name), name)
        self.assertEqual(Passwords(None).missing("pg"), "node.probe_passwords is not set")
