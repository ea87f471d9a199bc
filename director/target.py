"""Where a host is, ready to connect to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cluster.address import Address
from director.sockets import connector


class Target(NamedTuple):
    """:ivar connect: starts a connect, as `director.sockets.connector` says. *address* is for people and probes.
    :ivar sources: addresses of this machine, as configured."""

    connect: Callable[[], int]
    address: Address
    sources: tuple[str, ...] = ()


def target_of(address: Address, sources: tuple[str, ...] = ()) -> Target:
    """The target of an address whose host is a literal, or of a UNIX socket; reached from *sources*, if there are any."""
    return Target(connector(address, sources), address, sources)
