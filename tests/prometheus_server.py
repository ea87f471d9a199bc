"""A real Prometheus with the configuration that we ship, and its tool."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any
from unittest import SkipTest

from tests.etcd_server import free_port

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
SHIPPED = Path(__file__).parents[1] / "deploy/prometheus"
#: Lets it die with the test run, should that be killed.
_TIED = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
#: What has not happened by then never will; far beyond what a loaded machine needs.
DEADLINE_S = 30.0


def require_prometheus() -> None:
    """Skip where it is not installed, fail in CI."""
    if PROMETHEUS is None or PROMTOOL is None:
        if os.environ.get("CI") == "true":
            raise AssertionError("Prometheus is not installed: apt-get install prometheus")
        raise SkipTest("needs prometheus and promtool: apt-get install prometheus")


def promtool(*words: str) -> str:
    """What it says. It must succeed."""
    done = subprocess.run([str(PROMTOOL), *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """A process with the shipped files, but for the places of its targets and secrets, and scraping each second."""

    def __init__(self, folder: Path, *, targets: list[str], ca: str, password: str) -> None:
        self._folder = folder
        shutil.copytree(SHIPPED / "rules", folder / "rules")
        (folder / "password").write_text(password)
        text = (SHIPPED / "prometheus.yml").read_text()
        for pattern, instead in (
            (r"(?<=_interval: )15s", "1s"), (r"(?<=scrape_timeout: )10s", "1s"), (r"(?<=ca_file: )\S+", ca),
            (r"(?<=password_file: )\S+", str(folder / "password")), (r"(?<=targets: )\[\"10.*\]", json.dumps(targets)),
        ):
            text, count = re.subn(pattern, instead, text)
            assert count, pattern
        self.config = folder / "prometheus.yml"
        self.config.write_text(text)
        self._url = f"http://127.0.0.1:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it answers."""
        with (self._folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*_TIED, str(PROMETHEUS), f"--config.file={self.config}", f"--storage.tsdb.path={self._folder / 'data'}",
                 f"--web.listen-address={self._url.removeprefix('http://')}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        deadline = time.monotonic() + DEADLINE_S
        while not self._ready():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def log(self) -> str:
        """Its last words."""
        return (self._folder / "log").read_text("utf-8", "replace")[-3000:]

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API, which must be a success."""
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=20) as answer:
                said = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None
        assert said["status"] == "success" and not said.get("warnings"), (parameters, said)
        return said["data"]

    def query(self, expression: str) -> list[Any]:
        """The samples of an expression, which must be one without fault."""
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def wait_for(self, expression: str) -> list[Any]:
        """Its samples, as soon as there are some."""
        deadline = time.monotonic() + DEADLINE_S
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, \
                f"no data: {expression}; {self.query('ALERTS')}; {self.ask('targets')['activeTargets']}"
            time.sleep(0.1)
        return found

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
