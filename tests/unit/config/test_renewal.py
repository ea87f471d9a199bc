"""`director.config.init.renewal`: new dates for every certificate, and nothing else."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from director.config.files import examine
from director.config.init.authority import AUTHORITY_DAYS, Authority, NotOurs
from director.config.init.layout import Terms, layout
from director.config.init.renewal import renewed
from director.config.init.writing import replace, write_tree
from tests.unit.config.test_layout import HASH, NOW, PAIR

DAY = datetime.timedelta(days=1)


class RenewalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory())) / "cluster"
        write_tree(self.directory, layout(PAIR, Terms(str(self.directory), "admin", HASH, 30, NOW)))

    def contents(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.directory.rglob("*") if path.is_file()}

    def test_renewed(self) -> None:
        """Two for each director, one for each agent: they end later, and `check` finds their keys fit."""
        before = self.contents()
        files, _ = renewed(self.directory, days=30, now=NOW + 20 * DAY)
        self.assertEqual(self.contents(), before, "nothing is written")
        self.assertEqual(len(files), 2 * len(PAIR.directors) + len(PAIR.hosts))
        replace(files)
        after = self.contents()
        self.assertEqual({path for path in before if before[path] != after[path]}, set(files))
        for path in files:
            self.assertEqual(x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc,
                             (NOW + 50 * DAY).replace(microsecond=0))
        examine(str(self.directory / "directors/lb1/director.toml"), here=True)

    def test_refused(self) -> None:
        """The file that is not as it was made is named, and nothing is renewed."""
        foreign = Authority.made(now=NOW).issue(("a",), (), days=1, now=NOW).certificate
        for name, content in (("directors/lb2/admin.crt.pem", b"x"), ("agents/app1/agent.crt.pem", foreign),
                              ("authority/ca.pem", foreign), ("authority/ca.key.pem", b"x")):
            path = self.directory / name
            before = path.read_bytes()
            path.write_bytes(content)
            with self.assertRaises(NotOurs) as caught:
                renewed(self.directory, days=30, now=NOW)
            self.assertIn(str(path).replace("ca.key", "ca"), str(caught.exception))
            path.write_bytes(before)

    def test_authority_ended(self) -> None:
        with self.assertRaises(NotOurs) as caught:
            renewed(self.directory, days=30, now=NOW + (AUTHORITY_DAYS + 1) * DAY)
        self.assertIn("authority itself ended", str(caught.exception))

    def test_no_cluster(self) -> None:
        """A directory that is none, or that has no certificates."""
        self.assertRaises(FileNotFoundError, renewed, self.directory / "none", days=30, now=NOW)
        for path in self.directory.rglob("*.crt.pem"):
            path.unlink()
        self.assertRaises(NotOurs, renewed, self.directory, days=30, now=NOW)
