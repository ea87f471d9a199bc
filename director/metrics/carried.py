"""Counters that go on from where another process of this director had them.

The numbers of hosts are added to this process's own (`Metrics.add_of_hosts`). Of all other counters this process knows what
the other one has, as a whole, and adds its own at a scrape. What the other process counts while it still serves its last
clients comes across again and again, and before each scrape: so no sum ever falls, and no client is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.samples import Sample
from twisted.internet.defer import Deferred, succeed

from director.metrics.families import Series

#: Ours are carried; Python's and the process's are each process's own.
PREFIX = "txdirector_"
_COUNTING = ("counter", "histogram")

#: A sample's name, and its labels in order.
Key = tuple[str, tuple[tuple[str, str], ...]]


#: Samples as they pass.
Samples = list[tuple[str, list[tuple[str, str]], float]]


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """All that a process has counted, or what of it has changed."""

    samples: Samples = []  #: each as a whole
    hosts: list[tuple[tuple[str, str, str], dict[str, float]]] = []  #: by reference: what `HostMetrics` gained


class CarryingRegistry(CollectorRegistry):
    """A registry whose counters begin where another's were."""

    def __init__(self) -> None:
        super().__init__()
        self._carried: dict[Key, float] = {}
        self._ask: Callable[[], Deferred[None]] | None = None

    def carry(self, samples: Samples) -> None:
        """The other process has counted these so far."""
        for name, labels, value in samples:
            key = name, tuple(sorted((label, text) for label, text in labels))
            self._carried[key] = max(value, self._carried.get(key, 0.0))

    def carry_from(self, ask: Callable[[], Deferred[None]] | None) -> None:
        """*ask* fires once `carry` has all that the other process has counted by now; None: that has ended."""
        self._ask = ask

    def fresh(self) -> Deferred[None]:
        """To be waited for before a scrape: what the other process has told a former one is known then."""
        return succeed(None) if self._ask is None else self._ask()

    def samples(self) -> dict[Key, float]:
        """Every counter's value, with what was carried; without those whose families keep them apart."""
        return {_key(sample): sample.value for family in self.collect() if _is_ours(family)
                and not isinstance(family.samples, Series) for sample in family.samples if _counts(sample)}

    def collect(self) -> Iterator[Metric]:
        left = dict(self._carried)
        for family in super().collect():
            if left and _is_ours(family) and not isinstance(family.samples, Series):
                yield self._with(family, left)
            else:
                yield family

    def _with(self, family: Metric, left: dict[Key, float]) -> Metric:
        samples: list[Any] = []
        for sample in family.samples:
            carried = left.pop(_key(sample), 0.0)
            samples.append(sample._replace(value=sample.value + carried) if carried else sample)
        names = {family.name + suffix for suffix in ("_total", "_bucket", "_sum", "_count")}
        services = {sample.labels.get("service") for sample in samples}
        for key in [key for key in left if key[0] in names]:
            value, labels = left.pop(key), dict(key[1])
            if "service" not in labels or labels["service"] in services:  # of deleted services nothing is shown
                samples.append(Sample(key[0], labels, value))
        whole = Metric(family.name, family.documentation, family.type)
        whole.samples = samples
        return whole


def changed(after: dict[Key, float], before: dict[Key, float]) -> Samples:
    """What has grown in between."""
    return [(key[0], list(key[1]), value) for key, value in after.items() if value > before.get(key, 0.0)]


def _is_ours(family: Metric) -> bool:
    return family.type in _COUNTING and family.name.startswith(PREFIX)


def _counts(sample: Sample) -> bool:
    return not sample.name.endswith("_created")


def _key(sample: Sample) -> Key:
    return sample.name, tuple(sorted(sample.labels.items()))
