"""Fetches the service's own counters from its Prometheus endpoint; `agent.exposition` reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone, _HTTP11ClientFactory
from twisted.web.http import OK
from twisted.web.http_headers import Headers

from agent.config import Prometheus
from agent.exposition import Counts, Served, Tally, selector, sums

#: A page of ten thousand series has about a megabyte; reading four lines of that takes some 20 ms.
MAX_PAGE_BYTES = 4 * 1024 * 1024
#: Missing so many pages, the last rate is no news any more.
KEEP_INTERVALS = 3.0


class Scraper(Service):
    """Fetches, one page at a time. What is wrong is told in one line of the log when it begins, and one when it ends."""

    log = Logger()

    def __init__(self, config: Prometheus, *, reactor: Any, monotonic: Callable[[], float]) -> None:
        self.setName("prometheus")
        self._config = config
        self._reactor = reactor
        self._monotonic = monotonic
        # a connection for each page: one that stayed open would be in flight for ever, where this is the service's own port
        pool = HTTPConnectionPool(reactor, persistent=False)
        pool._factory = _Quiet
        self._http = Agent(reactor, connectTimeout=config.timeout_s, pool=pool)
        self._groups = [[selector(text) for text in texts] for texts in (
            (config.requests,), config.errors, [config.latency_sum] if config.latency_sum else [],
            [config.latency_count] if config.latency_count else [])]
        self._tally = Tally(counts_errors=bool(config.errors), keep_s=KEEP_INTERVALS * config.interval_s + config.timeout_s)
        self._loop = LoopingCall(self._fetch)
        self._loop.clock = reactor
        self._fetching: Deferred[Any] | None = None
        self._wrong = ""

    def served(self) -> Served | None:
        """What was served since the last call; None: unknown."""
        return self._tally.take(self._monotonic())

    def startService(self) -> None:
        super().startService()
        if not self._loop.running:
            self._loop.start(self._config.interval_s)

    def stopService(self) -> None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._fetching is not None:
            self._fetching.cancel()

    def _fetch(self) -> Deferred[None]:
        """The loop waits for it."""
        self._fetching = Deferred.fromCoroutine(self._page()).addTimeout(self._config.timeout_s, self._reactor)
        return self._fetching.addCallback(self._read).addErrback(self._failed)

    async def _page(self) -> bytes:
        try:
            response = await self._http.request(b"GET", self._config.url.encode(), Headers({"Accept": ["text/plain"]}))
        except ConnectingCancelledError as error:  # so that the timeout knows its own doing
            raise CancelledError from error
        body = _Body(wanted=response.code == OK)
        response.deliverBody(body)
        page = await body.whole
        if response.code != OK:
            raise ValueError(f"HTTP {response.code}")
        return page

    def _read(self, page: bytes) -> None:
        at = self._monotonic()
        found = [sums(page.decode("utf-8"), group) for group in self._groups]
        if found[0] == [None]:
            raise ValueError(f"there is no {self._config.requests}")
        for values, name in zip(found[2:], ("latency_sum", "latency_count"), strict=True):
            if values == [None]:
                raise ValueError(f"there is no {getattr(self._config, name)}")
        # a counter of failures often begins with the first failure
        self._tally.put(Counts(at, *(sum(value or 0.0 for value in values) for values in found)))
        self._tell("")

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) and not self.running:
            return
        if failure.check(Late):
            self._tell(f"no answer within {self._config.timeout_s:g} s")
        else:
            self._tell(failure.getErrorMessage() or type(failure.value).__name__)

    def _tell(self, wrong: str) -> None:
        if bool(wrong) != bool(self._wrong):
            if wrong:
                self.log.warn("no figures from {url}: {wrong}", url=self._config.url, wrong=wrong)
            else:
                self.log.info("figures from {url} again", url=self._config.url)
        self._wrong = wrong


class _Quiet(_HTTP11ClientFactory):
    """Its beginning and end are no news, once a second."""

    noisy = False


class _Body(Protocol):
    """A response's body, of `MAX_PAGE_BYTES` at most."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._pieces: list[bytes] = []
        self._bytes = 0
        self.whole: Deferred[bytes] = Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._wanted:
            self._pieces.append(data)
        if self._bytes > MAX_PAGE_BYTES and not self.whole.called:
            self._abort()
            self.whole.errback(ValueError(f"the page has more than {MAX_PAGE_BYTES} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        if reason.check(ResponseDone):
            self.whole.callback(b"".join(self._pieces))
        else:
            self.whole.errback(ValueError("the page is not whole"))

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()
