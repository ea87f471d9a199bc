"""The clients of a service, one by one, for an operator's eye and hand."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import chain

from cluster.address import Address
from cluster.model import Reason
from director.core.snapshot import ConnectionPicture, ConnectionsPicture
from director.ports.sockets import packed_name
from director.traffic.connection import Connection
from director.traffic.frontend import Frontend


def picture_connections(frontends: Sequence[Frontend], limit: int, now: float) -> ConnectionsPicture:
    """The *limit* oldest of all *frontends*: what hangs is among them. *now*: monotonic."""
    everybody = chain.from_iterable(frontend.connections() for frontend in frontends)
    oldest = heapq.nsmallest(limit, everybody, key=lambda connection: connection.accepted_at)
    return ConnectionsPicture(
        total=sum(frontend.open for frontend in frontends),
        connections=tuple(_picture(each.frontend, each, now) for each in oldest),
    )


def _picture(frontend: Frontend, connection: Connection, now: float) -> ConnectionPicture:
    host = connection.host
    progress = frontend.relay.progress(connection.handle) if connection.handle else None
    return ConnectionPicture(
        client=connection.peer,
        group=host.ref.group if host is not None else None,
        host=host.name if host is not None else None,
        age_s=now - connection.accepted_at,
        idle_s=max(0.0, progress.idle_s) if progress is not None else None,
        to_host=progress.to_host if progress is not None else 0,
        to_client=progress.to_client if progress is not None else 0,
    )


def kill_client(frontends: Sequence[Frontend], client: Address) -> int:
    """Cut every connection from *client*, an IP address and port; returns how many there were."""
    name = packed_name(client)
    return sum(frontend.kill(lambda connection: connection.name == name, Reason.KILLED) for frontend in frontends)
