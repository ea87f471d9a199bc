"""A director run as an operator runs it, real backends with agents, and some load: what the browser looks at."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from argon2 import PasswordHasher

from tests.etcd_server import free_port

#: What does not hold by then never will; far beyond what a loaded machine needs.
DEADLINE_S = 30.0
PASSWORDS = {"ada": "engine", "bob": "looking"}
_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
#: Seconds of work behind a request, by backend; waiting, not computing.
BACKENDS = {"amber": 0.1, "birch": 0.2, "cedar": 0.3}
#: Clients at once; each waits for its answer, so that they slow down together with the backends.
CLIENTS = 6

CONFIG = """
[node]
name = "north"

[node.agents]
listen = ["127.0.0.1:{agents}"]

[node.admin]
endpoints = [{{ listen = "127.0.0.1:{admin}" }}]
refresh_s = 2.0
project_url = "https://balancer.example/"

[node.admin.users]
ada = {{ password = "{ada}", role = "full" }}
bob = {{ password = "{bob}", role = "readonly" }}

[services.web]
listen = ["127.0.0.1:{web}"]
limits = {{ max_connections = 5000, queue = 200 }}

[services.web.groups.main.health]
slow_start_s = 0.0

[services.web.groups.main.hosts]
amber = "127.0.0.1:{amber}"
birch = {{ address = "127.0.0.1:{birch}", weight = 2 }}
cedar = "127.0.0.1:{cedar}"

[services.web.groups.next]
scheduler = "roundrobin"

[services.web.groups.next.hosts]
dogwood = "127.0.0.1:{amber}"

[services.mail]
listen = ["127.0.0.1:{mail}"]

[services.mail.groups.all.hosts]
mx1 = "127.0.0.1:{birch}"
mx2 = "127.0.0.1:{nobody}"
mx3 = {{ address = "127.0.0.1:{cedar}", backup = true }}
"""


def until(holds: Callable[[], Any], what: str) -> Any:
    """Wait for a condition; its value."""
    began = time.monotonic()
    while not (value := holds()):
        if time.monotonic() - began > DEADLINE_S:
            raise AssertionError(f"not within {DEADLINE_S:g} s: {what}")
        time.sleep(0.05)
    return value


def free_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def ask(request: urllib.request.Request, body: object = None) -> Any:
    """The answer as JSON; a *body* is sent as JSON, too."""
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return json.load(answer)


class Processes:
    """Modules run by this Python, in a folder of their own; ended on leaving."""

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._directory.cleanup()

    def start(self) -> None:
        raise NotImplementedError

    def file(self, name: str, content: str) -> str:
        path = Path(self._directory.name, name)
        path.write_text(content)
        return str(path)

    def log(self, name: str) -> str:
        return Path(self._directory.name, f"{name}.log").read_text()

    def run(self, name: str, module: str, *arguments: str) -> None:
        with Path(self._directory.name, f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=Path(__file__).parents[2],
            )

    def check(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise AssertionError(f"{name} ended by itself:\n{self.log(name)}")


class Stage(Processes):
    """One director that serves real backends under some load.

    :ivar url: of the admin.
    """

    def start(self) -> None:
        self._over = threading.Event()
        self._started = time.monotonic()
        names = ("agents", "admin", "web", "mail", "ftp", "nobody", *BACKENDS)
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.url = f"http://127.0.0.1:{self.ports['admin']}"
        hashes = {name: _CHEAP.hash(password) for name, password in PASSWORDS.items()}
        self.run("director", "director", "run", self.file("director.toml", CONFIG.format(**self.ports, **hashes)))
        for name in BACKENDS:
            self._backend(name)
        until(self._ready, "agents report and probes pass")
        for _ in range(CLIENTS):
            threading.Thread(target=self._requests, daemon=True).start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        super().__exit__(kind, error, trace)

    def api(self, method: str, path: str, body: object = None, user: str = "ada") -> Any:
        """The answer of the REST API, as another operator would have it."""
        request = urllib.request.Request(f"{self.url}/api/v1/{path}", method=method)
        credentials = base64.b64encode(f"{user}:{PASSWORDS[user]}".encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
        return ask(request, body)

    def host(self, name: str) -> Any:
        """A host of ``web/main``."""
        return self.api("GET", f"services/web/groups/main/hosts/{name}")

    def grow_old(self, seconds: float) -> None:
        """Wait until the director has been up for so long."""
        time.sleep(max(0.0, self._started + seconds - time.monotonic()))

    @contextlib.contextmanager
    def without(self, backend: str) -> Iterator[None]:
        """Kill a backend for a while."""
        process = self._processes.pop(backend)
        process.kill()
        process.wait()
        try:
            yield
        finally:
            self._backend(backend)

    def _backend(self, name: str) -> None:
        self.run(name, "deploy.demo.backend", name, str(self.ports[name]), str(BACKENDS[name]),
                  f"127.0.0.1:{self.ports['agents']}")

    def _ready(self) -> bool:
        self.check()
        try:
            hosts = self.api("GET", "services/web/groups/main")["hosts"]
            down = self.api("GET", "services/mail/groups/all/hosts/mx2")
        except OSError:
            return False
        return all(host["agent_connected"] and host["in_rotation"] for host in hosts) and down["state"] == "down"

    def _requests(self) -> None:
        """One client after the other; what they are answered is not these tests' business."""
        while not self._over.wait(0.1):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.ports['web']}/", timeout=5).read()


class Directors(Processes):
    """Two directors of one cluster on an etcd, with a service and nobody's password.

    :ivar urls: of their admins, by name.
    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        self._endpoints = list(endpoints)

    def start(self) -> None:
        host, *ports = free_ports(5)
        names = ("north", "south")
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, ports[:2], strict=True)}
        secret = self.file("secret", "a secret of these tests alone")
        os.chmod(secret, 0o600)
        for (name, url), port in zip(self.urls.items(), ports[2:], strict=True):
            self.run(name, "director", "run", self.file(f"{name}.toml", f"""
                node = {{ name = "{name}", store = "etcd:", etcd = {{ endpoints = {json.dumps(self._endpoints)} }},
                          admin = {{ endpoints = [{{ listen = "{url.removeprefix("http://")}" }}] }},
                          peers = {{ listen = "127.0.0.1:{port}", secret_file = "{secret}" }} }}
            """.replace("\n", " ").strip()))
        until(self._ready, "both directors answer")
        spec = {"listen": [], "groups": {"main": {"hosts": {"a": f"127.0.0.1:{host}"}}}}
        self._ask("north", "POST", "services/web", {"spec": spec})
        until(lambda: all(self._ask(name, "GET", "cluster")["leader"] for name in self.urls), "a leader")
        until(lambda: all(peer["connected"] for name in self.urls for peer in self._ask(name, "GET", "status")["peers"]),
              "both are linked")

    def _ready(self) -> bool:
        self.check()
        with contextlib.suppress(OSError):
            return all(len(self._ask(name, "GET", "cluster")["members"]) == len(self.urls) for name in self.urls)
        return False

    def _ask(self, name: str, method: str, path: str, body: object = None) -> Any:
        return ask(urllib.request.Request(f"{self.urls[name]}/api/v1/{path}", method=method), body)
