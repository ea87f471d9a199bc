"""`make test` on a fresh Debian brings what it needs: in a chroot with make, git and python3-venv, and nothing else.

The suite of the sanitizers, a compiler, stands for all in CI. ``FRESH_SUITE=test`` installs what `make test` needs, and runs
some of its tests there, with real servers: that is part of `make soak`; with an empty ``FRESH_TESTS`` it runs all of them.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from deploy.packaging.deb import ROOT
from tests.packages.chroot import Chroot, Failed, require, sources

SUITE = os.environ.get("FRESH_SUITE", "sanitizers")
#: Of each suite, what is there afterwards.
PROGRAMS = {"sanitizers": "gcc", "test": "etcd etcdctl faketime fish gcc haproxy ip nft nginx prometheus promtool ssh systemd-analyze zsh"}
#: Some of each kind of server; a fresh machine with all of the suite takes as long as any other.
SOME = os.environ.get("FRESH_TESTS", "tests/integration/test_proxy_protocol_haproxy.py tests/integration/test_etcd_store.py "
                      "tests/integration/test_ctl_completion.py tests/integration/test_clock.py tests/contract/test_relay_faults.py")
#: Seconds that it may take where all is there. It takes a tenth; the rest is for busy machines.
QUICK_S = 10.0


class FreshTests(SynchronousTestCase):
    chroot: ClassVar[Chroot]

    @classmethod
    def setUpClass(cls) -> None:
        require("mmdebstrap", "ip")
        cls.chroot = Chroot("make", "git", "python3-venv")
        cls.addClassCleanup(cls.chroot.remove)
        clone = sources(cls.chroot.root / "clone")
        shutil.copytree(ROOT / ".ci", clone / ".ci")

    def test_brings_its_servers(self) -> None:
        """A user is told what to install, root is not asked: it is there afterwards, nothing was started, and the next time is quick."""
        told = self.chroot.run(f"cd /clone && setpriv --reuid=nobody --regid=nogroup --clear-groups .ci/servers {SUITE}", alone=True)
        self.assertRegex(told, r"only root can: apt-get install --no-install-recommends .*gcc")
        with self.assertRaisesRegex(Failed, "only root can"):
            self.chroot.run(f"cd /clone && setpriv --reuid=nobody --regid=nogroup --clear-groups .ci/servers {SUITE}", alone=True, CI="true")
        self.assertIn("SERVERS=keep", self.chroot.run(f"cd /clone && make servers-{SUITE} SERVERS=keep", alone=True))

        said = self.chroot.run(f"cd /clone && make servers-{SUITE}")
        self.assertRegex(said, r"^apt-get install .*gcc.*\n$")
        self.chroot.run(f"for each in {PROGRAMS[SUITE]}; do command -v $each || exit 1; done")
        self.assertFalse((self.chroot.root / "usr/sbin/policy-rc.d").exists())
        began = time.monotonic()
        self.assertEqual(self.chroot.run(f"cd /clone && make servers-{SUITE}", alone=True), "")  # without a network
        self.assertLess(time.monotonic() - began, QUICK_S)

    if SUITE == "test":  # minutes: part of make soak

        def test_some_tests(self) -> None:
            """With that, tests of every kind of server run, and none is skipped."""
            environment = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
            for file in ("/etc/pip.conf", environment.get("PIP_CERT", "")):  # how this machine reaches an index
                if file and Path(file).is_file():
                    target = self.chroot.root / file.lstrip("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, target)
            said = self.chroot.run(f"cd /clone && make test JOBS=2 PYTEST_ARGS='-q {SOME}'", **environment)
            print(said)
            counted = re.search(r"(\d+) passed in", said)
            assert counted is not None, said
            self.assertNotIn("skipped", said)
