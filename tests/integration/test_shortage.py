"""A director short of descriptors, as a process of its own: no host is blamed, the admin answers, clients wait."""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import socket
import sys
import threading
import time
import urllib.request
from typing import Any
from unittest import skipIf

from tests.integration.test_cli import CliTestCase, Running, address, until

CONFIG = """
[[node.admin.endpoints]]
listen = "127.0.0.1:0"
[services.web]
listen = ["127.0.0.1:0"]
[services.web.groups.main.health]
interval_s = 0.2
suspect_interval_s = 0.2
[services.web.groups.main.hosts]
a = "{a}"
b = "{b}"
"""
ADMIN = r"admin at (http://127\.0\.0\.1:\d+)"
LISTENS = r"web listens on 127\.0\.0\.1:(\d+)"
HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


class Echoes:
    """Backends in a thread: each says one byte to whoever connects, and closes when the client does."""

    def __init__(self, count: int) -> None:
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(count)]
        self.selector = selectors.DefaultSelector()
        for sock in self.sockets:
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ, True)
        self.over = False
        self.peers: set[str] = set()  #: the addresses that connected
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while not self.over:
            for key, _ in self.selector.select(0.05):
                sock: Any = key.fileobj
                with contextlib.suppress(OSError):
                    if key.data:
                        client, peer = sock.accept()
                        self.peers.add(peer[0])
                        client.sendall(b"x")
                        self.selector.register(client, selectors.EVENT_READ, False)
                        continue
                    if sock.recv(65536):
                        continue
                if not key.data:
                    self.selector.unregister(sock)
                    sock.close()

    def close(self) -> None:
        self.over = True
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()


class Clients:
    """So many at a time: each connects, waits for its byte, stays *stay_s* and comes again."""

    def __init__(self, port: int, count: int, stay_s: float) -> None:
        self.port, self.stay_s = port, stay_s
        self.served = 0
        self.refused: list[str] = []
        self.over = False
        self.threads = [threading.Thread(target=self._come_again) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _come_again(self) -> None:
        while not self.over:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 20) as sock:
                    got = sock.recv(1)
                    time.sleep(self.stay_s)  # a client that keeps its connection for a while
            except OSError as error:
                got = str(error).encode()
            if got == b"x":
                self.served += 1
            else:
                self.refused.append(got.decode())

    def close(self) -> None:
        self.over = True
        for thread in self.threads:
            thread.join()


class ShortageTestCase(CliTestCase):
    def director(self, *limit: str) -> tuple[Running, str, int]:
        """It runs under these limits; its admin and its service's port."""
        self.backends = Echoes(2)
        self.addCleanup(self.backends.close)
        a, b = map(address, self.backends.sockets)
        path = self.write(CONFIG.format(a=a, b=b))
        running = self.start("-c", "import os, sys; os.execvp('prlimit', ['prlimit', *sys.argv[1:]])", *limit,
                             sys.executable, "-u", "-m", "director", "run", path)
        url, port = running.says(ADMIN)[1], int(running.says(LISTENS)[1])
        running.says("ready\n")
        return running, url, port

    def get(self, url: str) -> bytes:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read()  # type: ignore[no-any-return]

    def metrics(self, url: str) -> dict[str, float]:
        lines = self.get(f"{url}/metrics").decode().splitlines()
        return {name: float(value) for line in lines if not line.startswith("#") for name, _, value in [line.rpartition(" ")]}

    def histories(self, url: str) -> list[str]:
        """Every state that a host went into."""
        status = json.loads(self.get(f"{url}/api/v1/status"))
        return [step["after"] for service in status["services"] for group in service["groups"]
                for host in group["hosts"] for step in host["history"]]


class FewDescriptorsTests(ShortageTestCase):
    def test_sixty(self) -> None:
        """60 descriptors, 25 clients that come again: everybody is served in turn, no host is suspected, the admin answers
        within a second, and the log is not flooded."""
        running, url, port = self.director("--nofile=60")
        clients = Clients(port, 25, 0.02)
        self.addCleanup(clients.close)
        slowest, deadline = 0.0, time.monotonic() + 20
        while clients.served < 500 and time.monotonic() < deadline:
            before = time.monotonic()
            self.assertEqual(self.histories(url), [])
            slowest = max(slowest, time.monotonic() - before)
        clients.close()
        self.assertGreaterEqual(clients.served, 500)
        self.assertEqual(clients.refused, [])
        self.assertLess(slowest, 1.0)
        metrics = self.metrics(url)
        self.assertGreater(metrics["txdirector_accept_pauses_total"], 0)
        self.assertGreater(metrics["txdirector_clients_delayed_total"], 0)
        self.assertEqual(metrics["txdirector_descriptors_limit"], 60)
        self.assertLessEqual(metrics["txdirector_descriptors_in_use"], 60)
        self.assertEqual(metrics['txdirector_shortages_total{for="probe",of="descriptors"}'], 0)
        until(lambda: self.metrics(url)["txdirector_client_places_taken"] == 0)
        running.process.terminate()
        running.ended()
        self.assertLessEqual(running.output.count("out of descriptors"), 25)
        self.assertIn("the hard limit of 60 descriptors has room for ", running.output)

    def test_held_by_clients_that_stay(self) -> None:
        """Clients who never go keep others waiting, and nothing else: the admin and the probes go on; who waited is served
        when one goes."""
        _, url, port = self.director("--nofile=60")
        places = int(self.metrics(url)["txdirector_client_places"])
        self.assertGreater(places, 1)
        stay = [self.enterContext(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(places)]
        for client in stay:
            self.assertEqual(client.recv(1), b"x")
        late = self.enterContext(socket.create_connection(("127.0.0.1", port), 20))
        until(lambda: self.metrics(url)["txdirector_accept_pauses_total"] == 1)
        probes = 'txdirector_host_probes_total{group="main",host="a",result="success",service="web"}'
        before = self.metrics(url)[probes]
        until(lambda: self.metrics(url)[probes] > before + 2)
        self.assertEqual(self.histories(url), [])
        stay.pop().close()
        self.assertEqual(late.recv(1), b"x")
        self.assertEqual(self.metrics(url)["txdirector_clients_delayed_total"], 1)


@skipIf(HARD < 20_000, "needs a hard limit of 20,000 descriptors")
class SoftLimitTests(ShortageTestCase):
    def test_raised(self) -> None:
        """Soft 1,024, hard 20,000: 1,000 clients at once are all served."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))
        running, url, port = self.director("--nofile=1024:20000")
        self.assertIn("at most 20000 descriptors, the soft limit was 1024", running.output)
        clients = []
        for _ in range(1000):
            clients.append(self.enterContext(socket.create_connection(("127.0.0.1", port), 20)))
        self.assertEqual({client.recv(1) for client in clients}, {b"x"})
        self.assertEqual(self.metrics(url)["txdirector_client_places_taken"], 1000)
        self.assertEqual(self.histories(url), [])
