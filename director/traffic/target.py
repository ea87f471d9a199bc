"""Where a host is, ready to connect to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cluster.address import Address, parse_address
from cluster.model import HostRef
from director.checks.resolver import Known, Resolver
from director.core.entries import HostEntry
from director.core.inventory import Inventory
from director.ports.sockets import Options, connector, keepalive_options


class Target(NamedTuple):
    """:ivar connect: starts a connect, as `director.ports.sockets.connector` says. *address* is for people and probes.
    :ivar sources: addresses of this machine, as configured.
    :ivar options: of each connection."""

    connect: Callable[[], int]
    address: Address
    sources: tuple[str, ...] = ()
    options: Options = ()


def target_of(address: Address, sources: tuple[str, ...] = (), options: Options = ()) -> Target:
    """The target of an address whose host is a literal, or of a UNIX socket; reached from *sources*, if there are any."""
    return Target(connector(address, sources, options), address, sources, options)


class Targets:
    """Keeps the targets of an inventory's hosts: by what is known of their names, and from which addresses of ours."""

    def __init__(self, inventory: Inventory, resolver: Resolver) -> None:
        self._inventory = inventory
        self._resolver = resolver
        self._watches: dict[HostRef, Any] = {}

    def add(self, entry: HostEntry) -> None:
        """A host is new."""
        address = parse_address(entry.spec.address)
        if address.is_unix or address.is_ip:
            self._inventory.resolved(entry, self._target_of(entry, address))
        else:
            self._watches[entry.ref] = self._resolver.watch(
                address.host, lambda known: self._resolved(entry, address, known)
            )

    def drop(self, entry: HostEntry) -> None:
        """A host has gone."""
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
                if target is not None and (target.sources, target.options) != (group.spec.source, options):
                    self._inventory.resolved(entry, target_of(target.address, group.spec.source, options))

    def _target_of(self, entry: HostEntry, address: Address) -> Target:
        options = keepalive_options(self._inventory.services[entry.ref.service].spec.keepalive)
        return target_of(address, self.sources(entry), options)

    def _resolved(self, entry: HostEntry, address: Address, known: Known) -> None:
        """What is known of a name now; with no address the host fails its checks and connects, saying why."""
        if isinstance(known, str):
            self._inventory.resolved(entry, None, known)
        else:
            self._inventory.resolved(entry, self._target_of(entry, address._replace(host=known[0])))
