"""How smooth a relay stays while its process is busy otherwise: ``python -m bench.busy [--rounds N]``.

p99 of small messages, idle and busy, interleaved. A busy director takes 2,000 reports a second from 500 agents, each
moving a weight, and its status and metrics are asked for ten times a second; HAProxy's statistics socket is asked as often.
The proxy has one core, all generators the other. Then both with two workers on both cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.machine import HERE, LOAD_CORE, Load, facts, proxy
from bench.peers import BY_NAME, REPORTING_HOSTS, Peer, Ports

REPORTS_PER_S = 2_000
POLL_S = 0.1
CONNECTIONS = 20


def poll_director(port: int) -> None:
    for path in ("api/v1/status", "metrics"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10).read()


def poll_haproxy(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(b"show stat\n")
        while sock.recv(65_536):
            pass


@contextlib.contextmanager
def busy(peer: Peer, ports: Ports) -> Iterator[None]:
    """Keep *peer* busy with what its kind is busy with."""
    is_director = peer.name.startswith("director")
    over = threading.Event()

    def poll() -> None:
        while not over.wait(POLL_S):
            (poll_director if is_director else poll_haproxy)(ports.admin)

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        if is_director:
            words = [sys.executable, "-m", "bench.reporters", str(ports.agents), str(REPORTING_HOSTS), str(REPORTS_PER_S)]
            with subprocess.Popen(["taskset", "-c", LOAD_CORE, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  cwd=HERE.parent) as agents:
                assert agents.stdout is not None and agents.stdin is not None
                if agents.stdout.readline() != b"ready\n":
                    raise SystemExit("the agents are not welcome")
                yield
                agents.stdin.close()
        else:
            yield
    finally:
        over.set()
        poller.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    peers = [BY_NAME[name] for name in ("haproxy", "director-python", "director-native") if not BY_NAME[name].missing]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        load = Load(Path(name))
        try:
            for _ in range(options.rounds):
                for peer in peers:
                    with proxy(peer, load, Path(name), admin=True) as (_running, ports):
                        words = ("messages", ports.listen, CONNECTIONS, 64, options.seconds)
                        found.setdefault(f"{peer.name} idle p99_us", []).append(load.run(*words)["p99_us"])
                        with busy(peer, ports):
                            found.setdefault(f"{peer.name} busy p99_us", []).append(load.run(*words)["p99_us"])
                for peer in peers:
                    if peer.name == "director-python":
                        continue  # it has one thread
                    with proxy(peer, load, Path(name), workers=2, cores="0,1") as (running, ports):
                        before = running.cpu_s()
                        answer = load.run("messages", ports.listen, 50, 64, options.seconds)
                        cpu = running.cpu_s() - before
                    found.setdefault(f"{peer.name} 2 workers per_s", []).append(answer["done"] / answer["seconds"])
                    found.setdefault(f"{peer.name} 2 workers cpu", []).append(1e6 * cpu / answer["done"])
                print(".", end="", file=sys.stderr, flush=True)
        finally:
            load.stop()
    print(file=sys.stderr)
    medians = {key: statistics.median(values) for key, values in found.items()}
    for peer in peers:
        idle, worked = medians[f"{peer.name} idle p99_us"], medians[f"{peer.name} busy p99_us"]
        print(f"{peer.name:20} p99 idle {idle:8.0f} us   busy {worked:8.0f} us   ratio {worked / idle:.2f}")
    for key, value in medians.items():
        if "2 workers" in key:
            print(f"{key:40} {value:12.2f}")
    path = HERE / "results" / f"busy-{datetime.now(UTC):%Y%m%d}.json"
    path.write_text(json.dumps({"medians": medians, "rounds": found} | facts(), indent=1) + "\n")
    print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
