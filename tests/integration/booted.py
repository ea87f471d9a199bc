"""systemd as the first process of its own namespaces, with this checkout's director in it (``boot``)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.trial.unittest import SkipTest

ROOT = Path(__file__).parents[2]
BOOT = Path(__file__).with_name("boot")
SYSTEMD = Path("/lib/systemd/systemd")
#: To boot, or for a unit to get where it should, on a machine with much else to do.
DEADLINE_S = 90.0


def require(program: str, package: str) -> None:
    """:raises SkipTest: it is not installed, or nobody may boot anything here; where nothing may be skipped, a failure."""
    why = "needs root, to make namespaces" if os.geteuid() else ""
    if shutil.which(program) is None:
        why = f"needs {program}: apt-get install {package}"
    if why and os.environ.get("CI") == "true":
        raise AssertionError(why)
    if why:
        raise SkipTest(why)


_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


class Booted:
    """A machine within this one. Everything in it ends with `stop`, or with this process."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._group = f"txd{os.getpid()}-{time.monotonic_ns()}"
        self._log = open(Path(self._directory.name) / "console", "w+b")  # noqa: SIM115 - `stop` closes it
        self.work = Path(self._directory.name) / "work"
        self.work.mkdir()
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", str(BOOT), str(self.work), self._group, str(ROOT),
             sysconfig.get_paths()["purelib"], sys.base_prefix],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT)
        self._init = 0

    def wait_until_up(self) -> None:
        """:raises AssertionError: it does not boot; with what it said."""
        self._until(self._found_init, "there is no systemd")
        self._until(lambda: self.succeeds("systemctl", "is-active", "--quiet", "booted.target"), "it does not boot")

    def run(self, *command: str, script: str = "") -> str:
        """What a command prints, as root in there.

        :raises AssertionError: it failed.
        """
        done = self.do(*command, script=script)
        if done.returncode:
            journal = self.do("journalctl", "--no-pager", "--output=cat", "--lines=30").stdout
            raise AssertionError(f"{command or script}: {done.returncode}\n{done.stdout}{done.stderr}\n{journal}\n{self.console}")
        return done.stdout

    def do(self, *command: str, script: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--target={self._init}", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup",
             f"--wd=/proc/{self._init}/root/opt/txdirector", *(command or ("sh", "-eu", "-c", script))],
            capture_output=True, text=True, timeout=DEADLINE_S, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"})

    def succeeds(self, *command: str) -> bool:
        return self.do(*command).returncode == 0

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self._inside(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def read(self, path: str) -> str:
        return self._inside(path).read_text()

    def show(self, unit: str, *names: str) -> list[str]:
        """A unit's properties, in this order."""
        lines = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names)).splitlines()
        values = dict(line.split("=", 1) for line in lines)
        return [values[name] for name in names]

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Sockets made by this thread in the block are that machine's."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/proc/{self._init}/ns/net", "rb") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def outside(self, pid: int) -> int:
        """A process in there, as this machine numbers it."""
        namespace = os.readlink(f"/proc/{self._init}/ns/pid")
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                numbers = next(line for line in (path / "status").read_text().splitlines() if line.startswith("NSpid:"))
                if numbers.split()[-1] == str(pid) and os.readlink(path / "ns/pid") == namespace:
                    return int(path.name)
        raise AssertionError(f"there is no process {pid}")

    @property
    def console(self) -> str:
        """What systemd itself said."""
        self._log.flush()
        return (Path(self._directory.name) / "console").read_text(errors="replace")

    def stop(self) -> None:
        self._process.kill()  # its child, the first process, dies with it, and so does all that is in there
        self._process.wait()
        self._log.close()
        subprocess.run(["unshare", "--mount", "sh", "-c", 'mount -t cgroup2 cgroup2 "$1" && cd "$1" && until '
                        'find "$2" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.1; done', "-", str(self.work),
                        self._group], timeout=DEADLINE_S, check=False)
        shutil.rmtree(self._directory.name, ignore_errors=True)
        self._directory.cleanup()

    def _inside(self, path: str) -> Path:
        return Path(f"/proc/{self._init}/root{path}")

    def _found_init(self) -> bool:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    self._init = int(child)
        return self._init != 0

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline and self._process.poll() is None, f"{what}:\n{self.console}"
            time.sleep(0.05)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
