"""What probes say to hosts: one module for each protocol, none with a socket."""

from __future__ import annotations

from collections.abc import Callable

from cluster.address import Address
from cluster.model import Probe
from director.checks.dialogues.exchange import Exchange
from director.checks.dialogues.grpc_health import Grpc
from director.checks.dialogues.http import Http
from director.checks.dialogues.interface import Dialogue, ProbeFailed
from director.checks.dialogues.postgresql import PostgreSQL
from director.checks.dialogues.redis import Redis

__all__ = ["Dialogue", "ProbeFailed", "dialogue_of", "protocol_of"]


def dialogue_of(spec: Probe, target: Address, password_of: Callable[[str], str]) -> Dialogue | None:
    """What the probe *spec* says to *target*; None: nothing, a connection is enough.

    :param password_of: finds the one of a name.
    """
    password = None if spec.password is None else password_of(spec.password)
    match spec.kind:
        case "http":
            return Http(target, spec)
        case "exchange":
            return Exchange(spec.steps, spec.receive_bytes)
        case "grpc":
            return Grpc(target, spec)
        case "redis":
            return Redis(spec, password)
        case "postgresql":
            return PostgreSQL(spec, password)
        case _:
            return None


def protocol_of(spec: Probe) -> bytes:
    """What the probe offers by ALPN, over TLS; empty: nothing."""
    return b"h2" if spec.kind == "grpc" else b""
