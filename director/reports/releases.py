"""Agents by the release of their program, for Prometheus: whether an upgrade got everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

#: Releases that are told apart, those with the most agents: their names are the agents' words, and each is a series.
MAX_RELEASES = 20
OTHERS = "other"


class ReleaseCollector:
    """Asked at each scrape.

    :param releases: how many agents that are connected are of each.
    """

    def __init__(self, releases: Callable[[], Counter[str]]) -> None:
        self._releases = releases

    def describe(self) -> tuple[()]:
        return ()

    def collect(self) -> Iterator[Metric]:
        found = self._releases()
        family = GaugeMetricFamily("txdirector_agents", "Connected agents, by the release of their program.",
                                   labels=("release",))
        for release, count in found.most_common(MAX_RELEASES):
            family.add_metric((release,), count)
        rest = found.total() - sum(count for _, count in found.most_common(MAX_RELEASES))
        if rest:
            family.add_metric((OTHERS,), rest)
        yield family
