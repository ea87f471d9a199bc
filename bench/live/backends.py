"""What stands behind a balancer in one round: simulated hosts in a process, or real servers in cgroups with their agents."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from bench.live.scenarios import Scenario
from bench.machine import HERE, free_ports

GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
START_S = 30.0


class Hosts(Protocol):
    ports: list[tuple[int, int]]  #: of the service and of the agent-check, of each

    def report(self, directors: list[str]) -> None:
        """From now on, to directors that listen: those that do not would be tried again later and later."""

    def served(self) -> list[int]:
        """Requests, of each."""


class Pretended:
    """`bench.live.hosts`."""

    def __init__(self, scenario: Scenario, stack: contextlib.ExitStack) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "bench.live.hosts"], text=True, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, cwd=HERE.parent)
        stack.callback(end, self._process)
        self.ports = [(port, check) for port, check in self._tell({"scenario": scenario.name})]

    def report(self, directors: list[str]) -> None:
        self._tell({"directors": directors})

    def served(self) -> list[int]:
        counts: list[int] = self._tell({})
        return counts

    def _tell(self, what: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Limited:
    """`bench.live.burner`, each in a cgroup with its quota, and beside it ``director-agent --port``."""

    def __init__(self, scenario: Scenario, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.ports = [(port, 0) for port in free_ports(len(scenario.quotas))]
        for quota, (port, _) in zip(scenario.quotas, self.ports, strict=True):
            folders = cgroup(f"txdirector-bench-{os.getpid()}-{port}", quota)
            for folder in folders:
                stack.callback(folder.rmdir)
            server = subprocess.Popen([sys.executable, "-m", "bench.live.burner", str(port)], cwd=HERE.parent)
            stack.callback(end, server)
            for folder in folders:
                (folder / "cgroup.procs").write_text(str(server.pid))
            await_port(port)

    def report(self, directors: list[str]) -> None:
        told = [word for director in directors for word in ("--director", director)]
        for number, (port, _) in enumerate(self.ports):
            words = [*told, "--host", f"all/main/h{number}", "--port", str(port), "--log-level", "warn"]
            self._stack.callback(end, subprocess.Popen([sys.executable, "-m", "agent.cli", *words], cwd=HERE.parent,
                                                       stderr=subprocess.DEVNULL))

    def served(self) -> list[int]:
        counts = []
        for port, _ in self.ports:
            with socket.create_connection(("127.0.0.1", port), 10) as sock:
                sock.sendall(b"served\n")
                counts.append(int(sock.recv(100)))
        return counts


def cgroup(name: str, cores: float) -> list[Path]:
    """A new cgroup that may use so much of a core: where version 1 counts and limits in two places, both."""
    if (GROUPS / "cpuacct").is_dir():
        folders = [GROUPS / "cpu" / name, GROUPS / "cpuacct" / name]
        limits = {"cpu.cfs_period_us": f"{PERIOD_US}", "cpu.cfs_quota_us": f"{cores * PERIOD_US:.0f}"}
    else:
        folders = [GROUPS / name]
        limits = {"cpu.max": f"{cores * PERIOD_US:.0f} {PERIOD_US}"}
    for folder in folders:
        folder.mkdir()
    for file, text in limits.items():
        (folders[0] / file).write_text(text)
    return folders


def await_port(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise SystemExit(f"no server at {port}")
        time.sleep(0.05)


def end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.communicate()
