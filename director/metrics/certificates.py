"""When our certificates end, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from director.ports.tls import Renewal


class CertificateCollector(Collector):
    """Asked at each scrape."""

    def __init__(self, renewal: Renewal) -> None:
        self._renewal = renewal

    def collect(self) -> Iterator[Any]:
        expires = GaugeMetricFamily(
            "txdirector_certificate_expires_timestamp_seconds", "Until when a port's own certificate is valid.",
            labels=["place"],
        )
        unused = GaugeMetricFamily(
            "txdirector_certificate_problem", "1 if an operator should see to a port's certificate.", labels=["place"],
        )
        for each in self._renewal.watched:
            if each.expires is not None:
                expires.add_metric([each.place], each.expires)
            unused.add_metric([each.place], float(bool(each.problem)))
        yield expires
        yield unused
