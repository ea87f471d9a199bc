"""A real service under a real CPU quota."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from agent.own import OwnLoad
from agent.utilisation import Own

GROUPS = Path("/sys/fs/cgroup")
DEADLINE_S = 30.0
#: Listens, and is busy until it is told to rest.
SERVICE = """\
import socket, sys, threading
sock = socket.create_server(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
rest = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), rest.set()), daemon=True).start()
while not rest.is_set():
    sum(range(20_000))
sys.stdin.readline()
"""


class Quota:
    """A cgroup of this machine that may use a fifth of a core. Raises OSError where none can be made."""

    def __init__(self, name: str) -> None:
        self.unified = not (GROUPS / "cpuacct").is_dir()
        self.folders = [GROUPS / name] if self.unified else [GROUPS / "cpu" / name, GROUPS / "cpuacct" / name]
        for folder in self.folders:
            folder.mkdir()
        try:
            if self.unified:
                (self.folders[0] / "cpu.max").write_text("20000 100000")
            else:
                (self.folders[0] / "cpu.cfs_period_us").write_text("100000")
                (self.folders[0] / "cpu.cfs_quota_us").write_text("20000")
        except OSError:
            self.remove()
            raise

    def add(self, pid: int) -> None:
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        for folder in self.folders:
            if folder.exists():
                folder.rmdir()


class Throttled(SynchronousTestCase):
    def setUp(self) -> None:
        self.service = subprocess.Popen([sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(self.stop)
        assert self.service.stdout is not None
        self.port = int(self.service.stdout.readline())

    def stop(self) -> None:
        self.service.kill()
        self.service.communicate()

    def rest(self) -> None:
        assert self.service.stdin is not None
        self.service.stdin.write(b"\n")
        self.service.stdin.flush()

    def until(self, own: OwnLoad, holds: Callable[[Own], bool]) -> Own:
        """Sample twice a second until it *holds*; the sample of which it does."""
        give_up = time.monotonic() + DEADLINE_S
        found = None
        while time.monotonic() < give_up:
            found = own.sample()
            if found is not None and holds(found):
                return found
            time.sleep(0.5)
        raise self.failureException(f"never so; the last sample is {found}")

    def test_a_service_at_its_quota_is_full(self) -> None:
        """A fifth of a core, throttled: utilisation is within a tenth of 1, time after time; at rest nothing of the quota
        is used. The cgroup is found by the port."""
        try:
            quota = Quota(f"txdirector-test-{os.getpid()}")
        except OSError as error:
            raise SkipTest(f"no cgroup with a quota can be made here: {error}") from error
        self.addCleanup(quota.remove)
        self.addCleanup(self.stop)
        own = OwnLoad(self.port, monotonic=time.monotonic)
        quota.add(self.service.pid)
        self.until(own, lambda found: found.source == "cgroup" and found.cpu > 0.9 and (found.throttled or 0) > 0.5)
        for _ in range(3):
            found = self.until(own, lambda found: True)
            self.assertGreaterEqual(found.utilisation, 0.9)
            self.assertGreaterEqual(found.cpu, 0.9)
            time.sleep(1)
        self.rest()
        self.until(own, lambda found: found.cpu < 0.1 and found.throttled == 0.0)

    def test_a_service_without_a_cgroup(self) -> None:
        """Its processes' time is measured: one core at most of what this machine has."""
        own = OwnLoad(self.port, monotonic=time.monotonic, processes=True)
        cores = os.cpu_count() or 1
        self.until(own, lambda found: found.source == "process" and 0.1 / cores < found.cpu < 1.1 / cores)
        self.rest()
        self.until(own, lambda found: found.cpu < 0.05)

    def test_a_port_that_is_taken_over(self) -> None:
        """The next service that listens on the port is the one that is measured."""
        own = OwnLoad(self.port, monotonic=time.monotonic, processes=True)
        self.until(own, lambda found: found.cpu > 0.05)
        self.stop()
        self.assertIsNone(own.sample())
        with socket.create_server(("127.0.0.1", self.port)):
            self.until(own, lambda found: found.cpu < 0.5)
