"""Virtual addresses one by one, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from director.core.snapshot import VipPicture
from director.metrics.vips import VipCollector


class VipCollectorTests(SynchronousTestCase):
    def test_samples(self) -> None:
        """Who owns each, its term, and how often it was given away."""
        registry = CollectorRegistry()
        registry.register(VipCollector(lambda: (
            VipPicture(address="10.0.0.100", owner="lb1", since=1.0, term=7, moves=2),
            VipPicture(address="10.0.0.101", owner=None, since=1.0, term=9)), "lb1"))

        def read(name: str, address: str) -> float | None:
            return registry.get_sample_value(f"txdirector_vip_{name}", {"address": address})

        self.assertEqual([read(name, "10.0.0.100") for name in ("owned", "term", "moves_total")], [1.0, 7.0, 2.0])
        self.assertEqual([read(name, "10.0.0.101") for name in ("owned", "term", "moves_total")], [0.0, 9.0, 0.0])
