"""Out of local ports to a host, in a namespace that has 32: nobody is cut, no host is blamed, more addresses help."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from deploy.lab.cluster import until
from deploy.lab.net import Lab, python_path, why_not
from tests.integration.test_shortage import Echoes

PORTS = 32
CONFIG = """
[[node.admin.endpoints]]
listen = "127.0.0.1:7401"
[services.web]
listen = ["127.0.0.1:8080"]
[services.web.groups.main]
{source}
health.interval_s = 0.1
health.suspect_interval_s = 0.1
[services.web.groups.main.hosts]
{hosts}
"""


class PortsTests(SynchronousTestCase):
    def setUp(self) -> None:
        if why := why_not():
            raise SkipTest(why)
        self.lab = Lab()
        self.addCleanup(self.lab.close)
        self.machine = self.lab.machine("one")
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        with self.machine.inside():
            Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"40000 {40000 + PORTS - 1}")
            self.backends = Echoes(2)
        self.addCleanup(self.backends.close)
        self.next = 20_000
        self.clients: list[socket.socket] = []
        self.addCleanup(lambda: [client.close() for client in self.clients])

    def start(self, weights: tuple[float, ...], *, source: tuple[str, ...] = (),
              more: str = "") -> None:
        hosts = "\n".join(
            'h{} = {{ address = "{}:{}", weight = {} }}'.format(i, *self.backends.sockets[i].getsockname(), weight)
            for i, weight in enumerate(weights)
        )
        path = self.directory / "director.toml"
        path.write_text(CONFIG.format(hosts=f"{hosts}\n{more}", source=f"source = {json.dumps(source)}" if source else ""))
        self.log = self.directory / "log"
        log = self.enterContext(self.log.open("wb"))
        self.machine.start(sys.executable, "-u", "-m", "director", "run", str(path), log=log,
                           env={"PYTHONPATH": str(python_path()), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        until(lambda: b"ready\n" in self.log.read_bytes(), "the director runs", 30.0)

    def connect(self, count: int) -> list[bytes]:
        """So many clients more, which stay; what each received. Their own ports are not of the 32."""
        fresh = []
        with self.machine.inside():
            for _ in range(count):
                self.next += 1
                fresh.append(socket.create_connection(("127.0.0.1", 8080), 20, ("127.0.0.9", self.next)))
        self.clients += fresh
        return [client.recv(1) for client in fresh]

    def get(self, path: str) -> bytes:
        self.next += 1
        with self.machine.inside(), socket.create_connection(("127.0.0.1", 7401), 20, ("127.0.0.9", self.next)) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b""
            while data := sock.recv(65536):
                answer += data
        return answer.partition(b"\r\n\r\n")[2]

    def hosts(self) -> dict[str, Any]:
        status = json.loads(self.get("/api/v1/status"))
        return {host["name"]: host for host in status["services"][0]["groups"][0]["hosts"]}

    def blamed(self) -> list[Any]:
        return [(host["name"], host["history"], host["connect_failures"]) for host in self.hosts().values()
                if host["history"] or host["connect_failures"]]

    def metric_of(self, series: str) -> float:
        lines = self.get("/metrics").decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " "))

    def test_another_host(self) -> None:
        """40 connections mostly to one of two hosts, through 32 ports: what does not fit goes to the other."""
        self.start((100, 1))
        self.assertEqual(self.connect(40), [b"x"] * 40)
        counts = {name: host["in_flight"] for name, host in self.hosts().items()}
        self.assertLessEqual(counts["h0"], PORTS)
        self.assertEqual(sum(counts.values()), 40)
        short = 'txdirector_shortages_total{for="probe",of="ports"}'
        until(lambda: self.metric_of(short) > 3, "probes that found no port", 20.0)
        self.assertGreater(self.metric_of('txdirector_shortages_total{for="connect",of="ports"}'), 0)
        self.assertEqual(self.blamed(), [])
        until(lambda: b"ports to web/main/h0 are in use" in self.log.read_bytes(), "the warning", 20.0)

    def test_no_host_left(self) -> None:
        """With one host the rest ends as out_of_resources, which is no failure of the host."""
        self.start((1,))
        answers = self.connect(40)
        self.assertGreater(answers.count(b"x"), PORTS // 2)
        self.assertIn(b"", answers)
        self.assertEqual(self.metric_of('txdirector_connections_ended_total{reason="out_of_resources",service="web"}'),
                         answers.count(b""))
        self.assertEqual(self.blamed(), [])

    def test_source_addresses(self) -> None:
        """Three source addresses carry three times as many connections to one host; probes go from them too."""
        self.start((1,), source=("127.0.0.5", "127.0.0.6", "127.0.0.7"))
        self.assertEqual(self.connect(75), [b"x"] * 75)
        self.assertEqual(self.blamed(), [])
        self.assertEqual(self.backends.peers - {"127.0.0.5", "127.0.0.6", "127.0.0.7"}, set())
        ratio = self.metric_of('txdirector_host_ports_ratio{group="main",host="h0",service="web"}')
        self.assertAlmostEqual(ratio, 75 / 96)
        passed = 'txdirector_host_probes_total{group="main",host="h0",result="success",service="web"}'
        before = self.metric_of(passed)
        until(lambda: self.metric_of(passed) > before + 3, "probes", 20.0)
        self.assertEqual(self.blamed(), [])

    def test_no_address_of_the_family(self) -> None:
        """A host that no address of ours can reach is down, though the kernel says the same as when it is out of ports."""
        with self.machine.inside():
            Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        self.start((1,), more='v6 = "[::1]:9"')
        until(lambda: self.hosts()["v6"]["state"] == "down", "the host is down", 20.0)
        self.assertEqual(self.hosts()["h0"]["state"], "up")
