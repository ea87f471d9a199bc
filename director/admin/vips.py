"""Operations on virtual addresses: where each is, and where it shall be."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from msgspec import Meta

from cluster.model import Name
from director.admin.offers import Operations
from director.admin.operation import Caller, Nothing, Parameters, Role, operation
from director.core.snapshot import VipPicture
from director.engine.errors import Invalid


class OfAddress(Parameters, frozen=True, kw_only=True):
    address: Annotated[str, Meta(max_length=45)]

    @property
    def canonical(self) -> str:
        try:
            return str(ipaddress.ip_address(self.address))
        except ValueError:
            raise Invalid(f"expected an IP address, got {self.address!r}", "address") from None


class ToDirector(OfAddress, frozen=True, kw_only=True):
    director: Name


@operation(Role.READONLY, Nothing)
def vips(director: Operations, caller: Caller, _: Nothing) -> tuple[VipPicture, ...]:
    """The virtual addresses: where each is, who may have it, and where it is pinned."""
    return director.vips()


@operation(Role.FULL, ToDirector)
async def move_vip(director: Operations, caller: Caller, p: ToDirector) -> VipPicture:
    """Have a director own an address, connections or not; it stays there until it is moved again, or rebalanced."""
    return await director.move_vip(p.canonical, p.director, who=caller.who)


@operation(Role.FULL, ToDirector)
async def pin_vip(director: Operations, caller: Caller, p: ToDirector) -> VipPicture:
    """Have a director own an address whenever it can; it goes there as soon as nobody has a connection to it."""
    return await director.pin_vip(p.canonical, p.director, who=caller.who)


@operation(Role.FULL, OfAddress)
async def unpin_vip(director: Operations, caller: Caller, p: OfAddress) -> VipPicture:
    """Let an address be wherever it keeps the directors even."""
    return await director.unpin_vip(p.canonical, who=caller.who)


@operation(Role.FULL, Nothing)
async def rebalance_vips(director: Operations, caller: Caller, _: Nothing) -> tuple[VipPicture, ...]:
    """Spread the addresses evenly now, connections or not; what is pinned stays."""
    return await director.rebalance_vips(who=caller.who)
