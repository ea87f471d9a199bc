"""Metrics, for Prometheus."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from director.admin.control import Caller
from director.admin.gate import LetsIn
from director.admin.web import Page, is_read, only_read, pause
from director.metrics.carried import CarryingRegistry
from director.metrics.families import Series
from director.timing.courtesy import politely

#: Formatted in one go: some forty microseconds.
SAMPLES = 8
#: Text of metrics shrinks to a ninth in a hundredth of a second a megabyte; by a tenth more in three times as long.
GZIP_LEVEL = 1

#: A family in a text format.
Encode = Callable[[Any], bytes]

#: The end of a whole document of OpenMetrics.
_EOF = b"# EOF\n"
#: ``Accept-Encoding`` that takes gzip, but not as ``gzip;q=0``.
_GZIP = re.compile(r"(?:^|,)\s*gzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[0-9.]+\s*)?(?:,|$)", re.IGNORECASE)


class MetricsPage(Page):
    """The registry in Prometheus' text format, or as OpenMetrics for who asks for that; compressed for who takes gzip.

    Formatted one family for each turn of the reactor: a scrape of ten thousand hosts is a second's work and must not
    hold up clients. The gauges are of one snapshot all the same.
    """

    def __init__(self, gate: LetsIn, registry: CollectorRegistry, *, clock: IReactorTime) -> None:
        super().__init__(gate)
        self._registry = registry
        self._clock = clock

    async def answer(self, caller: Caller, request: Request) -> bytes:
        if not is_read(request):
            return only_read(request)
        if isinstance(self._registry, CarryingRegistry):
            await self._registry.fresh()
        encode, kind = _chosen(request.getHeader("accept") or "")
        takes_gzip = _GZIP.search(request.getHeader("accept-encoding") or "") is not None
        packed = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16) if takes_gzip else None
        parts: list[bytes] = []
        for family in self._registry.collect():
            for piece in politely(_text(family, encode), 1):
                parts.append(piece if packed is None else packed.compress(piece))
            await pause(request, self._clock)
        end = _EOF if "openmetrics" in kind else b""
        parts += [end] if packed is None else [packed.compress(end), packed.flush()]
        request.setHeader("Content-Type", kind)
        request.setHeader("Vary", "Accept, Accept-Encoding")
        if packed is not None:
            request.setHeader("Content-Encoding", "gzip")
        return b"".join(parts)


def _chosen(accept: str) -> tuple[Encode, str]:
    """The format, and its media type; Prometheus' text where *accept* cannot be read."""
    try:
        encode, kind = choose_encoder(accept)
    except (ValueError, TypeError):  # a version that is none
        return choose_encoder("")
    if "openmetrics" in kind and "version=1.0.0;" not in kind:  # the library would call it what was asked for
        return choose_encoder("application/openmetrics-text")
    return encode, kind


def _text(family: Metric, encode: Encode) -> Iterator[bytes]:
    """A family in the format of *encode*, in pieces of at most `SAMPLES`; its head comes once.

    Where the family keeps its text (`director.metrics.families`), that is taken. Without the
    ``_created`` series, which double the counters and which Prometheus' text format gives no meaning.
    """
    if isinstance(family.samples, Series):
        yield encode(_Family(Metric(family.name, family.documentation, family.type))).removesuffix(_EOF)
        yield from family.samples.text()
        return
    samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    for start in range(0, max(1, len(samples)), SAMPLES):
        piece = Metric(family.name, family.documentation, family.type)
        piece.samples = samples[start : start + SAMPLES]
        text = encode(_Family(piece)).removesuffix(_EOF)
        while start and text.startswith(b"# "):
            text = text.partition(b"\n")[2]
        yield text


class _Family:
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> tuple[Metric]:
        return (self._family,)
