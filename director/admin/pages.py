"""Metrics, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.server import Request

from director.admin.control import Caller
from director.admin.gate import Gate
from director.admin.web import Page, is_read, only_read
from director.courtesy import politely

#: Formatted in one go: some forty microseconds.
SAMPLES = 8


class MetricsPage(Page):
    """The registry in Prometheus' text format.

    Formatted one family for each turn of the reactor: a scrape of ten thousand hosts is a second's work and must not
    hold up clients. The gauges are of one snapshot all the same.
    """

    def __init__(self, gate: Gate, registry: CollectorRegistry, *, clock: IReactorTime) -> None:
        super().__init__(gate)
        self._registry = registry
        self._clock = clock

    async def answer(self, caller: Caller, request: Request) -> bytes:
        if not is_read(request):
            return only_read(request)
        parts: list[bytes] = []
        for family in self._registry.collect():
            parts += politely(_text(family), 1)
            await deferLater(self._clock, 0)
        request.setHeader("Content-Type", CONTENT_TYPE_LATEST)
        return b"".join(parts)


def _text(family: Metric) -> Iterator[bytes]:
    """A family in Prometheus' text format, in pieces of at most `SAMPLES`; its head comes once.

    Without the ``_created`` series, which double the counters and which Prometheus' text format gives no meaning.
    """
    samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    for start in range(0, max(1, len(samples)), SAMPLES):
        piece = Metric(family.name, family.documentation, family.type)
        piece.samples = samples[start : start + SAMPLES]
        text = generate_latest(_Family(piece))
        yield text if start == 0 else text.split(b"\n", 2)[2]


class _Family:
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> tuple[Metric]:
        return (self._family,)
