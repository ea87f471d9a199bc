"""Metrics, for Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.server import Request

from director.admin.control import Caller
from director.admin.gate import Gate
from director.admin.web import Page, is_read, only_read


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
        parts = []
        for family in self._registry.collect():
            parts.append(generate_latest(_Family(family)))
            await deferLater(self._clock, 0)
        request.setHeader("Content-Type", CONTENT_TYPE_LATEST)
        return b"".join(parts)


class _Family:
    """A registry of one family."""

    def __init__(self, family: Any) -> None:
        self._family = family

    def collect(self) -> tuple[Any]:
        return (self._family,)
