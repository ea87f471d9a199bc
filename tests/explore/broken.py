"""The machine with one rule taken out, each with the bounds within which two owners are found."""

from __future__ import annotations

from typing import NamedTuple

from cluster.takeover.machine import Takeover
from cluster.takeover.state import PAST
from cluster.takeover.words import Ack, Aim, Beat, Commit, Effect, Kind, Outcome, Reign, Seen, Transaction
from tests.explore.ticks import Ticks
from tests.explore.world import Bounds, Step, World

#: Without drift, the least constants do, and schedules are short.
SHORT = Ticks(promise_ns=2, count_ns=2, wait_ns=2, etcd_count_ns=2)
WITH_DRIFT = Ticks()


class FenceLeftOpen(Takeover):
    """R1, R2: neither a start nor a promise closes the fence."""

    def shut(self) -> list[Effect]:
        self.open_until = PAST
        return []

    def at_start(self) -> list[Effect]:
        return []


class PromisesUnread(Takeover):
    """R2: it promises before it has read the store."""

    def has_read(self) -> bool:
        return True


class ForgetsPromises(Takeover):
    """R2: a new process does as if none before it had promised."""

    def forgotten(self, now: int) -> int:
        return PAST


class CountsFromAck(Takeover):
    """R3: a promise counts from when it is heard."""

    def promise_counts(self, ack: Ack, now: int) -> int:
        return now + self.timing.count_ns


class CountsFromAnswer(Takeover):
    """R4: a beat in the store counts from its answer."""

    def etcd_counts(self, sent: Transaction, now: int) -> int:
        return now + self.timing.etcd_count_ns


class CountsInAnyTerm(Takeover):
    """R4: a beat in the store counts in whatever term its answer finds the owner."""

    def _beaten_in_etcd(self, sent: Transaction, outcome: Outcome, now: int) -> list[Effect]:
        return super()._beaten_in_etcd(sent._replace(term=self.term), outcome, now)


class WaitsForNothing(Takeover):
    """R5, R7: a lost link is taken for the owner's death."""

    def waited(self, now: int) -> bool:
        return True


class WaitsForPromisesOnly(Takeover):
    """R9: no wait after the first sight."""

    def waited(self, now: int) -> bool:
        return now >= self.promised_until


class ComparesNoBeat(Takeover):
    """R8: a campaign compares the record only."""

    def compared(self, seen: Seen) -> int | None:
        return None


class AnyoneCampaigns(Takeover):
    """R7: whoever is not among the electors campaigns, and is one by winning."""

    def may_campaign(self, seen: Seen) -> bool:
        return seen.reign is not None

    def _campaign(self, seen: Seen, now: int) -> list[Effect]:
        assert seen.reign is not None
        reign = seen.reign._replace(electors=seen.reign.electors | {self.me})
        return super()._campaign(seen._replace(reign=reign), now)


class AddsAtTheAnswer(Takeover):
    """R10: a new elector's evidence is asked for once the answer is there."""

    def asked(self, electors: frozenset[str]) -> None:
        pass


class RemovesAtSending(Takeover):
    """R11: who is removed is not asked any more from the sending on."""

    def asked(self, electors: frozenset[str]) -> None:
        self.required = electors


class AbsentIsFree(Takeover):
    """R12: an absent record may be taken."""

    def _standby_sight(self, seen: Seen, now: int) -> list[Effect]:
        if seen.reign is not None or not self.term or self.campaign is not None:
            return super()._standby_sight(seen, now)
        reign = Reign(self.me, self.incarnation, frozenset("abc"), Kind.CAMPAIGN, 0)
        self.observed_until = self.first_sight(now)
        self.campaign = Transaction(Aim.CAMPAIGN, 0, None, reign, self.term, now + self.timing.etcd_count_ns)
        return [Commit(self.campaign)]


class NoHold(Takeover):
    """R12: after a re-creation it goes on at once."""

    def held(self, now: int) -> int:
        return PAST


class RecreatesAlone(Takeover):
    """R12: it re-creates the record without everybody's promise."""

    def held_back_by_all(self, now: int) -> bool:
        return True


class RecreatesTwice(Takeover):
    """R12: it tries again while the first attempt's outcome is unknown."""

    def recreate(self, now: int) -> list[Effect]:
        if self.absent:
            self.tried, self.change = False, None
        return super().recreate(now)


class HandsOverOpen(Takeover):
    """R13: the fence is not closed before."""

    def resign(self, now: int) -> list[Effect]:
        fence = self.open_until
        self.step_down("it was given over")
        self.open_until = fence
        return []


class Resumes(Takeover):
    """R13: it goes on owning while its hand-over is on the way."""

    def resign(self, now: int) -> list[Effect]:
        return []


class PromisesLower(Takeover):
    """R1: it promises to a term lower than one that it knows."""

    def may_promise(self, beat: Beat) -> bool:
        return self.has_read() and not (self.owner and beat.term <= self.term)


class OwnsOn(Takeover):
    """R15: an owner takes another's record for its own."""

    def seen(self, seen: Seen, now: int) -> list[Effect]:
        return self._own_sight(seen, now) if self.owner else super().seen(seen, now)


class Case(NamedTuple):
    """A rule, and what is to be looked through for two owners without it. *along*: how the counterexample begins."""

    rule: str
    lacks: str
    rules: type[Takeover] = Takeover
    members: int = 2
    bounds: Bounds = Bounds()
    ticks: Ticks = WITH_DRIFT
    electors: int | None = None
    lapses: frozenset[str] = frozenset()
    along: tuple[Step, ...] = ()

    def world(self, *, sound: bool = False) -> World:
        """Without the rule; *sound*: with it."""
        return World(self.members, self.bounds, rules=Takeover if sound else self.rules, electors=self.electors,
                     ticks=self.ticks, lapses=frozenset() if sound else self.lapses)


TICK = ("a tick",)
GONE = ("the record is deleted",)


def won(who: int) -> tuple[Step, ...]:
    return (("turns", who, "campaign", "commits"), told(who, "campaign"))


def told(who: int, what: str) -> Step:
    return ("hears that it is done", who, what)


def promised(owner: int, by: int) -> Step:
    return ("beats and is promised", owner, by)


def recreated(who: int) -> tuple[Step, ...]:
    return (("turns", who, "sends", "re-create"), ("re-create", "commits", who), told(who, "re-create"))


_B = Bounds(drift=False)
_TWO = Bounds(terms=3, crashes=1)
#: b wins; a, the former owner, does not know it, and writes the deleted record anew by promises that were made to it before.
_BEHIND = (promised(0, 1), TICK, promised(0, 2), *won(1), GONE, ("reads", 0), *recreated(0), TICK)
#: b wins and adds c, which wins in turn: a, whom nobody told, asks b only.
_ADDED = (*won(1), promised(1, 2), ("adds", 1, "c", "change", "commits"))
CASES = (
    Case("R1", "fence left open", FenceLeftOpen, 3, _B._replace(deletions=1), SHORT, along=_BEHIND),
    Case("R1", "lower terms", PromisesLower, 3, _B._replace(changes=1), SHORT, electors=2,
         along=(*_ADDED, ("reads", 2), TICK, TICK, *won(2), promised(2, 1))),
    Case("R2", "promise before reading", PromisesUnread, 3, _B._replace(crashes=1, changes=1), SHORT, electors=2,
         along=(*_ADDED, ("is killed, and starts", 1), ("reads", 2), TICK, TICK, *won(2))),
    Case("R2", "forgotten promise", ForgetsPromises, bounds=_TWO, ticks=Ticks(promise_ns=4, count_ns=3)),
    Case("R3", "counted from the hearing", CountsFromAck, bounds=_TWO._replace(wires=True)),
    Case("R4", "counted from the answer", CountsFromAnswer, bounds=_TWO._replace(requests=True),
         along=(("turns", 0, "sends", "beat"), ("beat", "commits", 0), ("reads", 1), TICK, TICK)),
    Case("R4", "compares who owns", CountsInAnyTerm, bounds=_TWO._replace(requests=True, deletions=1), lapses=frozenset({"owner only"}),
         along=(promised(0, 1), TICK, ("turns", 0, "sends", "beat"), ("turns", 1, "sends", "campaign"),
                ("campaign", "commits", 1), told(1, "campaign"), GONE, ("reads", 0), *recreated(0), TICK)),
    Case("R5", "relative refresh", bounds=_TWO._replace(late_fence=True), lapses=frozenset({"relative"})),
    Case("R5", "no wait", WaitsForNothing, bounds=_TWO),
    Case("R6", "overtaking refresh", bounds=_TWO._replace(late_fence=True, hand_overs=True), lapses=frozenset({"overtaking"})),
    Case("R7", "a lost link is a death", WaitsForNothing, bounds=_TWO._replace(crashes=0)),
    Case("R8", "beat not compared", ComparesNoBeat, bounds=_TWO),
    Case("R8", "anyone campaigns", AnyoneCampaigns, 3, _B, SHORT, electors=2),
    Case("R9", "no wait after first sight", WaitsForPromisesOnly, bounds=_TWO),
    Case("R10", "added at the answer", AddsAtTheAnswer, 3, _B._replace(changes=1), SHORT, electors=2,
         along=(("turns", 0, "beats in etcd"), promised(0, 2), ("adds", 0, "c", "change", "commits"), ("reads", 2), TICK)),
    Case("R11", "removed at sending", RemovesAtSending, 3, _B._replace(changes=1), SHORT),
    Case("R12", "absent is free", AbsentIsFree, 3, _B._replace(deletions=1), SHORT, electors=2),
    Case("R12", "no hold", NoHold, 3, _B._replace(deletions=1), SHORT, along=_BEHIND),
    Case("R12", "re-created alone", RecreatesAlone, 3, _B._replace(deletions=1, changes=1, terms=4), SHORT,
         along=(*won(1), ("removes", 1, 0, "change", "commits"), told(1, "change"), GONE, ("reads", 0), *recreated(0), TICK,
                TICK)),
    Case("R12", "re-created twice", RecreatesTwice, 3, _B._replace(deletions=2, changes=2, terms=4), SHORT,
         along=(promised(0, 1), promised(0, 2), ("removes", 0, 2, "change", "commits"), told(0, "change"), GONE,
                ("reads", 0), recreated(0)[0], *recreated(0), TICK, TICK, promised(0, 1),
                ("removes", 0, 1, "change", "commits"), told(0, "change"), GONE, ("re-create", "commits", 0),
                ("reads", 1), TICK, TICK)),
    Case("R13", "handed over open", HandsOverOpen, 3, _B._replace(hand_overs=True), SHORT),
    Case("R13", "resumed", Resumes, 3, _B._replace(hand_overs=True, requests=True), SHORT),
    Case("R15", "owns on", OwnsOn, bounds=_TWO),
    Case("I3", "who is added outruns its promise", Takeover, 3, _B._replace(changes=1),
         Ticks(promise_ns=3, count_ns=3, wait_ns=2, etcd_count_ns=2), electors=2,
         along=(promised(0, 2), TICK, promised(0, 1), ("adds", 0, "c", "change", "commits"), ("reads", 2), TICK)),
    Case("I1", "no margin for clocks", bounds=_TWO, ticks=Ticks(count_ns=3)),
    Case("I2", "no margin for clocks", bounds=_TWO, ticks=Ticks(etcd_count_ns=3)),
)
