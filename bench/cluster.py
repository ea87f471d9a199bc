"""A real cluster, measured: ``python -m bench.cluster [--takeovers N] [--agents N]``.

Takeovers of the VIP after SIGKILL of the leader, with etcd as it comes and tuned; resignations, with the connections that
were refused meanwhile; a drain ordered at one director until the other obeys; a report until its weight is in force at
both directors, under a thousand agents at 1 Hz, with what that costs; what a pair costs that
serves nobody. Everything runs in namespaces on this machine.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import HERE, TICKS, facts
from deploy.lab.cluster import AGENTS, BACKEND, DEFAULT_ETCD, TOKEN, TUNED_ETCD, VIP, WEB, Cluster, Director, all_up, until
from deploy.lab.net import why_not

#: For which a pair that has nothing to do is looked at.
IDLE_S = 20
DRAINS = 40
REPORTS = 60


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "p99": quantile(values, 0.99), "worst": max(values), "count": len(values)}


@contextmanager
def cluster(**options: Any) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as directory:
        made = Cluster(Path(directory), backends=1, **options)
        try:
            made.start()
            yield made
        finally:
            made.close()


def answers(made: Cluster) -> bool:
    """One client of the VIP is served."""
    with made.client.inside():
        sock = socket.socket()
    with sock:
        sock.settimeout(0.1)
        try:
            sock.connect((VIP, WEB))
            sock.settimeout(2)
            return bool(sock.recv(64))
        except OSError:
            return False


def takeovers(count: int, options: tuple[str, ...], node: str) -> list[float]:
    """Seconds from SIGKILL of the leader until the VIP answers."""
    found = []
    with cluster(etcd=3, etcd_options=options, node=node) as made:
        for _ in range(count):
            leader = made.await_vip()
            until(lambda: answers(made), "the VIP answers")
            time.sleep(random.uniform(0, 2))  # at any moment between renewals, and between etcd's looks for dead leases
            began = time.monotonic()
            leader.kill()
            until(lambda: answers(made), "the VIP answers again", every_s=0.005)
            found.append(time.monotonic() - began)
            leader.start()
            until(lambda leader=leader: all_up(leader, 1), f"{leader.name} is back")
            print(".", end="", file=sys.stderr, flush=True)
    return found


def resignations(count: int) -> dict[str, float]:
    """Connections that failed while leaders were stopped in order."""
    with cluster(etcd=3) as made:
        clients = made.clients(100)
        for _ in range(count):
            leader = made.await_vip()
            time.sleep(0.5)
            leader.stop()
            until(lambda leader=leader: any(each.holds_vip() for each in made.directors if each is not leader), "a takeover")
            leader.start()
            until(lambda leader=leader: all_up(leader, 1), f"{leader.name} is back")
            print(".", end="", file=sys.stderr, flush=True)
        seen = clients.stop()
    return {"resignations": count, "connections": len(seen), "failed": sum(each["error"] is not None for each in seen),
            "slowest_s": max(each["took"] for each in seen)}


def drains(count: int) -> list[float]:
    """Seconds from the answer-less order at one director until the other obeys."""
    found = []
    with cluster() as made:
        one, two = made.directors
        for number in range(count):
            state = "up" if number % 2 else "drain"
            began = time.monotonic()
            one.call("PUT", "services/web/groups/main/hosts/b1/state", {"state": state})
            until(lambda state=state: two.hosts()["b1"]["in_rotation"] is (state == "up"), f"{state} arrives", every_s=0.001)
            found.append(time.monotonic() - began)
    return found


def cpu_s(director: Director) -> float:
    assert director.process is not None
    fields = Path(f"/proc/{director.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def report_costs(directors: list[Director]) -> list[dict[str, float]]:
    """What each spends while nothing but reports comes in. Asking it how many came costs it something: that is left out."""
    def counts() -> list[tuple[float, float]]:
        return [(time.monotonic(), each.metric("txdirector_agent_reports_total")) for each in directors]

    def spent() -> list[tuple[float, float]]:
        return [(time.monotonic(), cpu_s(each)) for each in directors]

    counts_before = counts()
    time.sleep(1)  # the answers are away
    spent_before = spent()
    time.sleep(15)
    spent_after, counts_after = spent(), counts()
    costs = []
    for a, b, c, d in zip(counts_before, counts_after, spent_before, spent_after, strict=True):
        per_s, core = (b[1] - a[1]) / (b[0] - a[0]), (d[1] - c[1]) / (d[0] - c[0])
        costs.append({"cpu_ms_per_1000_reports": 1e6 * core / per_s, "core": core, "reports_per_s": per_s})
    return costs


def reports(agents: int) -> dict[str, Any]:
    """Seconds from a report's sending until its weight is in force at both directors; CPU of a thousand reports."""
    with cluster() as made:
        one = made.directors[0]
        address = f"{made.backends[0].machine.address}:{BACKEND}"
        hosts = {f"h{number}": {"address": address} for number in range(agents)} | {"probe": {"address": address}}
        group = {"hosts": hosts, "health": {"probe": {"kind": "none"}}}
        one.call("PUT", "services/many", {"spec": {"groups": {"main": group}}}, timeout_s=30)
        machine = made.backends[0].machine
        directors = [f"{each.machine.address}:{AGENTS}" for each in made.directors]
        swarm = machine.start(sys.executable, "-m", "deploy.lab.agents", ",".join(directors), "many/main", str(agents),
                              stdout=subprocess.PIPE)
        for each in made.directors:
            until(lambda each=each: each.metric("txdirector_host_agent_connected") >= agents, "every agent is heard", 60)
        path = "services/many/groups/main/hosts/probe"
        found: list[float] = []
        with machine.inside():
            speakers = [socket.create_connection((each.machine.address, AGENTS), 10) for each in made.directors]
        hello = {"type": "hello", "version": 1, "agent": "probe", "boot_id": "bench", "token": TOKEN,
                 "hosts": [{"host": "many/main/probe"}]}
        for sock in speakers:
            sock.sendall(json.dumps(hello).encode() + b"\n")
            sock.recv(65_536)
        costs = report_costs(made.directors)
        for seq in range(1, REPORTS + 1):
            weight = 0.5 if seq % 2 else 1.0
            line = json.dumps({"type": "report", "seq": seq, "load": {"weight": weight}}).encode() + b"\n"
            began = time.monotonic()
            for sock in speakers:
                sock.sendall(line)
            for each in made.directors:
                until(lambda each=each, weight=weight: each.call("GET", path)["agent_weight"] == weight,
                      "the weight is in force", every_s=0.002)
            found.append(time.monotonic() - began)
            time.sleep(0.1)  # below the limit of reports a second
        machine.stop(swarm)
    return {"report_to_weight_s": summary(found), "directors": costs}


def packets(director: Director) -> int:
    """In and out of its machine: probes, reports, etcd, and the other director."""
    said = subprocess.run(["ip", "-n", director.machine.namespace, "-s", "-j", "link", "show", "dev", "eth0"], check=True,
                          capture_output=True).stdout
    stats = json.loads(said)[0]["stats64"]
    return int(stats["rx"]["packets"] + stats["tx"]["packets"])


def idle(node: str) -> dict[str, Any]:
    """What a pair costs that serves nobody: the owner first."""
    with cluster(etcd=3, node=node) as made:
        owner = made.await_vip()
        directors = [owner, *(each for each in made.directors if each is not owner)]
        time.sleep(5)  # what a start brings about is over
        written = made.etcd[0].revision()
        before = [(cpu_s(each), packets(each)) for each in directors]
        time.sleep(IDLE_S)
        after = [(cpu_s(each), packets(each)) for each in directors]
        return {
            "core": [(b[0] - a[0]) / IDLE_S for a, b in zip(before, after, strict=True)],
            "packets_per_s": [(b[1] - a[1]) / IDLE_S for a, b in zip(before, after, strict=True)],
            "etcd_writes_per_s": (made.etcd[0].revision() - written) / IDLE_S,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--takeovers", type=int, default=30)
    parser.add_argument("--agents", type=int, default=1_000)
    parser.add_argument("--only", help="one part, by its name in the results; nothing is written")
    options = parser.parse_args()
    if reason := why_not():
        raise SystemExit(f"this bench needs network namespaces: {reason}")
    parts: dict[str, Callable[[], Any]] = {
        "drain_s": lambda: summary(drains(DRAINS)),
        "reports": lambda: reports(options.agents),
        "takeover_s": lambda: summary(takeovers(options.takeovers, DEFAULT_ETCD, "")),
        "takeover_tuned_s": lambda: summary(takeovers(options.takeovers, TUNED_ETCD, "leader_lease_s = 1.0")),
        "resign": lambda: resignations(options.takeovers),
        "idle": lambda: {"leases": idle(""), "promises": idle('takeover = "promises"')},
    }
    result: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds")} | facts()
    for name in [options.only] if options.only else parts:
        result[name] = parts[name]()
    print(file=sys.stderr)
    print(json.dumps(result, indent=1))
    if options.only:
        return
    path = HERE / "results" / f"cluster-{datetime.now(UTC):%Y%m%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {path.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
