"""Runs the demo; see the package. Everything it starts is on 127.0.0.1 and ends with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from deploy.demo.load import Fate, Load

reactor: Any = _reactor

#: Workers of each backend, and the seconds that a request keeps one: together they do 219 requests a second. At this rate
#: each has several in flight all the time, so that shares follow the weights, and three can do without the fourth.
WORKERS = {"large": 16, "usual": 8, "steady": 8, "small": 3}
SERVICE_S = 0.16
RATE = 140.0
VICTIM = "usual"
#: The script: when what happens, in seconds of load.
KILL_AT, REVIVE_AT, END_AT = 14.0, 20.0, 34.0
#: Shares are those of the last so many seconds: 700 answers, so that they are sure to 2 %, and the last incident is past.
SHARES_S = 5.0

CONFIG = """
[node]
name = "demo"

[node.agents]
listen = ["127.0.0.1:{agents}"]

[node.admin]
endpoints = [{{ listen = "127.0.0.1:{admin}" }}]

[node.log]
level = "info"
target = "{log}"

[services.web]
listen = ["127.0.0.1:{web}"]

[services.web.groups.main]
scheduler = "weightedleastconns"

[services.web.groups.main.health]
slow_start_s = 4.0

[services.web.groups.main.hosts]
{hosts}
"""


class Demo:
    """The processes, the load and the table."""

    def __init__(self, console: Console, directory: Path) -> None:
        self.console = console
        self.directory = directory
        self.web, self.agents, self.admin, *ports = free_ports(3 + len(WORKERS))
        self.ports = dict(zip(WORKERS, ports, strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.load = Load(self.web, RATE, reactor=reactor)
        self.killed: tuple[float, float] | None = None  # just before, and when it was certainly dead
        self.event = "starting"
        self.last: dict[str, Any] = {"services": []}  # status, and shares, when the load ended
        self.shares: dict[str, float] = {}

    def spawn(self, name: str, *command: str) -> None:
        log = (self.directory / f"{name}.log").open("ab")
        with log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def start_backend(self, name: str) -> None:
        self.spawn(name, "deploy.demo.backend", name, str(self.ports[name]), str(SERVICE_S),
                   f"127.0.0.1:{self.agents}", str(WORKERS[name]))

    def start_director(self) -> None:
        config = self.directory / "director.toml"
        config.write_text(CONFIG.format(
            agents=self.agents, admin=self.admin, web=self.web, log=self.directory / "director.logs.output",
            hosts="\n".join(f'{name} = "127.0.0.1:{port}"' for name, port in self.ports.items()),
        ))
        self.spawn("director", "director", "run", str(config))

    async def status(self) -> dict[str, Any] | None:
        """What the director's API says; None while it does not answer."""
        url = f"http://127.0.0.1:{self.admin}/api/v1/status"

        def fetch() -> Any:
            with urllib.request.urlopen(url, timeout=3) as answer:
                return json.load(answer)

        try:
            return await deferToThread(fetch)  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return None

    async def wait_for(self, what: str, holds: Any, deadline_s: float = 60.0) -> None:
        began = time.monotonic()
        while True:
            status = await self.status()
            if status is not None and holds(hosts_of(status)):
                return
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise SystemExit(f"{name} ended by itself:\n{(self.directory / f'{name}.log').read_text()}")
            if time.monotonic() - began > deadline_s:
                raise SystemExit(f"{what} did not happen within {deadline_s:g} s")
            await deferLater(reactor, 0.1)

    def kill(self, name: str) -> None:
        before = reactor.seconds()
        self.processes[name].kill()
        self.processes[name].wait()
        self.killed = (before, reactor.seconds())

    def table(self, status: dict[str, Any], elapsed: float) -> Table:
        table = Table(title=f"{elapsed:4.0f} s  {self.event}", title_justify="left")
        for column in ("backend", "workers", "state", "weight", "of all", "share", "busy", "open", "answers"):
            table.add_column(column, justify="left" if column in ("backend", "state") else "right")
        answers, parts, shares = self.load.answers(), weights_of(status), self.load.shares(SHARES_S)
        for host in hosts_of(status):
            report = host["report"] or {}
            state = host["state"] if host["in_rotation"] else f"{host['state']}, out"
            used = report.get("utilisation")
            table.add_row(
                host["name"], str(WORKERS[host["name"]]), state, f"{host['weight']:.2f}",
                f"{parts[host['name']]:.0%}", f"{shares[host['name']]:.0%}",
                "-" if used is None else f"{used:.0%}", str(host["in_flight"]), str(answers[host["name"]]),
            )
        return table

    async def run(self) -> int:
        console = self.console
        self.start_director()
        for name in WORKERS:
            self.start_backend(name)
        await self.wait_for("the agents' connection", lambda hosts: all(host["report"] for host in hosts))
        console.print(f"clients     http://127.0.0.1:{self.web}/")
        console.print(f"REST        http://127.0.0.1:{self.admin}/api/v1/status")
        console.print(f"metrics     http://127.0.0.1:{self.admin}/metrics")
        console.print(f"try         directorctl --url http://127.0.0.1:{self.admin} top")
        console.print(f"load        {RATE:.0f} requests a second on new connections, for {END_AT:.0f} s\n")
        await self.play()
        await self.wait_for("the end of the last requests", lambda hosts: self.load.open == 0)
        return self.summary()

    async def play(self) -> None:
        """The load with its two incidents, shown every second."""
        self.load.start()
        began = reactor.seconds()
        self.event = "weights are learnt from the agents' reports"
        live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        with live or contextlib.nullcontext():
            shown = -10.0
            while (elapsed := reactor.seconds() - began) < END_AT:
                if self.killed is None and elapsed >= KILL_AT:
                    self.kill(VICTIM)
                    self.event = f"{VICTIM} was killed"
                elif elapsed >= REVIVE_AT and self.processes[VICTIM].poll() is not None:
                    self.start_backend(VICTIM)
                    self.event = f"{VICTIM} was started again: checked, then eased in"
                status = await self.status()
                if status is not None and live is not None:
                    live.update(self.table(status, elapsed), refresh=True)
                elif status is not None and elapsed - shown >= 5.0:
                    self.console.print(self.table(status, elapsed))
                    shown = elapsed
                await deferLater(reactor, 1.0)
        self.load.stop()
        self.last = status or self.last
        self.shares = self.load.shares(SHARES_S)

    def summary(self) -> int:
        """What clients saw; 1 when anything but the killed backend's own connections failed."""
        fates = self.load.fates
        good = [fate for fate in fates if not fate.error]
        bad = [fate for fate in fates if fate.error]
        caught = [fate for fate in bad if self._caught(fate)]
        others = [fate for fate in bad if fate not in caught]
        took = sorted(1000 * (fate.ended - fate.began) for fate in good if fate.ended is not None)
        if not took:
            self.console.print(f"nobody was answered: {bad[0].error if bad else 'no requests'}")
            return 1
        p99 = took[int(len(took) * 0.99)]
        self.console.print(f"\nrequests    {len(fates)}, answered {len(good)}: "
                           f"median {statistics.median(took):.0f} ms, p99 {p99:.0f} ms")
        answers = ", ".join(f"{name} {count}" for name, count in sorted(self.load.answers().items()))
        self.console.print(f"answered by {answers}")
        shares = ", ".join(f"{name} {self.shares[name]:.0%} by a weight of {part:.0%}"
                           for name, part in sorted(weights_of(self.last).items()))
        self.console.print(f"at the end  {shares}")
        self.console.print(f"errors      {len(others)}")
        self.console.print(f"in flight   {len(caught)} connections were open on {VICTIM} when it was killed; "
                           "nobody can save these")
        for fate in others[:5]:
            self.console.print(f"            {fate.error}")
        return 1 if others or not good else 0

    def _caught(self, fate: Fate) -> bool:
        """Whether the request was under way when the victim died."""
        return self.killed is not None and fate.began <= self.killed[1] and (fate.ended or 0.0) >= self.killed[0]

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def hosts_of(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [host for service in status["services"] for group in service["groups"] for host in group["hosts"]]


def weights_of(status: dict[str, Any]) -> dict[str, float]:
    """Each host's part of the weights in rotation."""
    weights = {host["name"]: host["weight"] if host["in_rotation"] else 0.0 for host in hosts_of(status)}
    total = sum(weights.values()) or 1.0
    return {name: weight / total for name, weight in weights.items()}


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> None:
    os.chdir(Path(__file__).parents[2])
    console = Console(highlight=False)
    outcome = 1

    async def play(demo: Demo) -> None:
        nonlocal outcome
        try:
            outcome = await demo.run()
        except SystemExit as stop:
            console.print(str(stop), markup=False)
        finally:
            demo.stop()
            reactor.stop()

    with tempfile.TemporaryDirectory(prefix="txdirector-demo-") as directory:
        demo = Demo(console, Path(directory))
        reactor.callWhenRunning(lambda: Deferred.fromCoroutine(play(demo)).addErrback(
            lambda failure: console.print(failure.getTraceback(), markup=False)))
        try:
            reactor.run()
        finally:
            demo.stop()
    raise SystemExit(outcome)


if __name__ == "__main__":
    main()
