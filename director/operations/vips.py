"""Operators' orders about virtual addresses that each have an owner of their own: written to the store, carried out by the
owner, wherever that is (`director.ha.spreading`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from twisted.internet.task import deferLater

from cluster.keys import Keys
from cluster.model import Placement
from cluster.store import Compare, Put, Store
from cluster.view import Unreadable, decode
from director.core.snapshot import VipPicture
from director.core.spreading import spread
from director.engine.errors import Conflict, NotFound
from director.ha.clustering import Clustering
from director.ha.spreading import Owned, Spreading

#: A move takes half a second, and the owner looks for orders each second besides. Shorter than directorctl's patience.
MOVED_S = 6.0
_POLL_S = 0.05
#: A comparison that fails this often is not racing with people any more.
MAX_ATTEMPTS = 10


class VipOrders:
    """:param wall: POSIX seconds."""

    def __init__(self, clustering: Clustering, store: Store, keys: Keys, *, reactor: Any, wall: Callable[[], float]) -> None:
        self._clustering = clustering
        self._store = store
        self._keys = keys
        self._reactor = reactor
        self._wall = wall

    def listed(self) -> tuple[VipPicture, ...]:
        clustering = self._clustering
        owners = sorted(clustering.vips.owners.items())
        if clustering.spreading is None:
            return tuple(VipPicture(address=address, owner=clustering.vip_owner(owner.owner), since=owner.since,
                                    term=owner.term) for address, owner in owners)
        since = {address: owner.since for address, owner in owners}
        return tuple(
            VipPicture(address=each.address, owner=clustering.vip_owner(each.owner, each.address) or None,
                       since=since.get(each.address, 0.0), term=each.term, able=each.able, pinned=each.pinned or None,
                       moves=each.moves)
            for each in clustering.spreading.every()
        )

    def _spreading(self) -> Spreading:
        if self._clustering.spreading is None:
            raise Conflict("the virtual addresses move together, with the leader: node.vips.spread is off at this director")
        return self._clustering.spreading

    def _known(self, address: str, director: str | None = None) -> Owned:
        owned = next((each for each in self._spreading().every() if each.address == address), None)
        if owned is None:
            raise NotFound(f"{address} is not one of this director's virtual addresses")
        if director is not None and director not in owned.able:
            raise Conflict(f"{director} cannot have {address} now; who can: {', '.join(owned.able) or 'nobody'}")
        return owned

    async def move(self, address: str, director: str, who: str) -> VipPicture:
        self._known(address, director)
        await self._place(address, lambda it: msgspec.structs.replace(it, to=director), who)
        await self._moved({address: director})
        return self._listed(address)

    async def pin(self, address: str, director: str, who: str) -> VipPicture:
        self._known(address, director)
        await self._place(address, lambda it: msgspec.structs.replace(it, pinned=director, to=""), who)
        return self._listed(address)

    async def unpin(self, address: str, who: str) -> VipPicture:
        self._known(address)
        await self._place(address, lambda it: msgspec.structs.replace(it, pinned="", to=""), who)
        return self._listed(address)

    async def rebalance(self, who: str) -> tuple[VipPicture, ...]:
        """What was moved by order stays no longer; what is pinned does."""
        spreading = self._spreading()
        places = {address: place._replace(stays=False) for address, place in spreading.places().items()}
        target = spread(places)
        for address, place in places.items():
            to = target.get(address, "")
            if to in ("", place.owner):
                to = ""
            if to or spreading.placement(address).to:
                await self._place(address, partial(msgspec.structs.replace, to=to), who)
        await self._moved(target)
        return self.listed()

    def _listed(self, address: str) -> VipPicture:
        return next(each for each in self.listed() if each.address == address)

    async def _place(self, address: str, change: Callable[[Placement], Placement], who: str) -> None:
        key = self._keys.placement(address)
        for _ in range(MAX_ATTEMPTS):
            record = await self._store.get(key)
            if record is None:
                raise Conflict(f"{address} has no record of its own yet: the leading director writes it")
            try:
                before = decode(record.value, Placement)
            except Unreadable:
                before = Placement()  # what nobody can read counts for nothing
            after = msgspec.structs.replace(change(before), who=who, at=self._wall())
            written = [Put(key, msgspec.json.encode(after))]
            if (await self._store.commit(written, when=[Compare(key, record.mod_revision)])).succeeded:
                await self._until(partial(self._follows, address, after))
                return
        raise Conflict("it kept changing; try again")

    def _follows(self, address: str, placement: Placement) -> bool:
        return self._spreading().placement(address) == placement

    async def _moved(self, target: dict[str, str]) -> None:
        """Wait until all are where they should be, for some seconds."""
        await self._until(lambda: all(
            each.owner == target.get(each.address, each.owner) for each in self._spreading().every()))

    async def _until(self, happened: Callable[[], bool]) -> None:
        until = self._reactor.seconds() + MOVED_S
        while not happened() and self._reactor.seconds() < until:
            await deferLater(self._reactor, _POLL_S)
