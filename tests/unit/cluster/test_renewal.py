"""Certificates that are renewed under a running process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import ConfigError
from cluster.pem import PemFiles
from cluster.renewal import EXPIRY_WARNING_S, LOOK_S, REMIND_S, Renewed
from tests.integration.pki import Authority


class Renewals(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority(self.folder)
        self.clock = Clock()
        self.wall = 0.0
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def issue(self, days: float = 365.0) -> None:
        self.certificate, self.key = self.authority.issue("d1.example", days=days)

    def renewed(self) -> Renewed[Any]:
        def make(files: PemFiles) -> Any:
            return files.identity(self.certificate, self.key).get("certificate")

        renewed = Renewed("tls", (self.certificate, self.key, None), make, monotonic=self.clock.seconds,
                          wall=lambda: self.wall)
        assert renewed.expires is not None
        self.wall = renewed.expires - 365 * 86400.0
        return renewed

    def said(self, level: str) -> list[str]:
        said = [str(formatEvent(event)) for event in self.logged if event["log_level"].name == level]
        self.logged.clear()
        return said

    def test_new_files_are_used_from_then_on(self) -> None:
        """Within the time between two looks, and not before: a handshake costs no look."""
        self.issue()
        renewed = self.renewed()
        before = renewed.current()
        self.issue()
        self.assertIs(renewed.current(), before)
        self.clock.advance(LOOK_S)
        after = renewed.current()
        self.assertNotEqual(after, before)
        self.assertEqual(self.said("info"), ["tls: the certificates were read again"])
        self.clock.advance(LOOK_S)
        self.assertIs(renewed.current(), after)
        self.assertEqual((renewed.problem, self.said("info")), ("", []))

    def test_a_file_put_in_place_of_another_is_new(self) -> None:
        """Though its time and its length are the same."""
        self.issue()
        renewed = self.renewed()
        before = renewed.current()
        old = [(path, os.stat(path)) for path in (self.certificate, self.key)]
        kept = [Path(path).rename(path + ".old") for path, _ in old]
        self.issue()
        for path, stat in old:
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        self.assertTrue(renewed.look())
        self.assertNotEqual(renewed.current(), before)
        self.assertTrue(all(path.exists() for path in kept))

    def test_what_is_of_no_use_changes_nothing_and_is_told(self) -> None:
        """Half of a pair, rubbish, nothing: once in the log, as a problem until it is mended; then all is well."""
        self.issue()
        renewed = self.renewed()
        before, good_key = renewed.current(), Path(self.key).read_bytes()
        certificate = Path(self.certificate).read_bytes()
        self.issue()
        Path(self.key).write_bytes(good_key)  # the certificate is new, its key not yet there
        for spoil in (lambda: None, lambda: Path(self.key).write_bytes(b"rubbish"), lambda: Path(self.key).unlink()):
            spoil()
            for _ in range(3):
                self.clock.advance(LOOK_S)
                self.assertIs(renewed.current(), before)
            (line,) = self.said("error")
            self.assertIn("what was read before stays in use", line)
            self.assertEqual((line, renewed.broken), (renewed.problem, line))
        Path(self.certificate).write_bytes(certificate)
        Path(self.key).write_bytes(good_key)
        self.assertTrue(renewed.look())
        self.assertEqual((renewed.current(), renewed.problem), (before, ""))

    def test_an_end_that_comes_near(self) -> None:
        """A problem from two weeks on, and a line a day; a renewal ends both."""
        self.issue()
        renewed = self.renewed()
        assert renewed.expires is not None
        self.wall = renewed.expires - EXPIRY_WARNING_S - 1
        renewed.look()
        self.assertEqual((renewed.problem, self.said("warn")), ("", []))
        for left, words in ((EXPIRY_WARNING_S - 60, "expires in 14.0 days"), (0.0, "has expired")):
            self.wall = renewed.expires - left
            for _ in range(3):
                renewed.look()
            (line,) = self.said("warn")
            self.assertEqual(line, f"tls: the certificate {words}")
            self.assertEqual(renewed.problem, line)
            self.clock.advance(REMIND_S)
        self.issue(days=1000.0)
        renewed.look()
        self.assertEqual((renewed.problem, self.said("warn")), ("", []))

    def test_reading_anyway(self) -> None:
        """On request; nothing that is the same is told as new."""
        self.issue()
        renewed = self.renewed()
        self.assertFalse(renewed.look(anyway=True))
        self.issue()
        self.assertTrue(renewed.look(anyway=True))

    def test_at_the_start_no_old_ones_are_there(self) -> None:
        """So it is an error."""
        self.issue()
        Path(self.key).write_bytes(b"")
        self.assertRaises(ConfigError, self.renewed)
