"""Ports to each host: how many there are, and when to say that they run out."""

from __future__ import annotations

import random
from pathlib import Path

from prometheus_client import CollectorRegistry
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import parse_address
from cluster.model import Group, Host, HostRef, Service
from director.core.entries import HostEntry
from director.core.inventory import Inventory
from director.resources.descriptors import Descriptors
from director.resources.shortages import Shortages
from director.resources.usage import (
    DEFAULT_PORTS,
    WARN_EVERY_S,
    PortUse,
    PortWatch,
    ResourceCollector,
    local_ports,
    port_use,
)
from director.traffic.target import target_of

SOURCES = ("10.9.0.1", "10.9.0.2", "2001:db8::1")


class PortsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.inventory = Inventory(now=0.0, random=random.Random(7).random)
        addresses = {"v4": "10.0.0.1:80", "v6": "[2001:db8::9]:80", "unix": "unix:/run/x", "named": "app.example:80"}
        hosts = {name: Host(address=address) for name, address in addresses.items()}
        self.inventory.apply_service("web", Service(groups={"main": Group(hosts=hosts)}), 0.0)
        for name, address in addresses.items():
            if name != "named":
                self.entry(name).target = target_of(parse_address(address), SOURCES)

    def entry(self, name: str) -> HostEntry:
        return self.inventory.hosts[HostRef("web", "main", name)]


class PortUseTests(PortsTestCase):
    def test_range(self) -> None:
        """What the kernel says; its default where it says nothing."""
        path = Path(self.mktemp())
        path.write_text("40000\t40031\n")
        self.assertEqual(local_ports(str(path)), 32)
        self.assertEqual(local_ports("/nonexistent"), DEFAULT_PORTS)

    def test_each_host(self) -> None:
        """So many ports for each source of the host's family; none counts for UNIX sockets and for names without an
        address."""
        self.entry("v4").host.in_flight = 5
        found = {use.ref.host: use for use in port_use(self.inventory, 10)}
        self.assertEqual(found, {
            "v4": PortUse(self.entry("v4").ref, 5, 20), "v6": PortUse(self.entry("v6").ref, 0, 10),
        })

    def test_metrics(self) -> None:
        """They are exposed beside those of descriptors."""
        self.entry("v4").host.in_flight = 5
        registry = CollectorRegistry()
        shortages = Shortages(monotonic=lambda: 0.0)
        registry.register(ResourceCollector(self.inventory, Descriptors({}, lambda: 0), shortages, ports=lambda: 10))
        labels = {"service": "web", "group": "main", "host": "v4"}
        self.assertEqual(registry.get_sample_value("txdirector_host_ports_ratio", labels), 0.25)
        self.assertEqual(registry.get_sample_value("txdirector_local_ports"), 10)
        for name in ("descriptors_in_use", "descriptors_limit", "descriptors_reserve", "client_places",
                     "client_places_taken", "accept_pauses_total", "clients_delayed_total"):
            self.assertIsNotNone(registry.get_sample_value(f"txdirector_{name}"), name)


class WatchTests(PortsTestCase):
    def test_warns_near_the_end(self) -> None:
        """At nine tenths, once a minute for each host."""
        watch = PortWatch(self.inventory, monotonic=lambda: self.now, ports=lambda: 10)
        with capturedLogs() as lines:
            for count, said in ((17, 0), (18, 1), (20, 1)):
                self.entry("v4").host.in_flight = count
                watch.look()
                self.assertEqual(len(lines), said, count)
            self.now = WARN_EVERY_S
            watch.look()
        self.assertIn("18 of 20 ports to web/main/v4 are in use", formatEvent(lines[0]))
        self.assertIn("(1 more since the last such line)", formatEvent(lines[1]))
