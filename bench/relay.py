"""The relay beside HAProxy: ``python -m bench.relay [--quick] [--rounds N]``.

All peers run in the same rounds, one after the other (A B C A B C …), on the same backend; what is reported are medians
and ratios of medians. Proxies have one core to themselves, generator and backend the other. CPU is the proxy
process's own, user and system, from ``/proc/PID/stat``. A new peer is one more entry of `PEERS`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
PROXY_CORE, LOAD_CORE = "0", "1"
IDLE_CONNECTIONS = 4000
#: What is measured, its unit, and whether more is better.
MEASURES = {
    "small_per_s": ("small messages per second", True),
    "small_cpu": ("CPU ms per 1,000 small messages", False),
    "connect_per_s": ("new connections per second", True),
    "connect_cpu": ("CPU ms per 1,000 connections", False),
    "bulk_mb_per_s": ("bulk MB per second", True),
    "bulk_cpu": ("CPU ms per GB", False),
    "idle_kb": ("user memory per idle connection, KB", False),
}


class Ports(NamedTuple):
    echo: int
    once: int
    bulk: int


class Peer(NamedTuple):
    name: str
    command: Callable[[Path, Ports, Ports], list[str]]


def haproxy(splice: bool) -> Callable[[Path, Ports, Ports], list[str]]:
    def command(directory: Path, listen: Ports, backend: Ports) -> list[str]:
        options = "  option splice-request\n  option splice-response\n" if splice else ""
        text = (
            "global\n  nbthread 1\n  maxconn 5000\n  maxpipes 2000\n"
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n"
            f"  timeout server 1h\n{options}"
        )
        for name, port, target in zip(Ports._fields, listen, backend, strict=True):
            text += f"listen {name}\n  bind 127.0.0.1:{port}\n  server s 127.0.0.1:{target}\n"
        config = directory / f"haproxy{splice}.cfg"
        config.write_text(text)
        return ["haproxy", "-db", "-q", "-f", str(config)]

    return command


def director(relay: str) -> Callable[[Path, Ports, Ports], list[str]]:
    def command(directory: Path, listen: Ports, backend: Ports) -> list[str]:
        text = '[node.log]\nlevel = "warn"\n'
        for name, port, target in zip(Ports._fields, listen, backend, strict=True):
            text += f'[services.{name}]\nlisten = ["127.0.0.1:{port}"]\nrelay = "{relay}"\n'
            text += f'[services.{name}.groups.main.hosts]\ns = "127.0.0.1:{target}"\n'
        config = directory / f"{relay}.toml"
        config.write_text(text)
        return [sys.executable, "-m", "director", "run", str(config)]

    return command


PEERS = (
    Peer("haproxy", haproxy(splice=False)),
    Peer("haproxy-splice", haproxy(splice=True)),
    Peer("director-python", director("python")),
)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def anonymous_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    raise ValueError("no Anonymous line")


class Bench:
    def __init__(self, directory: Path, *, seconds: float, gigabytes: float) -> None:
        self.directory = directory
        self.seconds = seconds
        self.bulk_bytes = int(gigabytes * 1e9 / 4)
        self.load = str(directory / "load")
        subprocess.run(["cc", "-O2", "-o", self.load, str(HERE / "load.c")], check=True)
        self.backend = Ports(*free_ports(3))
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start(["taskset", "-c", LOAD_CORE, self.load, "backend", *map(str, self.backend)], self.backend)

    def start(self, command: list[str], ports: Ports) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command)
        self.processes.append(process)
        deadline = time.monotonic() + 20
        for port in ports:
            while True:
                with socket.socket() as sock:
                    if sock.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command} did not start")
                time.sleep(0.05)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        self.processes.remove(process)

    def run(self, peer: Peer) -> dict[str, float]:
        listen = Ports(*free_ports(3))
        command = ["taskset", "-c", PROXY_CORE, *peer.command(self.directory, listen, self.backend)]
        proxy = self.start(command, listen)
        time.sleep(0.5)  # the start's own work is over
        try:
            return {**self.small(proxy.pid, listen), **self.connect(proxy.pid, listen), **self.bulk(proxy.pid, listen)}
        finally:
            self.stop(proxy)

    def idle(self, peer: Peer) -> float:
        """KB of anonymous memory per idle connection, on a fresh process that has served one connection."""
        listen = Ports(*free_ports(3))
        proxy = self.start(["taskset", "-c", PROXY_CORE, *peer.command(self.directory, listen, self.backend)], listen)
        try:
            self.measure(proxy.pid, "small", listen.echo, 10, 0.2)
            before = anonymous_kb(proxy.pid)
            holder = subprocess.Popen([self.load, "idle", str(listen.echo), str(IDLE_CONNECTIONS)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert holder.stdout is not None and holder.stdin is not None
            line = holder.stdout.readline()
            assert line.startswith(b"ready 0"), line
            time.sleep(1.0)
            held = anonymous_kb(proxy.pid) - before
            holder.stdin.close()
            holder.wait()
            return held / IDLE_CONNECTIONS
        finally:
            self.stop(proxy)

    def measure(self, pid: int, *words: object) -> tuple[float, float, float]:
        """Count, seconds, and the proxy's CPU seconds."""
        before = cpu_s(pid)
        done = subprocess.run(["taskset", "-c", LOAD_CORE, self.load, *map(str, words)], capture_output=True,
                              text=True, check=True, timeout=120)
        count, seconds, failures = done.stdout.split()
        if failures != "0":
            raise SystemExit(f"{words}: {failures} failures")
        return float(count), float(seconds), cpu_s(pid) - before

    def small(self, pid: int, listen: Ports) -> dict[str, float]:
        count, seconds, cpu = self.measure(pid, "small", listen.echo, 50, self.seconds)
        return {"small_per_s": count / seconds, "small_cpu": 1e6 * cpu / count}

    def connect(self, pid: int, listen: Ports) -> dict[str, float]:
        count, seconds, cpu = self.measure(pid, "connect", listen.once, 50, self.seconds)
        return {"connect_per_s": count / seconds, "connect_cpu": 1e6 * cpu / count}

    def bulk(self, pid: int, listen: Ports) -> dict[str, float]:
        count, seconds, cpu = self.measure(pid, "bulk", listen.bulk, 4, self.bulk_bytes)
        if count != 4 * self.bulk_bytes:
            raise SystemExit(f"bulk: {count:.0f} of {4 * self.bulk_bytes} bytes arrived")
        return {"bulk_mb_per_s": count / seconds / 1e6, "bulk_cpu": 1e12 * cpu / count}

    def close(self) -> None:
        for process in list(self.processes):
            self.stop(process)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def report(rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians, and ratios to HAProxy's."""
    medians = {
        peer: {measure: statistics.median(each[measure] for each in runs if measure in each) for measure in MEASURES}
        for peer, runs in rounds.items()
    }
    ratios = {peer: {measure: values[measure] / medians["haproxy"][measure] for measure in MEASURES}
              for peer, values in medians.items()}
    return {"medians": medians, "ratios_to_haproxy": ratios}


def show(result: dict[str, Any]) -> None:
    peers = list(result["medians"])
    print(f"{'':44}" + "".join(f"{peer:>26}" for peer in peers))
    for measure, (text, more) in MEASURES.items():
        row = f"{text + (' (more is better)' if more else ''):52}"[:52].ljust(44)
        for peer in peers:
            cell = f"{result['medians'][peer][measure]:.2f} ({result['ratios_to_haproxy'][peer][measure]:.2f})"
            row += f"{cell:>26}"
        print(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds, under a minute; nothing is written")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("haproxy") is None:
        raise SystemExit("this bench compares with HAProxy: apt-get install haproxy")
    rounds: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in PEERS}
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), seconds=0.5 if options.quick else 2.0, gigabytes=0.4 if options.quick else 2.0)
        try:
            for number in range(2 if options.quick else options.rounds):
                for peer in PEERS:
                    rounds[peer.name].append(bench.run(peer))
                    print(f"round {number + 1}: {peer.name}", file=sys.stderr)
            for peer in PEERS:
                rounds[peer.name][0]["idle_kb"] = bench.idle(peer)
        finally:
            bench.close()
    result = report(rounds)
    show(result)
    if not options.quick:
        version = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
        facts = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "kernel": platform.release(),
                 "python": platform.python_version(), "haproxy": version, "rounds": rounds}
        path = HERE / "results" / f"relay-{datetime.now(UTC):%Y%m%d}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result | facts, indent=1) + "\n")
        print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
