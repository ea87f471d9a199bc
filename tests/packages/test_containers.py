"""The container files: linted, whole, and the files that the compose file's cluster starts with."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from deploy.packaging.deb import ROOT
from tests.packages.chroot import command, without
from tests.prometheus_server import promtool, require_prometheus

CONTAINERS = ROOT / "deploy/containers"
COMMANDS = Path(sys.executable).parent


def linter(name: str) -> str:
    """Its path. Skip where it is not installed, fail in CI."""
    found = shutil.which(name, path=str(COMMANDS))
    return found or without(f"{name} is not installed: make test-packages")


class LintTests(SynchronousTestCase):
    def test_containerfile(self) -> None:
        """hadolint has no complaint."""
        command(linter("hadolint"), CONTAINERS / "Containerfile")

    def test_compose(self) -> None:
        """The compose file is one by its schema; what it mounts and builds is there; images have versions."""
        command(linter("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", CONTAINERS / "compose.yaml")
        whole: dict[str, Any] = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())
        targets = set(re.findall(r"^FROM \S+ AS (\w+)", (CONTAINERS / "Containerfile").read_text(), re.M))
        for name, service in whole["services"].items():
            for volume in service.get("volumes", ()):
                source = volume.partition(":")[0]
                self.assertTrue((CONTAINERS / source).exists() if source.startswith(".") else source in whole["volumes"], f"{name}: {volume}")
            if "build" in service:
                self.assertIn(service["build"]["target"], targets)
                self.assertTrue((CONTAINERS / service["build"]["context"] / service["build"]["dockerfile"]).is_file())
            else:
                self.assertRegex(service["image"], r":v?\d+\.\d+\.\d+$")
            for needed in service.get("depends_on", ()):
                self.assertIn(needed, whole["services"])

    def test_context(self) -> None:
        """All that the images copy from here passes .dockerignore."""
        kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (CONTAINERS / "Containerfile").read_text(), re.M)
        self.assertEqual({word for words in copied for word in words.split()}, kept)

    def test_scripts(self) -> None:
        """shellcheck has no complaint of what packages, containers and CI run."""
        scripts = [CONTAINERS / "prepare", *(ROOT / "deploy/debian" / name for name in ("postinst", "prerm", "postrm")),
                   *(path for path in (ROOT / ".ci").iterdir() if path.read_bytes().startswith(b"#!"))]
        command(linter("shellcheck"), *scripts)


class PrepareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.cluster, self.prometheus = self.directory / "cluster", self.directory / "prometheus"
        self.prometheus.mkdir()

    def prepare(self) -> str:
        return command(CONTAINERS / "prepare", self.cluster, self.prometheus, ROOT / "deploy/prometheus", PATH=f"{COMMANDS}:{os.environ['PATH']}")

    def test_once(self) -> None:
        """It makes a sound configuration for each director and for Prometheus, and changes nothing that is there."""
        said = self.prepare()
        self.assertIn("with the password", said)
        for name in ("lb1", "lb2"):
            file = self.cluster / "directors" / name / "director.toml"
            # the names are those of containers; what their ports need is not of this machine
            text = re.sub(r'"lb([12]):', r'"127.0.0.\1:', file.read_text())
            file.write_text(text)
            done = subprocess.run([COMMANDS / "director", "check", file], capture_output=True, text=True, timeout=60, check=False)
            self.assertIn("OK\n", done.stdout, done.stderr)
            self.assertIn("[node.admin.users.prometheus]", text)
        configuration = self.prometheus / "prometheus.yml"
        text = configuration.read_text()
        self.assertIn('targets: ["lb1:7401", "lb2:7401"]', text)
        if not os.getuid():
            self.assertEqual(stat.S_IMODE((self.prometheus / "txdirector.password").stat().st_mode), 0o400)
            self.assertEqual({path.stat().st_uid for path in (self.cluster / "directors").rglob("*")}, {10001})
        self.assertEqual(self.prepare(), "")
        self.assertEqual(configuration.read_text(), text)
        require_prometheus()
        configuration.write_text(text.replace("/etc/prometheus/", f"{self.prometheus}/"))
        promtool("check", "config", str(configuration))
