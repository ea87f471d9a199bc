"""Whether the kernel's settings leave room for what a configuration lets in; deploy/systemd/sysctl.d has better ones.

What is asked for is only known where a file says it: services in etcd, hosts that register and services without
``max_connections`` are not judged by ports, since no number would be true of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cluster.errors import Problem
from cluster.model import Configuration, Group, Service
from cluster.validate import join
from director.config.node import ETCD
from director.resources.places import divide

#: Which ports connections get (ip(7)), how many of them a firewall knows now, and how many it may.
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_count")
_TRACKED_MOST = Path("/proc/sys/net/netfilter/nf_conntrack_max")
#: Connections that a firewall sees of one client: its own, and that to its host.
_EACH = 2


class Kernel(NamedTuple):
    ports: tuple[int, int] | None  #: first and last; None: cannot be told
    tracked_most: int = 0  #: connections that its firewall may know; 0: it tracks none

    @classmethod
    def here(cls) -> Kernel:
        """Of this machine, or of the network namespace that we are in."""
        ports, [tracked], [most] = _numbers(_PORTS, 2), _numbers(_TRACKED, 1), _numbers(_TRACKED_MOST, 1)
        return cls((ports[0], ports[1]) if ports[1] else None, most if tracked else 0)


def warnings(configuration: Configuration, kernel: Kernel, *, descriptors: float) -> Iterator[Problem]:
    """:param descriptors: that a director may have open."""
    if "balance" not in configuration.node.roles or configuration.node.store == ETCD:
        return
    if kernel.ports is not None:
        for name, service in configuration.services.items():
            yield from _port_warnings(join("services", name, "limits", "max_connections"), service, kernel.ports)
    most = [service.limits.max_connections for service in configuration.services.values()]
    clients = min(sum(most) if most and all(most) else math.inf, divide(descriptors, agents=0).clients)
    if kernel.tracked_most and clients < math.inf and clients * _EACH > kernel.tracked_most:
        yield Problem("services", f"net.netfilter.nf_conntrack_max is {kernel.tracked_most}: this machine's firewall tracks "
                      f"connections, {_EACH} for each client, and {clients:g} clients may come; packets of those who do not "
                      "fit are dropped",
                      f"sysctl net.netfilter.nf_conntrack_max={_power_above(clients * _EACH)}, or notrack for what the "
                      "director relays")


def _port_warnings(place: str, service: Service, ports: tuple[int, int]) -> Iterator[Problem]:
    wanted = service.limits.max_connections
    for name in service.shares:
        group = service.groups[name]
        if not group.hosts or group.registration.mode != "off":
            continue
        room = _connections(group, ports[1] - ports[0] + 1)
        if wanted > room:
            yield Problem(place, f"net.ipv4.ip_local_port_range is {ports[0]} {ports[1]}: that is {room} connections to the "
                          f"hosts of group {name!r}, and {wanted} clients are let in",
                          "sysctl net.ipv4.ip_local_port_range='10240 65535', or give the group more hosts, or source "
                          "addresses")


def _connections(group: Group, ports: int) -> float:
    """To all its hosts over TCP; to a UNIX socket there may be any number."""
    if any(host.address.startswith("unix:") for host in group.hosts.values()):
        return math.inf
    return len(group.hosts) * ports * max(1, len(group.source))


def _power_above(number: float) -> int:
    return 1 << int(number).bit_length()


def _numbers(path: Path, count: int) -> list[int]:
    """*count* numbers of a file of the kernel; zeros where it has none to tell."""
    try:
        found = [int(each) for each in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return [0] * count
    return found if len(found) == count else [0] * count
