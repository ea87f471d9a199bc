"""The Debian packages in a fresh Debian: installed by apt, run, upgraded, purged."""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from deploy.packaging.deb import PACKAGES, ROOT, debian_version
from tests.packages.chroot import Chroot, command, require, sources, without
from tests.packages.once import once

#: Sorts after every real one.
NEXT = "999.0"
AS_DIRECTOR = "setpriv --reuid=txdirector --regid=txdirector --clear-groups"
#: Starts the director of the first configuration as its user, and waits until it answers.
BEGIN = (f"{AS_DIRECTOR} director run /etc/txdirector/director.toml >/tmp/log 2>&1 & director=$!\n"
         "until directorctl status 2>/dev/null; do kill -0 $director || { cat /tmp/log; exit 1; }; sleep 0.1; done")


def build(tree: Path, into: Path, manual: Path, *names: str) -> dict[str, Path]:
    """Packages of the sources *tree*, by name."""
    words = [sys.executable, "-m", "deploy.packaging.deb", "--into", into, "--manual", manual, *names]
    command(*words, cwd=tree, PYTHONPATH=str(tree), SOURCE_DATE_EPOCH="1700000000")
    return by_name(into)


def by_name(folder: Path) -> dict[str, Path]:
    return {file.name.partition("_")[0]: file for file in folder.glob("*.deb")}


def packages() -> dict[str, Path]:
    """Both packages, of this tree. Skip without what builds them, fail in CI."""
    if find_spec("sphinx") is None:
        without("Sphinx is not installed: make test-packages")
    require("dpkg-shlibdeps", "cc")

    def make(into: Path) -> None:
        command(sys.executable, "-m", "sphinx", "-q", "-b", "man", "-d", into / "doctrees", ROOT / "docs", into / "man", cwd=ROOT)
        build(sources(into / "sources"), into / "debs", into / "man")

    return by_name(once("packages", make) / "debs")


class DebTests(SynchronousTestCase):
    """One story: both packages on one machine, as in a laboratory."""

    now: ClassVar[dict[str, Path]]
    later: ClassVar[dict[str, Path]]

    @classmethod
    def setUpClass(cls) -> None:
        require("mmdebstrap", "dpkg-shlibdeps", "cc", "ip")
        cls.now = packages()
        directory = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, directory)
        cls.later = build(sources(directory / "later", version=NEXT), directory / "debs", next(iter(cls.now.values())).parents[1] / "man",
                          "txdirector-director")

    def install(self, *files: Path) -> str:
        for file in files:
            shutil.copy(file, self.chroot.root / "tmp")
        return self.chroot.run(f"apt-get install -y -qq --no-install-recommends {' '.join(f'/tmp/{file.name}' for file in files)}")

    def test_life(self) -> None:
        """Installed by apt they run, and start nothing; an upgrade keeps what the operator changed; a purge leaves nothing."""
        self.chroot = Chroot("logrotate")
        self.addCleanup(self.chroot.remove)
        before = self.chroot.files()
        self.install(*self.now.values())
        self.assertIn("relay native (the fastest there is)", self.chroot.run("director --version; directorctl --version; director-agent --version"))
        self.runs()
        self.cluster()
        self.surroundings()

        configuration = self.chroot.root / "etc/txdirector/director.toml"
        changed = configuration.read_text() + '\n[services.web]\nlisten = ["127.0.0.1:8080"]\n'
        configuration.write_text(changed)
        said = self.upgrades()
        self.assertRegex(said, rf"(?m)^director director, {NEXT}")
        self.assertIn(f"txdirector {NEXT}", self.chroot.run("director --version"))
        self.assertEqual(configuration.read_text(), changed)
        self.assertIn("OK", self.chroot.run(f"{AS_DIRECTOR} director check /etc/txdirector/director.toml"))
        self.assertEqual(configuration.stat().st_mode & 0o777, 0o640)

        self.assertIn("/etc/txdirector is left", self.chroot.run("apt-get purge -y -qq txdirector-agent txdirector-director"))
        self.assertTrue((self.chroot.root / "etc/txdirector/main/authority/ca.key.pem").is_file())  # the operator's own
        shutil.rmtree(self.chroot.root / "etc/txdirector")
        self.chroot.run("apt-get autoremove --purge -y -qq")
        left = {name for name, text in self.chroot.files().items() if before.get(name) != text}
        self.assertEqual({name for name in left if "director" in name or "etc/" in name}, set())

    def runs(self) -> None:
        """The director of the first configuration serves under its user, with its state where it belongs; and ends when asked."""
        said = self.chroot.run(
            f"{BEGIN}\nkill $director; wait $director; cat /tmp/log; ls /var/lib/txdirector", alone=True)
        self.assertIn("] ready\n", said)
        self.assertRegex(said, r"(?m)^state")

    def upgrades(self) -> str:
        """What the director says that serves after the next version was installed beside it, and it was told to take that up."""
        file = self.later["txdirector-director"]
        shutil.copy(file, self.chroot.root / "tmp")
        return self.chroot.run(
            f"{BEGIN}\napt-get install -y -qq --no-install-recommends /tmp/{file.name}\n"
            "directorctl status\ndirectorctl upgrade || { cat /tmp/log; exit 1; }\ndirectorctl status", alone=True)

    def cluster(self) -> None:
        """What `director init` writes passes `director check`."""
        said = self.chroot.run(
            "director init /etc/txdirector/main --director lb1=127.0.0.1 --host app1=127.0.0.1:8000\n"
            "director check /etc/txdirector/main/directors/lb1/director.toml", alone=True)
        self.assertIn("OK\n", said)

    def surroundings(self) -> None:
        """Users, completions, manual pages, rotation, units: there, and sound."""
        root = self.chroot.root
        for package in PACKAGES:
            self.assertIn(f"\n{package.user}:x:", (root / "etc/passwd").read_text())
            self.assertTrue((root / f"usr/lib/systemd/system/{package.unit}.service").is_file())
            for name in package.pages:
                self.assertTrue((root / f"usr/share/man/man{name[-1]}/{name}.gz").is_file())
            for name in package.commands:
                self.chroot.run(f"bash -n /usr/share/bash-completion/completions/{name}")
        self.assertEqual(list(root.glob("etc/systemd/system/**/*director*")), [])  # nothing was enabled
        (root / "var/log/txdirector/director.log").write_text("a line\n")
        self.chroot.run("chown txdirector: /var/log/txdirector/*; logrotate --force /etc/logrotate.d/txdirector-director")
        self.assertEqual({path.name for path in root.glob("var/log/txdirector/*")}, {"director.log", "director.log.1"})


class NamesTests(SynchronousTestCase):
    def test_versions(self) -> None:
        """Debian sorts what comes before a release before it."""
        for version, wanted in (("1.2.0", "1.2.0"), ("1.2.0rc1", "1.2.0~rc1"), ("1.2.0.dev3", "1.2.0~dev3"), ("1.2a1", "1.2~a1")):
            self.assertEqual(debian_version(version), wanted)
