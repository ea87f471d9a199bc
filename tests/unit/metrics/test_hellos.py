"""The clients of shared listeners, as they are counted."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from director.metrics.hellos import Hellos

PAGE = Path(__file__).parents[3] / "docs/reference/sni.md"


class HellosTests(SynchronousTestCase):
    def test_series(self) -> None:
        """Every outcome of a listener has a series from the start, and none once it is forgotten."""
        hellos, registry = Hellos(), CollectorRegistry()
        registry.register(hellos)
        hellos.of("0.0.0.0:443", lambda: 3)["named"] += 2

        def value(outcome: str) -> float | None:
            return registry.get_sample_value(
                "txdirector_client_hellos_total", {"listener": "0.0.0.0:443", "outcome": outcome})

        self.assertEqual((value("named"), value("timeout"), value("other")), (2, 0, None))
        waiting = "txdirector_client_hellos_waiting", {"listener": "0.0.0.0:443"}
        self.assertEqual(registry.get_sample_value(*waiting), 3)
        hellos.forget("0.0.0.0:443")
        self.assertEqual((value("named"), registry.get_sample_value(*waiting)), (None, None))

    def test_page(self) -> None:
        """Every outcome is explained."""
        page = PAGE.read_text()
        self.assertEqual([outcome for outcome in Hellos().of("x", lambda: 0) if f"`{outcome}`" not in page], [])
