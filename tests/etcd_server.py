"""Real etcd, started by tests: one member or several, on free ports of loopback, all in one temporary folder.

Blocking on purpose, and without Twisted: members are processes that a test starts, freezes, kills and starts again
between its steps. Everything ends with `EtcdCluster.stop`, by the ids of the processes started here.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from unittest import SkipTest

ETCD, ETCDCTL = shutil.which("etcd"), shutil.which("etcdctl")
#: Lets members die with the test run, should that be killed.
_TIED = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()

#: A member that has not answered by then never will; far beyond what a loaded machine needs.
DEADLINE_S = 30.0
#: In memory, where there is one: a test of ours is no test of a disk.
_FAST = Path("/dev/shm")
#: Below the kernel's own; those who run tests at the same time have a part each.
_PORTS, _PART = range(14_000, 32_000), 1_125
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_own = itertools.cycle(range(_PART))
for _ in range(random.randrange(_PART)):  # runs one after the other do not meet what the one before left
    next(_own)


def require_etcd() -> None:
    """Skip where etcd is not installed, fail in CI."""
    if ETCD is None or ETCDCTL is None:
        if os.environ.get("CI") == "true":
            raise AssertionError("etcd is not installed: apt-get install etcd-server etcd-client")
        raise SkipTest("needs etcd and etcdctl: apt-get install etcd-server etcd-client")


def free_port() -> int:
    """A port for a server that may die and come back: below those that the kernel gives to outgoing connections, one of
    which might take it meanwhile. None is given twice before all others were: it may not be in use yet."""
    while True:
        port = _PORTS[WORKER % (len(_PORTS) // _PART) * _PART + next(_own)]
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def _state(task: Path) -> str:
    """A thread's, as the kernel abbreviates it."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


class Member:
    """One etcd process, which may come and go; its data and its ports stay."""

    def __init__(self, name: str, folder: Path, *, scheme: str) -> None:
        self.name = name
        self.endpoint = f"127.0.0.1:{free_port()}"
        self.client_url = f"{scheme}://{self.endpoint}"
        self.peer_url = f"http://127.0.0.1:{free_port()}"
        self._health_url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: Sequence[Member], arguments: Sequence[str]) -> None:
        assert self.process is None
        command = [
            *_TIED, str(ETCD), "--name", self.name, "--data-dir", str(self._folder / self.name),
            "--listen-client-urls", self.client_url, "--advertise-client-urls", self.client_url,
            "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
            "--listen-metrics-urls", self._health_url, "--logger", "zap",
            "--initial-cluster", ",".join(f"{each.name}={each.peer_url}" for each in cluster), *arguments,
        ]
        with (self._folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self._folder)

    def wait_ready(self) -> None:
        """Until it serves and knows a leader."""
        deadline = time.monotonic() + DEADLINE_S
        while not self._healthy():
            assert self.process is not None and self.process.poll() is None, f"{self.name} ended: {self.log()}"
            assert time.monotonic() < deadline, f"{self.name} is not ready: {self.log()}"
            time.sleep(0.05)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._health_url}/health", timeout=5) as answer:
                return b'"true"' in answer.read()
        except OSError:
            return False

    def log(self) -> str:
        """Its last words."""
        return (self._folder / f"{self.name}.log").read_text("utf-8", "replace")[-2000:]

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP; returns once every thread stands still."""
        self.send(signal.SIGSTOP)
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task")
        deadline = time.monotonic() + DEADLINE_S
        while any(_state(task) != "T" for task in tasks.iterdir()):
            assert time.monotonic() < deadline, f"{self.name} does not stop"
            time.sleep(0.005)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; a member that is not running is left alone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class EtcdCluster:
    """:param arguments: further ones of every member.

    :param tls: paths of the authority, certificate and key that members serve clients with; clients then need a
        certificate of that authority.
    """

    def __init__(self, members: int = 1, *, arguments: Sequence[str] = (), tls: tuple[str, str, str] | None = None) -> None:
        require_etcd()
        self._folder = Path(tempfile.mkdtemp(prefix="etcd-", dir=_FAST if _FAST.is_dir() else None))
        self._arguments = list(arguments)
        self._control = ["--command-timeout=10s"]
        if tls is not None:
            ca, certificate, key = tls
            self._arguments += ["--trusted-ca-file", ca, "--cert-file", certificate, "--key-file", key,
                                "--client-cert-auth"]
        self.members = [Member(f"m{n}", self._folder, scheme="https" if tls else "http") for n in range(members)]

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.endpoint for member in self.members)

    def start(self) -> EtcdCluster:
        """Start every member that is not running; returns once all are ready."""
        for member in self.members:
            if member.process is None:
                member.start(self.members, self._arguments)
        for member in self.members:
            member.wait_ready()
        return self

    def restart(self, member: Member) -> None:
        """Kill *member* and start it on the data it left."""
        member.kill()
        member.start(self.members, self._arguments)
        member.wait_ready()

    def stop(self) -> None:
        for member in self.members:
            member.kill()
        shutil.rmtree(self._folder)

    def use(self, *arguments: str) -> None:
        """Give *arguments* (certificates, ``--user``) to every `etcdctl` from now on."""
        self._control += arguments

    def etcdctl(self, *arguments: str, said: str = "") -> str:
        """What ``etcdctl`` prints, with *said* as its standard input."""
        urls = ",".join(member.client_url for member in self.members if member.process is not None)
        done = subprocess.run([str(ETCDCTL), f"--endpoints={urls}", *self._control, *arguments], input=said, text=True,
                              capture_output=True, timeout=60, env={**os.environ, "ETCDCTL_API": "3"}, check=False)
        assert done.returncode == 0, f"etcdctl {arguments}: {done.stderr}"
        return done.stdout

    def revision(self) -> int:
        """The store's present one."""
        status = json.loads(self.etcdctl("endpoint", "status", "-w", "json"))
        return max(int(each["Status"]["header"]["revision"]) for each in status)

    def compact(self, revision: int | None = None) -> None:
        """Forget what was before *revision*, the present one when absent."""
        self.etcdctl("compact", str(self.revision() if revision is None else revision))

    def leader(self) -> Member:
        status = json.loads(self.etcdctl("endpoint", "status", "-w", "json"))
        [url] = {each["Endpoint"] for each in status
                 if each["Status"]["header"]["member_id"] == each["Status"]["leader"]}
        return next(member for member in self.members if member.client_url == url)

    def enable_auth(self, user: str, password: str) -> None:
        """Demand passwords: of *user*, who may do anything, and of ``root`` with the same password."""
        for name in {user, "root"}:
            self.etcdctl("user", "add", f"{name}:{password}")
            self.etcdctl("user", "grant-role", name, "root")
        self.etcdctl("auth", "enable")
        self.use("--user", f"root:{password}")
