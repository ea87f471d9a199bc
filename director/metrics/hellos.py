"""What became of the clients of listeners that services share, by their ClientHello."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

#: Given to a service by its name, or to the default one; or closed: nobody has such clients, the hello was malformed or too
#: long, did not come in time, the client went before, others crowded it out, or its PROXY header was bad.
Outcome = Literal["named", "default", "no_service", "bad_hello", "timeout", "client_closed", "client_reset", "crowded_out",
                  "bad_proxy_header"]


class Hellos(Collector):
    """Counters and gauges by listener."""

    def __init__(self) -> None:
        self._of: dict[str, dict[Outcome, int]] = {}
        self._waiting: dict[str, Callable[[], int]] = {}

    def of(self, listener: str, waiting: Callable[[], int]) -> dict[Outcome, int]:
        """The counters of one, to be raised; created at first.

        :param waiting: how many clients have not said where they want to go.
        """
        self._waiting[listener] = waiting
        return self._of.setdefault(listener, dict.fromkeys(get_args(Outcome), 0))

    def forget(self, listener: str) -> None:
        """It is shared no more."""
        self._of.pop(listener, None)
        self._waiting.pop(listener, None)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "txdirector_client_hellos", "Clients of shared listeners, by what became of them.",
            labels=("listener", "outcome"),
        )
        for listener, outcomes in self._of.items():
            for outcome, count in outcomes.items():
                family.add_metric((listener, outcome), count)
        yield family
        gauge = GaugeMetricFamily(
            "txdirector_client_hellos_waiting", "Clients of shared listeners whose service is not known yet.",
            labels=("listener",),
        )
        for listener, waiting in self._waiting.items():
            gauge.add_metric((listener,), waiting())
        yield gauge
