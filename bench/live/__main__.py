"""Schedulers with real balancers, real sockets and simulated hosts: ``python -m bench.live [--rounds N] [SCENARIO …]``.

In each round some balancers run at the same time, each before hosts of its own, and then the others; all get the same
requests. Everything is fresh in each round. The first third of it is not measured. Reported are medians of the rounds, with
their range, and ratios to the first balancer's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.live.backends import Hosts, Limited, Pretended
from bench.live.proxies import PROXIES, Place, Proxy
from bench.live.scenarios import SCENARIOS, Scenario
from bench.machine import HERE, Running, facts, free_ports

ROUNDS, SECONDS = 5, 45.0
#: Balancers at a time: with four, simulated hosts and clients need half of two cores.
TOGETHER = 4
QUANTILES = (0.5, 0.99, 0.999)


class Bench:
    """One balancer, its hosts and its clients, in one round."""

    def __init__(self, proxy: Proxy, scenario: Scenario, directory: Path, stack: contextlib.ExitStack) -> None:
        listen, agents = free_ports(proxy.count), free_ports(proxy.count)
        self._directors = [f"127.0.0.1:{port}" for port in agents] if proxy.reports else []
        hosts: Hosts = Limited(scenario, stack) if scenario.quotas else Pretended(scenario, stack)
        self._listen, self._scenario, self._hosts = listen, scenario, hosts
        self._running = []
        for number in range(proxy.count):
            place = Place(directory / str(number), listen[number], agents[number], hosts.ports)
            place.directory.mkdir(parents=True)
            self._running.append(Running(proxy.command(place), core="0,1", cwd=HERE.parent))
            stack.callback(self._running[-1].stop)

    def start(self, seconds: float, seed: int) -> None:
        for running, port in zip(self._running, self._listen, strict=True):
            running.await_port(port)
        if self._directors:
            self._hosts.report(self._directors)
        scenario = self._scenario
        words = [",".join(map(str, self._listen)), seconds, seed, scenario.rate, scenario.work_s]
        if scenario.lives_s is not None:
            words += [*scenario.lives_s, scenario.per_s]
        self._clients = subprocess.Popen([sys.executable, "-m", "bench.live.clients", *map(str, words)], text=True,
                                         stdout=subprocess.PIPE, cwd=HERE.parent)

    def result(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._clients.communicate()[0])
        served = self._hosts.served()
        latencies = sorted(answer["latencies_ms"])
        total = len(latencies) + answer["errors"] + answer["lost"]
        return {
            **{f"p{100 * q:g}": latencies[min(len(latencies) - 1, int(q * len(latencies)))] for q in QUANTILES},
            "errors_percent": 100 * (answer["errors"] + answer["lost"]) / total,
            "shares_percent": [100 * each / max(1, sum(served)) for each in served],
            "requests": total,
        }


def one_round(scenario: Scenario, proxies: list[Proxy], seconds: float, seed: int) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    at_once = 1 if scenario.quotas else TOGETHER
    for first in range(0, len(proxies), at_once):
        found |= together(scenario, proxies[first:first + at_once], seconds, seed)
    return found


def together(scenario: Scenario, proxies: list[Proxy], seconds: float, seed: int) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        benches = {proxy.name: Bench(proxy, scenario, Path(directory) / str(number), stack)
                   for number, proxy in enumerate(proxies)}
        for bench in benches.values():
            bench.start(seconds, seed)
        return {name: bench.result() for name, bench in benches.items()}


def rows(rounds: list[dict[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in rounds[0]:
        runs = [each[name] for each in rounds]
        found: dict[str, Any] = {"shares_percent": [statistics.median(shares) for shares in
                                                    zip(*(run["shares_percent"] for run in runs), strict=True)]}
        for measure in (*(f"p{100 * q:g}" for q in QUANTILES), "errors_percent"):
            values = [run[measure] for run in runs]
            found[measure] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
        yield name, found


def show(scenario: Scenario, rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    table = dict(rows(rounds))
    base = next(iter(table.values()))["p99"]["median"]
    requests = next(iter(rounds[0].values()))["requests"]
    count = len(scenario.hosts or scenario.quotas)
    print(f"\n{scenario.name}: {count} hosts, {scenario.load:.0%} load, {len(rounds)} rounds, {requests} requests each")
    print(f"{'':30}{'p50':>8}{'p99 (range)':>22}{'ratio':>7}{'p99.9':>9}{'errors':>9}  shares")
    for name, row in table.items():
        p99 = row["p99"]
        spread = f"{p99['median']:.0f} ({p99['least']:.0f}-{p99['most']:.0f})"
        shares = " ".join(f"{share:.0f}" for share in row["shares_percent"])
        print(f"{name:30}{row['p50']['median']:8.0f}{spread:>22}{p99['median'] / base:7.2f}{row['p99.9']['median']:9.0f}"
              f"{row['errors_percent']['median']:8.2f}%  {shares}", flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--peers", help="names with commas between; all")
    parser.add_argument("--save", action="store_true", help="write bench/results/live-DATE.json")
    options = parser.parse_args()
    wanted = options.peers.split(",") if options.peers else [proxy.name for proxy in PROXIES]
    for proxy in PROXIES:
        if proxy.name in wanted and proxy.missing:
            print(f"{proxy.name} is left out: {proxy.missing}", file=sys.stderr)
    proxies = [proxy for proxy in PROXIES if proxy.name in wanted and not proxy.missing]
    result = {}
    for scenario in (SCENARIOS[name] for name in options.scenarios or SCENARIOS):
        rounds = [one_round(scenario, proxies, options.seconds, seed) for seed in range(1, options.rounds + 1)]
        result[scenario.name] = show(scenario, rounds)
    if options.save:
        path = HERE / "results" / f"live-{datetime.now(UTC):%Y%m%d}.json"
        path.write_text(json.dumps({"facts": facts(), "scenarios": result}, indent=1))


if __name__ == "__main__":
    main()
