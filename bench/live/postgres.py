"""PostgreSQL under pgbench, in cgroups with quotas: ``python -m bench.live.postgres [--seconds N]``.

Four clusters of 40, 40, 20 and 10 % of a core, each with ``director-agent --port`` beside it, which is told no more than
that port; HAProxy with leastconn before them, then a director as it is by default. Two loads, each of three fifths of what
the processor time allows (measured, with a cluster by itself): *short*, a connection for each query (``pgbench -C``), and
*long*, connections that live 3 to 20 s and have a query twice a second (a pgbench each, started anew). Queries begin at
random moments which the answers do not move, and latency counts from there (``pgbench -R``).

The first third is not measured, and at least 30 s: the time in which weights are to have found their place. Needs root, for
the cgroups, and Debian's ``postgresql`` (which has pgbench) and ``haproxy``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bench.live.backends import await_port, cgroup, end
from bench.live.proxies import Place, Proxy, director, haproxy
from bench.machine import HERE, Running, free_ports

QUOTAS = (0.4, 0.4, 0.2, 0.1)
LOAD = 0.60
SECONDS, WARM_UP_S = 90.0, 30.0
LIVES_S = (3, 20)
PER_S = 2.0
USER = "postgres"
#: Some milliseconds of processor time, and no table.
QUERY = "select count(*) from generate_series(1, 40000);\n"
#: Transactions by which their cost is measured.
TRIED = 40
#: Clients of a pgbench that connects for each query: nobody waits for one to be free, unless many seconds are lost already.
AT_ONCE = 100
PROXIES = (Proxy("haproxy leastconn", haproxy("leastconn")), Proxy("director default", director(""), reports=True))
#: Debian keeps servers out of users' way.
PATH = ":".join([os.environ["PATH"], *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))])
ENVIRONMENT = {**os.environ, "PATH": PATH, "PGUSER": USER, "PGDATABASE": USER, "LC_ALL": "C"}


class Server:
    """One cluster in its cgroup."""

    def __init__(self, template: Path, data: Path, port: int, cores: float, stack: contextlib.ExitStack) -> None:
        self.port, self._socket = port, data.parent
        subprocess.run(["cp", "-a", template, data], check=True)
        self._folders = cgroup(f"txdirector-bench-{os.getpid()}-{port}", cores)
        for folder in self._folders:
            stack.callback(folder.rmdir)
        settings = ("max_connections=300", "shared_buffers=16MB", "autovacuum=off", "jit=off", "fsync=off",
                    "listen_addresses=127.0.0.1", f"unix_socket_directories={self._socket}", f"port={port}")
        self._process = subprocess.Popen(
            ["postgres", "-D", data, *(word for each in settings for word in ("-c", each))], **_as_user(),
            stderr=subprocess.DEVNULL)
        stack.callback(self._stop)
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(self._process.pid))
        await_port(port)
        while not self.sessions(wait=True):
            time.sleep(0.1)

    def _stop(self) -> None:
        """Its children end with it, so that the cgroup is empty."""
        self._process.send_signal(3)
        self._process.wait(30)

    def sessions(self, *, wait: bool = False) -> int:
        """Connections so far, this one included; 0 while it does not answer and one may *wait* for it."""
        done = subprocess.run(
            ["psql", "-XAt", "-h", self._socket, "-p", str(self.port), "-c",
             f"select 1 + sessions from pg_stat_database where datname = '{USER}'"],
            env=ENVIRONMENT, text=True, capture_output=True, check=not wait)
        return int(done.stdout or 0)

    def cpu_s(self) -> float:
        """Processor time so far."""
        usage = self._folders[-1] / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text()) / 1e9
        return int((self._folders[0] / "cpu.stat").read_text().split()[1]) / 1e6

    def cost_s(self, script: Path, *words: str) -> float:
        """Processor time of a transaction."""
        before = self.cpu_s()
        subprocess.run(_pgbench(self.port, script, "-t", str(TRIED), *words), env=ENVIRONMENT, check=True,
                       capture_output=True)
        return (self.cpu_s() - before) / TRIED


class Log:
    """What pgbenches did, each with a log of its own."""

    def __init__(self, folder: Path, port: int, script: Path) -> None:
        self._folder, self._port, self._script = folder, port, script
        self.failed = 0
        self._over = False

    def run(self, seconds: float, rate: float, number: str, *words: str) -> None:
        words = ("-T", f"{max(1, round(seconds))}", "-R", f"{rate:.3f}", "-l", f"--log-prefix={self._folder}/{number}",
                 *words)
        done = subprocess.run(_pgbench(self._port, self._script, *words), env=ENVIRONMENT, text=True, capture_output=True,
                              check=False)
        failures = len(re.findall(r"aborted", done.stderr))
        self.failed += failures or done.returncode != 0

    def short(self, seconds: float, rate: float) -> list[threading.Thread]:
        return [_begun(self.run, seconds, rate, "short", "-C", "-c", str(AT_ONCE), "-j", "2")]

    def long(self, seconds: float, rate: float) -> list[threading.Thread]:
        until = time.monotonic() + seconds
        return [_begun(self._lives, until, number) for number in range(round(rate / PER_S))]

    def _lives(self, until: float, number: int) -> None:
        """One connection after the other; the first one ends early, so that not all end together."""
        rng = random.Random(number)
        life = rng.uniform(1, LIVES_S[1])
        for count in range(10_000):
            if time.monotonic() >= until:
                return
            self.run(life, PER_S, f"{number}-{count}")
            life = rng.uniform(*LIVES_S)

    def latencies_ms(self, since: float, until: float) -> list[float]:
        """From when each should have begun, of what ended between the two moments."""
        found = []
        for file in self._folder.iterdir():
            for line in file.read_text().splitlines():
                fields = line.split()
                if since <= float(fields[4]) + float(fields[5]) / 1e6 < until:
                    found.append(float(fields[2]) / 1000)
        return sorted(found)


class Result(NamedTuple):
    throughput: float
    p50: float
    p99: float
    failed: int
    shares: list[float]


def measured(proxy: Proxy, load: str, rate: float, seconds: float, servers: list[Server], folder: Path,
             script: Path) -> Result:
    warm_up_s = max(WARM_UP_S, seconds / 3)
    with contextlib.ExitStack() as stack:
        listen, agents = free_ports(2)
        place = Place(folder, listen, agents, [(server.port, 0) for server in servers])
        running = Running(proxy.command(place), core="0,1", cwd=HERE.parent)
        stack.callback(running.stop)
        running.await_port(listen)
        for number, server in enumerate(servers if proxy.reports else ()):
            words = ["--director", f"127.0.0.1:{agents}", "--host", f"all/main/h{number}", "--port", str(server.port)]
            stack.callback(end, subprocess.Popen([sys.executable, "-m", "agent.cli", *words, "--log-level", "warn"],
                                                 cwd=HERE.parent, stderr=subprocess.DEVNULL))
        log = Log(folder / "logs", listen, script)
        (folder / "logs").mkdir()
        threads = (log.short if load == "short" else log.long)(warm_up_s + seconds, rate)
        time.sleep(warm_up_s)
        since, before = time.time(), [server.sessions() for server in servers]
        time.sleep(seconds)
        until, after = time.time(), [server.sessions() for server in servers]
        for thread in threads:
            thread.join()
    new = [later - earlier - 1 for earlier, later in zip(before, after, strict=True)]  # one asked for the count
    latencies = log.latencies_ms(since, until)
    return Result(len(latencies) / (until - since), latencies[len(latencies) // 2], latencies[int(0.99 * len(latencies))],
                  log.failed, [100 * each / max(1, sum(new)) for each in new])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="measured, of each load on each balancer")
    options = parser.parse_args()
    for program in ("postgres", "initdb", "pgbench", "haproxy"):
        if shutil.which(program, path=PATH) is None:
            raise SystemExit(f"{program} is missing: apt-get install postgresql haproxy")
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        folder = Path(directory)
        folder.chmod(0o755)
        clusters = folder / "clusters"
        clusters.mkdir()
        if os.getuid() == 0:
            shutil.chown(clusters, USER)
        subprocess.run(["initdb", "-D", clusters / "new", "-U", USER, "-A", "trust", "--no-sync", "--locale=C"], check=True,
                       **_as_user(), stdout=subprocess.DEVNULL)
        servers = [Server(clusters / "new", clusters / f"h{number}", port, cores, stack)
                   for number, (cores, port) in enumerate(zip(QUOTAS, free_ports(len(QUOTAS)), strict=True))]
        script = folder / "query.sql"
        script.write_text(QUERY)
        capacity = " ".join(f"{100 * cores / sum(QUOTAS):.0f}" for cores in QUOTAS)
        for load, words in (("short", ("-C",)), ("long", ())):
            cost_s = servers[0].cost_s(script, *words)
            rate = LOAD * sum(QUOTAS) / cost_s
            print(f"\n{load}: {rate:.0f} queries a second of {1000 * cost_s:.1f} ms, {options.seconds:.0f} s\n"
                  f"{'':20}{'queries/s':>10}{'p50':>8}{'p99 ms':>9}{'failed':>8}"
                  f"  shares of new connections; capacity {capacity}", flush=True)
            for proxy in PROXIES:
                own = folder / f"{load}-{proxy.name.replace(' ', '-')}"
                own.mkdir()
                found = measured(proxy, load, rate, options.seconds, servers, own, script)
                shares = " ".join(f"{share:.0f}" for share in found.shares)
                print(f"{proxy.name:20}{found.throughput:10.1f}{found.p50:8.0f}{found.p99:9.0f}{found.failed:8}  {shares}",
                      flush=True)


def _pgbench(port: int, script: Path, *words: str) -> list[str]:
    return ["pgbench", "-n", "-h", "127.0.0.1", "-p", str(port), "-f", str(script), *words]


def _begun(target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _as_user() -> dict[str, Any]:
    """PostgreSQL does not run as root."""
    if os.getuid() != 0:
        return {"env": ENVIRONMENT}
    return {"env": ENVIRONMENT, "user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": ()}


if __name__ == "__main__":
    main()
