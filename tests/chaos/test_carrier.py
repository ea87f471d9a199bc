"""Directors with a clients' side of its own: what happens there while everything else is well."""

from __future__ import annotations

import socket
import time

from deploy.lab.cluster import WEB
from deploy.lab.side import SIDE_VIP, with_side
from tests.chaos.kit import ChaosTestCase, Director, until


class CarrierTests(ChaosTestCase):
    def start_cluster(self) -> None:
        self.side = with_side(self.cluster)
        self.side.plug(self.cluster.client)
        self.cluster._vip = False  # which is elsewhere
        self.cluster.start()

    def holder(self) -> Director:
        found: list[Director] = until(lambda: [each for each in self.cluster.directors if self.side.holds(each.machine)],
                                      "an owner")
        (holder,) = found
        return holder

    def served(self) -> bool:
        with self.cluster.client.inside(), socket.socket() as sock:
            sock.settimeout(1)
            sock.connect((SIDE_VIP, WEB))
            return bool(sock.recv(64))

    def test_carrier_lost(self) -> None:
        """An owner that loses its carrier on the clients' side hands over, and takes nothing back when it has one again. While
        neither has one there is no owner; whoever has it first is."""
        first = self.holder()
        second = self.other(first)
        until(self.served, "clients are served")
        self.side.carrier(first.machine, there=False)
        began = time.monotonic()
        until(lambda: self.side.holds(second.machine), "the other takes the address")
        until(self.served, "clients are served")
        self.assertIn("has no carrier", first.log)
        self.assertLess(time.monotonic() - began, 10.0)
        self.side.carrier(second.machine, there=False)
        until(lambda: not self.side.holds(second.machine), "it has none either")
        self.side.carrier(first.machine, there=True)
        until(lambda: self.side.holds(first.machine), "the first one has it again")
        until(self.served, "clients are served")
        self.side.carrier(second.machine, there=True)
