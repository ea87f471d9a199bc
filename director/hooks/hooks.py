"""Delivers records of transitions, each hook's in their order and one at a time.

Nobody waits for a hook: what it is told lies in a bounded queue of its own, and what has no room there is dropped, counted
and logged. A delivery that fails is counted and logged, and not tried again: by then there is other news.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.application.service import Service
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import ConfigError
from cluster.model import Hook
from cluster.pem import PemFiles
from cluster.web import parse_url
from director.checks.child import Child, inherited_by_child
from director.hooks.posting import post
from director.hooks.records import encoded
from director.timing.seldom import Seldom, more

#: Records that wait for one hook: a group of some hundred hosts may go down and come back.
MAX_WAITING = 1_000
#: At the end of the director, for what is under way and waits: a VIP that was given up is news, too.
END_S = 2.0
#: Between two lines in the log about a hook that fails.
SAY_S = 60.0

OUTCOMES = ("done", "failed", "dropped")


class Names(Protocol):
    """Finds the addresses of host names, as `director.checks.resolver.Resolver` does."""

    def resolve(self, host: str) -> Deferred[tuple[str, ...]]: ...

    def watch(self, host: str, callback: Callable[[Any], None]) -> object: ...


class Delivery:
    """One hook: its queue, and what is under way.

    :param leads: whether this director leads, or is alone.
    :raises ConfigError: a file cannot be read or is not what it should be.
    """

    log = Logger()

    def __init__(self, name: str, hook: Hook, *, names: Names, leads: Callable[[], bool], reactor: Any,
                 monotonic: Callable[[], float], inherited: Mapping[str, str]) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self.waiting: deque[bytes] = deque()
        self._hook = hook
        self._names = names
        self._url = None if hook.url is None else parse_url(hook.url)
        if self._url is not None:
            names.watch(self._url.host, lambda _: None)  # so that it is known when it matters, at the end too
        self._leads = leads
        self._reactor = reactor
        self._monotonic = monotonic
        self._inherited = inherited
        self._under_way: Deferred[None] | None = None
        self._idle: list[Deferred[None]] = []
        self._seldom = Seldom(monotonic=monotonic, every_s=SAY_S)
        self._trust = _authorities(name, hook.ca)

    def wants(self, event: str) -> bool:
        return event in self._hook.on and (self._hook.when == "always" or not event.startswith("host_") or self._leads())

    def take(self, record: bytes) -> None:
        """Deliver *record* after those that wait, or drop it."""
        if len(self.waiting) >= MAX_WAITING:
            self.counts["dropped"] += 1
            self._say("hook {hook} drops what it is told: {count} wait already", "dropped", count=MAX_WAITING)
            return
        self.waiting.append(record)
        if self._under_way is None:
            self._under_way = Deferred.fromCoroutine(self._deliver())
            self._under_way.addErrback(self._broke)

    def over(self) -> Deferred[None]:
        """Fires once nothing waits and nothing is under way."""
        if self._under_way is None:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def stop(self) -> None:
        """End what is under way and forget what waits."""
        self.counts["dropped"] += len(self.waiting)
        self.waiting.clear()
        if self._under_way is not None:
            self._under_way.cancel()

    async def _deliver(self) -> None:
        await deferLater(self._reactor, 0)  # whoever tells does not wait for a program to begin
        while self.waiting:
            record = self.waiting.popleft()
            try:
                why = await (self._run(record) if self._hook.command else self._post(record))
            except (Exception, CancelledError) as error:
                why = _words(error)
            self.counts["failed" if why else "done"] += 1
            if why:
                self._say("hook {hook} failed: {why}", "failed", why=why)
            await deferLater(self._reactor, 0)
        self._under_way = None
        idle, self._idle = self._idle, []
        for each in idle:
            each.callback(None)

    def _broke(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("a hook broke", failure)

    def _say(self, text: str, key: str, **fields: object) -> None:
        held = self._seldom.due(key)
        if held is not None:
            self.log.warn(f"{text}{{more}}", hook=self.name, more=more(held), **fields)

    # --- the two ways; each fires with why it failed, or ""

    async def _run(self, record: bytes) -> str:
        told: list[str] = []
        try:
            child = Child(self._hook.command, inherited_by_child(self._inherited),
                          lambda ok, detail: told.append("" if ok else detail), timeout_s=self._hook.timeout_s,
                          reactor=self._reactor, monotonic=self._monotonic, stdin=record)
        except OSError as error:
            return f"{self._hook.command[0]}: {(error.strerror or str(error)).lower()}"
        try:
            await child.ended
        except CancelledError:
            child.kill()
            raise
        return told[0] if told else "it does not end"

    def _post(self, record: bytes) -> Deferred[str]:
        return Deferred.fromCoroutine(self._posted(record)).addTimeout(self._hook.timeout_s, self._reactor)

    async def _posted(self, record: bytes) -> str:
        url = self._url
        assert url is not None
        token = None
        if self._hook.token_file is not None:
            with open(self._hook.token_file, encoding="ascii") as file:
                token = file.read().strip()
        addresses = await self._names.resolve(url.host)
        trust = ssl.platformTrust() if self._trust is None else self._trust
        status = await post(url, record, token=token, addresses=addresses, trust=trust, timeout_s=self._hook.timeout_s,
                            reactor=self._reactor)
        return "" if 200 <= status < 300 else f"HTTP {status}"


class Hooks(Service):
    """All hooks of a director. While it does not run nothing is told.

    :param wall: POSIX seconds, for the records.
    """

    log = Logger()

    def __init__(self, hooks: Mapping[str, Hook], *, director: str, names: Names, leads: Callable[[], bool],
                 reactor: Any, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
                 inherited: Mapping[str, str] = os.environ) -> None:
        self.setName("hooks")
        self._director = director
        self._wall = wall
        self._reactor = reactor
        self._number = 0
        self.deliveries = tuple(
            Delivery(name, hook, names=names, leads=leads, reactor=reactor, monotonic=monotonic, inherited=inherited)
            for name, hook in hooks.items()
        )

    def tell(self, record: Mapping[str, object]) -> None:
        """*record* is of a transition that happened right now."""
        wanting = [each for each in self.deliveries if each.wants(str(record["event"]))] if self.running else ()
        if wanting:
            self._number += 1
            line = encoded(record, director=self._director, number=self._number, at=self._wall())
            for each in wanting:
                each.take(line)

    def stopService(self) -> Deferred[Any]:
        """Fires when all is delivered, `END_S` from now at the latest."""
        super().stopService()
        all_over = DeferredList([each.over() for each in self.deliveries], consumeErrors=True)
        return all_over.addTimeout(END_S, self._reactor).addBoth(lambda _: self._cut())

    def _cut(self) -> None:
        for each in self.deliveries:
            each.stop()

    # --- for prometheus-client

    def describe(self) -> tuple[()]:
        return ()

    def collect(self) -> Iterator[Metric]:
        records = CounterMetricFamily("txdirector_hook_records", "Records for the hook, by what became of them.",
                                      labels=("hook", "outcome"))
        waiting = GaugeMetricFamily("txdirector_hook_waiting", "Records that wait for the hook.", labels=("hook",))
        for each in self.deliveries:
            for outcome in OUTCOMES:
                records.add_metric((each.name, outcome), each.counts[outcome])
            waiting.add_metric((each.name,), len(each.waiting))
        yield records
        yield waiting


def _authorities(name: str, ca: str | None) -> Any:
    """Whose certificates are believed; None: those of whom the system believes."""
    if ca is None:
        return None
    files = PemFiles(f"node.hooks.{name}")
    trust = files.authorities("ca", ca)
    if files.problems:
        raise ConfigError(files.problems)
    return trust


def _words(error: BaseException) -> str:
    """Why a delivery failed."""
    if isinstance(error, TimedOut):
        return "timed out"
    if isinstance(error, CancelledError):
        return "cancelled"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
