"""Where a host is, ready to connect to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cluster.address import Address
from director.sockets import connector


class Target(NamedTuple):
    """:ivar connect: starts a connect, as `director.sockets.connector` says. *address* is for people and probes."""

    connect: Callable[[], int]
    address: Address


def target_of(address: Address) -> Target:
    """The target of an address whose host is a literal, or of a UNIX socket."""
    return Target(connector(address), address)
