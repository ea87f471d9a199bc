"""The relays beside HAProxy, nginx stream and Envoy: ``python -m bench.relay [--quick] [--rounds N] [--peers A,B]``,
or two commits of the director beside each other: ``python -m bench.relay --against COMMIT``.

All peers run in the same rounds, one after the other (A B C C B A …), on the same backend; what is reported are medians
and ratios of medians to HAProxy's. Proxies have one core to themselves, generator and backend the other. CPU is the
proxy's own, user and system, children and threads included; memory is anonymous memory, the difference over the
second half of the idle connections. A peer that is not installed is left out and said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.against import directors
from bench.machine import HERE, Load, facts, proxy
from bench.peers import BY_NAME, PEERS, Peer, Ports

ROUNDS, QUICK_ROUNDS = 5, 2
CONNECTIONS = 50
STREAMS = 4
#: Thousands of connects take a second or two; a peer out of descriptors never answers.
HOLD_S = 60.0
#: What is measured, its unit, and whether more is better.
MEASURES = {
    "small_per_s": ("small messages per second", True),
    "small_cpu": ("CPU ms per 1,000 small messages", False),
    "small_p99": ("p99 of small messages, us", False),
    "connect_per_s": ("new connections per second", True),
    "connect_cpu": ("CPU ms per 1,000 connections", False),
    "bulk_mb_per_s": ("bulk MB per second", True),
    "bulk_cpu": ("CPU ms per GB", False),
    "beside_bulk_p99": ("p99 of small beside 4 bulk streams, us", False),
    "idle_kb": ("user memory per idle connection, KB", False),
    "beside_idle_p99": ("p99 of small beside the idle ones, us", False),
}


class Sizes(NamedTuple):
    """How long and how much."""

    seconds: float
    megabytes: int  #: of one bulk download
    idle: int


def one_round(peer: Peer, load: Load, directory: Path, sizes: Sizes) -> dict[str, float]:
    with proxy(peer, load, directory) as (running, ports):
        port, found = ports.listen, {}
        for name, words in {
            "small": ("messages", port, CONNECTIONS, 64, sizes.seconds),
            "connect": ("connections", port, CONNECTIONS, sizes.seconds),
            "bulk": ("bulk", port, STREAMS, sizes.megabytes, sizes.seconds),
        }.items():
            before = running.cpu_s()
            answer = load.run(*words)
            cpu = running.cpu_s() - before
            if name == "bulk":
                found["bulk_mb_per_s"] = answer["done"] / answer["seconds"] / 1e6
                found["bulk_cpu"] = 1e12 * cpu / answer["done"]
            else:
                found[f"{name}_per_s"] = answer["done"] / answer["seconds"]
                found[f"{name}_cpu"] = 1e6 * cpu / answer["done"]
            if name == "small":
                found["small_p99"] = answer["p99_us"]
        with load.beside("bulk", port, STREAMS, sizes.megabytes, 3600):
            found["beside_bulk_p99"] = load.run("messages", port, 8, 64, sizes.seconds)["p99_us"]
    return found


def idle(peer: Peer, load: Load, directory: Path, sizes: Sizes) -> dict[str, float]:
    """On a fresh process. Memory is the second half's: the first also fills what was left free after the start."""
    half = sizes.idle // 2
    with proxy(peer, load, directory) as (running, ports), holding(peer, load, ports, half):
        before = running.anonymous_kb()
        with holding(peer, load, ports, half):
            held = running.anonymous_kb() - before
            p99 = load.run("messages", ports.listen, CONNECTIONS, 64, sizes.seconds)["p99_us"]
    return {"idle_kb": held / half, "beside_idle_p99": p99}


@contextlib.contextmanager
def holding(peer: Peer, load: Load, ports: Ports, count: int) -> Iterator[None]:
    """*count* idle connections, settled."""
    with load.beside("idle", ports.listen, count) as holder:
        ready, _, _ = select.select([holder.stdout], [], [], HOLD_S)
        if not ready or holder.stdout is None or not holder.stdout.readline():
            raise SystemExit(f"{peer.name} does not hold {count} connections more")
        time.sleep(1.0)
        yield


def report(rounds: dict[str, list[dict[str, float]]], bases: dict[str, str]) -> dict[str, Any]:
    """Medians, and ratios to those of the peer that *bases* names for each."""
    medians = {
        peer: {measure: statistics.median(each[measure] for each in runs if measure in each) for measure in MEASURES}
        for peer, runs in rounds.items()
    }
    ratios = {peer: {measure: values[measure] / medians[bases[peer]][measure] for measure in MEASURES}
              for peer, values in medians.items()}
    return {"medians": medians, "ratios": ratios}


def show(result: dict[str, Any]) -> None:
    peers = list(result["medians"])
    print(f"{'':40}" + "".join(f"{peer:>22}" for peer in peers))
    for measure, (text, more) in MEASURES.items():
        row = f"{text}{' (more is better)' if more else ''}".ljust(46)[:46]
        for peer in peers:
            row += f"{result['medians'][peer][measure]:.2f} ({result['ratios'][peer][measure]:.2f})".rjust(22)
        print(row)


def measure(peers: list[Peer], count: int, sizes: Sizes) -> dict[str, list[dict[str, float]]]:
    """*count* rounds of all peers, one after the other, and then what they need for idle connections."""
    rounds: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in peers}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        load = Load(directory)
        try:
            for number in range(count):
                for peer in peers if number % 2 == 0 else reversed(peers):
                    rounds[peer.name].append(one_round(peer, load, directory, sizes))
                    print(f"round {number + 1}: {peer.name}", file=sys.stderr)
            for peer in peers:
                rounds[peer.name][0].update(idle(peer, load, directory, sizes))
                print(f"idle: {peer.name}", file=sys.stderr)
        finally:
            load.stop()
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short rounds; nothing is written")
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS}, or {QUICK_ROUNDS} quick ones")
    parser.add_argument("--peers", default=",".join(BY_NAME), help="the first is the base of the ratios")
    parser.add_argument("--against", metavar="COMMIT", help="its directors instead of the peers; nothing is written")
    options = parser.parse_args()
    sizes = Sizes(0.5, 50, 1_000) if options.quick else Sizes(2.0, 200, 8_000)
    count = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    if options.against:
        with directors(options.against) as pairs:
            peers = [peer for pair in pairs.values() for peer in pair]
            bases = {peer.name: before.name for before, now in pairs.values() for peer in (before, now)}
            show(report(measure(peers, count, sizes), bases))
        return
    chosen = [BY_NAME[name] for name in options.peers.split(",")]
    for peer in chosen:
        if peer.missing:
            print(f"{peer.name} is left out; to have it: {peer.missing}", file=sys.stderr)
    peers = [peer for peer in chosen if not peer.missing]
    if not peers or (PEERS[0].missing and PEERS[0] in chosen):
        raise SystemExit(f"this bench compares with HAProxy: {PEERS[0].missing}")
    rounds = measure(peers, count, sizes)
    result = report(rounds, dict.fromkeys(rounds, peers[0].name))
    show(result)
    if not options.quick:
        path = HERE / "results" / f"relay-{datetime.now(UTC):%Y%m%d}.json"
        path.parent.mkdir(exist_ok=True)
        at = {"at": datetime.now(UTC).isoformat(timespec="seconds")}
        path.write_text(json.dumps(result | at | facts() | {"rounds": rounds}, indent=1) + "\n")
        print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
