"""The guides as printed: three bare machines, a redundant pair, a takeover, a scrape; then the how-tos on that pair."""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from deploy.lab import net
from tests.chaos import guide_kit
from tests.chaos.guide_kit import DOCS, TOOK, Machines

PAIR = "tutorials/pair.md"


class GuideTests(SynchronousTestCase):
    """All on one pair, which each leaves as it found it; after a failure the next one makes another."""

    directory: ClassVar[tempfile.TemporaryDirectory[str]]
    machines: ClassVar[Machines | None] = None
    said: ClassVar[str]  #: by the tutorial

    @classmethod
    def setUpClass(cls) -> None:
        reason = net.why_not() or guide_kit.why_not()
        if reason:
            if os.environ.get("CI") == "true":
                raise AssertionError(reason)
            raise SkipTest(reason)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.forget()

    @classmethod
    def forget(cls) -> None:
        if GuideTests.machines is not None:
            GuideTests.machines.close()
            GuideTests.machines = None
            cls.directory.cleanup()

    def setUp(self) -> None:
        if GuideTests.machines is None:
            GuideTests.directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            GuideTests.machines = Machines(Path(self.directory.name), ("lb1", "lb2", "app1"))
            GuideTests.said = self.follow(PAIR)
        self.addCleanup(self.pair_is_well)

    def pair_is_well(self) -> None:
        """Somebody leads, the directors are linked, both hosts are up, and the virtual address answers."""
        if GuideTests.machines is None:
            return  # the failure is told already
        self.types("lb1", "until directorctl cluster | grep 'leads, term'; do sleep 0.2; done\n"
                          "until [ $(directorctl cluster --json | grep -c '\"linked\": true') = 1 ]; do sleep 0.2; done\n"
                          "until [ $(directorctl hosts | grep -c ' up ') = 2 ]; do sleep 0.2; done")
        self.types("app1", "until curl -sS -m 2 http://10.0.0.100:8080/; do sleep 0.2; done")

    def types(self, machine: str, text: str) -> str:
        assert self.machines is not None
        try:
            return self.machines.all[machine].types(text)
        except BaseException:
            self.forget()
            raise

    def follow(self, page: str, on: str = "") -> str:
        """What is said on the way."""
        assert self.machines is not None
        began = time.monotonic()
        try:
            said = self.machines.follow(page, on)
        except BaseException:
            self.forget()
            raise
        TOOK.append(f"{page}: {len(said)} blocks in {time.monotonic() - began:.0f} s")
        if os.environ.get("GUIDES_SAY"):
            print("\n".join(said))
        return "\n".join(said)

    def test_pair(self) -> None:
        """The tutorial ends with a redundant pair, a takeover, a scrape and a look by etcdctl."""
        for said in (r"lb1 leads, term", r"10\.0\.0\.100 is at lb1", r"(?m)^hello from app1$", r"(?m)^hello from app2$",
                     r"UP +10\.0\.0\.12/24 10\.0\.0\.100/24", r"(?m)^ *\d+ no answer$", r"lb2 leads, term",
                     r'"value":\[[\d.]+,"2"\]', r'"instance":"10\.0\.0\.12:7401","job":"txdirector"},"value":\[[\d.]+,"1"\]',
                     r'(?m)^{"name":"lb1","boot_id"', r'(?m)^{"name":"lb2","boot_id":"\w+","since"', r'{"listen":\["0\.0\.0\.0:8080"\]'):
            self.assertRegex(GuideTests.said, said)

    def test_add_a_host(self) -> None:
        self.follow("operations/add-a-host.md")
        for machine in ("lb1", "lb2"):  # whose first processes are gone: the other pages know their ids
            self.types(machine, "pkill -f 'director run'; while pgrep -f 'director run'; do sleep 0.1; done; . ./start-director")

    def test_drain(self) -> None:
        self.follow("operations/drain.md")

    def test_certificates(self) -> None:
        self.follow("operations/certificates.md")

    def test_quorum(self) -> None:
        for machine in ("lb1", "app1"):
            self.types(machine, "kill -9 $(cat etcd.pid)")
        self.follow("operations/etcd-quorum.md")

    def test_backup(self) -> None:
        self.follow("operations/backup.md")

    def test_data(self) -> None:
        for machine in ("lb1", "lb2", "app1"):
            self.types(machine, "kill -9 $(cat etcd.pid); rm -rf /var/lib/etcd/main")
        self.follow("operations/etcd-data.md")

    def test_replace_a_director(self) -> None:
        assert self.machines is not None
        self.machines.all["lb2"].power_off()
        self.machines.all["lb2"].power_on()
        # Nobody types within the second in which etcd has no leader, where a change waits until etcdctl gives up.
        self.machines.all["lb1"].types("until etcdctl put leader there; do sleep 1; done\netcdctl del leader\n")
        self.follow("operations/replace-a-director.md")

    def test_rename_a_host(self) -> None:
        self.follow("operations/rename-a-host.md")

    def test_canaries(self) -> None:
        """On a service as the page's file has it."""
        (file, *_) = re.findall(r"^```toml\n(.*?)^```", (DOCS / "operations/canaries.md").read_text(), flags=re.M | re.S)
        self.types("lb1", f"cat >canaries.toml <<'EOF'\n{file}EOF\ndirectorctl export >before.toml\n"
                          "directorctl apply canaries.toml --yes")
        self.follow("operations/canaries.md", on="lb1")
        self.types("lb1", "directorctl apply before.toml --yes")

    def test_grafana(self) -> None:
        """Its files go where a Grafana of Debian's layout looks for them."""
        self.types("app1", "mkdir -p /etc/grafana/provisioning/dashboards /etc/grafana/provisioning/datasources\ncd ~/txdirector")
        self.follow("operations/alerts.md", on="app1")
        self.assertIn("overview.json", self.types("app1", "cd; ls /var/lib/grafana/dashboards/txdirector"))
