"""A Prometheus endpoint, over real sockets."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Summary, generate_latest
from twisted.internet.defer import inlineCallbacks
from twisted.logger import formatEvent, globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from agent import scraping
from agent.config import Prometheus
from agent.scraping import Scraper
from tests.integration.test_agent import AgentCase, reactor


class Page(Resource):
    """What the library writes, or what a test says."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        registry = CollectorRegistry()
        self.requests = Counter("requests", "text", ["code"], registry=registry)
        self.seconds = Summary("seconds", "text", registry=registry)
        self.registry = registry
        self.instead: bytes | int | None = None
        self.cut = False

    def render_GET(self, request: Any) -> bytes | int:
        if self.instead == NOT_DONE_YET:
            return NOT_DONE_YET
        if self.instead == 500:
            request.setResponseCode(500)
            return b"requests_total 1"
        if self.cut:
            request.setHeader(b"content-length", b"1000")
            request.write(b"requests_total 1\n")
            request.transport.loseConnection()
            return NOT_DONE_YET
        return generate_latest(self.registry) if self.instead is None else self.instead


class Scraping(AgentCase):
    def setUp(self) -> None:
        super().setUp()
        self.page = Page()
        self.port: Any = reactor.listenTCP(0, Site(self.page), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(self.port.stopListening)
        self.lines: list[str] = []

        def watch(event: Any) -> None:
            line = formatEvent(event)
            if "figures from" in line or "HTTP11" in line:
                self.lines.append(line)

        globalLogPublisher.addObserver(watch)
        self.addCleanup(globalLogPublisher.removeObserver, watch)

    def settings(self, **more: Any) -> Prometheus:
        return Prometheus(**({
            "url": f"http://127.0.0.1:{self.port.getHost().port}/metrics", "requests": "requests_total", "interval_s": 0.05,
            "errors": ('requests_total{code=~"5.."}',), "latency_sum": "seconds_sum", "latency_count": "seconds_count",
        } | more))

    def serve(self, code: str, seconds: float) -> None:
        self.page.requests.labels(code).inc()
        self.page.seconds.observe(seconds)

    @inlineCallbacks
    def test_figures_reach_the_director(self) -> Any:
        """Every request once, with its share of failures and its latency."""
        self.serve("200", 1.0)
        listener = self.listen()
        reporter = self.report(listener, prometheus=self.settings())
        yield self.until(lambda: any(e[0] == "reported" and e[2].rate == 0 for e in self.sink.events), "a rate of nothing")
        for code in ("200", "200", "500", "200"):
            self.serve(code, 0.25)
        yield self.until(lambda: sum(e[2].completions or 0 for e in self.sink.events if e[0] == "reported") == 4, "four")
        loads = [e[2] for e in self.sink.events if e[0] == "reported" and e[2].completions]
        self.assertEqual(sum((load.errors or 0) * load.completions for load in loads), 1)
        self.assertTrue(all(abs(load.latency_s - 0.25) < 1e-9 and load.rate > 0 for load in loads), loads)
        reporter.begin()  # the application counts itself, which goes before
        reporter.finish(latency_s=0.5)
        yield self.until(lambda: any(e[0] == "reported" and e[2].latency_s == 0.5 for e in self.sink.events), "its own count")
        self.assertEqual(self.lines, [])

    @inlineCallbacks
    def test_pages_of_no_use(self) -> Any:
        """Garbage, an error, silence, half a page, too much, nobody: no figures, and one line of the log for all of it; then
        figures again, and one line."""
        self.patch(scraping, "MAX_PAGE_BYTES", 10_000)
        scraper = Scraper(self.settings(timeout_s=0.2), reactor=reactor, monotonic=time.monotonic)
        scraper.startService()
        self.addCleanup(lambda: scraper.stopService() if scraper.running else None)
        self.serve("200", 0.1)
        yield self.until(scraper.served, "figures")
        for bad in (b"<html>", b"requests_total x\n", b"\xff", b"x" * 20_000, 500, NOT_DONE_YET, "cut"):
            self.page.cut, self.page.instead = bad == "cut", None if bad == "cut" else bad  # type: ignore[assignment]
            wrong = scraper._wrong
            yield self.until(lambda wrong=wrong: scraper._wrong not in ("", wrong), f"what is wrong with {bad!r}")
            yield self.until(lambda: scraper.served() is None, "no figures")
        self.page.cut = False
        self.assertEqual(len(self.lines), 1, self.lines)
        self.page.instead = None
        yield self.until(scraper.served, "figures again")
        self.assertEqual(len(self.lines), 2, self.lines)
        yield self.port.stopListening()
        yield self.until(lambda: "no answer" in scraper._wrong or "refused" in scraper._wrong, "nobody there")
        self.page.instead = NOT_DONE_YET
