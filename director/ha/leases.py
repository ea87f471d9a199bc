"""What a director has in the shared store under leases, as it passes from one of its processes to the next."""

from __future__ import annotations

import msgspec


class HeldLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease of etcd."""

    id: int
    ttl_s: float
    until: float  #: boot time for which it is promised


class Leases(msgspec.Struct, frozen=True, kw_only=True):
    """What this director has in the store under leases."""

    member: HeldLease | None = None
    member_revision: int = 0  #: of its record
    leader: HeldLease | None = None
    term: int = 0
    vips: tuple[str, ...] = ()  #: those on the interface
    vips_named: int = 0  #: the term under which the store names this director their owner
