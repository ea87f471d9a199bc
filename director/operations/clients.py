"""The clients of a service, one by one, for an operator's eye and hand."""

from __future__ import annotations

import heapq

from cluster.address import Address
from cluster.model import Reason
from director.core.snapshot import ConnectionPicture, ConnectionsPicture
from director.ports.sockets import packed_name
from director.traffic.frontend import Connection, Frontend


def picture_connections(frontend: Frontend, limit: int, now: float) -> ConnectionsPicture:
    """The *limit* oldest: what hangs is among them. *now*: monotonic."""
    oldest = heapq.nsmallest(limit, frontend.connections(), key=lambda connection: connection.accepted_at)
    return ConnectionsPicture(
        total=frontend.open, connections=tuple(_picture(frontend, each, now) for each in oldest)
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


def kill_client(frontend: Frontend, client: Address) -> int:
    """Cut every connection from *client*, an IP address and port; returns how many there were."""
    name = packed_name(client)
    return frontend.kill(lambda connection: connection.name == name, Reason.KILLED)
