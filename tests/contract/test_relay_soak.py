"""Thousands of connections through a whole director, with every byte compared; nothing piles up inside.

``SOAK_CONNECTIONS`` says how many; ``make soak`` has 200,000.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from director.relay.choice import native_missing
from tests.contract.relay_kit import wait_until
from tests.contract.relay_soak import Loop

CONNECTIONS = int(os.environ.get("SOAK_CONNECTIONS") or (20_000 if os.environ.get("CI") else 3_000))
#: Of both sides, at once.
WIDTH = 150
#: Until then the director has taken what memory it needs.
WARM_UP = CONNECTIONS // 4
#: What the interpreter's heap may still come to; two hundred bytes a connection would be ten times that in `make soak`.
GROWTH_BYTES = 4_000_000

CONFIGURATION = """
[node]
log.level = "warn"
admin.endpoints = [{{ listen = "127.0.0.1:{admin}" }}]
[services.soak]
listen = ["127.0.0.1:{port}"]
relay = "{relay}"
groups.main.health.probe.kind = "none"
groups.main.hosts.only = "127.0.0.1:{host}"
"""


class Director:
    """A director in a process of its own, seen from outside."""

    def __init__(self, relay: str, host: int, directory: str) -> None:
        self.port, self.admin = free_ports(2)
        path = Path(directory) / "director.toml"
        path.write_text(CONFIGURATION.format(admin=self.admin, port=self.port, relay=relay, host=host))
        self.process = subprocess.Popen([sys.executable, "-m", "director", "run", str(path)])
        wait_until(self.is_up)

    def is_up(self) -> bool:
        assert self.process.poll() is None, "the director did not start"
        try:
            return "txdirector_start_time" in self.metrics_text()
        except OSError:
            return False

    def metrics_text(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=20) as answer:
            text: str = answer.read().decode()
        return text

    def total(self, name: str) -> float:
        """The sum of all series of a metric."""
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.metrics_text(), re.M))

    def descriptors(self) -> int:
        """Without those of pipes, of which any number up to the bound may be in the pool."""
        pipes = int(self.total("txdirector_relay_pipes"))
        wait_until(self.is_not_asked)
        return len(os.listdir(f"/proc/{self.process.pid}/fd")) - 2 * pipes

    def is_not_asked(self) -> bool:
        """The connection that asked for the metrics is gone."""
        connections = psutil.Process(self.process.pid).net_connections()
        return all(each.laddr.port != self.admin or each.status == psutil.CONN_LISTEN for each in connections)

    def memory(self) -> int:
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        [found] = re.findall(r"^Anonymous: +(\d+) kB", rollup, re.M)
        return int(found) * 1024

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in socks]


class SoakTests(SynchronousTestCase):
    @contextlib.contextmanager
    def through(self, relay: str) -> Iterator[tuple[Loop, Director]]:
        loop = Loop(WIDTH)
        self.addCleanup(loop.stop)
        with tempfile.TemporaryDirectory() as directory:
            director = Director(relay, loop.listener.getsockname()[1], directory)
            try:
                yield loop, director
                self.assertEqual(director.stop(), 0)
            finally:
                director.process.kill()
                director.process.wait()

    def soak(self, relay: str) -> None:
        with self.through(relay) as (loop, director):
            at_rest: list[tuple[int, int]] = []
            for numbers in (range(WARM_UP), range(WARM_UP, CONNECTIONS)):
                loop.run(("127.0.0.1", director.port), numbers)
                self.assertEqual(loop.wrong, [])
                wait_until(lambda: director.total("txdirector_relay_open_connections") == 0)
                at_rest.append((director.descriptors(), director.memory()))
            (descriptors, memory), (descriptors_after, memory_after) = at_rest
            self.assertEqual(descriptors_after, descriptors)
            self.assertLess(memory_after - memory, GROWTH_BYTES)
            self.assertEqual(director.total("txdirector_connections_accepted_total"), CONNECTIONS)
            self.assertEqual(director.total("txdirector_connections_ended_total"), CONNECTIONS)
            for reason in ("relay_error", "connect_failed", "no_host"):
                ended = rf'txdirector_connections_ended_total{{reason="{reason}",service="soak"}} 0.0'
                self.assertIn(ended, director.metrics_text())

    def test_native(self) -> None:
        """The native relay: not one byte wrong or missing, every end as it was made, descriptors and memory flat."""
        if why := native_missing():
            if os.environ.get("CI"):
                raise AssertionError(why)
            raise SkipTest(why)
        self.soak("native")

    def test_python(self) -> None:
        """The Python relay: the same."""
        self.soak("python")
