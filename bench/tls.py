"""TLS that ends at a director beside HAProxy, and beside the least that pyOpenSSL can be:
``python -m bench.tls [--quick] [--rounds N]``.

As in `bench.relay`: all take turns, the proxy has one core to itself, clients and backend the other. Clients cost as much as
proxies here, so what counts is the proxy's own CPU: handshakes for each second of it. The clients are not fast enough to
measure more than that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from bench import sni
from bench.machine import HERE, LOAD_CORE, PROXY_CORE, Load, Running, facts, free_ports
from tests.integration.pki import Authority

MEASURES = {
    "full_per_cpu_s": ("full handshakes per second of CPU", True),
    "resumed_per_cpu_s": ("resumed handshakes per second of CPU", True),
    "bulk_cpu": ("CPU ms per GB", False),
    "bulk_mb_per_s": ("bulk MB per second", True),
    "idle_kb": ("user memory per idle connection, KB", False),
}
KEYS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
}


class Sizes(NamedTuple):
    seconds: float
    megabytes: int
    idle: int


class Files(NamedTuple):
    certificate: str
    key: str
    authority: str


def haproxy(folder: Path, port: int, backend: int, files: Files) -> list[str]:
    pem, config = folder / "all.pem", folder / "haproxy.cfg"
    pem.write_text(Path(files.certificate).read_text() + Path(files.key).read_text())
    config.write_text(
        "global\n  nbthread 1\n  maxconn 9300\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n"
        f"  timeout server 1h\nlisten all\n  bind 127.0.0.1:{port} ssl crt {pem} ssl-min-ver TLSv1.2\n"
        f"  server s 127.0.0.1:{backend}\n")
    return ["haproxy", "-db", "-q", "-f", str(config)]


def director(folder: Path, port: int, backend: int, files: Files) -> list[str]:
    config = folder / "director.toml"
    config.write_text(
        f'[node.log]\nlevel = "warn"\n[services.all]\nlisten = ["127.0.0.1:{port}"]\n[[services.all.tls.certificates]]\n'
        f'certificate = "{files.certificate}"\nkey = "{files.key}"\n'
        f'[services.all.groups.main.hosts]\ns = "127.0.0.1:{backend}"\n')
    return [sys.executable, "-m", "director", "run", str(config)]


def bare(folder: Path, port: int, backend: int, files: Files) -> list[str]:
    return [sys.executable, "-m", "bench.bare_tls", str(port), str(backend), files.certificate, files.key]


PEERS = {"haproxy": haproxy, "pyopenssl-loop": bare, "director-tls": director}


def load(*words: object) -> dict[str, float]:
    done = subprocess.run(["taskset", "-c", LOAD_CORE, sys.executable, "-m", "bench.tls_load", *map(str, words)],
                          capture_output=True, text=True, check=False, timeout=180)
    if done.returncode:
        raise SystemExit(f"tls_load {words}: {done.stderr.strip()}")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


@contextlib.contextmanager
def running(name: str, backend: Load, folder: Path, files: Files) -> Iterator[tuple[Running, int]]:
    own = folder / f"{name}-{time.monotonic_ns()}"
    own.mkdir()
    (port,) = free_ports(1)
    process = Running(PEERS[name](own, port, backend.port, files), core=PROXY_CORE)
    try:
        process.await_port(port)
        load("full", port, files.authority, 0.3)
        yield process, port
    finally:
        process.stop()


@contextlib.contextmanager
def holding(port: int, files: Files, count: int) -> Iterator[None]:
    words = [sys.executable, "-m", "bench.tls_load", "idle", str(port), files.authority, str(count)]
    with subprocess.Popen(["taskset", "-c", LOAD_CORE, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            if not select.select([holder.stdout], [], [], 120)[0] or not holder.stdout.readline():
                raise SystemExit(f"{count} connections more are not held")
            time.sleep(1.0)
            yield
        finally:
            holder.kill()


def one_round(name: str, backend: Load, folder: Path, files: Files, sizes: Sizes) -> dict[str, float]:
    found = {}
    with running(name, backend, folder, files) as (process, port):
        for what in ("full", "resumed"):
            before = process.cpu_s()
            answer = load(what, port, files.authority, sizes.seconds)
            found[f"{what}_per_cpu_s"] = answer["done"] / (process.cpu_s() - before)
        before = process.cpu_s()
        answer = load("bulk", port, files.authority, sizes.megabytes)
        found["bulk_cpu"] = 1e12 * (process.cpu_s() - before) / answer["done"]
        found["bulk_mb_per_s"] = answer["done"] / answer["seconds"] / 1e6
    return found


def idle(name: str, backend: Load, folder: Path, files: Files, count: int) -> float:
    """The second half's memory, as in `bench.relay`."""
    with running(name, backend, folder, files) as (process, port), holding(port, files, count // 2):
        before = process.anonymous_kb()
        with holding(port, files, count // 2):
            return (process.anonymous_kb() - before) / (count // 2)


def issue(authority: Authority, kind: str, folder: Path) -> Files:
    key = KEYS[kind]()
    path = folder / f"{kind}.key.pem"
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                       serialization.NoEncryption()))
    (folder / kind).mkdir()
    certificate = folder / kind / "crt.pem"
    Path(authority.issue_for(key.public_key(), "localhost")).rename(certificate)
    return Files(str(certificate), str(path), authority.path)


def routing(backend: Load, folder: Path, files: Files, sizes: Sizes, count: int) -> dict[str, list[dict[str, float]]]:
    """What is passed through, by server name and not."""
    (port,) = free_ports(1)
    passing = sni.Passing(folder, bare(folder, port, backend.port, files), port)
    try:
        return sni.rounds(passing, load, files.authority, seconds=sizes.seconds, megabytes=sizes.megabytes, count=count)
    finally:
        passing.stop()


def show_routing(found: dict[str, list[dict[str, float]]]) -> None:
    print(f"{'passed through by the native relay':62}" + "".join(f"{way:>14}" for way in sni.WAYS))
    for measure, text in sni.MEASURES.items():
        plain, named = (statistics.median(each[measure] for each in found[way]) for way in sni.WAYS)
        print(f"{text:62}{plain:14.1f}{f'{named:.1f} ({named / plain:.2f})':>14}")


def show(rounds: dict[str, dict[str, list[dict[str, float]]]]) -> dict[str, Any]:
    """Medians by key and peer."""
    medians = {kind: {peer: {measure: statistics.median(each[measure] for each in runs if measure in each)
                             for measure in MEASURES if any(measure in each for each in runs)}
                      for peer, runs in of_kind.items()} for kind, of_kind in rounds.items()}
    for kind, of_kind in medians.items():
        print(f"{kind:46}" + "".join(f"{peer:>22}" for peer in of_kind))
        for measure, (text, more) in MEASURES.items():
            base = of_kind["haproxy"].get(measure)
            if base is not None:
                row = f"{text}{' (more is better)' if more else ''}".ljust(46)
                for each in of_kind.values():
                    row += f"{each[measure]:.1f} ({each[measure] / base:.2f})".rjust(22)
                print(row)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short rounds; nothing is written")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    sizes = Sizes(1.0, 200, 400) if options.quick else Sizes(3.0, 1000, 2000)
    rounds: dict[str, dict[str, list[dict[str, float]]]] = {kind: {peer: [] for peer in PEERS} for kind in KEYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority, backend = Authority(folder), Load(folder)
        try:
            for kind in KEYS:
                files = issue(authority, kind, folder)
                for number in range(options.rounds or (1 if options.quick else 3)):
                    for peer in PEERS if number % 2 == 0 else reversed(PEERS):
                        rounds[kind][peer].append(one_round(peer, backend, folder, files, sizes))
                        print(f"{kind}, round {number + 1}: {peer}", file=sys.stderr)
                if kind == "p256":
                    for peer in PEERS:
                        rounds[kind][peer][0]["idle_kb"] = idle(peer, backend, folder, files, sizes.idle)
                    passed = routing(backend, folder, files, sizes, 2 * (options.rounds or (1 if options.quick else 3)))
        finally:
            backend.stop()
    medians = show(rounds)
    show_routing(passed)
    if not options.quick:
        path = HERE / "results" / f"tls-{datetime.now(UTC):%Y%m%d}.json"
        linked = subprocess.run(["haproxy", "-vv"], capture_output=True, text=True, check=False).stdout
        at = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "openssl": SSL.SSLeay_version(0).decode(),
              "haproxy_openssl": [line for line in linked.splitlines() if "Running on OpenSSL" in line]}
        found = {"medians": medians} | at | facts() | {"rounds": rounds, "routing": passed}
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
