"""Services' maxima, shared out among directors: the leader writes the shares, and each says over the peer link which it
keeps to (`director.core.caps`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cluster.errors import StoreUnavailable
from cluster.keys import Keys
from cluster.model import Caps, Member
from cluster.peer_wire import Alive
from cluster.store import Compare, Delete, Operation, Put, Store
from cluster.view import Unreadable, decode
from director.core.caps import View, next_caps
from director.core.inventory import Inventory
from director.ha.leading import NotLeading
from director.ha.leads import Leads
from director.ha.peers import Peers
from director.timing.seldom import Seldom, more

#: The leader looks this often who needs more: as often as directors say what they have.
LOOK_S = 0.5
#: Between lines about shares that cannot be written.
UNWRITTEN_EVERY_S = 60.0
#: A director that left without a trace is taken for dead after this. One that lives on for longer, out of reach of the
#: store and of every other director, may hold connections beyond the maximum then.
FORGET_S = 300.0


class Capping(Service):
    """Looks while it runs; writes while this director leads.

    :param members: by name, as the store says.
    :param alive: what each linked peer said last.
    """

    log = Logger()

    def __init__(self, inventory: Inventory, leading: Leads, store: Store, keys: Keys, *, balances: bool,
                 members: Callable[[], Mapping[str, Member]], alive: Callable[[], Mapping[str, Alive]],
                 peers: Peers | None, reactor: Any, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.setName("capping")
        self._inventory = inventory
        self._leading = leading
        self._store = store
        self._keys = keys
        self._balances = balances
        self._members = members
        self._alive = alive
        self._reactor = reactor
        self._monotonic = monotonic
        self._ended: set[str] = set()  # whose process closed its link
        self._absent_since: dict[str, float] = {}
        self._timer: Any = None
        self._writing = False
        self._seldom = Seldom(monotonic=monotonic, every_s=UNWRITTEN_EVERY_S)
        if peers is not None:
            peers.on_left.append(self._left)
            peers.on_joined.append(self._ended.discard)

    def own(self) -> dict[str, tuple[int, int, int]]:
        """What this director says of each maximum that it shares (`cluster.peer_wire.Alive`)."""
        said = {}
        for name, service in self._inventory.services.items():
            caps = self._inventory.caps(name)
            if caps is not None and service.share is not None:
                admission = service.admission
                said[name] = (caps.number, admission.connections, admission.connections + admission.queued)
        return said

    def startService(self) -> None:
        if not self.running:
            super().startService()
            self._look()

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _left(self, peer: str, by_peer: bool) -> None:
        if by_peer:
            self._ended.add(peer)

    def _look(self) -> None:
        self._timer = self._reactor.callLater(LOOK_S, self._look)
        if not self._leading.leads:
            self._absent_since.clear()
        elif not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._share_out()).addErrback(
                lambda failure: self.log.failure("maxima could not be shared out", failure)
            ).addBoth(self._looked)

    def _looked(self, _: object) -> None:
        self._writing = False

    async def _share_out(self) -> None:
        try:
            for name in {*self._inventory.services, *self._inventory.capped()}:
                service = self._inventory.services.get(name)
                maximum = service.spec.limits.max_connections if service is not None else 0
                caps = self._inventory.caps(name)
                if maximum:
                    shares = next_caps(maximum, caps, self._views(name, caps))
                    if shares is not None:
                        await self._write(name, caps, Put(self._keys.caps(name), msgspec.json.encode(shares)))
                elif caps is not None:
                    await self._write(name, caps, Delete(self._keys.caps(name)))
        except (StoreUnavailable, NotLeading) as error:
            held = self._seldom.due("maxima")
            if held is not None:
                self.log.info("maxima are not shared out anew: {why}{more}", why=error, more=more(held))

    async def _write(self, name: str, known: Caps | None, operation: Operation) -> None:
        """Replace the record that the decision was made from, and no other: after a change of leader the watch may not
        have told of the last one yet."""
        record = await self._store.get(self._keys.caps(name))
        present = None
        if record is not None:
            try:
                present = decode(record.value, Caps)
            except Unreadable:  # `Sync` names it
                if known is None:
                    return  # who may have how many is not known: an operator has to delete it
                present = known  # everybody keeps to what it said before
        if present == known:
            when = Compare(self._keys.caps(name), 0 if record is None else record.mod_revision)
            await self._leading.fenced([operation], when=[when])

    # --- who is there

    def _views(self, service: str, caps: Caps | None) -> dict[str, View]:
        members = {name for name, member in self._members().items() if "balance" in member.roles}
        alive = self._alive()
        views = {}
        for name in members | alive.keys() | (caps.shares.keys() if caps is not None else set()):
            if name == self._leading.director:
                continue
            live = name in members or (name in alive and caps is not None and name in caps.shares)
            said = alive[name].caps.get(service, (0, 0, 0)) if name in alive else (0, 0, 0)
            if live:
                self._absent_since.pop(name, None)
                views[name] = View(True, number=said[0], open=said[1], wanted=said[2])
            elif caps is not None and name in caps.shares:
                views[name] = View(live=False, gone=self._gone(name))
        if self._balances:
            own = self.own().get(service, (0, 0, 0))
            views[self._leading.director] = View(True, number=own[0], open=own[1], wanted=own[2])
        return views

    def _gone(self, name: str) -> bool:
        """Whether the process of a director that is neither a member nor linked has certainly ended."""
        now = self._monotonic()
        since = self._absent_since.setdefault(name, now)
        return name in self._ended or now - since >= FORGET_S
