"""Counters: what is exposed under which labels, and that forgotten things leave no series behind."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import HostRef, HostState, Reason
from director.metrics.counters import MAX_REASONS, Metrics

APP1 = HostRef("web", "blue", "app1")
LABELS = {"service": "web", "group": "blue", "host": "app1"}


class CounterTests(SynchronousTestCase):
    """`director.metrics.counters.Metrics`."""

    def setUp(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"txdirector_{name}", labels)

    def test_connection_account(self) -> None:
        """One connection's account appears under its service, its reason and its host."""
        service = self.metrics.service("web")
        host = service.host("blue", "app1")
        service.accepted += 1
        service.pick.observe(3e-6)
        service.duration.observe(2.0)
        service.ended[Reason.CLIENT_CLOSED] += 1
        host.connections += 1
        host.to_host_bytes += 10
        host.to_client_bytes += 2000
        host.connect.observe(0.002)
        host.duration.observe(2.0)
        self.assertEqual(self.value("connections_accepted_total", service="web"), 1)
        self.assertEqual(self.value("connections_ended_total", service="web", reason="client_closed"), 1)
        self.assertEqual(self.value("pick_duration_seconds_bucket", service="web", le="5e-06"), 1)
        self.assertEqual(self.value("connection_duration_seconds_sum", service="web"), 2)
        self.assertEqual(self.value("host_connections_total", **LABELS), 1)
        self.assertEqual(self.value("host_relayed_bytes_total", **LABELS, direction="to_client"), 2000)
        self.assertEqual([self.value("host_connect_seconds_bucket", **LABELS, le=le) for le in ("0.001", "0.01", "+Inf")], [0, 1, 1])
        self.assertEqual(self.value("host_connection_duration_seconds_count", **LABELS), 1)
        self.assertEqual(self.value("host_connection_duration_seconds_sum", **LABELS), 2)

    def test_no_series_of_hosts_without_clients(self) -> None:
        """Thousands that stand by would otherwise double a scrape."""
        self.metrics.host(APP1)
        self.assertNotIn(b"host_connect_seconds_", generate_latest(self.registry))

    def test_every_reason_starts_at_zero(self) -> None:
        """All reasons are exposed from the start, so that a rate sees their first event."""
        self.metrics.service("web")
        for reason in Reason:
            self.assertEqual(self.value("connections_ended_total", service="web", reason=reason.value), 0)

    def test_children_are_cached(self) -> None:
        """Asking again gives the same objects, so that they may be kept."""
        service = self.metrics.service("web")
        self.assertIs(service, self.metrics.service("web"))
        self.assertIs(service.host("blue", "app1"), self.metrics.host(APP1))

    def test_forgotten_host_leaves_nothing(self) -> None:
        """A removed host's series vanish, its neighbours' stay."""
        self.metrics.host(APP1).connections += 1
        self.metrics.host(HostRef("web", "blue", "app2")).connections += 1
        self.metrics.transition(APP1, HostState.DOWN)
        self.metrics.probe(APP1, ok=False)
        self.metrics.forget_host(APP1)
        self.metrics.forget_host(APP1)
        text = generate_latest(self.registry).decode()
        self.assertNotIn("app1", text)
        self.assertIn("app2", text)

    def test_forgotten_service_leaves_nothing(self) -> None:
        """A removed service takes all its series and its hosts' along."""
        self.metrics.host(APP1).connections += 1
        self.metrics.probe(HostRef("web", "green", "g1"), ok=True)
        self.metrics.forget_service("web")
        self.metrics.forget_service("web")
        self.assertNotIn('"web"', generate_latest(self.registry).decode())

    def test_counting_after_forget_is_harmless(self) -> None:
        """A connection that outlives its host's configuration counts into the void."""
        host = self.metrics.host(APP1)
        self.metrics.forget_host(APP1)
        host.to_client_bytes += 5
        self.assertIsNone(self.value("host_relayed_bytes_total", **LABELS, direction="to_client"))

    def test_configured_again_starts_at_zero(self) -> None:
        """A host that comes back under its old name has fresh counters."""
        self.metrics.host(APP1).connections += 1
        self.metrics.forget_host(APP1)
        self.metrics.host(APP1).connections += 1
        self.assertEqual(self.value("host_connections_total", **LABELS), 1)

    def test_rejection_reasons_are_bounded(self) -> None:
        """However many reasons arrive, the label stays bounded and no message goes uncounted."""
        for number in range(MAX_REASONS * 3):
            self.metrics.rejected(f"reason{number}")
        self.metrics.rejected("reason0")
        self.assertEqual(self.value("agent_messages_rejected_total", reason="reason0"), 2)
        self.assertEqual(self.value("agent_messages_rejected_total", reason="other"), MAX_REASONS * 2)

    def test_transitions_and_probes(self) -> None:
        """Health counts transitions by the new state and probes by result."""
        self.metrics.transition(APP1, HostState.SUSPECT)
        self.metrics.probe(APP1, ok=True)
        self.assertEqual(self.value("host_transitions_total", **LABELS, to="suspect"), 1)
        self.assertEqual(self.value("host_probes_total", **LABELS, result="success"), 1)
