"""An owner's part: evidence (R3-R5), who may campaign (R10, R11), a deleted record (R12), giving over (R13, R15)."""

from __future__ import annotations

from cluster.takeover.state import PAST, Memory
from cluster.takeover.words import (
    Ack,
    Aim,
    Beat,
    Commit,
    Effect,
    Kind,
    Outcome,
    Read,
    Reign,
    Seen,
    SendBeat,
    Transaction,
)

#: Nobody leaves those who may campaign but by an operator's word while there are no more than these: a sole member that
#: dies is followed by nobody.
LEAST_ELECTORS = 2


class Owner(Memory):
    """See the module; the rules' numbers are those of ``docs/reference/takeover.md``."""

    # --- R3, R4: evidence

    def acknowledged(self, peer: str, ack: Ack, now: int) -> list[Effect]:
        """R3: a promise counts from the *sending* of the beat that it answers."""
        if not self.owner or (ack.term, ack.incarnation) != (self.term, self.incarnation) or ack.sent > now:
            return []
        timing = self.timing
        self._later(self.evidence, peer, self.promise_counts(ack, now))
        self._later(self.late_from, peer, ack.sent + timing.late_ns + timing.beat_ns)
        self._later(self.silent_from, peer, ack.sent + timing.remove_ns)
        return self.refresh(now)

    def promise_counts(self, ack: Ack, now: int) -> int:
        return ack.sent + self.timing.count_ns

    def _later(self, table: dict[str, int], peer: str, until: int) -> None:
        table[peer] = max(table.get(peer, PAST), until)

    def _own_turn(self, now: int) -> list[Effect]:
        """What an owner does every `Timing.beat_ns`."""
        for peer in self.others:  # silence is counted from the first beat that is not answered
            self.silent_from.setdefault(peer, now + self.timing.remove_ns)
        effects: list[Effect] = [SendBeat(Beat(self.term, self.incarnation, now, self.timing.count_ns))]
        effects += self.refresh(now)
        effects += self.etcd_beat(now)
        if self.change is not None and now >= self.change_until:
            self.change = None
            effects.append(Read())
        elif self.mod == 0 and not self.absent:
            effects.append(Read())
        return [*effects, *self.recreate(now), *self.adjust(now)]

    def etcd_beat(self, now: int) -> list[Effect]:
        """R4: a beat in the store, while a promise is missing: it compares the record's revision as it is known now."""
        missing = any(now >= self.late_from.get(each, PAST) for each in self.others)
        if not missing or self.mod == 0 or now < self.etcd_beat_from or now < self.hold_until:
            return []
        self.etcd_beat_from = now + self.timing.etcd_beat_ns
        return [Commit(Transaction(Aim.BEAT, self.mod, None, None, self.term, now + self.timing.etcd_count_ns))]

    def _beaten_in_etcd(self, sent: Transaction, outcome: Outcome, now: int) -> list[Effect]:
        """R4: done it is evidence from its sending on; a lost answer is none."""
        if not self.owner or sent.term != self.term:
            return []
        if outcome is Outcome.DONE:
            self.etcd_evidence = max(self.etcd_evidence, self.etcd_counts(sent, now))
            return self.refresh(now)
        return [Read()] if outcome is Outcome.ELSE else []

    def etcd_counts(self, sent: Transaction, now: int) -> int:
        return sent.until

    # --- R10, R11: who may campaign

    def electors_wanted(self, now: int) -> frozenset[str]:
        """R10: whoever wishes, and promises, comes in. R11: whoever is silent, and gone by its membership, goes out."""
        coming = {each for each in self.wishing if self.evidence.get(each, PAST) > now}
        wanted = self.required | coming
        for each in sorted(self.others - self.alive):
            if len(wanted) > LEAST_ELECTORS and now >= self.silent_from.get(each, PAST):
                wanted -= {each}
        return wanted

    def adjust(self, now: int) -> list[Effect]:
        """Bring those who may campaign up to date. Whoever comes in is asked for evidence from the *sending* on (R10);
        whoever goes out is asked until the answer "done" (R11)."""
        if not self.may_change(now) or self.know is None or self.know.reign is None:
            return []
        wanted = self.electors_wanted(now)
        return [] if wanted == self.know.reign.electors else self._change(wanted, now)

    def remove(self, member: str, now: int) -> list[Effect]:
        """An operator's word: *member* is left out, whatever it says. Nothing where this director may not (R11)."""
        if member == self.me or not self.may_change(now) or member not in self.required:
            return []
        return self._change(self.required - {member}, now)

    def _change(self, electors: frozenset[str], now: int) -> list[Effect]:
        self.asked(electors)
        reign = Reign(self.me, self.incarnation, electors, self.kind(), self.timing.etcd_count_ns, self.term)
        return self._under_way(Transaction(Aim.CHANGE, self.mod, None, reign, self.term, PAST), now)

    def kind(self) -> Kind:
        """Of the present term."""
        return self.know.reign.kind if self.know is not None and self.know.reign is not None else Kind.CAMPAIGN

    def asked(self, electors: frozenset[str]) -> None:
        """R10, R11: as a change is sent."""
        self.required |= electors

    def changed(self, electors: frozenset[str]) -> None:
        """R10, R11: as it is done."""
        self.required = electors

    def _under_way(self, transaction: Transaction, now: int) -> list[Effect]:
        self.change, self.change_until = transaction, now + self.timing.answer_ns
        return [Commit(transaction)]

    # --- R12: the record was deleted

    def recreate(self, now: int) -> list[Effect]:
        """R12: once per absence, and only with everybody's promise."""
        if not self.absent or self.tried or self.change is not None or not self.others or not self.waited(now):
            return []
        if not self.held_back_by_all(now):
            return []
        self.tried = True
        reign = Reign(self.me, self.incarnation, self.required, Kind.RECREATED, self.timing.etcd_count_ns)
        return self._under_way(Transaction(Aim.RECREATE, 0, None, reign, self.term, PAST), now)

    def held_back_by_all(self, now: int) -> bool:
        """R12: at the sending, and at the reading of the answer."""
        return self.promised_by_all(now)

    def recreated(self, revision: int, now: int) -> list[Effect]:
        """R12: the new term begins with a hold of H, if everybody's promise still stands."""
        if not self.held_back_by_all(now):
            return [*self.step_down("the record was deleted, and a promise is missing"), Read()]
        self.term = self.mod = revision
        self.absent = self.tried = False
        self.hold_until = self.held(now)
        self.change = None
        reign = Reign(self.me, self.incarnation, self.required, Kind.RECREATED, self.timing.etcd_count_ns, revision)
        self.know = Seen(reign, revision, 0)
        return self.refresh(now)

    def held(self, now: int) -> int:
        return now + self.timing.wait_ns

    # --- R13: giving over

    def hand_over(self, to: str, incarnation: str, now: int) -> list[Effect]:
        """R13: have *to* own, in the process that calls itself *incarnation*. Nothing where this director may not.

        The fence is closed, and this director has resigned for good in this term, before the store hears of it."""
        if to == self.me or to not in self.required or not self.may_change(now):
            return []
        reign = Reign(to, incarnation, self.required, Kind.HAND_OVER, self.timing.etcd_count_ns)
        sent = Transaction(Aim.HAND_OVER, self.mod, None, reign, self.term, PAST)
        return [*self.resign(now), Commit(sent)]

    def resign(self, now: int) -> list[Effect]:
        """If the hand-over fails, it campaigns for a new term once nobody has been heard for S."""
        self.suspect_from = now + self.timing.silence_ns
        return self.step_down("it was given over")

    # --- what the store says

    def _own_answer(self, sent: Transaction, outcome: Outcome, revision: int, now: int) -> list[Effect]:
        """Of a change."""
        if not self.owner or sent != self.change:
            return []
        self.change = None
        if outcome is not Outcome.DONE:
            return [Read()]
        assert sent.reign is not None
        self.mod = revision
        self.know = Seen(sent.reign, revision, 0)
        self.changed(sent.reign.electors)
        return self.refresh(now)

    def _recreate_answer(self, sent: Transaction, outcome: Outcome, revision: int, now: int) -> list[Effect]:
        """However late; an outcome that is known ends the attempt, whoever owns by now."""
        if sent == self.change:
            self.change = None
        if outcome is Outcome.UNKNOWN:
            return [Read()]
        if outcome is Outcome.DONE and self.owner and sent.term == self.term:
            return self.recreated(revision, now)
        self.tried = False
        return [Read()]

    def _own_sight(self, seen: Seen, now: int) -> list[Effect]:
        """An owner reads the record. None where it is still its own, or gone; what makes it step down is the caller's."""
        self.know = seen._replace(beat=0)  # an owner compares no beat
        if seen.reign is None:
            self.absent, self.mod = True, 0
            return []
        self.absent = False
        self.mod = seen.mod
        self.required |= seen.reign.electors
        return []

    def _is_recreation(self, seen: Seen) -> bool:
        """The answer to a re-creation, learnt by reading."""
        reign = seen.reign
        return (reign is not None and reign.kind is Kind.RECREATED and self.tried and reign.term > self.term
                and (reign.owner, reign.incarnation) == (self.me, self.incarnation))
