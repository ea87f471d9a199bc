"""`LoadReporter`: the agent as a Twisted service, by itself or inside an application.

Inside an application::

    reporter = LoadReporter(AgentConfig(name="app1", directors=("10.0.0.1:7946",), hosts=("web/blue/app1",), …),
                            reactor=reactor)
    reporter.setServiceParent(application)

    with reporter.track():      # or reporter.begin() … reporter.finish(ok=…, latency_s=…)
        serve(request)

Stopping is leaving: the service announces it, waits until nothing is in flight (or the deadline has passed), and only
then disconnects.
"""

from __future__ import annotations

import os
import random as _random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from agent.config import LEAVE_S, AgentConfig, check, refusal
from agent.load import LoadMeter
from agent.own import OwnLoad
from agent.reporter import Contact, TLSOptions
from agent.sampler import MachineSampler, Sampler
from agent.scraping import Scraper
from cluster.address import Address, parse_address
from cluster.clock import run_on_monotonic
from cluster.errors import ConfigError, Problem
from cluster.model import LoadReport
from cluster.version import VERSION as RELEASE
from cluster.wire import (
    MAX_DIRECTORS,
    MAX_RELEASE,
    VERSION,
    Hello,
    HostClaim,
    Instruction,
    Leaving,
    Message,
    Report,
    Welcome,
)

#: Reports are never further apart or closer together than this, whatever a director says.
INTERVAL_LEAST_S = 0.1
INTERVAL_MOST_S = 60.0
#: A director's drain without a deadline ends by itself after this: an ``up`` that got lost must not last.
DRAIN_DEFAULT_S = 300.0
#: A director that cannot be reached where it was for so long may be where its second address leads: that is tried again.
#: Longer than the pause before the first tries of a connection that only broke.
ALIAS_S = 30.0
#: While leaving, how often what is in flight is looked at; zero counts when it is seen twice, because a director may
#: have picked this host just before it heard.
LEAVE_POLL_S = 0.25


class LoadReporter(MultiService):
    """Reports the load of some hosts to every director.

    :param config: see `AgentConfig`; with ``port`` the established connections of the port are counted.
    :param ordered: told of each director's order, after the reporter obeyed it.
    :param monotonic: seconds; :param random: uniform in [0, 1).
    :raises ConfigError: with everything that is wrong with *config*.
    """

    _log = Logger()

    def __init__(
        self,
        config: AgentConfig,
        *,
        reactor: Any,
        sampler: Sampler | None = None,
        ordered: Callable[[Instruction], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
        boot_id: str | None = None,
    ) -> None:
        super().__init__()
        problems = check(config)
        if problems:
            raise ConfigError(problems)
        run_on_monotonic(reactor)
        self.setName("load-reporter")
        self.config = config
        self.boot_id = os.urandom(12).hex() if boot_id is None else boot_id
        self.meter = LoadMeter(monotonic(), max_in_flight=config.max_in_flight)
        self._token = _read_token(config)
        self._tls = None if config.tls is None else TLSOptions(config.tls)
        self._ordered = ordered
        self._reactor = reactor
        self._sampler = self._make_sampler(monotonic) if sampler is None else sampler
        self._monotonic = monotonic
        self._random = random
        self._contacts: dict[Address, Contact] = {}
        self._aliases: dict[Address, str] = {}  # second addresses of directors we are connected to
        self._seq = 0
        self._load = LoadReport()
        self._drained: dict[str, float] = {}  # hosts that a director drained, and until when
        self._interval_s = _within(config.interval_s)
        self._leave_at: float | None = None
        self._left: Deferred[None] | None = None
        self._stopping: Deferred[Any] | None = None
        self._stopped: list[Deferred[Any]] = []  # of each stop that is under way
        self._zeros = 0
        self._tick = LoopingCall(self._report)
        self._watch = LoopingCall(self._watch_leaving)
        self._review = LoopingCall(self._look_around)
        self._tick.clock = self._watch.clock = self._review.clock = reactor

    def _make_sampler(self, monotonic: Callable[[], float]) -> MachineSampler:
        config, own = self.config, None
        if config.utilisation != "machine" and (config.port is not None or config.cgroup is not None):
            own = OwnLoad(config.port, cgroup=config.cgroup, processes=config.utilisation == "process", monotonic=monotonic)
        if config.prometheus is None:
            return MachineSampler(config.port, monotonic=monotonic, own=own)
        scraper = Scraper(config.prometheus, reactor=self._reactor, monotonic=monotonic)
        scraper.setServiceParent(self)
        return MachineSampler(config.port, monotonic=monotonic, own=own, served=scraper.served)

    # --- for the application

    def begin(self) -> None:
        """A request or connection arrived."""
        self.meter.begin()

    def finish(self, *, ok: bool = True, latency_s: float | None = None) -> None:
        """One that began is done."""
        self.meter.finish(ok=ok, latency_s=latency_s)

    @contextmanager
    def track(self) -> Iterator[None]:
        """Count the block as one request, with its duration; an exception makes it a failed one."""
        start = self._monotonic()
        self.begin()
        ok = False
        try:
            yield
            ok = True
        finally:
            self.finish(ok=ok, latency_s=self._monotonic() - start)

    def report(self, **stated: Any) -> None:
        """State values yourself: the fields of `agent.load.Stated` (``in_flight``, ``latency_s``, ``utilisation``,
        ``weight``, ``max_connections``, ``capacity``, ``state``, ``custom``). Each holds until stated anew; None takes
        it back.

        :raises TypeError: an unknown field.
        :raises ValueError: a value outside its range; nothing is changed.
        """
        self.meter.state(**stated)

    # --- running

    @property
    def current(self) -> LoadReport:
        """The last report; a drain while it leaves, and while directors have drained all that it speaks for."""
        load = self._load
        drained = self._leave_at is not None or (bool(self._drained) and self._drained.keys() >= set(self.config.hosts))
        return msgspec.structs.replace(load, state="drain") if drained and load.state == "ready" else load

    @property
    def directors(self) -> dict[str, bool]:
        """Every director's address known, and whether it listens to us now."""
        return {str(address): contact.open for address, contact in self._contacts.items()}

    def startService(self) -> None:
        if self.running:
            return
        super().startService()
        self._leave_at, self._zeros = None, 0
        self._aliases.clear()
        for text in self.config.directors:
            self._add(parse_address(text), configured=True)
        self._tick.start(self._interval_s, now=False)
        self._review.start(ALIAS_S, now=False)

    def stopService(self) -> Deferred[Any]:
        """Leave: see the module. The Deferred fires once every connection is closed."""
        over: Deferred[Any] = Deferred()
        self._stopped.append(over)
        if self._stopping is None:
            self._stopping = self._leave().addCallback(lambda _: self._disconnect())
            self._stopping.addBoth(self._is_stopped)
        return over

    def _is_stopped(self, result: Any) -> None:
        self._stopping = None
        stopped, self._stopped = self._stopped, []
        for over in stopped:
            over.callback(result)

    def hurry(self) -> None:
        """While leaving: don't wait any longer."""
        self._has_left()

    def _disconnect(self) -> Deferred[Any]:
        for loop in (self._tick, self._watch, self._review):
            if loop.running:
                loop.stop()
        stopping = [contact.stop() for contact in self._contacts.values()]
        self._contacts.clear()
        stopping.append(maybeDeferred(super().stopService))
        return DeferredList(stopping, fireOnOneErrback=True, consumeErrors=True)

    # --- leaving

    def _leave(self) -> Deferred[None]:
        left: Deferred[None] = Deferred()
        self._left = left
        deadline_s = LEAVE_S if self.config.leave_deadline_s is None else self.config.leave_deadline_s
        self._leave_at = self._monotonic() + deadline_s
        self._send(Leaving(deadline_s=deadline_s))
        heard = self.config.agent_check is not None or any(contact.open for contact in self._contacts.values())
        if deadline_s == 0 or not heard:
            self._has_left()
        else:
            if self.config.leave_deadline_s is None and self.meter.in_flight(self._sampler.connections()) is None:
                self._log.info("leaving at once: without a port nobody knows what is in flight, and the directors drain")
                self._has_left()
                return left
            self._log.info("leaving: waiting at most {deadline_s} s for open connections", deadline_s=deadline_s)
            self._watch.start(LEAVE_POLL_S, now=True)
        return left

    def _watch_leaving(self) -> None:
        """Leave when nothing is in flight. When nobody can tell what is, wait for the deadline that was configured."""
        assert self._leave_at is not None
        self._zeros = self._zeros + 1 if self.meter.in_flight(self._sampler.connections()) == 0 else 0
        if self._zeros >= 2 or self._monotonic() >= self._leave_at:
            self._has_left()

    def _has_left(self) -> None:
        if self._left is not None:
            left, self._left = self._left, None
            left.callback(None)

    # --- reporting

    def _report(self) -> None:
        try:
            self._load = self.meter.cut(self._sampler.sample(), self._monotonic())
        except Exception:
            self._log.failure("no sample; reporting the last one")
        self._send(self._next_report())

    def _next_report(self) -> Report:
        now = self._monotonic()
        load = self._load
        if self._leave_at is not None and load.state == "ready":
            load = msgspec.structs.replace(load, state="drain")
        self._drained = {host: until for host, until in self._drained.items() if until > now}
        drained = {}
        if load.state == "ready" and self._drained:
            drained = dict.fromkeys(self._drained, msgspec.structs.replace(load, state="drain"))
        self._seq += 1
        return Report(seq=self._seq, load=load, hosts=drained)

    def _send(self, message: Message) -> None:
        for contact in self._contacts.values():
            contact.send(message)

    # --- from directors

    def hello(self) -> Hello:
        config = self.config
        try:
            self._token = _read_token(config)  # it may have been renewed
        except ConfigError as error:
            self._log.error("{problem}; the token read before stays in use", problem=str(error))
        return Hello(
            version=VERSION,
            agent=config.name,
            boot_id=self.boot_id,
            token=self._token,
            hosts=[HostClaim(host=host, address=config.register, weight=config.weight) for host in config.hosts],
            interval_s=config.interval_s,
            release=RELEASE[:MAX_RELEASE],
        )

    def welcomed(self, contact: Contact, welcome: Welcome) -> None:
        if self._is_alias(contact):
            return
        self._learn()
        self._retime()
        contact.send(self._next_report())
        if self._leave_at is not None:
            contact.send(Leaving(deadline_s=max(0.0, self._leave_at - self._monotonic())))

    def ordered(self, contact: Contact, order: Instruction) -> None:
        hosts = [host for host in order.hosts or self.config.hosts if host in self.config.hosts]
        if order.order == "interval":
            contact.interval_s = order.interval_s or contact.interval_s
            self._retime()
        elif order.order == "drain":
            until = self._monotonic() + (order.deadline_s or DRAIN_DEFAULT_S)
            self._drained.update(dict.fromkeys(hosts, until))
        else:
            for host in hosts:
                self._drained.pop(host, None)
        self._log.info("director {name} orders {order}", name=contact.director, order=order.order)
        if order.order != "interval":
            self._send(self._next_report())
        if self._ordered is not None:
            self._ordered(order)

    def _is_alias(self, contact: Contact) -> bool:
        """Whether *contact* leads to a director that another contact leads to; one of them is given up, or the two would
        replace each other for ever. Configured addresses win, then the older; one that broke long ago is no twin: the
        director may have moved."""
        twins = [each for each in self._contacts.values()
                 if each is contact or (each.director == contact.director and each.lost_s < ALIAS_S)]
        if len(twins) == 1:
            return False
        keep = min(twins, key=lambda each: not each.configured)
        for each in twins:
            if each is not keep:
                self._aliases[each.address] = each.director or ""
                self._drop(each)
        return contact is not keep

    def _learn(self) -> None:
        """Connect to every director that some director names; forget learned ones that none names, and aliases of
        directors that we have been without for long."""
        reached = {contact.director for contact in self._contacts.values() if contact.lost_s < ALIAS_S}
        self._aliases = {address: name for address, name in self._aliases.items() if name in reached}
        named: dict[Address, None] = {}
        for contact in self._contacts.values():
            for text in contact.advertised:
                if not refusal(text, self.config):
                    named[parse_address(text)] = None
        for address in named:
            if address not in self._contacts and address not in self._aliases and len(self._contacts) < MAX_DIRECTORS:
                self._add(address, configured=False)
        for contact in list(self._contacts.values()):
            if not contact.configured and not contact.open and contact.address not in named:
                self._drop(contact)

    def _look_around(self) -> None:
        self._learn()
        if self._tls is not None:
            self._tls.files.look()  # so that a certificate that ends is told, though no connection is made

    def _add(self, address: Address, *, configured: bool) -> None:
        contact = Contact(address, self, tls=self._tls, configured=configured, reactor=self._reactor,
                    monotonic=self._monotonic, random=self._random)
        self._contacts[address] = contact
        contact.start()

    def _drop(self, contact: Contact) -> None:
        del self._contacts[contact.address]
        contact.stop().addErrback(lambda failure: self._log.failure("closing a connection", failure))

    def _retime(self) -> None:
        """Report as often as the most demanding director wants."""
        wanted = [each.interval_s for each in self._contacts.values() if each.open and each.interval_s is not None]
        interval_s = _within(min(wanted, default=self.config.interval_s))
        if interval_s != self._interval_s:
            self._interval_s = interval_s
            if self._tick.running:
                self._tick.stop()
                self._tick.start(interval_s, now=False)


def _within(interval_s: float) -> float:
    return min(INTERVAL_MOST_S, max(INTERVAL_LEAST_S, interval_s))


def _read_token(config: AgentConfig) -> str | None:
    if config.token_file is None:
        return config.token
    try:
        with open(config.token_file, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError) as error:
        raise ConfigError([Problem("token_file", str(error))]) from error
