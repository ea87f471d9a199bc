"""Where a host is, ready to connect to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed

from cluster.address import Address, parse_address
from cluster.model import HostRef
from director.checks.resolver import Known, Resolver
from director.core.entries import HostEntry
from director.core.inventory import Inventory
from director.ports.sockets import Options, connector, keepalive_options


class Target(NamedTuple):
    """:ivar connect: starts a connect, as `director.ports.sockets.connector` says. *address* is for people and probes.
    :ivar sources: addresses of this machine, as configured.
    :ivar options: of each connection.
    :ivar others: where else the host is, by its name: to be tried in this order when *address* cannot be reached."""

    connect: Callable[[], int]
    address: Address
    sources: tuple[str, ...] = ()
    options: Options = ()
    others: tuple[Address, ...] = ()


def target_of(address: Address, sources: tuple[str, ...] = (), options: Options = (),
              others: tuple[Address, ...] = ()) -> Target:
    """The target of an address whose host is a literal, or of a UNIX socket; reached from *sources*, if there are any."""
    return Target(connector(address, sources, options), address, sources, options, others)


class Targets:
    """Keeps the targets of an inventory's hosts: by what is known of their names, and from which addresses of ours.

    A name may have several addresses, of which the host's program need not listen on all. The one that works is kept
    while it works and is among them; when it cannot be reached, the next one is taken.

    :param on_moved: told of a host whose name leads elsewhere now.
    :param circle: why a host of a service at an address would be this director itself; empty: it is another.
    """

    def __init__(
        self, inventory: Inventory, resolver: Resolver, *, on_moved: Callable[[HostEntry], None] = lambda entry: None,
        circle: Callable[[str, Address], str] = lambda service, address: "",
    ) -> None:
        self._circle = circle
        self._circling: set[HostEntry] = set()  # hosts that are this director itself
        self._inventory = inventory
        self._on_moved = on_moved
        self._resolver = resolver
        self._watches: dict[HostRef, Any] = {}

    def add(self, entry: HostEntry) -> None:
        """A host is new."""
        address = parse_address(entry.spec.address)
        if address.is_unix or address.is_ip:
            self._place(entry, address)
        else:
            self._watches[entry.ref] = self._resolver.watch(
                address.host, lambda known: self._resolved(entry, address, known)
            )

    def drop(self, entry: HostEntry) -> None:
        """A host has gone."""
        self._circling.discard(entry)
        watch = self._watches.pop(entry.ref, None)
        if watch is not None:
            watch.stop()

    def sources(self, entry: HostEntry) -> tuple[str, ...]:
        """Addresses of this machine to reach the host from, as configured."""
        return self._inventory.services[entry.ref.service].groups[entry.ref.group].spec.source

    def reconfigure(self, service: str) -> None:
        """Hosts are reached from what are the group's source addresses now, with what are the service's options."""
        options = keepalive_options(self._inventory.services[service].spec.keepalive)
        for group in self._inventory.services[service].groups.values():
            for entry in group.hosts.values():
                target = entry.target
                address = target.address if target is not None else parse_address(entry.spec.address)
                if target is None and (entry not in self._circling or not (address.is_unix or address.is_ip)):
                    continue
                if (target is None or (target.sources, target.options) != (group.spec.source, options)
                        or self._circle(service, address)):
                    self._place(entry, address, target.others if target is not None else ())

    def _place(self, entry: HostEntry, address: Address, others: tuple[Address, ...] = ()) -> None:
        """The host is at *address* and *others*, but for what is this director itself; if nothing is left it fails its
        checks and connects."""
        service = self._inventory.services[entry.ref.service].spec
        elsewhere = [each for each in (address, *others) if not self._circle(entry.ref.service, each)]
        if not elsewhere:
            self._circling.add(entry)
            self._inventory.resolved(entry, None, self._circle(entry.ref.service, address))
            return
        self._circling.discard(entry)
        first, *rest = elsewhere
        options = keepalive_options(service.keepalive)
        self._inventory.resolved(entry, target_of(first, self.sources(entry), options, tuple(rest)))

    def unreached(self, entry: HostEntry, address: Address | None) -> None:
        """A connect to *address*, the host's then, failed (None: it had none): from now on the next one is tried first, and
        the name is asked for anew."""
        target: Target | None = entry.target
        if target is not None and target.others and target.address == address:
            self._turn(entry, target, target.others[0])
        self.doubt(entry)

    def reached(self, entry: HostEntry, host: str) -> None:
        """A probe that began at the host's address got through to another one of its name's, *host*."""
        target: Target | None = entry.target
        if target is not None and target.address.host != host:
            for other in target.others:
                if other.host == host:
                    self._turn(entry, target, other)

    def doubt(self, entry: HostEntry) -> Deferred[None]:
        """Ask anew for the host's name, if it has one; fires when that has been answered, or at once."""
        return self._resolver.doubt(parse_address(entry.spec.address).host) if entry.ref in self._watches else succeed(None)

    def _turn(self, entry: HostEntry, target: Target, first: Address) -> None:
        every = (target.address, *target.others)
        at = every.index(first)
        others = (*every[at + 1:], *every[:at])
        self._inventory.resolved(entry, target_of(first, target.sources, target.options, others))

    def _resolved(self, entry: HostEntry, address: Address, known: Known) -> None:
        """What is known of a name now; with no address the host fails its checks and connects, saying why."""
        if isinstance(known, str):
            self._inventory.resolved(entry, None, known)
        else:
            before, known_before = entry.target, not entry.unresolved
            at = known.index(before.address.host) if before is not None and before.address.host in known else 0
            first, *others = (address._replace(host=host) for host in (*known[at:], *known[:at]))
            self._place(entry, first, tuple(others))
            if known_before and (before is None or before.address.host not in known):
                self._on_moved(entry)
