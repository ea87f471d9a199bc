"""This director's part in the leadership by promises: `cluster.takeover` with the peer link, a store, a fence and a clock.

It is to the virtual addresses and the housekeeping what `director.ha.leading` is by a lease. The machine's effects are
carried out in order, and those after one that fails are left undone: any of them may be lost.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from cluster.errors import OutcomeUnknown, StoreUnavailable
from cluster.keys import Keys
from cluster.model import Leader, Member
from cluster.peer_wire import Bye, OwnerAck, OwnerBeat
from cluster.store import Committed, Compare, Event, Lease, Listing, Operation, Record, Resync, Store, Watch
from cluster.takeover import (
    Ack,
    Beat,
    CloseFence,
    Commit,
    Effect,
    Gained,
    Lost,
    OpenFence,
    Outcome,
    Read,
    SendAck,
    SendBeat,
    SendBye,
    Takeover,
    Timing,
    Transaction,
    comparisons,
    operations,
    sighted,
)
from director.engine.telling import tell_each
from director.ha.leading import RESIGN_HOLD_S, RESIGN_TIMEOUT_S, Known, NotLeading, boottime_ns
from director.ha.peers import Peers
from director.timing.alarm import Alarm
from director.timing.seldom import Seldom, more

#: Between two reads of the record, which the machine may ask for at each turn; the watch tells of changes anyway.
READ_EVERY_S = 0.1
#: For a read: what is slower says too little of the present. It is asked again.
READ_TIMEOUT_S = 1.0
#: Between lines about a store that does not answer: the machine asks it ten times a second.
HINDERED_EVERY_S = 60.0
NS = 1_000_000_000


class Reigning(Service):
    """Takes part while it runs; `stopService` hands over, if anybody is there to take it.

    :param members: by name, as the store says; those that say so take part in promises.
    :param fit: empty, or why this director must not own: the kernel would not end its answers in time.
    :ivar openers: told until when (boot time, ns) this machine may answer. One that raises ends what was to follow.
    :ivar closers: told that it may not; as `openers`.
    """

    log = Logger()
    needed_s = 0.0  #: the fence ends what the addresses outlive
    linger_s = 0.0
    names_first = False  #: the record itself names the owner
    lease: Lease | None = None
    _together = False  #: whether addresses that are spread keep it from leading
    known_text = "{leader} leads, term {term}"
    gained_text = "{director} leads, term {term}"
    lost_text = "{director} leads no more, term {term}: {why}"

    def __init__(self, store: Store, keys: Keys, peers: Peers, *, director: str, timing: Timing, reactor: Any,
                 members: Callable[[], Mapping[str, Member]], fit: Callable[[], str] = lambda: "",
                 boottime_ns: Callable[[], int] = boottime_ns, wall: Callable[[], float] = time.time) -> None:
        self.setName("reigning")
        self.director = director
        self.known: Known | None = None
        self.on_gained: list[Callable[[int], None]] = []  #: called with the term
        self.on_lost: list[Callable[[], None]] = []
        self.on_known: list[Callable[[Known | None], None]] = []  #: another leads, or nobody
        self.openers: list[Callable[[int], None]] = []
        self.closers: list[Callable[[], None]] = []
        self.owned: set[str] = set()  #: keys that name this director an owner; the record is what counts
        self.problems: dict[str, str] = {}  #: what is wrong with the record, by its key
        self.electors: tuple[str, ...] = ()  #: who may follow, as the store said last
        self._store = store
        self._keys = keys
        self._peers = peers
        self._timing = timing
        self._members = members
        self._fit = fit
        self._reactor = reactor
        self._now = boottime_ns
        self._wall = wall
        self._machine = self._new_machine()
        self._incarnations: dict[str, str] = {}  # of those that promise
        self._about: dict[str, str] = {}  # fields of those texts
        self._held: set[str] = set()  # of those, who would not answer now
        self._records: dict[str, Record] = {}  # as watched
        self._revision = 0  # of the newest sight
        self._watch: Watch | None = None
        self._turn: Any = None
        self._alarm = Alarm(self._look, reactor=reactor, monotonic=lambda: self._now() / NS)
        self._reading = self._read_again = False
        self._reading_at = 0
        self._hold_until = 0
        self._to_do: list[list[Effect]] = []
        self._over: Deferred[None] | None = None  # a hand-over under way
        self._seldom = Seldom(monotonic=lambda: self._now() / NS, every_s=HINDERED_EVERY_S)
        peers.hear(OwnerBeat, self._beat)
        peers.hear(OwnerAck, self._ack)
        peers.hear(Bye, self._bye)
        peers.on_left.append(self._left)

    def _new_machine(self) -> Takeover:
        return Takeover(self.director, secrets.token_hex(8), self._timing)

    # --- what others ask

    @property
    def leads(self) -> bool:
        return self.remaining_s() > 0

    @property
    def term(self) -> int:
        return self._machine.term if self.leads else 0

    def remaining_s(self) -> float:
        now = self._now()
        machine = self._machine
        return (machine.limit(now) - now) / NS if machine.answering and machine.answers(now) else 0.0

    def fenced(self, operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
        """As `director.ha.leading.Leading.fenced`; also not ``succeeded`` while who may campaign is being changed."""
        if not self.leads or not self._machine.mod:
            return fail(NotLeading(f"{self.director} does not lead"))
        return self._store.commit(operations, when=[Compare(self._keys.leader(), self._machine.mod), *when])

    def resign(self, hold_s: float = RESIGN_HOLD_S) -> Deferred[None]:
        """Hand over to another elector that promises; without one it goes on leading, since nobody else could."""
        if self._over is not None or not self.leads:
            return succeed(None)
        to = self._successor()
        if not to:
            self.log.warn("{director} does not resign: nobody promises who could follow", director=self.director)
            return succeed(None)
        return self._hand_over(to, hold_s)

    def _hand_over(self, to: str, hold_s: float) -> Deferred[None]:
        self._hold_until = max(self._hold_until, self._now() + int(hold_s * NS))
        self._over = over = Deferred[None]()
        self._follow(self._machine.hand_over(to, self._incarnations[to], self._now()))
        if self._machine.owner:  # a change of the record is under way, or a hold
            self._given_over()
        over.addTimeout(RESIGN_TIMEOUT_S, self._reactor)
        return over.addErrback(self._not_told)

    def _successor(self) -> str:
        """Who promised last, among those that may."""
        return max(self.able(), key=lambda each: self._machine.evidence[each], default="")

    def able(self) -> list[str]:
        """To whom this director could hand over now."""
        evidence = self._machine.evidence
        return [each for each in self._machine.others - self._held
                if evidence.get(each, 0) > self._now() and each in self._incarnations and each in self._peers.names]

    def _not_told(self, failure: Failure) -> None:
        self._over = None
        self.log.warn("the store did not say in time that {director} handed over: {why}", director=self.director,
                      why=failure.getErrorMessage())

    def _given_over(self) -> None:
        over, self._over = self._over, None
        if over is not None and not over.called:
            over.callback(None)

    def promise(self, for_s: float) -> bool:
        if self._machine.owner:
            return False
        self._hold_until = max(self._hold_until, self._now() + int(for_s * NS))
        return True

    # --- from one process to the next

    def adopt(self, lease: Lease, term: int) -> None:
        """A lease is nothing here: who follows a process of its own campaigns as anybody does."""

    def let_go(self) -> None:
        self._end()

    async def give_way(self) -> None:
        """R2: one process of a director at a time. Another one takes part from now on, unless `go_on` says otherwise."""
        await self.resign()
        self._end()

    def go_on(self) -> None:
        """It does not after all."""
        if self.running and self._turn is None:
            self._hold_until = 0
            self._begin()

    # --- running

    def startService(self) -> None:
        if self.running:
            return
        super().startService()
        self._begin()

    def _begin(self) -> None:
        self._machine = self._new_machine()
        self._turn = self._reactor.callLater(0, self._turned)
        self._follow(self._machine.start(self._now()))
        self._watch = self._store.watch(self._keys.leader(), self._deliver)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        over = self.resign()
        over.addCallback(lambda _: self._end())
        return over

    def _end(self) -> None:
        """R14: the fence is closed, and the others are told."""
        if self._turn is None:
            return
        self._turn.cancel()
        self._turn = None
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        self._follow(self._machine.stop())
        self._alarm.cancel()

    def _turned(self) -> None:
        beat_ns = self._timing.beat_ns  # in step with others of this process, so that all beats go as one message
        past_ns = self._now() % beat_ns
        self._turn = self._reactor.callLater((beat_ns * (1 + (2 * past_ns > beat_ns)) - past_ns) / NS, self._turned)
        members = self._members()
        self._machine.directory(*self._directory(members))
        if self._machine.owner or self._may_campaign():
            self._follow(self._machine.turn(self._now()))
        if self._machine.owner and (why := self._fit()):
            self.log.error("{director} owns no virtual address any more: {why}", director=self.director, why=why)
            self._follow(self._machine.step_down(why))

    def _directory(self, members: Mapping[str, Member]) -> tuple[frozenset[str], frozenset[str]]:
        wishing = (name for name, each in members.items() if each.promises and "manage" in each.roles)
        return frozenset(members), frozenset(wishing)

    def _may_campaign(self) -> bool:
        return self._now() >= self._hold_until and not self._fit() and bool(self.running)

    def _look(self) -> None:
        self._follow(self._machine.look(self._now()))

    # --- the peer link

    def _beat(self, peer: str, said: OwnerBeat) -> None:
        beat = Beat(said.term, said.incarnation, said.sent, said.counts_ns)
        if not self._timing.covers(said.counts_ns):
            held = self._seldom.due(f"counts of {peer}")
            if held is not None:
                self.log.error("{peer} is promised nothing: its node.takeover_s is longer than here, and they must be the "
                               "same{more}", peer=peer, more=more(held))
        elif self._turn is not None:
            self._follow(self._machine.beat(peer, beat, self._now()))

    def _ack(self, peer: str, said: OwnerAck) -> None:
        self._incarnations[peer] = said.own
        (self._held.add if said.held else self._held.discard)(peer)
        self._follow(self._machine.ack(peer, Ack(said.term, said.incarnation, said.sent), self._now()))

    def _bye(self, peer: str, said: Bye) -> None:
        self._gone(peer)

    def _left(self, peer: str, by_peer: bool) -> None:
        self._follow(self._machine.link_lost(peer, self._now()))
        if by_peer and self._turn is not None:  # R7: that alone proves nothing
            self._peers.knock(peer).addCallback(lambda refused: self._gone(peer) if refused else None).addErrback(
                lambda failure: self.log.failure("{peer} could not be knocked at", failure, peer=peer))

    def _gone(self, peer: str) -> None:
        if self._may_campaign():
            self._follow(self._machine.left(peer, self._now()))

    def _listeners(self) -> Iterable[str]:
        """Those that take part; a director of a former version would cut a link that is full of beats."""
        taking = self._machine.required | self._machine.wishing
        return [name for name in self._peers.names if name in taking]

    # --- the store

    def _deliver(self, event: Event) -> None:
        if isinstance(event, Resync):
            self._records = {record.key: record for record in event.listing.records}
            revision = event.listing.revision
        else:
            for key in event.deleted:
                self._records.pop(key, None)
            self._records.update((record.key, record) for record in event.written)
            revision = event.revision
        self._sight(tuple(self._records.values()), revision)

    def _sight(self, records: Sequence[Record], revision: int) -> None:
        """What was read or watched; what is older than what is known already says nothing."""
        if revision < self._revision:
            return
        self._revision = revision
        seen, why = sighted(records, self._keys, together=self._together)
        key = self._keys.leader()
        if why and self.problems.get(key) != why:
            self.log.error("{key} in the store is nobody's by promises: {why}", key=key, why=why)
        self.problems = {key: why} if why else {}
        reign = seen.reign
        self.electors = () if reign is None else tuple(sorted(reign.electors))
        known = None
        if reign is not None and not why:
            known = Known(Leader(name=reign.owner, boot_id=reign.incarnation, since=0.0), reign.term)
        if known != self.known:
            self.known = known
            if known is not None and known.leader.name != self.director:
                self.log.info(self.known_text, leader=known.leader.name, term=known.term, **self._about)
            tell_each(self.on_known, known)
        if self._watch is not None:
            self._follow(self._machine.seen(seen, self._now()))

    def _operations(self, transaction: Transaction) -> list[Operation]:
        return operations(transaction, self._keys, self._wall())

    def _read(self) -> None:
        """One at a time; asked for meanwhile, once more afterwards."""
        if self._reading:
            self._read_again = True
            return
        self._reading = True
        self._reactor.callLater(max(0.0, self._reading_at / NS + READ_EVERY_S - self._now() / NS), self._read_now)

    def _read_now(self) -> None:
        self._reading_at = self._now()
        self._read_again = False
        machine = self._machine

        def found(listing: Listing) -> None:
            if machine is self._machine:  # R2: what was asked for before the start says nothing after it
                self._sight(listing.records, listing.revision)
            else:
                self._read_again = True

        listing = self._store.list(self._keys.leader()).addTimeout(READ_TIMEOUT_S, self._reactor)
        listing.addCallback(found)
        listing.addErrback(lambda failure: self._hindered("who leads cannot be read", failure))
        listing.addBoth(self._has_read)

    def _has_read(self, _: object) -> None:
        self._reading = False
        if self._read_again and self._turn is not None:
            self._read()

    def _commit(self, transaction: Transaction) -> None:
        """Once, whatever becomes of it."""
        machine = self._machine

        def told(outcome: Outcome, revision: int) -> None:
            if machine is self._machine:
                self._follow(machine.answered(transaction, outcome, revision, self._now()))
            if self._over is not None and not machine.owner:
                self._given_over()

        def committed(result: Committed) -> None:
            told(Outcome.DONE if result.succeeded else Outcome.ELSE, result.revision)

        def failed(failure: Failure) -> None:
            self._hindered(f"the store did not take: {transaction.aim.value}", failure)
            certain = failure.check(StoreUnavailable) and not failure.check(OutcomeUnknown)
            told(Outcome.NOT_SENT if certain else Outcome.UNKNOWN, 0)

        asked = self._store.commit(self._operations(transaction), when=comparisons(transaction, self._keys))
        asked.addCallbacks(committed, failed).addErrback(
            lambda failure: self.log.failure("the leadership failed", failure))

    def _hindered(self, what: str, failure: Failure) -> None:
        held = self._seldom.due(what)
        if held is not None:
            self.log.info("{what}: {why}{more}", what=what, why=failure.getErrorMessage(), more=more(held))

    # --- effects

    def _follow(self, effects: list[Effect]) -> None:
        """In order; what one of them brings about comes after those that were decided before."""
        self._to_do.append(effects)
        if len(self._to_do) > 1:
            return
        while self._to_do:
            self._carry_out_all(self._to_do[0])
            del self._to_do[0]
        now = self._now()
        deadline = self._machine.deadline(now)
        self._alarm.cancel()
        if deadline is not None and self._turn is not None:
            self._alarm.at(deadline / NS)

    def _carry_out_all(self, effects: list[Effect]) -> None:
        failed = False
        for effect in effects:
            if failed and not isinstance(effect, Lost):
                continue  # a loss is told whatever the kernel says
            try:
                self._carry_out(effect)
            except Exception as error:  # of any kind: what was decided since waits behind it
                failed = True
                tell = self.log.error if isinstance(error, OSError) else self.log.failure
                tell("the kernel's fence is not set, and what depends on it is left undone: {why}", why=error)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case OpenFence(until):
                for opened in self.openers:
                    opened(until)
            case CloseFence():
                for closed in self.closers:
                    closed()
            case SendBeat(beat):
                for name in self._listeners():
                    self._peers.send(name, OwnerBeat(term=beat.term, incarnation=beat.incarnation, sent=beat.sent,
                                                     counts_ns=beat.counts_ns), droppable=True)
            case SendAck(to, ack):
                self._peers.send(to, OwnerAck(term=ack.term, incarnation=ack.incarnation, sent=ack.sent,
                                              own=self._machine.incarnation, held=not self._may_campaign()),
                                 droppable=True)
            case SendBye():
                for name in self._listeners():
                    self._peers.send(name, Bye())
            case Read():
                self._read()
            case Commit(transaction):
                self._commit(transaction)
            case Gained(term):
                self.log.info(self.gained_text, director=self.director, term=term, **self._about)
                tell_each(self.on_gained, term)
            case Lost(term, why):
                self.log.warn(self.lost_text, director=self.director, term=term, why=why, **self._about)
                tell_each(self.on_lost)
