"""This director's part in the leadership, on a store: `cluster.leadership` with a lease, a watch and a clock.

Whatever only the leader may write goes through `Leading.fenced`: the store refuses it once somebody else leads, however
late this director notices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import Misuse
from cluster.keys import Keys
from cluster.leadership import (
    AskLease,
    Campaign,
    Effect,
    Gained,
    GiveUp,
    Leadership,
    Lost,
    Resign,
    State,
)
from cluster.model import Leader
from cluster.store import (
    MAX_OPERATIONS,
    Committed,
    Compare,
    Delete,
    Event,
    Lease,
    Operation,
    Record,
    Resync,
    Store,
    Watch,
)
from cluster.view import Unreadable, decode
from director.core.vip import linger_s, needed_s
from director.engine.telling import tell_each
from director.timing.alarm import Alarm
from director.timing.seldom import Seldom, more

#: For the store to take note that a leader resigns. It has other things to do before it ends, and the lease lapses anyway.
RESIGN_TIMEOUT_S = 1.0
#: After an order to resign: long enough for the others to take over, and for an operator to see it.
RESIGN_HOLD_S = 10.0
#: Between lines about a campaign that does not come about: it is tried four times a second.
HINDERED_EVERY_S = 60.0


class NotLeading(Misuse):
    """Only the leader may do that, and this director does not lead."""


class Known(NamedTuple):
    """Who leads, as the store says."""

    leader: Leader
    term: int


def _by_promises(record: Record) -> bool:
    """Whether it is what `director.ha.reigning` leads by: that has no lease, and stays."""
    try:
        return decode(record.value, Leader).kind != "lease"
    except Unreadable:
        return False


def boottime_ns() -> int:
    """As `boottime`; the clock that the kernel's fence reads too."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boottime() -> float:
    """Seconds of a clock that runs on while the machine sleeps, as leases do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Leading(Service):
    """Campaigns while it runs; `stopService` resigns.

    Children of the leadership (the VIPs, the share-out of maxima) append to *on_gained* and *on_lost*. A loss is told
    before the record is deleted: what must not be done by two is over by then.

    :param ttl_s: of the leader's lease.
    :param hold_back_s: no campaign so soon after the start: what this director promised before may still count.
    """

    log = Logger()

    def __init__(self, store: Store, keys: Keys, *, director: str, boot_id: str, reactor: Any, ttl_s: float = 2.0,
                 hold_back_s: float = 0.0, boottime: Callable[[], float] = boottime,
                 wall: Callable[[], float] = time.time) -> None:
        self.setName("leading")
        self.director = director
        self.ttl_s = ttl_s
        self.known: Known | None = None
        self.on_gained: list[Callable[[int], None]] = []  #: called with the term
        self.on_lost: list[Callable[[], None]] = []
        self.on_known: list[Callable[[Known | None], None]] = []  #: another leads, or nobody
        self.owned: set[str] = set()  #: keys that are deleted with the leader's own when it resigns
        self._store = store
        self._key = keys.leader()
        self._reactor = reactor
        self._boottime = boottime
        self._hold_back_s = hold_back_s
        self._record = Leader(name=director, boot_id=boot_id, since=0.0)
        self._wall = wall
        self._machine = Leadership(self._key, msgspec.json.encode(self._record))
        self._lease: Lease | None = None
        self._watch: Watch | None = None
        self._alarm = Alarm(self._tick, reactor=reactor, monotonic=boottime)
        self._over: Deferred[None] | None = None
        self._lapsed = False
        self.problems: dict[str, str] = {}  #: what is wrong with the record, by its key
        self._usurped: IDelayedCall | None = None
        self._seldom = Seldom(monotonic=boottime, every_s=HINDERED_EVERY_S)

    # --- what others ask

    @property
    def needed_s(self) -> float:
        """How long the right to a virtual address must last still for it to be refreshed."""
        return needed_s(self.ttl_s)

    @property
    def linger_s(self) -> float:
        """How long an address may outlive the lease."""
        return linger_s(self.ttl_s)

    @property
    def names_first(self) -> bool:
        return True

    @property
    def leads(self) -> bool:
        """Whether this director leads at this very moment."""
        return self.remaining_s() > 0

    @property
    def lapsed(self) -> bool:
        """It led, and lost that to the clock: said from the lease's deadline on, even if nobody was told yet."""
        return self._lapsed or (self._machine.state is State.LEADING and not self.leads)

    @property
    def term(self) -> int:
        """Of the present leadership; 0 while this director does not lead."""
        return self._machine.term if self.leads else 0

    def remaining_s(self) -> float:
        """For how long it certainly leads as things stand; 0 when it does not."""
        now = self._look()
        return max(0.0, self._machine.until(now) - now)

    def fenced(self, operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
        """Commit as the leader. Not ``succeeded``: another leads by now, or a comparison of *when* failed.

        Fails with `NotLeading`, and as `Store.commit`.
        """
        if not self.leads:
            return fail(NotLeading(f"{self.director} does not lead"))
        return self._store.commit(operations, when=[self._machine.fence(), *when])

    def resign(self, hold_s: float = RESIGN_HOLD_S) -> Deferred[None]:
        """Lead no more, and don't campaign for *hold_s*; fires when others can take over. Nothing if it does not lead."""
        if self._over is not None or self._machine.state is not State.LEADING:
            return succeed(None)
        self._over = Deferred()
        over = self._over
        self._follow(self._machine.resign(self._boottime() + hold_s))
        return over

    def promise(self, for_s: float) -> bool:
        """Don't campaign for *for_s*; False, and no promise, when this director leads or may at any moment."""
        try:
            self._machine.promise(self._boottime() + for_s)
        except Misuse:
            return False
        return True

    # --- from one process to the next

    @property
    def lease(self) -> Lease | None:
        """By which it leads, or would."""
        return self._lease

    def adopt(self, lease: Lease, term: int) -> None:
        """Lead in the place of another process of this director; before the start."""
        self._use(lease)
        self._follow(self._machine.adopt(lease.id, self._boottime() + lease.remaining_s(), term))
        self.log.info("{director} leads on, term {term}", director=self.director, term=term)

    def let_go(self) -> None:
        """Another process leads in this one's place: neither resign nor tell anybody."""
        self._alarm.cancel()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        self._lease = None
        self._machine = Leadership(self._key, msgspec.json.encode(self._record))

    # --- running

    def startService(self) -> None:
        if self.running:
            return
        super().startService()
        self._watch = self._store.watch(self._key, self._deliver)
        if self._machine.state is State.OFF:
            self._machine.promise(self._boottime() + self._hold_back_s)
            self._follow(self._machine.start(self._boottime()))

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        if self._usurped is not None:
            self._usurped.cancel()
            self._usurped = None
        over: Deferred[None] = Deferred()
        if self._machine.state is State.OFF:
            over.callback(None)
            return over
        if self._over is None:
            self._over = Deferred()
        self._over.addCallback(over.callback)
        if self._machine.state is not State.STOPPING:
            self._follow(self._machine.stop())
        return over

    def _deliver(self, event: Event) -> None:
        if isinstance(event, Resync):
            record = next((each for each in event.listing.records if each.key == self._key), None)
            revision = event.listing.revision
        else:
            revision = event.revision
            written = [each for each in event.written if each.key == self._key]
            if not written and self._key not in event.deleted:
                return
            record = written[0] if written else None
        self._learn(record)
        self._depose(record)
        self._follow(self._machine.seen(record, revision, self._look()))

    def _depose(self, record: Record | None) -> None:
        """A record without a lease is no director's and would stay for ever, so that nobody led. It is deleted once whoever
        led before it was written has certainly seen it, or let its lease lapse."""
        if self._usurped is not None:
            self._usurped.cancel()
            self._usurped = None
        if record is not None and record.lease is None and not _by_promises(record):
            self._usurped = self._reactor.callLater(self.ttl_s, self._delete, record)

    def _delete(self, record: Record) -> None:
        self._usurped = None
        deleted = self._store.commit([Delete(self._key)], when=[Compare(self._key, record.mod_revision)])
        deleted.addErrback(self._undeleted, record)

    def _undeleted(self, failure: Failure, record: Record) -> None:
        self._hindered("a leader's record without a lease is not deleted", failure)
        if self.running and self._usurped is None:
            self._depose(record)

    def _learn(self, record: Record | None) -> None:
        known, why = None, ""
        if record is not None and record.lease is None and _by_promises(record):
            why = 'another leads by promises: node.takeover = "promises" is missing here'
        elif record is not None and record.lease is None:
            why = f"it has no lease: no director wrote it; it is passed over, and deleted after {self.ttl_s:g} s"
        elif record is not None:
            try:
                known = Known(decode(record.value, Leader), record.create_revision)
            except Unreadable as error:
                why = str(error)
        if why and self.problems.get(self._key) != why:
            self.log.error("{key} in the store cannot be read: {why}", key=self._key, why=why)
        self.problems = {self._key: why} if why else {}
        if known == self.known:
            return
        self.known = known
        if known is not None and known.leader.name != self.director:
            self.log.info("{leader} leads, term {term}", leader=known.leader.name, term=known.term)
        tell_each(self.on_known, known)

    def _look(self) -> float:
        """Read the clock, and then what the lease promises: the deadline is rather too early."""
        now = self._boottime()
        if self._lease is not None:
            self._machine.extended(self._lease.id, now + self._lease.remaining_s())
        return now

    def _tick(self) -> None:
        self._follow(self._machine.tick(self._look()))

    # --- effects

    def _follow(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case AskLease():
                    self._store.lease(self.ttl_s).addCallbacks(self._granted, self._ungranted)
                case Campaign(put, when):
                    assert put.lease is not None
                    since = msgspec.json.encode(msgspec.structs.replace(self._record, since=self._wall()))
                    self._campaign(put.lease, self._store.commit([put._replace(value=since)], when=[when]))
                case Gained(term):
                    self._lapsed = False
                    self.log.info("{director} leads, term {term}", director=self.director, term=term)
                    self._tell(self.on_gained, term)
                case Lost(term, why, lapsed):
                    self._lapsed = lapsed
                    self.log.warn("{director} leads no more, term {term}: {why}", director=self.director, term=term,
                                  why=why)
                    self._tell(self.on_lost)
                case GiveUp(lease):
                    self._give_up(lease)
                case Resign(term):
                    Deferred.fromCoroutine(self._resign(term)).addErrback(self._unexpected)
        self._alarm.cancel()
        if self._machine.state is State.OFF:
            over, self._over = self._over, None
            if over is not None:
                over.callback(None)
        else:
            self._alarm.at(self._machine.deadline())

    def _tell(self, told: Sequence[Callable[..., None]], *news: int) -> None:
        for each in told:
            try:
                each(*news)
            except Exception:  # one that fails must not keep the others from knowing
                self.log.failure("a change of leadership could not be followed")

    def _granted(self, lease: Lease) -> None:
        now = self._boottime()
        until = now + lease.remaining_s()
        if self._machine.state is not State.LEASING:
            lease.revoke().addErrback(self._unrevoked)
            return
        self._use(lease)
        self._follow(self._machine.granted(lease.id, until))

    def _use(self, lease: Lease) -> None:
        self._lease = lease
        lease.lost.addCallback(lambda _: self._follow(self._machine.lease_lost(lease.id, self._boottime())))
        lease.lost.addErrback(self._unexpected)

    def _ungranted(self, failure: Failure) -> None:
        self._hindered("no lease to campaign with", failure)
        self._follow(self._machine.ungranted(self._boottime()))

    def _campaign(self, lease: int, outcome: Deferred[Committed]) -> None:
        def committed(result: Committed) -> None:
            self._follow(self._machine.committed(lease, result.succeeded, result.revision, self._look()))

        def unanswered(failure: Failure) -> None:
            self._hindered("a campaign of unknown outcome", failure)
            self._follow(self._machine.unanswered(lease, self._boottime()))

        outcome.addCallbacks(committed, unanswered).addErrback(self._unexpected)

    def _hindered(self, what: str, failure: Failure) -> None:
        held = self._seldom.due(what)
        if held is not None:
            self.log.info("{what}: {why}{more}", what=what, why=failure.getErrorMessage(), more=more(held))

    def _give_up(self, number: int) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            assert lease.id == number
            lease.revoke().addErrback(self._unrevoked)

    async def _resign(self, term: int) -> None:
        lease, self._lease = self._lease, None
        owned = sorted(self.owned)[: MAX_OPERATIONS - 1]  # those beyond go on to name their last owner
        operations = [Delete(self._key), *map(Delete, owned)]
        self.owned.clear()
        fence = Compare(self._key, term, created=True)
        try:
            await self._store.commit(operations, when=[fence]).addTimeout(RESIGN_TIMEOUT_S, self._reactor)
            if lease is not None:
                await lease.revoke().addTimeout(RESIGN_TIMEOUT_S, self._reactor)
        except Exception as error:
            self.log.warn("the store does not know that {director} resigned; its lease lapses: {why}",
                          director=self.director, why=error)
        stopped = self._machine.state is State.STOPPING
        self._follow(self._machine.resigned(self._boottime()))
        over, self._over = self._over, None
        if not stopped and over is not None:
            over.callback(None)

    def _unrevoked(self, failure: Failure) -> None:
        self.log.info("a lease was not revoked and lapses: {why}", why=failure.getErrorMessage())

    def _unexpected(self, failure: Failure) -> None:
        self.log.failure("the leadership failed", failure)
