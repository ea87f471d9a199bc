"""Real clients and real servers with a director between them: a process of its own, started by its command line.

A test derives from `Clients` and gets a class for each relay by `on_both_relays`. At its end the director must have
counted every client in and out, hold no descriptor more than before the first, and stop in order.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import psutil
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from director.relay.choice import native_missing

#: What does not come about by then never will, on however slow a machine.
PATIENCE_S = 20.0

CONFIGURATION = """
[node]
log.level = "warn"
admin.endpoints = [{{ listen = "127.0.0.1:{admin}" }}]
[services.{service}]
listen = ["127.0.0.1:{port}"]
relay = "{relay}"
{more}
[services.{service}.groups.main]
health.probe.kind = "none"
[services.{service}.groups.main.hosts]
{hosts}
"""


class Director:
    """A director in a process of its own, with one service, seen from outside.

    :param hosts: addresses by name.
    :param more: lines of TOML for the service.
    """

    def __init__(self, relay: str, hosts: Mapping[str, str], directory: Path, *, more: str = "",
                 service: str = "all") -> None:
        self.port, self.admin = free_ports(2)
        lines = "\n".join(f'{name} = "{address}"' for name, address in hosts.items())
        path = directory / "director.toml"
        path.write_text(CONFIGURATION.format(admin=self.admin, port=self.port, relay=relay, hosts=lines, more=more,
                                             service=service))
        self.process = subprocess.Popen([sys.executable, "-m", "director", "run", str(path)])
        wait_until(self.is_up, "the director is up")

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

    def total(self, name: str) -> float:
        """The sum of all series of a metric."""
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.metrics_text(), re.M))

    def descriptors(self) -> int:
        """Without those of pipes, of which any number up to the bound may be in the pool."""
        pipes = int(self.total("txdirector_relay_pipes"))
        wait_until(self.is_not_asked, "the connection that asked for the metrics is gone")
        return len(os.listdir(f"/proc/{self.process.pid}/fd")) - 2 * pipes

    def is_not_asked(self) -> bool:
        connections = psutil.Process(self.process.pid).net_connections()
        return all(each.laddr.port != self.admin or each.status == psutil.CONN_LISTEN for each in connections)

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

    def setUp(self) -> None:
        if self.relay == "native" and (why := native_missing()):
            self.go_without(why)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def go_without(self, why: str) -> None:
        """In CI nothing is missing."""
        if os.environ.get("CI"):
            raise AssertionError(why)
        raise SkipTest(why)

    def needs(self, *programs: str) -> None:
        for program in programs:
            if not shutil.which(program):
                self.go_without(f"{program} is not installed")

    def director(self, hosts: Mapping[str, str], *, more: str = "") -> Director:
        """Start one; what must hold at the end of every test is checked then."""
        director = Director(self.relay, hosts, self.directory, more=more)
        self.addCleanup(director.end)
        at_rest = director.descriptors()
        self.addCleanup(self.check_the_end, director, at_rest)
        return director

    def check_the_end(self, director: Director, at_rest: int) -> None:
        """Runs before what the test cleans up earlier; its servers may be gone, its clients must be."""
        wait_until(lambda: director.total("txdirector_relay_open_connections") == 0, "the last connection ends")
        accepted = director.total("txdirector_connections_accepted_total")
        self.assertEqual(director.total("txdirector_connections_ended_total"), accepted)
        self.assertEqual(director.descriptors(), at_rest)
        self.assertEqual(director.stop(), 0)

    def server(self, words: list[str], port: int) -> subprocess.Popen[bytes]:
        """Start a server that stays in the foreground; it listens at *port* when this returns."""
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)

        def end() -> None:
            process.terminate()
            process.wait()

        self.addCleanup(end)

        def answers() -> bool:
            assert process.poll() is None, f"{words[0]} did not start"
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers, f"{words[0]} listens")
        return process


def on_both_relays(base: type[Clients]) -> tuple[type[Clients], type[Clients]]:
    """A test's classes: the Python relay's and the native one's."""
    python, native = (
        type(f"{relay.title()}{base.__name__}", (base,), {"relay": relay, "__test__": True, "__module__": base.__module__})
        for relay in ("python", "native")
    )
    return python, native


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in socks]


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(0.01)
