"""The release's workflow, as far as one can see without running it."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from deploy.packaging.deb import ROOT
from tests.packages.chroot import command
from tests.packages.test_containers import linter

FILE = ROOT / ".github/workflows/release.yml"


class WorkflowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.jobs: dict[str, Any] = yaml.safe_load(FILE.read_text())["jobs"]

    def test_schema(self) -> None:
        """GitHub's schema has no complaint, nor has shellcheck of the commands."""
        command(linter("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", FILE)
        checker = linter("shellcheck")
        for name, job in self.jobs.items():
            for step in job["steps"]:
                if script := step.get("run"):
                    script = re.sub(r"\$\{\{.*?\}\}", "EXPRESSION", script)
                    command("sh", "-c", 'printf "%s\\n" "$1" | "$2" --shell=bash -', name, script, checker)

    def test_rights(self) -> None:
        """No job may do more than it must: the token of the index is for one job only, which an approver lets run."""
        for name, job in self.jobs.items():
            self.assertIn("permissions", job, name)
            self.assertIn("timeout-minutes", job, name)
            self.assertEqual("id-token" in job["permissions"], name in ("index", "github"))
        self.assertEqual(self.jobs["index"]["environment"], "release")
        self.assertEqual({name for name, job in self.jobs.items() if job["permissions"].get("contents") == "write"}, {"github"})

    def test_whole(self) -> None:
        """Wheels of both C libraries and both machines; nothing is published before all of it was built."""
        self.assertEqual(self.jobs["wheels"]["strategy"]["matrix"], {"arch": ["x86_64", "aarch64"], "libc": ["manylinux", "musllinux"]})
        self.assertEqual(set(self.jobs["index"]["needs"]), {"sdist", "wheels", "debian", "sbom"})
        named = {re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda found, job=job: job["strategy"]["matrix"][found[1]][0], step["with"]["name"])
                 for job in self.jobs.values() for step in job["steps"] if "upload-artifact" in step.get("uses", "")}
        taken = [step["with"].get("pattern", step["with"].get("name")) for job in self.jobs.values() for step in job["steps"]
                 if "download-artifact" in step.get("uses", "")]
        for pattern in taken:
            for part in pattern.strip("{}").split(","):
                self.assertTrue([name for name in named if name.startswith(part.rstrip("*"))], f"{part}: {named}")

    def test_date(self) -> None:
        """What an archive says of its age is the commit's, wherever and whenever it is built; `make deb` sees to it itself."""
        for name in ("sdist", "wheels"):
            steps = self.jobs[name]["steps"]
            dated = next(at for at, step in enumerate(steps) if "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)" in step.get("run", ""))
            builds = next(at for at, step in enumerate(steps) if "cibuildwheel" in step.get("uses", "") or "-m build" in step.get("run", ""))
            self.assertLess(dated, builds)
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]["linux"]
        self.assertEqual(settings["environment-pass"], ["SOURCE_DATE_EPOCH"])
