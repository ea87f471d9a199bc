"""Virtual addresses that each have an owner of their own, spread over the directors (`node.vips.spread`).

For each address there is a machine of `cluster.takeover` (`Owning`), whose fence and interface are `Vips` of that address
alone. Which director should have which is `director.core.spreading`'s to say: every owner works it out for itself, from
what all of them know, and gives away what is another's: one after another, unasked only what nobody has a connection to,
else by an operator's order. The leader writes each address's first record, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_interface
from typing import Any, NamedTuple

import msgspec
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.keys import AddressKeys, Keys, PlacementKey
from cluster.model import Member, Placement, VipOwner
from cluster.model import Vips as Config
from cluster.store import Compare, Put, Store, Watch
from cluster.takeover import Kind, Reign, Timing, as_written
from cluster.view import View
from director.core.spreading import USUAL_PRIORITY, Place, spread
from director.engine.telling import tell_each
from director.ha.fence import Fence
from director.ha.gathering import Gathering
from director.ha.leading import boottime_ns
from director.ha.netlink import Interface
from director.ha.open_connections import open_connections
from director.ha.owning import Owning, Presiding
from director.ha.peers import Peers
from director.ha.reigning import NS
from director.ha.vips import Vips

#: Between two looks at what should be elsewhere; an order is noticed at once.
LOOK_S = 1.0
#: Nothing moves unasked before what all directors know has been the same for so long: those that start one after another
#: would move addresses with each of them, and views may differ meanwhile.
SETTLE_S = 3.0
#: New clients of an address that moves are left unanswered for so long at least, and at most: handshakes and short exchanges
#: finish. Well below the second after which a client repeats its unanswered SYN.
TURN_AWAY_S, TURN_AWAY_MOST_S = 0.2, 0.4
_POLL_S = 0.02


class Owned(NamedTuple):
    """One address, as this director knows it."""

    address: str
    owner: str  #: empty: nobody that is known
    here: bool  #: it is on this director's interface
    term: int  #: the owner's
    able: tuple[str, ...]  #: directors that may have it
    pinned: str
    moves: int  #: by this director to another


class Spreading(MultiService):
    """The addresses of *config*. What `Vips` is to all of them together, this is to each for itself.

    :param fence: makes the fences of groups of addresses, all closed.
    :param turn_away: leave new clients of these addresses unanswered; of none of them when it is empty.
    :param count: open connections of an address; raises OSError.
    """

    log = Logger()

    def __init__(self, config: Config, leading: Presiding, peers: Peers, store: Store, keys: Keys, *, timing: Timing,
                 members: Callable[[], Mapping[str, Member]], wanted: Callable[[], bool], rivals: Callable[[], bool],
                 turn_away: Callable[[Sequence[IPv4Address | IPv6Address]], None],
                 fence: Callable[[Sequence[Sequence[IPv4Address | IPv6Address]]], tuple[Fence, ...]], reactor: Any,
                 count: Callable[[IPv4Address | IPv6Address], int] = open_connections,
                 link: Callable[[], Any] = lambda: None, boottime_ns: Callable[[], int] = boottime_ns,
                 monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.setName("spreading")
        self.director = leading.director
        self.on_taken: list[Callable[[tuple[str, ...]], None]] = []
        self.on_released: list[Callable[[tuple[str, ...]], None]] = []
        self.moves: dict[str, int] = {}  #: of each address, by this director to another
        self._leading = leading
        self._members = members
        self._store = store
        self._keys = keys
        self._timing = timing
        self._turn_away = turn_away
        self._make_fences = fence
        self._fences: tuple[Fence, ...] = ()
        self._count = count
        self._reactor = reactor
        self._wall = wall
        self._placements = View(keys, keys.placements(), PlacementKey, Placement, keep=True)
        self._watch: Watch | None = None
        self._timer: Any = None
        self._before: object = None
        self._same_since = 0.0
        self._moving: Deferred[None] | None = None
        self._writing = False
        self.gathering = Gathering(peers, reactor=reactor)
        self.owning: dict[str, Owning] = {}  #: by address
        self.vips: dict[str, Vips] = {}
        for number, text in enumerate(config.addresses):
            address = str(ip_interface(text).ip)
            owning = Owning(
                store, AddressKeys(keys, address), self.gathering.link(address), director=self.director, timing=timing,
                reactor=reactor, members=members, fit=partial(self._unfit, address), prefer=partial(self._heir, address),
                boottime_ns=boottime_ns, wall=wall,
            )
            vips = Vips(
                Config(interface=config.interface, addresses=(text,)), owning, store, keys, reactor=reactor, wanted=wanted,
                rivals=rivals, fence=partial(self._fence, number), link=link(), boottime=lambda: boottime_ns() / NS,
                monotonic=monotonic, wall=wall,
            )
            vips.setName(f"vip {address}")
            owning.openers.append(vips.open_fence)
            owning.closers.append(vips.close_fence)
            vips.on_taken.append(partial(tell_each, self.on_taken))
            vips.on_released.append(partial(tell_each, self.on_released))
            self.owning[address], self.vips[address] = owning, vips
            vips.setServiceParent(self)
        for owning in self.owning.values():  # last, since what cannot be served must not be owned; the first to stop
            owning.setServiceParent(self)

    def _fence(self, number: int, until_ns: int) -> Fence:
        """All are made at once, for making some takes away the others."""
        if not self._fences:
            self._fences = self._make_fences([vips.virtual for vips in self.vips.values()])
        return self._fences[number]

    def _unfit(self, address: str) -> str:
        kind, why = self.vips[address].fence
        return f"the kernel would not end its answers in time ({kind}): {why}" if why else ""

    # --- as `Vips`

    @property
    def held(self) -> bool:
        return any(each.held for each in self.vips.values())

    @property
    def on(self) -> tuple[Interface, ...]:
        return tuple(address for each in self.vips.values() for address in each.on)

    @property
    def named(self) -> int:
        return 0  # no process takes addresses over from another one of its director

    @property
    def fence(self) -> tuple[str, str]:
        every = [each.fence for each in self.vips.values()]
        return next((each for each in every if each[1]), every[0])

    @property
    def problems(self) -> dict[str, str]:
        found = dict(self._placements.problems)
        for vips, owning in zip(self.vips.values(), self.owning.values(), strict=True):
            found |= vips.problems | owning.problems
        return found

    @property
    def owners(self) -> dict[str, VipOwner]:
        return next(iter(self.vips.values())).owners

    # --- running

    def startService(self) -> None:
        if self.running:
            return
        self._watch = self._store.watch(self._placements.prefix, self._followed)
        super().startService()
        self._timer = self._reactor.callLater(LOOK_S, self._look)

    def stopService(self) -> Any:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if self._moving is not None:
            self._moving.cancel()
        stopped = super().stopService()
        self._fences = ()
        return stopped

    def let_go(self) -> None:
        """Another process of this director takes part."""
        for owning in self.owning.values():
            owning.let_go()
        for vips in self.vips.values():
            vips.let_go()

    async def give_way(self) -> None:
        """As `Reigning.give_way`, all at once."""
        for each in [Deferred.fromCoroutine(owning.give_way()) for owning in self.owning.values()]:
            await each

    def go_on(self) -> None:
        for owning in self.owning.values():
            owning.go_on()

    # --- what should be where

    def places(self) -> dict[str, Place]:
        """Of this director's addresses, as all directors know them."""
        members = self._members()
        found = {}
        for address, owning in self.owning.items():
            able = {name: members[name].vips[address] for name in owning.electors
                    if name in members and address in members[name].vips}
            owner = "" if owning.known is None else owning.known.leader.name
            placement = self.placement(address)
            found[address] = Place(able, owner, placement.pinned, placement.to == owner)
        return found

    def placement(self, address: str) -> Placement:
        return self._placements.values.get(PlacementKey(address), Placement())

    def every(self) -> list[Owned]:
        """The addresses, for people."""
        return [
            Owned(address, place.owner, bool(self.vips[address].on), self._term(address), tuple(sorted(place.able)),
                  place.pinned, self.moves.get(address, 0))
            for address, place in sorted(self.places().items())
        ]

    def _term(self, address: str) -> int:
        known = self.owning[address].known
        return 0 if known is None else known.term

    def _heir(self, address: str) -> str | None:
        """Who should have it once this director is gone."""
        gone = {each: place._replace(able={name: priority for name, priority in place.able.items() if name != self.director})
                for each, place in self.places().items()}
        return spread(gone).get(address)

    def _followed(self, event: Any) -> None:
        self._placements.follow(event)
        if self._timer is not None:
            self._carry_orders_out()

    def _look(self) -> None:
        self._timer = self._reactor.callLater(LOOK_S, self._look)
        try:
            self._lead()
            self._carry_orders_out()
            self._give_away()
        except Exception:
            self.log.failure("the virtual addresses could not be looked after")

    # --- moves

    def _carry_orders_out(self) -> None:
        """An order is younger than the term of the owner that it is for: whatever began a term ended the orders before."""
        for address, owning in self.owning.items():
            to = self.placement(address).to
            if (owning.leads and to and self._placements.revisions.get(self._keys.placement(address), 0) > owning.term
                    and to in owning.able()):
                self._begin_move(address, to, ordered=True)

    def _give_away(self) -> None:
        places = self.places()
        now = self._reactor.seconds()
        if places != self._before:
            self._before, self._same_since = places, now
        if now - self._same_since < SETTLE_S:
            return
        if self._mine(spread(places)):
            busy = {address for address, owning in self.owning.items() if owning.leads and self._open(address)}
            for address, to in self._mine(spread(places, busy)).items():
                if address not in busy and to in self.owning[address].able():
                    self._begin_move(address, to, ordered=False)

    def _mine(self, target: Mapping[str, str]) -> dict[str, str]:
        """What this director has and another should."""
        return {address: to for address, to in target.items() if to != self.director and self.owning[address].leads}

    def _open(self, address: str) -> int:
        """Connections; one, if the kernel does not say."""
        try:
            return self._count(ip_interface(address).ip)
        except OSError as error:
            self.log.warn("connections to {address} cannot be counted, so it stays: {why}", address=address, why=error)
            return 1

    def _begin_move(self, address: str, to: str, *, ordered: bool) -> None:
        """One at a time; an order waits for the next look."""
        if self._moving is not None:
            return
        self._moving = moving = Deferred.fromCoroutine(self._move(address, to, ordered))
        moving.addErrback(lambda failure: failure.trap(CancelledError))  # the stop
        moving.addErrback(lambda failure: self.log.failure("{address} could not be moved", failure, address=address))
        moving.addBoth(self._moved)
        if moving.called:
            self._moving = None

    def _moved(self, _: object) -> None:
        self._moving = None

    async def _move(self, address: str, to: str, ordered: bool) -> None:
        owning = self.owning[address]
        self._turn_away([ip_interface(address).ip])
        try:
            begun = self._reactor.seconds()
            await deferLater(self._reactor, TURN_AWAY_S)
            while self._open(address) and self._reactor.seconds() - begun < TURN_AWAY_MOST_S:
                await deferLater(self._reactor, _POLL_S)
            if not ordered and self._open(address):
                return
            term = owning.term
            await owning.move(to)
            if term and not owning.leads:
                self.moves[address] = self.moves.get(address, 0) + 1
                why = ", by order" if ordered else ""
                self.log.info("{address} was moved to {to}{why}", address=address, to=to, why=why)
        finally:
            self._turn_away([])

    # --- the leader's part

    def _lead(self) -> None:
        if not self._leading.leads or self._writing:
            return
        if not self._leading.spread_said:
            self._leading.declare().addErrback(self._not_written)
            return
        first = self._without_record()
        if first:
            self._writing = True
            writing = Deferred.fromCoroutine(self._write_first(first))
            writing.addErrback(self._not_written).addBoth(self._written)

    def _without_record(self) -> dict[str, Place]:
        """Addresses that never had one, though live directors name them."""
        able: dict[str, dict[str, int]] = {}
        for name, member in self._members().items():
            for address, priority in member.vips.items():
                able.setdefault(address, {})[name] = priority
        there = self._placements.revisions
        return {address: Place(may) for address, may in able.items() if self._keys.placement(address) not in there}

    async def _write_first(self, first: Mapping[str, Place]) -> None:
        for address, owner in spread({**self.places(), **first}).items():
            if address not in first:
                continue
            keys, now = AddressKeys(self._keys, address), self._wall()
            reign = Reign(owner, "", frozenset(first[address].able), Kind.FIRST, self._timing.etcd_count_ns)
            written = [Put(keys.leader(), as_written(reign, now)), Put(keys.leader_beat(), f"{now:.3f}".encode()),
                       Put(keys.placement(address), msgspec.json.encode(Placement()))]
            absent = [Compare(keys.leader(), 0), Compare(keys.placement(address), 0)]
            if (await self._leading.fenced(written, when=absent)).succeeded:
                self.log.info("{address} has a record of its own, its first owner is {owner}", address=address, owner=owner)

    def _not_written(self, failure: Failure) -> None:
        self.log.warn("the virtual addresses have no records of their own yet: {why}", why=failure.getErrorMessage())

    def _written(self, _: object) -> None:
        self._writing = False


def priorities(config: Config) -> dict[str, int]:
    """Of a director's addresses, as it tells the others."""
    given = {str(ip_interface(text).ip): priority for text, priority in config.priorities.items()}
    every = (str(ip_interface(text).ip) for text in config.addresses)
    return {address: given.get(address, USUAL_PRIORITY) for address in every} if config.spread else {}
