"""Virtual addresses one by one, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from director.core.snapshot import VipPicture


class VipCollector(Collector):
    """:param vips: as the operators' list has them; asked at each scrape.
    :param director: this one's name.
    """

    def __init__(self, vips: Callable[[], Iterable[VipPicture]], director: str) -> None:
        self._vips = vips
        self._director = director

    def describe(self) -> Iterable[Metric]:
        """Nothing: so that registering asks nobody."""
        return ()

    def collect(self) -> Iterator[Metric]:
        owned = GaugeMetricFamily("txdirector_vip_owned", "1 where this director owns the virtual address.",
                                  labels=("address",))
        term = GaugeMetricFamily("txdirector_vip_term", "The term of the address's owner, whoever that is.",
                                 labels=("address",))
        moves = CounterMetricFamily("txdirector_vip_moves", "How often this director gave the address to another one.",
                                    labels=("address",))
        for each in self._vips():
            owned.add_metric((each.address,), float(each.owner == self._director))
            term.add_metric((each.address,), each.term)
            moves.add_metric((each.address,), each.moves)
        yield from (owned, term, moves)
