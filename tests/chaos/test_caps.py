"""A service's maximum over two directors, with real clients at both."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from deploy.lab.cluster import WEB
from tests.chaos.kit import ChaosTestCase, Director, until

MAXIMUM = 20


class CapTests(ChaosTestCase):
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"service": f"limits.max_connections = {MAXIMUM}"})

    def setUp(self) -> None:
        super().setUp()
        self.open: dict[str, list[socket.socket]] = {each.name: [] for each in self.cluster.directors}
        self.addCleanup(lambda: [sock.close() for each in self.open.values() for sock in each])
        until(lambda: sum(self.share(each) for each in self.cluster.directors) == MAXIMUM, "shared out")

    def share(self, director: Director) -> int:
        share: int = director.status()["services"][0]["share"] or 0
        return share

    def come(self, director: Director) -> bool:
        """A client connects to *director*; whether it was served. It stays."""
        with self.cluster.client.inside():
            sock = socket.create_connection((director.machine.address, WEB), 10)
        with contextlib.suppress(ConnectionResetError):
            if sock.recv(16):
                self.open[director.name].append(sock)
                self.assertLessEqual(sum(map(len, self.open.values())), MAXIMUM)
                return True
        sock.close()
        return False

    def fill(self, director: Director, count: int) -> None:
        """Clients keep coming until *director* has *count* of them."""
        until(lambda: self.come(director) and len(self.open[director.name]) >= count, f"{count} clients", every_s=0.005)

    def test_never_exceeded(self) -> None:
        """Both fill up: together they serve the maximum and not one more. What one does not need goes to the other; what a
        dead one had does too; while etcd is away the last shares stand."""
        one, two = self.cluster.directors
        while any([self.come(one), self.come(two)]):
            pass
        self.assertEqual({name: len(each) for name, each in self.open.items()}, {one.name: 10, two.name: 10})
        for sock in self.open[two.name]:
            sock.close()
        self.open[two.name].clear()
        until(lambda: two.status()["services"][0]["connections"] == 0, "they left")
        self.fill(one, 15)
        two.kill()
        self.fill(one, MAXIMUM)
        self.assertFalse(self.come(one))
        (etcd,) = self.cluster.etcd
        etcd.kill()
        until(lambda: not one.status()["store_available"], "etcd is away")
        self.assertFalse(self.come(one))
        self.open[one.name].pop().close()
        until(lambda: one.status()["services"][0]["connections"] == MAXIMUM - 1, "one left")
        self.assertTrue(self.come(one))
        self.assertFalse(self.come(one))
