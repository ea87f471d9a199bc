"""Real servers under CPU quotas, real agents that were told a port and nothing else: weights follow what the servers can do."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import SkipTest

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from director.core.snapshot import HostPicture
from director.service import DirectorService
from tests.integration.kit import DirectorTestCase, reactor, service

GROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
#: Of one core. Together a third of one: the test must not need the machine for itself.
QUOTAS = {"a": 0.15, "b": 0.15, "c": 0.03}
#: Processor time of a request: five of the slowest host's a second.
WORK_S = 0.006
#: Asked together: three fifths of what the hosts can do.
CLIENTS, PAUSE_S = 24, 0.7
#: The first windows take seconds, the rest is the average's 30.
PATIENCE_S = 90.0
#: Answers each line after some processor time of its own.
SERVER = f"""\
import socketserver, sys, time
class Serving(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            ends = time.thread_time() + {WORK_S}
            while time.thread_time() < ends:
                pass
            self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 100
    def handle_error(self, request, client_address): pass
server = Server(("127.0.0.1", 0), Serving)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


class Clients:
    """Connections that live for seconds and carry one request after the other, each after a pause."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        while not self._over.wait(rng.random()):
            try:
                with socket.create_connection(self._address, 10.0) as sock:
                    ends = time.monotonic() + rng.uniform(2.0, 5.0)
                    while time.monotonic() < ends and not self._over.wait(rng.uniform(0.0, 2.0 * PAUSE_S)):
                        sock.sendall(b"?\n")
                        sock.recv(100)
            except OSError:
                continue

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


class StockAgents(DirectorTestCase):
    timeout = 180

    def limited(self, name: str, cores: float) -> int:
        """A server that may use so much of a core; its port."""
        folders = [GROUPS / name] if not (GROUPS / "cpuacct").is_dir() else [GROUPS / "cpu" / name, GROUPS / "cpuacct" / name]
        try:
            for folder in folders:
                folder.mkdir()
                self.addCleanup(folder.rmdir)
            if len(folders) == 1:
                (folders[0] / "cpu.max").write_text(f"{cores * PERIOD_US:.0f} {PERIOD_US}")
            else:
                (folders[0] / "cpu.cfs_period_us").write_text(f"{PERIOD_US}")
                (folders[0] / "cpu.cfs_quota_us").write_text(f"{cores * PERIOD_US:.0f}")
        except OSError as error:
            raise SkipTest(f"no cgroup with a quota can be made here: {error}") from error
        server = self.process("-c", SERVER)
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for folder in folders:
            (folder / "cgroup.procs").write_text(str(server.pid))
        return port

    def process(self, *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    def hosts(self, director: DirectorService) -> dict[str, HostPicture]:
        group = director.operations.picture().services[0].groups[0]
        return {host.name: host for host in group.hosts}

    def test_weights_follow(self) -> Deferred[None]:
        """Of three servers, one of which can do a fifth of what the others can, that one's weight falls behind; the directors'
        own counts are where the rates come from."""
        return Deferred.fromCoroutine(self._weights_follow())

    async def _weights_follow(self) -> None:
        ports = {name: self.limited(f"txdirector-test-{os.getpid()}-{name}", cores) for name, cores in QUOTAS.items()}
        data = service({name: {"address": f"127.0.0.1:{port}"} for name, port in ports.items()})
        director = await self.director(data | {"node": {"agents": {"listen": ["127.0.0.1:0"]}}})
        agents = director.agents.ports[0].address
        for name, port in ports.items():
            self.process("-m", "agent.cli", "--director", str(agents), "--host", f"web/main/{name}", "--port", str(port))
        host, port_text = director.node.listeners.addresses("web")[0].rsplit(":", 1)
        clients = Clients((host, int(port_text)))
        self.addCleanup(deferToThread, clients.stop)
        began = time.monotonic()
        while True:
            found = self.hosts(director)
            slow, fast = found["c"], [found["a"], found["b"]]
            if slow.capacity < 0.5 * min(each.capacity for each in fast):
                break
            told = {each.name: (each.capacity, each.rate, each.report) for each in found.values()}
            self.assertLess(time.monotonic() - began, PATIENCE_S, f"the weights never moved apart: {told}")
            await deferLater(reactor, 0.2)
        for each in found.values():
            self.assertEqual((each.rate_of, each.rate_doubt), ("turnarounds", ""))
            self.assertGreater(each.turnarounds, 0)
        counted = director.registry.get_sample_value(
            "txdirector_host_turnarounds_total", {"service": "web", "group": "main", "host": "a"})
        self.assertGreater(counted or 0, 0)
