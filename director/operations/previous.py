"""The process before this one, after an upgrade: it serves its last clients, and tells of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from cluster.address import Address
from director.core.snapshot import ConnectionsPicture


class Previous(NamedTuple):
    """As of its last word, about a second ago."""

    connections: int
    in_flight: Mapping[str, int]  #: by host
    clients: Mapping[str, ConnectionsPicture]  #: some of each service's, the oldest first
    cut: Callable[[str, str], None]  #: has it end a client's connections, by service and address


def with_previous(own: ConnectionsPicture, previous: ConnectionsPicture | None, limit: int) -> ConnectionsPicture:
    """The clients of both processes, the oldest first."""
    if previous is None:
        return own
    theirs = (msgspec.structs.replace(each, previous=True) for each in previous.connections)
    every = sorted((*own.connections, *theirs), key=lambda each: each.age_s, reverse=True)
    return ConnectionsPicture(total=own.total + previous.total, connections=tuple(every[:limit]))


def cut_previous(previous: Previous | None, service: str, client: Address) -> int:
    """Cut what the process before this one has of a client; returns how many connections it told of."""
    if previous is None:
        return 0
    previous.cut(service, str(client))
    listed = previous.clients.get(service)
    return sum(each.client == str(client) for each in listed.connections) if listed is not None else 0
