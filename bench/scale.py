"""How a director of ten thousand hosts answers, probes and relays: ``python -m bench.scale [--quick] [--only A,B]``.

200 services of 50 hosts, which one process answers for; each is probed over TCP every two seconds. For each question that
the admin takes: the time, the process' own CPU time and the size, asked of a director that probes nobody meanwhile. Then, of
one that probes: the p99 of small messages through the native relay while the question is asked over and over, beside the p99
while nothing is asked, in turns (idle, asked, idle, asked…), the median of each and their ratio. The director has one core,
all others the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from bench.machine import HERE, LOAD_CORE, Load, Running, facts, free_ports, proxy
from bench.peers import Peer, Ports

SERVICES, HOSTS = 200, 50
#: Of a ``--quick`` run, which shows that everything works and measures nothing.
QUICK_SERVICES, QUICK_HOSTS, QUICK_S = 10, 5, 0.3
INTERVAL_S = 2.0
#: Loopback addresses that hosts are at.
ADDRESSES = [f"127.20.0.{n + 1}" for n in range(16)]
CONNECTIONS = 20
ROUNDS = 3
#: Before anything is measured: every host's first probe, and the second.
SETTLE_S = 3 * INTERVAL_S


class Question(NamedTuple):
    path: str
    headers: Mapping[str, str] = MappingProxyType({})
    body: str | None = None


def call(method: str) -> Question:
    return Question("/RPC2", {"Content-Type": "text/xml"},
                    f"<methodCall><methodName>{method}</methodName><params/></methodCall>")


QUESTIONS = {
    "metrics": Question("/metrics"),
    "metrics gzip": Question("/metrics", {"Accept-Encoding": "gzip"}),
    "metrics OpenMetrics": Question("/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"}),
    "host": Question("/api/v1/services/s100/groups/main/hosts/h25"),
    "service": Question("/api/v1/services/s100"),
    "connections": Question("/api/v1/services/all/connections"),
    "hosts": Question("/api/v1/hosts"),
    "page of hosts": Question("/api/v1/hosts?limit=100"),
    "services": Question("/api/v1/services"),
    "page of services": Question("/api/v1/services?limit=10"),
    "status": Question("/api/v1/status"),
    "totals": Question("/api/v1/totals"),
    "bad hosts": Question("/api/v1/bad_hosts"),
    "running.txt": Question("/running.txt"),
    "page of running.txt": Question("/running.txt?limit=10"),
    "XML-RPC hosts": call("hosts"),
    "XML-RPC status": call("status"),
    "web: overview": Question("/"),
    "web: service": Question("/services/s100"),
    "web: group": Question("/services/s100/groups/main"),
    "web: host": Question("/services/s100/groups/main/hosts/h25"),
    "web: bad hosts": Question("/bad-hosts"),
    "web: connections": Question("/connections"),
    "web: cluster": Question("/cluster"),
}


async def answer_for_hosts(port: int) -> None:
    """Accept and hang up when the peer does."""
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    for address in ADDRESSES:
        await asyncio.start_server(serve, address, port, backlog=4096)
    await asyncio.Event().wait()


def peer(hosts_port: int, interval_s: float, services: int, hosts: int) -> Peer:
    def command(directory: Path, ports: Ports, workers: int) -> list[str]:
        text = f'[node]\nrelay_threads = {workers}\n[node.log]\nlevel = "warn"\n'
        text += f'[node.admin]\nendpoints = [{{ listen = "127.0.0.1:{ports.admin}" }}]\n'
        text += f'[services.all]\nlisten = ["127.0.0.1:{ports.listen}"]\nrelay = "native"\n'
        text += f'[services.all.groups.main.hosts]\ns = "127.0.0.1:{ports.backend}"\n'
        for service in range(services):
            name = f"s{service:03}"
            text += f'[services.{name}]\nlisten = ["127.0.0.1:0"]\nrelay = "native"\n'
            text += f'[services.{name}.groups.main.health]\ninterval_s = {interval_s}\nprobe = {{ kind = "tcp" }}\n'
            text += f"[services.{name}.groups.main.hosts]\n"
            text += "".join(f'h{n:02} = "{ADDRESSES[n % len(ADDRESSES)]}:{hosts_port}"\n' for n in range(hosts))
        config = directory / "director.toml"
        config.write_text(text)
        return [sys.executable, "-m", "director", "run", str(config)]

    return Peer("director at scale", command, "")


def ask(port: int, question: Question) -> tuple[float, int]:
    """Seconds and bytes; the status is looked at by `main`, once."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET" if question.body is None else "POST", question.path, question.body, dict(question.headers))
    answer = connection.getresponse()
    size = len(answer.read())
    connection.close()
    if answer.status != 200:
        raise ValueError(f"{question.path} answers {answer.status}")
    return time.perf_counter() - began, size


@contextlib.contextmanager
def asking(port: int, question: Question) -> Iterator[None]:
    """Ask all the while; the first answer has come when the body begins. Raises what an answer was wrong by."""
    ask(port, question)
    over = threading.Event()

    def again() -> None:
        while not over.is_set():
            ask(port, question)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(again)
        try:
            yield
        finally:
            over.set()
        running.result()


def answers(running: Running, ports: Ports, chosen: dict[str, Question]) -> dict[str, dict[str, float]]:
    """Of a director that does nothing else."""
    found = {}
    for name, question in chosen.items():
        try:
            ask(ports.admin, question)
            before = running.cpu_s()
            timed = [ask(ports.admin, question) for _ in range(ROUNDS)]
            cpu = (running.cpu_s() - before) / ROUNDS
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        found[name] = {"wall_s": min(wall for wall, _ in timed), "cpu_s": cpu, "bytes": timed[0][1]}
    return found


def probing(running: Running) -> float:
    """The share of a core that it takes."""
    before, began = running.cpu_s(), time.perf_counter()
    time.sleep(3 * INTERVAL_S)
    return (running.cpu_s() - before) / (time.perf_counter() - began)


def beside(ports: Ports, load: Load, seconds: float, rounds: int, question: Question) -> dict[str, float]:
    """The p99 in microseconds while *question* is asked, and while nothing is, in turns; their ratio."""
    words = ("messages", ports.listen, CONNECTIONS, 64, seconds)
    idle, asked = [], []
    for _ in range(rounds):
        idle.append(load.run(*words)["p99_us"])
        with asking(ports.admin, question):
            asked.append(load.run(*words)["p99_us"])
    medians = statistics.median(idle), statistics.median(asked)
    return {"idle_p99_us": medians[0], "p99_us": medians[1], "ratio": medians[1] / medians[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measure of the p99")
    parser.add_argument("--rounds", type=int, default=5, help="of turns, idle and asked, for each question")
    parser.add_argument("--quick", action="store_true", help="few hosts, short measures, nothing written: it works")
    parser.add_argument("--only", help="these questions, and nothing is written")
    parser.add_argument("--answer", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(20_000, hard), hard))
    if options.answer:
        asyncio.run(answer_for_hosts(options.answer))
    os.sched_setaffinity(0, {int(LOAD_CORE)})  # who asks is not to take the director's core
    chosen = {name: QUESTIONS[name] for name in options.only.split(",")} if options.only else QUESTIONS
    services, hosts = (QUICK_SERVICES, QUICK_HOSTS) if options.quick else (SERVICES, HOSTS)
    seconds, rounds = (QUICK_S, 2) if options.quick else (options.seconds, options.rounds)
    if options.quick:  # there are fewer of them
        chosen = {name: each._replace(path=each.path.replace("s100", "s001").replace("h25", "h02"))
                  for name, each in chosen.items()}
    with tempfile.TemporaryDirectory() as name:
        load = Load(Path(name))
        (hosts_port,) = free_ports(1)
        answering = Running([sys.executable, "-m", "bench.scale", "--answer", str(hosts_port)], core=LOAD_CORE,
                            cwd=HERE.parent)
        try:
            with proxy(peer(hosts_port, 3600.0, services, hosts), load, Path(name), admin=True) as (running, ports):
                time.sleep(SETTLE_S)
                found = answers(running, ports, chosen)
            with proxy(peer(hosts_port, INTERVAL_S, services, hosts), load, Path(name), admin=True) as (running, ports):
                time.sleep(SETTLE_S)
                share = probing(running)
                for what, each in found.items():
                    each |= beside(ports, load, seconds, rounds, chosen[what])
        finally:
            answering.stop()
            load.stop()
    print(f"{services} services of {hosts} hosts; probing: {share:.2f} of a core")
    print(f"{'':22}{'wall s':>9}{'cpu s':>9}{'bytes':>12}{'idle p99':>10}{'p99 us':>9}{'ratio':>7}")
    for name, each in found.items():
        print(f"{name:22}{each['wall_s']:9.3f}{each['cpu_s']:9.3f}{each['bytes']:12.0f}{each['idle_p99_us']:10.0f}"
              f"{each['p99_us']:9.0f}{each['ratio']:7.2f}")
    if not (options.only or options.quick):
        path = HERE / "results" / f"scale-{datetime.now(UTC):%Y%m%d}.json"
        result = {"probing": {"cores": share}, "answers": found} | facts()
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
