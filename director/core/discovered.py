"""The hosts that a group has by DNS: what is known of a name, as hosts. Pure.

Of A and AAAA records each address is a host, at the port that the group says. Of SRV records (RFC 2782) each is one: its
target, a name whose addresses are looked up as any host's, its port and its weight. Those of the lowest priority are used,
all others are backups. Clients are not distributed as that RFC has it, at random, but as the group's scheduler does.

A host is called by its address or by its target and port, so that it keeps its name, its orders and its history whatever
else the answer has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from cluster.address import Address, parse_address
from cluster.model import Discover, Host

#: Of a host's name.
MAX_NAME = 63
#: The weight of a record that has weight 0 beside others above it: "a very small chance of being selected".
LEAST_WEIGHT = 0.1


class Service(NamedTuple):
    """One SRV record."""

    priority: int
    weight: int
    port: int
    target: str

    def __str__(self) -> str:
        return f"{self.priority} {self.weight} {self.port} {self.target}"

    @classmethod
    def parse(cls, text: str) -> Service:
        """Inverse of ``str``."""
        priority, weight, port, target = text.split(" ")
        return cls(int(priority), int(weight), int(port), target)


def hosts_of(spec: Discover, known: Iterable[str]) -> dict[str, Host]:
    """By name, `Discover.max_hosts` at most, the first by priority and address.

    :param known: addresses, or with *spec.port* None the texts of `Service`.
    """
    found = _of_addresses(known, spec.port) if spec.port is not None else _of_services(known)
    hosts: dict[str, Host] = {}
    for name, host in found:  # a target may be there twice, with another priority
        if len(hosts) < spec.max_hosts:
            hosts.setdefault(name, replace(host, max_connections=spec.max_connections))
    return hosts


def _of_addresses(known: Iterable[str], port: int) -> list[tuple[str, Host]]:
    return [(address.replace(":", "-"), Host(address=str(Address(address, port)))) for address in known]


def _of_services(known: Iterable[str]) -> list[tuple[str, Host]]:
    services = sorted(filter(_is_sound, map(Service.parse, known)),
                      key=lambda each: (each.priority, each.target, each.port, -each.weight))
    if not services:
        return []
    first, hosts = services[0].priority, []
    for each in services:
        weighted = any(other.weight for other in services if other.priority == each.priority)
        weight = (each.weight or LEAST_WEIGHT) if weighted else 1.0
        hosts.append((_name(f"{each.target}-{each.port}"), Host(address=f"{each.target}:{each.port}", weight=weight,
                                                                backup=each.priority > first)))
    return hosts


def _is_sound(service: Service) -> bool:
    """Whether its target is what a host may have as its address: ``300.1.1.1`` is a name for DNS alone."""
    try:
        parse_address(f"{service.target}:{service.port}")
    except ValueError:
        return False
    return True


def _name(text: str) -> str:
    """As long as a name may be; a longer one ends in what tells it from others."""
    if len(text) <= MAX_NAME:
        return text
    return f"{text[:MAX_NAME - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
