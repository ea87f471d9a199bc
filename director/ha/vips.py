"""The virtual addresses: the leader's, and nobody else's.

While this director leads, and `director.core.vip.Custody` allows it, each address is on the interface with a lifetime of
a second. Before it takes them, the store names it their owner (``vips/<address>``, fenced): for people to see, and for
the next leader to know how long the addresses may outlive the lease. One that somebody else removed, or whose link was
down, is told to the neighbours anew.
"""

from __future__ import annotations

import errno
import ipaddress
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cluster.keys import Keys, VipKey
from cluster.model import VipOwner
from cluster.model import Vips as Config
from cluster.store import MAX_OPERATIONS, Put, Store, Watch
from cluster.view import Checked, View
from director.core.vip import OUTLIVES_S, REFRESH_S, VALID_S, Act, Carrier, Custody
from director.engine.telling import tell_each
from director.ha.device import Device
from director.ha.fence import Fence, Lifetime
from director.ha.leading import Known, boottime
from director.ha.leads import Leads
from director.ha.lookout import Befell
from director.ha.netlink import Interface
from director.timing.seldom import Seldom, more

#: Neighbours are told at once, and again: frames get lost, a switch may not forward for seconds, and Linux ignores news of
#: an entry that is younger than a second (``locktime``). In seconds after taking: for a minute, less and less often.
ANNOUNCE_AT_S = (0.0, 0.3, 1.2, 2.5, 4.0, 6.0, 8.0, 11.0, 15.0, 20.0, 28.0, 40.0, 60.0)
#: While the clients' side has no carrier no campaign begins. Asked for again with each turn; after the last one so long.
NO_CARRIER_HOLD_S = 1.0
#: A leader that cannot add its addresses makes room for another, once it failed so often in a row: one second.
MOST_FAILURES = 4
#: And does not campaign for so long: an interface does not heal in seconds.
BROKEN_HOLD_S = 30.0
#: Between lines about the store that does not name us: it is asked four times a second.
UNNAMED_EVERY_S = 60.0
#: Timers may be early by less than that.
TIMER_S = 0.001


def _sound(place: VipKey, owner: VipOwner) -> Checked[VipOwner]:
    """No address outlives its owner for longer than the kernel keeps it; whoever waits for more waits for nothing."""
    if owner.linger_s <= OUTLIVES_S:
        return Checked(owner)
    why = f"linger_s: no address outlives its owner by more than {OUTLIVES_S:g} s, not {owner.linger_s:g} s"
    return Checked(msgspec.structs.replace(owner, linger_s=OUTLIVES_S), [why])


class Vips(Service):
    """Holds the addresses while it runs and may.

    :param wanted: whether anybody is served; until then no address is taken, since another cluster may have it.
    :param right_s: for how long the addresses may be ours besides the leader's lease: what others have promised.
    :param rivals: whether another director may take the addresses, when this one's link has no carrier.
    :param fence: makes what the kernel closes at the end of that; called at the start, with the instant until which it is
        open (CLOCK_BOOTTIME, ns; 0: it is closed).
    """

    log = Logger()

    def __init__(self, config: Config, leading: Leads, store: Store, keys: Keys, *, reactor: Any,
                 right_s: Callable[[], float] = lambda: 0.0, wanted: Callable[[], bool] = lambda: True,
                 rivals: Callable[[], bool] = lambda: False,
                 link: Device | None = None,
                 fence: Callable[[int], Fence] = lambda until: Lifetime("no fence was asked for"),
                 boottime: Callable[[], float] = boottime, monotonic: Callable[[], float] = time.monotonic,
                 wall: Callable[[], float] = time.time) -> None:
        self.setName("vips")
        self.addresses: tuple[Interface, ...] = tuple(map(ipaddress.ip_interface, config.addresses))
        self.virtual = tuple(each.ip for each in self.addresses)  #: without their networks
        self._link = Device(config.interface or "") if link is None else link
        self._device = self._link.device
        self._leading = leading
        self._store = store
        self._keys = keys
        self._reactor = reactor
        self._right_s = right_s
        self._wanted = wanted
        self._rivals = rivals
        self._carrier = Carrier()
        self._make_fence = fence
        self._fence: Fence | None = None
        self._boottime = boottime
        self._monotonic = monotonic
        self._wall = wall
        self._custody = Custody(leading.needed_s)
        self.on_taken: list[Callable[[tuple[str, ...]], None]] = []  #: told of addresses that are on the interface now
        self.on_released: list[Callable[[tuple[str, ...]], None]] = []  #: and of those that are not any more
        self._owners = View(keys, keys.vips(), VipKey, VipOwner, keep=True, check=_sound)
        self._watch: Watch | None = None
        self._timer: Any = None
        self._vacant_at: float | None = None  # when the last of the former leader's lease was seen
        self._announcing: list[Any] = []
        self._named = 0  # the term under which the store names us
        self._failures = 0
        self._on: tuple[Interface, ...] = ()  #: the interface, as far as is known
        self._untold: set[Interface] = set()  #: that the neighbours are to be told of
        self._naming = False
        self._seldom = Seldom(monotonic=monotonic, every_s=UNNAMED_EVERY_S)
        leading.on_known.append(self._known)
        leading.on_gained.append(self._gained)
        leading.on_lost.append(self.step)

    @property
    def held(self) -> bool:
        """Whether the addresses are on this director's interface, as far as it is to do with us."""
        return self._custody.held

    @property
    def on(self) -> tuple[Interface, ...]:
        """The addresses that are on this director's interface; fewer than `held` means when some cannot be added."""
        return self._on if self.held else ()

    @property
    def fence(self) -> tuple[str, str]:
        """What ends this machine's answers (see `director.ha.fence`); and why not at their time, if so."""
        return ("", "") if self._fence is None else (self._fence.kind, self._fence.holds())

    @property
    def problems(self) -> dict[str, str]:
        """Records of owners that cannot be read."""
        return self._owners.problems

    @property
    def owners(self) -> dict[str, VipOwner]:
        """Who owns which address, by the store."""
        return {place.address: owner for place, owner in self._owners.values.items()}

    # --- from one process to the next

    @property
    def named(self) -> int:
        """The term under which the store names this director the owner; 0: it does not."""
        return self._named

    def adopt(self, addresses: Iterable[str], named: int) -> None:
        """Another process of this director has these on the interface; before the start, after the leadership's."""
        there = frozenset(addresses)
        self._on = tuple(each for each in self.addresses if str(each) in there)
        self._named = named
        self._leading.owned.update(self._keys.vip(str(each.ip)) for each in self._on)
        if self._on:
            self._custody.adopted(self._monotonic())
        else:
            self._gained(self._leading.term)

    def let_go(self) -> None:
        """Another process refreshes the addresses: leave them where they are."""
        self._silence()
        self._custody.dropped()
        self._on = ()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fence is not None:
            self._fence.leave()
            self._fence = None

    # --- running

    def startService(self) -> None:
        if self.running:
            return
        super().startService()
        self._fence = self._make_fence(self._until_ns() if self.held else 0)
        if why := self._fence.holds():
            self.log.warn("no fence in the kernel for the virtual addresses, they end by their lifetime: {why}", why=why)
        self._watch = self._store.watch(self._owners.prefix, self._owners.follow)
        try:
            self._link.listen(self._reactor, self.step)
        except OSError as error:
            self.log.warn("what befalls {device} is not heard: {why}", device=self._device, why=error.strerror)
        self._turn()

    def stopService(self) -> None:
        super().stopService()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gone = self._drop() if self.held else True
        self._custody.dropped()
        if self._fence is not None:
            if gone:
                self._fence.release()
            else:
                self._fence.leave()  # closed, until the lifetime of what is there still has ended
            self._fence = None
        self._link.close()

    def _turn(self) -> None:
        self._timer = self._reactor.callLater(REFRESH_S, self._turn)
        self.step()

    def step(self) -> None:
        """Look whether the addresses are ours, and act on it."""
        if not self.running:
            return
        until_ns = self._until_ns()
        own_s = self._leading.remaining_s()
        named = own_s > 0 and self._named == self._leading.term
        befell = self._link.befell()
        if self._carrier.lost(self._monotonic(), befell.running) and self._rivals():
            self._make_room()
            return
        takes = named if self._leading.names_first else own_s > 0 and self._wanted()
        match self._custody.step(self._monotonic(), max(own_s, self._right_s()), leads=takes):
            case Act.TAKE:
                self._on, self._untold = (), set()
                self._refresh(befell.running, until_ns)
            case Act.REFRESH:
                self._notice(befell)
                self._refresh(befell.running, until_ns)
            case Act.DROP:
                self._drop()
        if own_s > 0 and not named and not self._naming and self.addresses and self._wanted():
            self._naming = True
            naming: Deferred[None] = Deferred.fromCoroutine(self._name_owner(self._leading.term))
            naming.addErrback(lambda failure: self.log.failure("the virtual addresses failed", failure))

    def _make_room(self) -> None:
        """Another director may have the carrier that this one has lost."""
        if self._leading.leads:
            self.log.warn("{device} has no carrier: another director shall have the virtual addresses", device=self._device)
            self._leading.resign(NO_CARRIER_HOLD_S)  # which drops them
        elif self.held:
            self._custody.dropped()
            self._drop()
        self._leading.promise(NO_CARRIER_HOLD_S)

    def _until_ns(self) -> int:
        """When the right to the addresses ends as things stand. The clock is read first: rather too early."""
        now = self._boottime()
        return int((now + max(self._leading.remaining_s(), self._right_s())) * 1e9)

    # --- leadership

    def open_fence(self, until_ns: int) -> None:
        """By promises, beat by beat: this machine may answer until then. Raises OSError as the kernel answers."""
        if self._fence is not None:
            self._fence.open_until(until_ns)

    def close_fence(self) -> None:
        """It may not, from when this returns. Raises OSError as the kernel answers."""
        if self._fence is not None:
            self._fence.close()

    def _known(self, known: Known | None) -> None:
        if known is None:
            self._vacant_at = self._monotonic()

    def _gained(self, term: int) -> None:
        others = [owner.linger_s for owner in self._owners.values.values() if owner.owner != self._leading.director]
        now = self._monotonic()
        since, self._vacant_at = now if self._vacant_at is None else self._vacant_at, None
        wait_s = max(0.0, since + max(others, default=0.0) - now) if self._leading.names_first else 0.0
        self._custody.gained(now, wait_s)
        if self._timer is not None:
            self._timer.reset(wait_s % REFRESH_S + TIMER_S)  # so that a turn falls on the end of the wait
        self.step()

    async def _name_owner(self, term: int) -> None:
        """Have the store name us the owner; until it does, each turn tries again."""
        owner = VipOwner(owner=self._leading.director, interface=self._device, term=term, since=self._wall(),
                         linger_s=self._leading.linger_s)
        puts = [Put(self._keys.vip(str(each.ip)), msgspec.json.encode(owner)) for each in self.addresses]
        try:
            for start in range(0, len(puts), MAX_OPERATIONS):
                committed = await self._leading.fenced(puts[start : start + MAX_OPERATIONS])
                if not committed.succeeded:
                    return
        except Exception as error:
            held = self._seldom.due("unnamed")
            if held is not None:
                self.log.warn("the store does not name us the owner of the virtual addresses: {why}{more}", why=error,
                              more=more(held))
        else:
            self._named = term
            self._leading.owned.update(put.key for put in puts)
        finally:
            self._naming = False
        if self._named == term:
            self.step()

    # --- the interface

    def _notice(self, befell: Befell) -> None:
        """What others did to the interface costs our neighbours' memory of it."""
        lost = [each for each in self._on if each.packed in befell.lost]
        if not (lost or befell.interrupted):
            return
        self._untold.update(lost if not befell.interrupted else self._on)
        what = "the link was down" if befell.interrupted else f"{', '.join(map(str, lost))} was removed by somebody else"
        held = self._seldom.due(what)
        if held is not None:
            self.log.warn("{device}: {what}; its virtual addresses are added and announced again{more}",
                          device=self._device, what=what, more=more(held))

    def _refresh(self, running: bool, until_ns: int) -> None:
        """Add every address, or for longer; tell the neighbours, once the link is *running*, of what is new there."""
        added = []
        opened = self._set_fence(until_ns)
        for address in self.addresses:
            try:
                self._link.add(address, VALID_S)
            except OSError as error:
                if not self._failures:
                    needs = " (it takes the capability CAP_NET_ADMIN)" if error.errno == errno.EPERM else ""
                    self.log.error("cannot add {address} to {device}: {why}{needs}", address=str(address),
                                   device=self._device, why=error.strerror, needs=needs)
            else:
                added.append(address)
        new = [each for each in added if each not in self._on]
        if new:
            self.log.info("{count} of {all} virtual addresses taken on {device}" if len(added) < len(self.addresses) else
                          "{count} virtual addresses taken on {device}", count=len(added), all=len(self.addresses),
                          device=self._device)
        gone = [each for each in self._on if each not in added]
        self._on = tuple(added)
        self._tell(self.on_taken, new)
        self._tell(self.on_released, gone)
        self._untold.update(new)
        if running and self._untold & set(added):
            self._untold.clear()
            self._announce()
        self._failures = 0 if opened and len(added) == len(self.addresses) else self._failures + 1
        if self._failures >= MOST_FAILURES and self._leading.leads:
            self._failures = 0
            self._leading.resign(BROKEN_HOLD_S)

    def _announce(self) -> None:
        self._silence()
        self._announcing = [self._reactor.callLater(at, self._tell_neighbours) for at in ANNOUNCE_AT_S[1:]]
        self._tell_neighbours()

    def _silence(self) -> None:
        for each in self._announcing:
            if each.active():
                each.cancel()
        self._announcing.clear()

    def _tell_neighbours(self) -> None:
        if not self.held:
            return
        for address in self._on:
            try:
                self._link.announce(address)
            except OSError as error:
                self.log.warn("neighbours of {device} are not told of {address}: {why}", device=self._device,
                              address=str(address.ip), why=error.strerror)

    def _set_fence(self, boot_ns: int) -> bool:
        """Open the fence until then, or (0) close it; whether it is so."""
        assert self._fence is not None
        try:
            if boot_ns:
                self._fence.open_until(boot_ns)
            else:
                self._fence.close()
        except OSError as error:
            held = self._seldom.due("fence")
            if held is not None:
                self.log.error("the kernel's fence for the virtual addresses is not set: {why}{more}", why=error,
                               more=more(held))
            return False
        return True

    def _drop(self) -> bool:
        """Remove every address; whether they are gone."""
        self._silence()
        self._set_fence(0)
        gone = True
        on, self._on = self._on, ()
        for address in self.addresses:
            try:
                self._link.remove(address)
            except OSError as error:
                if address not in on:
                    continue  # it could not be added either
                gone = False  # within a second, by itself; until then the record tells whoever leads next
                self._leading.owned.discard(self._keys.vip(str(address.ip)))
                self.log.error("cannot remove {address} from {device}: {why}", address=str(address),
                               device=self._device, why=error.strerror)
        if on:
            self.log.info("{count} virtual addresses given up on {device}", count=len(on), device=self._device)
        self._tell(self.on_released, on)
        return gone

    @staticmethod
    def _tell(subscribers: Iterable[Callable[[tuple[str, ...]], None]], addresses: Iterable[Interface]) -> None:
        if told := tuple(str(each.ip) for each in addresses):
            tell_each(subscribers, told)
