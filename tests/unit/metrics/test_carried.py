"""Counters that go on from where another process had them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import HostRef, HostState
from director.metrics.carried import CarryingRegistry, changed
from director.metrics.counters import Metrics

APP1 = HostRef("web", "blue", "app1")
LABELS = {"service": "web", "group": "blue", "host": "app1"}


class CarriedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.registry = CarryingRegistry()
        self.counter = Counter("txdirector_x", "x", ["service"], registry=self.registry)
        self.histogram = Histogram("txdirector_y", "y", registry=self.registry, buckets=(1.0,))
        Gauge("txdirector_g", "g", registry=self.registry).set(7)
        Counter("python_z", "z", registry=self.registry).inc()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def test_sums(self) -> None:
        """What another process counted is added to what this one counts; of what is no counter of ours nothing passes."""
        other = CarryingRegistry()
        Counter("txdirector_x", "x", ["service"], registry=other).labels("web").inc(5)
        Histogram("txdirector_y", "y", registry=other, buckets=(1.0,)).observe(0.5)
        Counter("python_z", "z", registry=other).inc(3)
        Gauge("txdirector_g", "g", registry=other).set(3)
        samples = changed(other.samples(), {})
        self.counter.labels("web").inc()
        self.registry.carry(samples)
        self.assertEqual(self.value("txdirector_x_total", service="web"), 6)
        self.assertEqual(self.value("txdirector_y_count"), 1)
        self.assertEqual(self.value("txdirector_y_bucket", le="1.0"), 1)
        self.assertEqual((self.value("python_z_total"), self.value("txdirector_g")), (1, 7))
        self.registry.carry(changed(other.samples(), {}))
        self.assertEqual(changed(other.samples(), other.samples()), [])
        self.assertEqual(self.value("txdirector_x_total", service="web"), 6)

    def test_chain(self) -> None:
        """A third process has the sums of both before it."""
        self.counter.labels("web").inc(2)
        self.registry.carry([("txdirector_x_total", [("service", "web")], 5.0)])
        third = CarryingRegistry()
        Counter("txdirector_x", "x", ["service"], registry=third).labels("web").inc()
        third.carry(changed(self.registry.samples(), {}))
        self.assertEqual(third.get_sample_value("txdirector_x_total", {"service": "web"}), 8)

    def test_labels(self) -> None:
        """Series that this process has not begun are shown all the same, but for services that it does not have."""
        self.counter.labels("web").inc()
        self.registry.carry([("txdirector_x_total", [("service", "gone")], 5.0)])
        self.assertIsNone(self.value("txdirector_x_total", service="gone"))
        reasons = Counter("txdirector_r", "r", ["reason"], registry=self.registry)
        self.registry.carry([("txdirector_r_total", [("reason", "late")], 5.0)])
        self.assertEqual(self.value("txdirector_r_total", reason="late"), 5)
        reasons.labels("late").inc()
        self.assertEqual(self.value("txdirector_r_total", reason="late"), 6)

    def test_hosts(self) -> None:
        """The numbers of hosts are added one by one, turnarounds and transitions included."""
        one, other = Metrics(CarryingRegistry()), Metrics(self.registry)
        host = one.host(APP1)
        host.connections, host.to_host_bytes = 3, 70
        one.transition(APP1, HostState.DOWN)
        one.probe(APP1, ok=True)
        host.add({"turnarounds": 4, "turnaround_seconds": 0.5, "unknown": 1})
        other.host(APP1).connections = 1
        other.add_of_hosts(one.of_hosts().items())
        other.add_of_hosts([(("other", "blue", "app1"), {"connections": 1})])
        for name, expected in (("host_connections_total", 4), ("host_turnarounds_total", 4),
                               ("host_turnaround_seconds_total", 0.5)):
            self.assertEqual(self.value(f"txdirector_{name}", **LABELS), expected, name)
        self.assertEqual(self.value("txdirector_host_transitions_total", **LABELS, to="down"), 1)
        self.assertEqual(self.value("txdirector_host_probes_total", **LABELS, result="success"), 1)
        self.assertEqual(self.value("txdirector_host_relayed_bytes_total", **LABELS, direction="to_host"), 70)
