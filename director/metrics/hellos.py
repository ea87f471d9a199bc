"""What became of the clients of listeners that services share, by their ClientHello."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

#: Given to a service by its name, or to the default one; or closed: nobody has such clients, the hello was malformed or too
#: long, did not come in time, the client went before, others crowded it out, or its PROXY header was bad.
Outcome = Literal["named", "default", "no_service", "bad_hello", "timeout", "client_closed", "client_reset", "crowded_out",
                  "bad_proxy_header"]


class Hellos(Collector):
    """Counters by listener."""

    def __init__(self) -> None:
        self._of: dict[str, dict[Outcome, int]] = {}

    def of(self, listener: str) -> dict[Outcome, int]:
        """Those of one, to be raised; created at first."""
        return self._of.setdefault(listener, dict.fromkeys(get_args(Outcome), 0))

    def forget(self, listener: str) -> None:
        """It is shared no more."""
        self._of.pop(listener, None)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "txdirector_client_hellos", "Clients of shared listeners, by what became of them.",
            labels=("listener", "outcome"),
        )
        for listener, outcomes in self._of.items():
            for outcome, count in outcomes.items():
                family.add_metric((listener, outcome), count)
        yield family
