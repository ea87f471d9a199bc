"""Hosts that are this director itself: a client given to one would come back as the next client, until descriptors run out.

A host that is another service's listener is no loop, unless that service leads back.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping

from cluster.address import Address

#: Says whether an IP address is this machine's.
Ours = Callable[[str], bool]

_LOCALHOST = ("127.0.0.1", "::1")


def reaches(host: Address, listener: Address, ours: Ours) -> bool:
    """Whether a connect to *host* comes out at *listener*. Of names only ``localhost`` is known here."""
    if host.is_unix or listener.is_unix:
        return host == listener
    if host.port != listener.port or not listener.port:
        return False
    if host.host == listener.host:
        return True
    return any(_meets(one, other, ours) for one in _ips(host.host) for other in _ips(listener.host))


def _ips(host: str) -> tuple[str, ...]:
    if host == "localhost":
        return _LOCALHOST
    return (host,) if Address(host, 1).is_ip else ()


def _meets(host: str, listener: str, ours: Ours) -> bool:
    mine, theirs = (ipaddress.ip_address(each) for each in (host, listener))
    if isinstance(mine, ipaddress.IPv6Address) and mine.ipv4_mapped is not None:
        mine = mine.ipv4_mapped
    if mine.version != theirs.version:
        return False
    if mine.is_unspecified:  # Linux connects to loopback
        return theirs.is_unspecified or theirs.is_loopback
    return mine == theirs or (theirs.is_unspecified and ours(str(mine)))


def leads_back(start: str, to: str, edges: Mapping[str, Iterable[str]]) -> bool:
    """Whether clients of the service *to* may come to *start*. *edges*: which services a service's hosts are."""
    seen, left = set(), [to]
    while left:
        service = left.pop()
        if service == start:
            return True
        if service not in seen:
            seen.add(service)
            left += edges.get(service, ())
    return False
