"""Real clients and real servers with a director between them: a process of its own, started by its command line.

A test derives from `Clients` and gets a class for each relay by `on_both_relays`. Servers and directors are a class's;
after every test each director must have counted every client in and out and hold no descriptor more than before the
first, and at the end it must stop in order.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import psutil
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from director.relay.choice import native_missing
from tests.etcd_server import free_port

#: What does not come about by then never will, on however slow a machine.
PATIENCE_S = 20.0
#: A client that moves a hundred megabytes is given longer.
CLIENT_S = 120.0

#: Debian's packages of what is started here.
PACKAGES = {
    "curl": "curl", "h2load": "nghttp2-client", "haproxy": "haproxy", "iperf3": "iperf3", "mariadb": "mariadb-client",
    "mariadbd": "mariadb-server", "mosquitto": "mosquitto", "mosquitto_pub": "mosquitto-clients", "nc": "netcat-openbsd",
    "nginx": "nginx-light libnginx-mod-stream", "openssl": "openssl", "pgbench": "postgresql", "postgres": "postgresql", "psql": "postgresql-client",
    "redis-cli": "redis-tools", "redis-server": "redis-server", "rsync": "rsync", "scp": "openssh-client",
    "sshd": "openssh-server", "unshare": "util-linux",
}
#: Where Debian keeps servers out of users' way; the newest PostgreSQL first.
PATH = os.pathsep.join([*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
                        os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
#: Of all clients and servers; none reads what the person who runs the tests has configured.
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}

CONFIGURATION = """
[node]
log.level = "warn"
admin.endpoints = [{{ listen = "127.0.0.1:{admin}" }}]
{node}
[services.{service}]
listen = ["127.0.0.1:{port}"]
relay = "{relay}"
{more}
[services.{service}.groups.main]
{group}
[services.{service}.groups.main.hosts]
{hosts}
"""


class Director:
    """A director in a process of its own, with one service, seen from outside.

    :param hosts: addresses by name.
    :param more: lines of TOML for the service, and of others after it; ``%PORT%`` is that of its listener.
    :param group: lines of TOML for its group.
    :param node: lines of TOML for the node.
    """

    def __init__(self, relay: str, hosts: Mapping[str, str], directory: Path, *, more: str = "",
                 group: str = 'health.probe.kind = "none"', service: str = "all", node: str = "") -> None:
        self.port, self.admin = free_ports(2)
        lines = "\n".join(f'{name} = "{address}"' for name, address in hosts.items())
        path = directory / f"director-{self.port}.toml"
        path.write_text(CONFIGURATION.format(admin=self.admin, port=self.port, relay=relay, hosts=lines,
                                             more=more.replace("%PORT%", str(self.port)),
                                             group=group, service=service, node=node))
        self.process = subprocess.Popen([sys.executable, "-m", "director", "run", str(path)])
        try:
            wait_until(self.is_up, "the director is up")
            self.at_rest = self.descriptors()
        except BaseException:
            self.end()
            raise

    def is_up(self) -> bool:
        assert self.process.poll() is None, "the director did not start"
        try:
            return "txdirector_start_time" in self.metrics_text()
        except OSError:
            return False

    def metrics_text(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=PATIENCE_S) as answer:
            text: str = answer.read().decode()
        return text

    def total(self, name: str, label: str = "") -> float:
        """The sum of all series of a metric, or of those with *label* (``result="passed"``)."""
        return sum(float(value) for labels, value in re.findall(rf"^{name}({{.*}})? (\S+)$", self.metrics_text(), re.M)
                   if label in labels)

    @property
    def accepted(self) -> int:
        return int(self.total("txdirector_connections_accepted_total"))

    def descriptors(self) -> int:
        """Without those of pipes, of which any number up to the bound may be in the pool."""
        pipes = int(self.total("txdirector_relay_pipes"))
        wait_until(self.is_not_asked, "the connection that asked for the metrics is gone")
        return len(os.listdir(f"/proc/{self.process.pid}/fd")) - 2 * pipes

    def is_not_asked(self) -> bool:
        connections = psutil.Process(self.process.pid).net_connections()
        return all(each.laddr.port != self.admin or each.status == psutil.CONN_LISTEN for each in connections)

    def check_balance(self) -> None:
        """No client is left, each is counted under a reason, and no descriptor is kept."""
        for gauge in ("txdirector_relay_open_connections", "txdirector_host_in_flight_connections",
                      "txdirector_service_connections"):
            wait_until(lambda: self.total(gauge) == 0, f"{gauge} is 0")  # noqa: B023
        ended, accepted = self.total("txdirector_connections_ended_total"), self.accepted
        assert ended == accepted, f"{accepted} accepted, {ended} ended"
        # A probe may be under way, now or then, which holds one for a moment.
        wait_until(lambda: self.descriptors() <= self.at_rest, "every descriptor is closed")

    def memory(self) -> int:
        """Anonymous bytes."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        [found] = re.findall(r"^Anonymous: +(\d+) kB", rollup, re.M)
        return int(found) * 1024

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE_S)

    def end(self) -> None:
        """Whatever state it is in."""
        self.process.kill()
        self.process.wait()


class Clients(SynchronousTestCase):
    """Base of the tests; `relay` is a class's."""

    relay: ClassVar[str]
    #: Programs, of those that `PACKAGES` has.
    needs: ClassVar[tuple[str, ...]]
    directory: ClassVar[Path]
    #: Of `directors` the one that its tests talk to.
    director: ClassVar[Director]
    directors: ClassVar[list[Director]]

    @classmethod
    def setUpClass(cls) -> None:
        if cls.relay == "native" and (why := native_missing()):
            go_without(why)
        for name in cls.needs:
            if not shutil.which(name, path=PATH):
                go_without(f"{name} is not installed: apt-get install {PACKAGES[name]}")
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)
        cls.directory.chmod(0o755)  # for servers that refuse to be root
        cls.directors = []
        cls.serve()

    @classmethod
    def serve(cls) -> None:
        """Start what all tests of the class talk to."""
        raise NotImplementedError

    @classmethod
    def folder(cls, name: str, user: str) -> Path:
        """A new one, of *user* where we are root."""
        path = cls.directory / name
        path.mkdir()
        if os.geteuid() == 0:
            shutil.chown(path, user)
        return path

    @classmethod
    def direct(cls, *ports: int, **more: str) -> Director:
        """Start a director for servers at *ports* of loopback."""
        hosts = {f"host{number}": f"127.0.0.1:{port}" for number, port in enumerate(ports)}
        director = Director(cls.relay, hosts, cls.directory, **more)
        cls.addClassCleanup(director.end)
        cls.directors.append(director)
        return director

    def tearDown(self) -> None:
        for director in self.directors:
            director.check_balance()

    @classmethod
    def tearDownClass(cls) -> None:
        for director in cls.directors:
            assert (code := director.stop()) == 0, f"the director ended with {code}"

    @classmethod
    def server(cls, *words: object, port: int, user: str | None = None) -> Path:
        """Start a server that stays in the foreground; it listens at *port* of loopback when this returns its log's path.

        :param user: run as this one, where we are root.
        """
        log = cls.directory / f"{Path(str(words[0])).name}-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command(words), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                       env=ENVIRONMENT, cwd=cls.directory, **as_user(user))

        def end() -> None:
            process.terminate()
            process.wait()

        def listens() -> bool:
            assert process.poll() is None, f"{words[0]} did not start: {log.read_text('utf-8', 'replace')[-2000:]}"
            return is_listened_at(port)

        cls.addClassCleanup(end)
        wait_until(listens, f"{words[0]} listens")
        return log

    def client(self, *words: object, output: Path | None = None) -> subprocess.Popen[str]:
        """Start a client, which does not outlive the test; :param output: of what it says, else it is a pipe."""
        with (output or Path(os.devnull)).open("w") as file:
            process = subprocess.Popen(command(words), stdin=subprocess.DEVNULL, stdout=file if output else subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process


def run(*words: object, given: bytes = b"", source: Path | None = None, target: Path | None = None,
        user: str | None = None) -> str:
    """Run a client to its end, which must be a good one; returns what it prints.

    :param given: its standard input; or it is *source*.
    :param target: gets the standard output.
    """
    with contextlib.ExitStack() as stack:
        done = subprocess.run(
            command(words), input=None if source else given, stdin=stack.enter_context(source.open("rb")) if source else None,
            stdout=stack.enter_context(target.open("wb")) if target else subprocess.PIPE, stderr=subprocess.PIPE,
            env=ENVIRONMENT, timeout=CLIENT_S, check=False, **as_user(user),
        )
    printed = (done.stdout or b"").decode("utf-8", "replace")
    complaint = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, f"{words[0]} ended with {done.returncode}: {complaint[-2000:]} {printed[-2000:]}"
    return printed


def command(words: tuple[object, ...]) -> list[str]:
    """With the program's path, which sshd insists on."""
    name, *arguments = map(str, words)
    return [shutil.which(name, path=PATH) or name, *arguments]


def as_user(name: str | None) -> dict[str, Any]:
    """Arguments of a process that is to be *name*'s, as far as we may."""
    if name is None or os.geteuid() != 0:
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": ()}


def go_without(why: str) -> None:
    """In CI nothing is missing."""
    if os.environ.get("CI"):
        raise AssertionError(why)
    raise SkipTest(why)


def on_both_relays(base: type[Clients]) -> tuple[type[Clients], type[Clients]]:
    """A test's classes: the Python relay's and the native one's."""
    python, native = (
        type(f"{relay.title()}{base.__name__}", (base,), {"relay": relay, "__test__": True, "__module__": base.__module__})
        for relay in ("python", "native")
    )
    return python, native


def free_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def is_listened_at(port: int) -> bool:
    """Seen from outside: some servers count who connects and says nothing, others serve one client only."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def random_file(path: Path, size: int) -> str:
    """Write *size* bytes, the same for each name and size; returns their SHA-256."""
    path.write_bytes(random.Random(path.name).randbytes(size))
    return sha256(path)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.01)
