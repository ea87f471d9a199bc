"""Which host is probed when, and what follows from the answer.

The health machine of each host says when it wants a probe; `director.checks` makes it. An answer goes to the inventory. What
cannot be reached makes the resolver look again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as LookupTimeout
from twisted.logger import Logger

from cluster.address import parse_address
from cluster.model import Health, HostRef, Probe, Service
from director.checks.probe_loop import ProbeLoop
from director.checks.probes import Prober, ProbeResult
from director.checks.resolver import Resolver
from director.checks.scripts import Scripts
from director.core.entries import HostEntry, policy_of
from director.core.inventory import Inventory
from director.core.proxy_protocol import encode
from director.metrics.counters import Metrics
from director.resources.shortages import Shortages
from director.traffic.target import Target, Targets

#: What a retry waits for DNS at most; one server's first time to answer. Later answers count, too, but for the next probe.
RETRY_LOOKUP_S = 1.0


class Probing(MultiService):
    """Children: the prober, the scripts, and the loop that knows what is due.

    :param scripts: the directory of programs that may be run.
    :param passwords: the directory of passwords that probes sign in with.
    :param settle: called after each input to the inventory.
    :param monotonic: seconds; the clock of all decisions.
    """

    log = Logger()

    def __init__(self, inventory: Inventory, targets: Targets, resolver: Resolver, metrics: Metrics,
                 settle: Callable[[], None], *, reactor: Any, monotonic: Callable[[], float], shortages: Shortages,
                 scripts: str | None = None, passwords: str | None = None) -> None:
        super().__init__()
        self.setName("probing")
        self._inventory = inventory
        self._targets = targets
        self._resolver = resolver
        self._metrics = metrics
        self._settle = settle
        self._reactor = reactor
        self._monotonic = monotonic
        self.prober = Prober(reactor=reactor, resolve=resolver.resolve, shortages=shortages, passwords=passwords)
        self.scripts = Scripts(scripts, reactor=reactor, monotonic=monotonic, shortages=shortages)
        self.loop = ProbeLoop(reactor=reactor, monotonic=monotonic)
        self._retries: dict[HostRef, list[Deferred[None]]] = {}
        self._begins = True
        self._hears = True
        for child in (self.prober, self.scripts, self.loop):
            child.setServiceParent(self)

    def begin_no_more(self) -> None:
        """A stop has begun: those under way are the last."""
        self._begins = False

    def hear_no_more(self) -> None:
        """How probes end at a stop says nothing about hosts."""
        self._begins = self._hears = False

    def schedule(self, entry: HostEntry) -> None:
        """Have the host probed when its health machine wants it, which some inputs make sooner."""
        due = entry.health.next_probe_at
        if due is not None:
            self.loop.schedule(entry.ref, due, lambda: self._probe(entry))

    def forget(self, ref: HostRef) -> None:
        """The host has gone."""
        self.loop.forget(ref)

    def retry(self, ref: HostRef) -> Deferred[None]:
        """Probe one host now; fires when that is done, at once for a host without probes."""
        entry = self._inventory.hosts[ref]
        done: Deferred[None] = Deferred()
        self._retries.setdefault(ref, []).append(done)
        asked = self._doubt(entry).addTimeout(RETRY_LOOKUP_S, self._reactor)
        asked.addErrback(lambda late: late.trap(LookupTimeout))
        asked.addCallback(lambda _: self._retry(entry))
        asked.addErrback(lambda failure: self.log.failure("a retry of {host} broke", failure, host=str(ref)))
        return done

    def _retry(self, entry: HostEntry) -> None:
        """With its address as it is known now."""
        there = self._inventory.hosts.get(entry.ref) is entry and self._begins
        if there:
            self._inventory.retry(entry.ref, self._monotonic())
            self._settle()
            self.schedule(entry)
        if not there or self._policy(entry).probe.kind == "none":
            self._retried(entry)

    def _retried(self, entry: HostEntry) -> None:
        for done in self._retries.pop(entry.ref, ()):
            done.callback(None)

    def _doubt(self, entry: HostEntry) -> Deferred[None]:
        """Whether its name, and that of its probe's address, still lead where they did."""
        address = self._policy(entry).probe.address
        if address is not None:
            self._resolver.doubt(parse_address(address).host)
        return self._targets.doubt(entry)

    def _policy(self, entry: HostEntry) -> Health:
        return policy_of(self._inventory.services[entry.ref.service].groups[entry.ref.group].spec, entry.spec)

    def _probe(self, entry: HostEntry) -> None:
        if self._inventory.hosts.get(entry.ref) is not entry or not self._begins:
            return
        self._inventory.probe_started(entry, self._monotonic())
        probe = self._policy(entry).probe
        target: Target | None = entry.target
        if probe.address is None and target is None:
            self._probed(entry, probe, ProbeResult(None if entry.unresolved else False, entry.address_error, 0.0))
            return
        sources, preface = self._targets.sources(entry), self._preface(entry, probe)
        if probe.kind == "script":
            at = target.address if probe.address is None and target is not None else parse_address(str(probe.address))
            at = at if probe.port is None else at._replace(port=probe.port)
            probed = self.scripts.probe(at, probe, entry.ref)
        elif probe.address is None and target is not None:
            address, *others = ((target.address, *target.others) if probe.port is None else
                                (each._replace(port=probe.port) for each in (target.address, *target.others)))
            probed = self.prober.probe(address, probe, sources, others=others, preface=preface)
        else:
            probed = self.prober.probe(parse_address(str(probe.address)), probe, sources, preface=preface)
        probed.addCallback(lambda result: self._probed(entry, probe, result))

    def _preface(self, entry: HostEntry, probe: Probe) -> bytes:
        """The PROXY header of a connection of the director's own. By default only at the port that clients' connections
        lead to: another one has other habits."""
        version = probe.send_proxy
        if version == "auto":
            elsewhere = probe.address is not None or probe.port is not None
            version = "off" if elsewhere else self._inventory.services[entry.ref.service].spec.proxy.send
        return b"" if version == "off" else encode(version, None, None, local=True)

    def _probed(self, entry: HostEntry, probe: Probe, result: ProbeResult) -> None:
        if self._inventory.hosts.get(entry.ref) is entry and self._hears:
            if result.reached is not None and probe.address is None:
                self._targets.reached(entry, result.reached.host)
            if result.ok is None:
                self._inventory.probe_void(entry, self._monotonic())
            else:
                self._metrics.probe(entry.ref, ok=result.ok)
                self._inventory.probe_result(entry, result.ok, result.detail, result.duration_s, self._monotonic(),
                                             result.weight)
            if result.ok is False:
                self._doubt(entry)
            self.schedule(entry)
            self._settle()
        self._retried(entry)


def unprobed(spec: Service) -> Service:
    """*spec* for a director that does not manage: it probes nobody, and judges hosts by their agents, by its own clients
    and by what the others see."""
    groups = {
        name: msgspec.structs.replace(group, health=msgspec.structs.replace(group.health, probe=Probe(kind="none")))
        for name, group in spec.groups.items()
    }
    return msgspec.structs.replace(spec, groups=groups)
