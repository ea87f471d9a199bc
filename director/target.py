"""Where a host is, ready to connect to."""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

from cluster.address import Address


class Target(NamedTuple):
    """What ``socket`` and ``connect`` take; *address* is the same for people and probes."""

    family: int
    sockaddr: Any
    address: Address


def target_of(address: Address) -> Target:
    """The target of an address whose host is a literal, or of a UNIX socket (``@name``: abstract)."""
    if address.path is not None:
        path = address.path
        return Target(socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path, address)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return Target(family, (address.host, address.port), address)
