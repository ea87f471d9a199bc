"""The addresses of host names: a cache that is asked synchronously and refreshed in the background.

Rules:

- Nobody waits for DNS while connections are made: `Resolver.addresses` answers from the cache, `Resolver.watch` tells
  of changes, and a name in use is asked again before its answer runs out.
- An answer counts for its TTL, within `MIN_TTL_S` and `MAX_TTL_S`; that a name has no addresses, for at most
  `MAX_NEGATIVE_TTL_S`.
- When no server answers, what was known stays in use for up to `STALE_S` (RFC 8767) and the servers are asked again
  every `RETRY_S`.
- That a name has no addresses any more is believed after `HOLD_S`: until then what was known stays in use, and the
  servers are asked again every `RETRY_S`. Zones are broken for seconds now and then, and whether the addresses still
  work is for probes and traffic to say.
- A lookup that this director could not make, for want of a descriptor, a port or memory, changes nothing; it is made
  `SHORT_RETRY_S` later.
- A failed check or connect casts doubt on the answer: the name is asked anew, at most every `DOUBT_S`.
- The two families are remembered apart: a server that fails one of them does not take away the other.
- ``/etc/hosts`` goes before DNS; literal addresses are their own answer.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.shortage import OutOfResources
from director.checks.nameservers import Answer, LookupFailed, NameServers
from director.checks.system_dns import HOSTS_FILE, HostsFile, is_ip
from director.resources.shortages import LOOKUP, Shortages

#: A TTL of 0 must not turn into a query per connection.
MIN_TTL_S = 1.0
#: A TTL of days must not pin a host to where it was.
MAX_TTL_S = 3600.0
#: A name that was asked for before it was created is noticed in this time, whatever its zone says; it also stands in
#: for the TTL of a negative answer that has none.
MAX_NEGATIVE_TTL_S = 30.0
#: Part of the TTL after which a name in use is asked again, so that a slow answer still comes in time.
REFRESH_AT = 0.9
#: Between attempts while no server answers (RFC 9520 asks for at least 1 s).
RETRY_S = 5.0
#: Between two lookups of a name whose hosts fail, however many of them and however often they do.
DOUBT_S = 1.0
#: Until the next attempt when there was nothing to ask with: shortages of ours pass quickly.
SHORT_RETRY_S = 1.0
#: How long addresses outlive their servers. Probes say whether they still work; RFC 8767 suggests one to three days.
STALE_S = 86_400.0
#: How long addresses outlive an answer that there are none, by default; HAProxy holds them as long.
HOLD_S = 30.0
#: Names that nobody uses any more, kept so long: SRV records may name others every second.
MAX_UNUSED = 10_000
#: How soon a change of the hosts file is noticed.
HOSTS_FILE_TTL_S = 10.0
#: Names asked at the same time, two sockets each: ten thousand names must not need as many descriptors.
MAX_LOOKUPS = 50

NO_ADDRESSES = "the name has no addresses"

#: What is known of a name: its addresses, IPv4 first, in order, so that a rotated answer is no change; or a text that
#: says why there are none.
Known = tuple[str, ...] | str


class Unresolvable(Exception):
    """The name has no usable address; says why."""


class Watch:
    """Somebody who wants to know of changes, until `stop`."""

    def __init__(self, name: _Name | None, callback: Callable[[Known], None]) -> None:
        self._name = name
        self._callback: Callable[[Known], None] | None = callback
        if name is not None:
            name.watches.append(self)

    def stop(self) -> None:
        """No call comes after this."""
        self._callback = None
        if self._name is not None:
            self._name.watches.remove(self)
            self._name = None

    def tell(self, known: Known) -> None:
        if self._callback is not None:
            self._callback(known)


class _Name:
    """A name in the cache."""

    __slots__ = ("asked_at", "empty_since", "expires", "failing", "families", "known", "lookup", "name", "shortage", "timer",
                 "used", "waiters", "watches")

    def __init__(self, name: str) -> None:
        self.name = name
        self.families: dict[int, tuple[tuple[str, ...], float]] = {}  #: by IP version: addresses, when answered
        self.empty_since: float | None = None  #: since when answers have had no address, while there was one before
        self.known: Known | None = None  #: None until the first answer
        self.expires = 0.0  #: until then *known* counts
        self.asked_at = -math.inf  #: when the last lookup began
        self.used = True  #: asked for since the last answer
        self.watches: list[Watch] = []
        self.waiters: list[Deferred[tuple[str, ...]]] = []
        self.lookup: Deferred[Any] | None = None  #: under way
        self.failing = False  #: the last lookup got no answer
        self.shortage: OutOfResources | None = None  #: why the last lookup could not be made
        self.timer: Any = None  #: the next refresh


class Resolver(Service):
    """The cache. Names come from the configuration, and from what is found by it, never from clients; of those that are not
    used any more `MAX_UNUSED` are kept.

    Before its start and after its stop nothing is asked; what is known can still be read.

    :param servers: as `NameServers` takes them.
    :param lookup: asks for one name; by default `NameServers.lookup`.
    :param hold_s: how long what was known outlives an answer that there is no address.
    :param monotonic: seconds; ages are of this clock, the reactor only schedules.
    :param shortages: told of every lookup that could not be made.
    """

    log = Logger()

    def __init__(
        self, *, reactor: Any, servers: Sequence[str] = (), lookup: Callable[[str], Deferred[Answer]] | None = None,
        hosts_file: str = HOSTS_FILE, hold_s: float = HOLD_S, monotonic: Callable[[], float] = time.monotonic,
        shortages: Shortages | None = None,
    ) -> None:
        self.setName("resolver")
        self._reactor = reactor
        self._monotonic = monotonic
        self._lookup = lookup or NameServers(reactor=reactor, servers=servers).lookup
        self._hosts = HostsFile(hosts_file)
        self._hold_s = hold_s
        self._shortages = shortages or Shortages(monotonic=monotonic)
        self._gate = DeferredSemaphore(MAX_LOOKUPS)
        self._names: dict[str, _Name] = {}
        self._unused: dict[_Name, None] = {}  # that wait to be forgotten, in the order of time

    # --- asking

    def addresses(self, host: str) -> tuple[str, ...]:
        """What is known now, never waiting; empty when nothing is (yet), and then it is being asked for."""
        if is_ip(host):
            return (host,)
        name = self._fresh(host)
        return name.known if isinstance(name.known, tuple) else ()

    def reason(self, host: str) -> str:
        """Why `addresses` is empty; empty when it is not."""
        if is_ip(host):
            return ""
        name = self._fresh(host)
        return "not resolved yet" if name.known is None else name.known if isinstance(name.known, str) else ""

    def resolve(self, host: str) -> Deferred[tuple[str, ...]]:
        """At least one address, after asking when what is known ran out; old ones rather than none. Cancellable.

        Fails with `Unresolvable`, or with `OutOfResources` when nobody could be asked.
        """
        if is_ip(host):
            return succeed((host,))
        name = self._fresh(host)
        if name.lookup is not None and (name.known is None or self._monotonic() >= name.expires):
            waiter: Deferred[tuple[str, ...]] = Deferred(name.waiters.remove)
            name.waiters.append(waiter)
            return waiter
        if name.shortage is not None and not isinstance(name.known, tuple):
            return fail(name.shortage)
        known = "the resolver is not running" if name.known is None else name.known
        return fail(Unresolvable(known)) if isinstance(known, str) else succeed(known)

    def doubt(self, host: str) -> Deferred[None]:
        """What is known of *host* seems wrong: ask anew, `DOUBT_S` after the last time at the earliest.
        Fires when that has been answered, or at once where nothing is asked; never fails."""
        name = self._names.get(host.lower())
        if name is None:
            return succeed(None)
        if name.lookup is None and self._monotonic() >= name.asked_at + DOUBT_S:
            self._ask(name)
        if name.lookup is None:
            return succeed(None)
        waiter: Deferred[Any] = Deferred(name.waiters.remove)
        name.waiters.append(waiter)
        return waiter.addBoth(lambda _: None)

    def watch(self, host: str, callback: Callable[[Known], None]) -> Watch:
        """Call *callback* with what is known of *host*: now, if something is, and whenever that changes."""
        if is_ip(host):
            watch = Watch(None, callback)
            watch.tell((host,))
            return watch
        name = self._fresh(host)
        watch = Watch(name, callback)
        if name.known is not None:
            watch.tell(name.known)
        return watch

    # --- running

    def startService(self) -> None:
        super().startService()
        for name in list(self._names.values()):
            self._ask(name)

    def stopService(self) -> Deferred[Any]:
        """Fires when every socket is closed; who still waits gets `Unresolvable`."""
        super().stopService()
        lookups = []
        for name in self._names.values():
            self._disarm(name)
            if name.lookup is not None:
                lookups.append(name.lookup)
                name.lookup.cancel()
            self._answer_waiters(name, "the resolver is stopped")
        return DeferredList(lookups)

    # --- the cache

    def _fresh(self, host: str) -> _Name:
        """The entry of *host*, marked as used, and being asked for when it ran out."""
        key = host.lower()
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = _Name(key)
        name.used = True
        self._unused.pop(name, None)
        if self._monotonic() >= name.expires:
            self._ask(name)
        return name

    def _ask(self, name: _Name) -> None:
        if name.lookup is not None or not self.running:
            return
        name.asked_at = self._monotonic()
        try:
            listed = self._hosts.addresses(name.name)
        except OutOfResources as shortage:
            self._postpone(name, shortage)
            return
        if listed:
            v4 = tuple(each for each in listed if ":" not in each)
            self._answered(name, Answer(v4, tuple(each for each in listed if ":" in each), HOSTS_FILE_TTL_S))
            return
        name.lookup = lookup = self._gate.run(self._lookup, name.name)
        lookup.addBoth(self._looked_up, name)

    def _looked_up(self, outcome: Answer | Failure, name: _Name) -> None:
        name.lookup = None
        if isinstance(outcome, Answer):
            self._answered(name, outcome)
        elif isinstance(outcome.value, OutOfResources):
            self._postpone(name, outcome.value)
        elif outcome.check(LookupFailed):
            self._failed(name, str(outcome.value))
        elif not (outcome.check(CancelledError) and not self.running):
            self.log.failure("looking up {name} broke", failure=outcome, name=name.name)
            self._failed(name, "internal error")

    def _answered(self, name: _Name, answer: Answer) -> None:
        now = self._monotonic()
        name.failing = False
        found = bool(answer.v4 or answer.v6)
        held_s = 0.0 if found else self._held_s(name, answer, now)
        if not held_s:
            name.empty_since = None
            for version, addresses in ((4, answer.v4), (6, answer.v6)):
                if addresses is not None:
                    name.families[version] = addresses, now
        ttl_s = MAX_NEGATIVE_TTL_S if answer.ttl_s is None else answer.ttl_s
        ttl_s = max(MIN_TTL_S, min(ttl_s, MAX_TTL_S if found else MAX_NEGATIVE_TTL_S))
        if answer.v4 is None or answer.v6 is None:
            ttl_s = min(ttl_s, RETRY_S)
        refresh_s = REFRESH_AT * ttl_s
        if held_s:
            ttl_s = refresh_s = min(ttl_s, RETRY_S, held_s)
        self._settle(name, answer.why or NO_ADDRESSES, now + ttl_s, refresh_s)

    def _held_s(self, name: _Name, answer: Answer, now: float) -> float:
        """For how long yet what was known stands against *answer*, which has no address."""
        if not isinstance(name.known, tuple):
            return 0.0
        if name.empty_since is None:
            name.empty_since = now
            self.log.warn("{name} keeps its last addresses for {hold_s:g} s: {why}", name=name.name,
                          hold_s=self._hold_s, why=answer.why or NO_ADDRESSES)
        return max(0.0, name.empty_since + self._hold_s - now)

    def _postpone(self, name: _Name, shortage: OutOfResources) -> None:
        """Nobody was asked: what is known stays, and who waits for more is told why there is none."""
        self._shortages.met(shortage.what, LOOKUP, f"cannot look up {name.name}")
        name.expires, name.shortage = self._monotonic() + SHORT_RETRY_S, shortage
        self._disarm(name)
        if self.running:
            name.timer = self._reactor.callLater(SHORT_RETRY_S, self._due, name)
        waiters, name.waiters = name.waiters, []
        for waiter in waiters:
            if isinstance(name.known, tuple):
                waiter.callback(name.known)
            else:
                waiter.errback(shortage)

    def _failed(self, name: _Name, why: str) -> None:
        first, name.failing = not name.failing, True
        self._settle(name, why, self._monotonic() + RETRY_S, RETRY_S)
        if first and not isinstance(name.known, str):
            self.log.warn("{name} keeps its last addresses: {why}", name=name.name, why=why)

    def _settle(self, name: _Name, why: str, expires: float, refresh_s: float) -> None:
        """Take over what the last question changed; ask again in *refresh_s* if the name is still in use then."""
        now = self._monotonic()
        addresses = {each for found, answered_at in name.families.values() if now - answered_at <= STALE_S
                     for each in found}
        known: Known = tuple(sorted(addresses, key=_order)) or why
        before, name.known, name.expires, name.used = name.known, known, expires, False
        name.shortage = None
        self._disarm(name)
        if self.running:
            name.timer = self._reactor.callLater(refresh_s, self._due, name)
        if known != before:
            if isinstance(known, str):
                self.log.warn("{name} has no address: {why}", name=name.name, why=known)
            elif before is not None:
                self.log.info("{name} is now {addresses}", name=name.name, addresses=" ".join(known))
            for watch in tuple(name.watches):
                try:
                    watch.tell(known)
                except Exception:
                    self.log.failure("a watch of {name} broke", name=name.name)
        self._answer_waiters(name, known)

    def _due(self, name: _Name) -> None:
        """Ask again; a name that nobody asked for since its last answer is only kept until that is too old."""
        name.timer = None
        if name.used or name.watches:
            self._ask(name)
        else:
            name.timer = self._reactor.callLater(STALE_S, self._forget, name)
            self._unused[name] = None
            if len(self._unused) > MAX_UNUSED:
                oldest = next(iter(self._unused))
                self._disarm(oldest)
                self._forget(oldest)

    def _forget(self, name: _Name) -> None:
        name.timer = None
        self._unused.pop(name, None)
        if not name.watches and not name.used and name.lookup is None:
            self._names.pop(name.name, None)

    def _disarm(self, name: _Name) -> None:
        if name.timer is not None:
            name.timer.cancel()
            name.timer = None

    def _answer_waiters(self, name: _Name, known: Known) -> None:
        waiters, name.waiters = name.waiters, []
        for waiter in waiters:
            if isinstance(known, str):
                waiter.errback(Unresolvable(known))
            else:
                waiter.callback(known)


def _order(text: str) -> tuple[int, bytes]:
    """IPv4 before IPv6, each by number; what is no address, a service's record, by its text."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return 0, text.encode()
    return ip.version, ip.packed
