"""Processes under measurement: started on their core, asked for CPU and memory, ended by their own id."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.peers import Peer, Ports

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
PROXY_CORE, LOAD_CORE = "0", "1"
START_S = 30.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Running:
    """A process and its children."""

    def __init__(self, words: list[str], *, core: str, cwd: Path | None = None) -> None:
        self._process = subprocess.Popen(["taskset", "-c", core, *words], cwd=cwd, stderr=subprocess.DEVNULL)
        self.pid = self._process.pid

    def pids(self) -> list[int]:
        found, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                todo += map(int, children.read_text().split())
        return found

    def cpu_s(self) -> float:
        """User and system seconds so far."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def anonymous_kb(self) -> int:
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Anonymous:"):
                    total += int(line.split()[1])
        return total

    def await_port(self, port: int) -> None:
        deadline = time.monotonic() + START_S
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self._process.args} does not answer at {port}")
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Load:
    """The generator and its backend (``load.c``), built in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.program = str(directory / "load")
        subprocess.run(["cc", "-O2", "-o", self.program, str(HERE / "load.c")], check=True)
        (self.port,) = free_ports(1)
        self._backend = Running([self.program, "backend", str(self.port)], core=LOAD_CORE)
        self._backend.await_port(self.port)

    def run(self, *words: object) -> dict[str, float]:
        done = subprocess.run(["taskset", "-c", LOAD_CORE, self.program, *map(str, words)], capture_output=True, text=True,
                              check=False, timeout=180)
        if done.returncode:
            raise SystemExit(f"load {words}: {done.stderr.strip()}")
        answer: dict[str, float] = json.loads(done.stdout)
        return answer

    @contextlib.contextmanager
    def beside(self, *words: object) -> Iterator[subprocess.Popen[str]]:
        """Run on while the block does."""
        process = subprocess.Popen(["taskset", "-c", LOAD_CORE, self.program, *map(str, words)], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def stop(self) -> None:
        self._backend.stop()


@contextlib.contextmanager
def proxy(peer: Peer, load: Load, directory: Path, *, workers: int = 1, cores: str = PROXY_CORE,
          admin: bool = False) -> Iterator[tuple[Running, Ports]]:
    """*peer* relaying to *load*'s backend, ready."""
    own = directory / f"{peer.name}-{time.monotonic_ns()}"
    own.mkdir()
    numbers = free_ports(3)
    ports = Ports(numbers[0], load.port, *(numbers[1:] if admin else ()))
    running = Running(peer.command(own, ports, workers), core=cores, cwd=peer.home)
    try:
        running.await_port(ports.listen)
        load.run("messages", ports.listen, 10, 64, 0.3)  # the start's own work is over
        yield running, ports
    finally:
        running.stop()


def facts() -> dict[str, Any]:
    import platform

    versions = {}
    for words in (["haproxy", "-v"], ["nginx", "-v"]):
        with contextlib.suppress(OSError):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            versions[words[0]] = (done.stdout + done.stderr).strip().splitlines()[0]
    return {"kernel": platform.release(), "python": platform.python_version(), "versions": versions,
            "cores": os.cpu_count()}
