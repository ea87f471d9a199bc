"""Addresses in a configuration: what they must be, and whether all that are to be listened on can be had at once. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from cluster.address import Address, parse_address
from cluster.errors import Problem
from cluster.model import Configuration, Service
from cluster.validate import join
from director.core.access import parse_networks
from director.core.server_names import conflicts as both_claim
from director.core.server_names import leader_of, may_share

WILDCARDS = ("0.0.0.0", "::")
#: A name's addresses are not looked up here; this one's are known.
_LOCALHOST = ({"localhost", "127.0.0.1"}, {"localhost", "::1"})


class Listener(NamedTuple):
    place: str
    address: Address
    service: str = ""  #: whose it is; empty: no service's

    @property
    def _families(self) -> set[int]:
        """By IP version; a name may have both."""
        return {6 if ":" in self.address.host else 4} if self.address.is_ip else {4, 6}

    def clashes(self, other: Listener) -> bool:
        """Whether the kernel would refuse the second of the two. Port 0 means any free one."""
        mine, theirs = self.address, other.address
        if mine.is_unix or theirs.is_unix:
            return mine == theirs
        if mine.port != theirs.port or mine.port == 0 or self._families.isdisjoint(other._families):
            return False
        if mine.host == theirs.host or mine.host in WILDCARDS or theirs.host in WILDCARDS:
            return True
        return {mine.host, theirs.host} in _LOCALHOST


def _unfit(listener: Listener) -> Iterator[Problem]:
    """An address that nobody can listen on, though others may connect to it."""
    if not listener.address.is_ip:
        return
    ip = ipaddress.ip_address(listener.address.host)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            yield Problem(listener.place, f"{listener.address} is an IPv4 address written as IPv6",
                          f"write it as {ip.ipv4_mapped}:{listener.address.port}")
        if ip.is_link_local and ip.scope_id is None:
            yield Problem(listener.place, f"{listener.address} is of one link only, and does not say which",
                          f"name the interface, as [{ip}%eth0]:{listener.address.port}")
    if ip.is_multicast or ip == ipaddress.IPv4Address("255.255.255.255"):
        yield Problem(listener.place, f"{listener.address} is many machines' address: nobody connects to it by TCP")


def shared_listeners(configuration: Configuration) -> Iterator[Problem]:
    """Listeners that cannot be had, or not beside another, wherever they are configured."""
    found = listeners(configuration)
    for listener in found:
        yield from _unfit(listener)
    for one, other in combinations(found, 2):
        yield from _beside(other, one, configuration.services)


def _beside(listener: Listener, other: Listener, services: Mapping[str, Service]) -> Iterator[Problem]:
    """Why it cannot be had beside *other*. Services share an address by their server names."""
    if not listener.clashes(other):
        return
    mine, theirs = services.get(listener.service), services.get(other.service)
    if mine is None or theirs is None or listener.service == other.service:
        yield Problem(listener.place, f"{listener.address} is taken by {other.place} ({other.address})")
    elif listener.address != other.address or not may_share({listener.service: mine, other.service: theirs}):
        yield Problem(listener.place, f"{listener.address} is taken by {other.place} ({other.address})",
                      "services share a listener of the very same address where all but one have server names (sni.names)")
    else:
        for text in both_claim(listener.service, other.service, services):
            yield Problem(join("services", listener.service, "sni"), f"{text}, at {listener.address}")


def sharing_warnings(configuration: Configuration) -> Iterator[Problem]:
    """Settings that do not count, because another service's go for the listener that both share."""
    sharing: dict[Address, dict[str, Service]] = {}
    for listener in listeners(configuration):
        if listener.service and (listener.address.is_unix or listener.address.port):
            sharing.setdefault(listener.address, {})[listener.service] = configuration.services[listener.service]
    for address, services in sharing.items():
        leader = leader_of(services)
        for name in services.keys() - {leader}:
            for key, of in _OF_LISTENERS.items():
                if of(services[name]) != of(services[leader]) and (key != "unix" or address.is_unix):
                    yield Problem(join("services", name, *key.split(".")),
                                  f"not used at {address}, which services share: there {leader!r} says",
                                  "give both the same")


#: Settings of a listener, which are asked before a client's service is known.
_OF_LISTENERS: Mapping[str, Callable[[Service], object]] = {
    "proxy.accept_from": lambda service: set(service.proxy.accept_from),
    "proxy.timeout_s": lambda service: service.proxy.timeout_s if service.proxy.accept_from else None,
    "timeouts.hello_s": lambda service: service.timeouts.hello_s,
    "keepalive": lambda service: service.keepalive,
    "unix": lambda service: service.unix,
}


def listener_errors(name: str, service: Service, beside: Configuration) -> Iterator[Problem]:
    """The addresses of a service that it has twice, or that something else in *beside* has."""
    others = {other: spec for other, spec in beside.services.items() if other != name}
    taken: dict[object, list[Listener]] = {}  # by port or path: only these can clash
    for other in listeners(Configuration(node=beside.node, services=others)):
        taken.setdefault(other.address.path or other.address.port, []).append(other)
    for mine in listeners(Configuration(services={name: service})):
        yield from _unfit(mine)
        near = taken.setdefault(mine.address.path or mine.address.port, [])
        for other in near:
            yield from _beside(mine, other, {**others, name: service})
        if mine.address.is_unix or mine.address.port:
            near.append(mine)


def listeners(configuration: Configuration) -> list[Listener]:
    """Every address that is configured to be listened on; malformed ones are left out."""
    socket = configuration.node.control_socket
    wanted = [(join("node.agents.listen", i), text, "") for i, text in enumerate(configuration.node.agents.listen)]
    for name, service in configuration.services.items():
        wanted += [(join("services", name, "listen", i), text, name) for i, text in enumerate(service.listen)]
    wanted += [
        (join("node.admin.endpoints", i, "listen"), endpoint.listen, "")
        for i, endpoint in enumerate(configuration.node.admin.endpoints)
    ]
    others = {
        "node.peers.listen": configuration.node.peers.listen,
        "node.manhole.listen": configuration.node.manhole.listen,
        "node.metrics.listen": configuration.node.metrics.listen,
        "node.control_socket": socket and f"unix:{socket}",
    }
    wanted += [(place, text, "") for place, text in others.items() if text]
    return [
        Listener(place, address, service)
        for place, text, service in wanted
        if (address := parsed(place, text, any_port=True)[0]) is not None
    ]


def parsed(place: str, text: str, *, any_port: bool = False) -> tuple[Address | None, list[Problem]]:
    try:
        return parse_address(text, any_port=any_port), []
    except ValueError as error:
        return None, [Problem(place, str(error))]


def address_errors(place: str, text: str) -> list[Problem]:
    return parsed(place, text)[1]


def addresses_errors(place: str, texts: tuple[str, ...], *, any_port: bool = False) -> Iterator[Problem]:
    for i, text in enumerate(texts):
        yield from parsed(join(place, i), text, any_port=any_port)[1]


def networks_errors(place: str, texts: tuple[str, ...], *, word: str = "") -> Iterator[Problem]:
    """:param word: what is allowed besides."""
    for i, text in enumerate(texts):
        try:
            parse_networks([text] if text != word else ())
        except ValueError as error:
            yield Problem(join(place, i), str(error), "write it as 10.0.0.0/8 or 2001:db8::/32")
