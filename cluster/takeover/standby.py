"""The part of everybody but the owner: promises (R1, R2), suspicion (R7), campaigns (R8), winning (R9)."""

from __future__ import annotations

from cluster.takeover.owner import Owner
from cluster.takeover.state import PAST
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
    SendAck,
    SendBeat,
    Transaction,
)


class Standby(Owner):
    """See the module."""

    # --- R1: promises

    def beaten(self, peer: str, beat: Beat, now: int) -> list[Effect]:
        """R1: *now* was read after the beat was received. The fence is closed in the kernel before the promise goes out."""
        if not self.may_promise(beat) or not self.timing.covers(beat.counts_ns):
            return []
        behind = self.know is None or self.know.reign is None or self.know.reign.term != beat.term
        effects = self.step_down("another owns by now") if self.owner else self.before_promise()
        self.term = max(self.term, beat.term)
        self.promised_until = now + self.timing.promise_ns
        self.suspect_from = now + self.timing.silence_ns
        self.gone -= {peer}
        effects.append(SendAck(peer, Ack(beat.term, beat.incarnation, beat.sent)))
        return [*effects, Read()] if behind else effects

    def may_promise(self, beat: Beat) -> bool:
        """Not to a lower term, not before anything was read from the store, and not in a term of its own."""
        return self.has_read() and beat.term >= self.term and not (self.owner and beat.term == self.term)

    def has_read(self) -> bool:
        """R2."""
        return self.term > 0

    def before_promise(self) -> list[Effect]:
        return self.shut()

    # --- R7, R8: campaigns

    def suspects(self, seen: Seen, now: int) -> bool:
        """R7: the owner has been unheard for S, or its machine refuses connections; or it is a former process of this
        director. That it is wrong costs a move, never two owners."""
        reign = seen.reign
        assert reign is not None
        former = reign.owner == self.me and reign.incarnation != self.incarnation
        return now >= self.suspect_from or former or reign.owner in self.gone

    def _standby_turn(self, now: int) -> list[Effect]:
        """What anybody but the owner does every `Timing.beat_ns`."""
        if self.campaign is not None and now >= self.campaign_until:
            self.campaign = None
            return [Read()]
        if self.know is None or self.know.beat == 0:
            return [Read()]
        if self.campaign is not None or self.stopping or not self.may_campaign(self.know):
            return []
        return self._campaign(self.know, now) if self.suspects(self.know, now) else []

    def may_campaign(self, seen: Seen) -> bool:
        """R8: among those who may. An absent record, or beat, is no licence; nor is one whose owner counts on more than
        this director waits."""
        reign = seen.reign
        return (reign is not None and self.me in reign.electors and reign.term >= self.term
                and self.timing.covers(reign.counts_ns))

    def _campaign(self, seen: Seen, now: int) -> list[Effect]:
        assert seen.reign is not None
        reign = Reign(self.me, self.incarnation, seen.reign.electors, Kind.CAMPAIGN, self.timing.etcd_count_ns)
        self.campaign = Transaction(Aim.CAMPAIGN, seen.mod, self.compared(seen), reign, self.term,
                                    now + self.timing.etcd_count_ns)
        self.campaign_until = now + self.timing.answer_ns
        return [Commit(self.campaign)]

    def compared(self, seen: Seen) -> int | None:
        """R8: the beat that was seen is compared as well."""
        return seen.beat

    def _campaign_answer(self, sent: Transaction, outcome: Outcome, revision: int, now: int) -> list[Effect]:
        """R8: a win counts however late it is told, unless a higher term is known by then."""
        if sent == self.campaign:
            self.campaign = None
        if outcome is Outcome.DONE:
            assert sent.reign is not None
            if self.owner or revision <= self.term:
                return []
            return self._win(sent.reign, revision, revision, self.etcd_counts(sent, now), now)
        return [] if outcome is Outcome.NOT_SENT else [Read()]

    # --- R9: winning

    def _win(self, reign: Reign, term: int, mod: int, etcd_evidence: int, now: int) -> list[Effect]:
        """R9: beats to all, and one to the store at once, since the old owner is silent; it answers after its waits."""
        self.own(reign, term, mod, etcd_evidence)
        self.know = Seen(reign._replace(term=term), mod, 0)
        beat = SendBeat(Beat(term, self.incarnation, now, self.timing.count_ns))
        return [beat, *self.etcd_beat(now), *self.refresh(now)]

    # --- what the store says

    def _standby_sight(self, seen: Seen, now: int) -> list[Effect]:
        """What was read, or watched, by anybody but the owner."""
        if self._is_recreation(seen):
            self.tried = False  # by a former term of this director's, which is over
        reign = seen.reign
        if reign is None:  # R12: nobody campaigns
            self.know = None
            return []
        if reign.term < self.term:
            return []  # older than what a beat told
        won = reign.term > self.term and (reign.owner, reign.incarnation) == (self.me, self.incarnation)
        if won and reign.kind is Kind.CAMPAIGN:
            # R8: the sight of what the campaign compared counts on. When it was sent is not known, for several may have
            # been, so it is no evidence: the beat in the store that follows is.
            return self._win(reign, reign.term, seen.mod, PAST, now)
        if won and reign.kind is Kind.HAND_OVER:
            # R13: the former owner has closed its fence, so neither promises nor the first sight need be waited for.
            self.promised_until = self.observed_until = PAST
            return self._win(reign, reign.term, seen.mod, PAST, now)
        if self.know != seen:
            self.observed_until = self.first_sight(now)
            self.suspect_from = max(self.suspect_from, now + self.timing.silence_ns)
        if reign.term > self.term:
            self.gone = frozenset()
        self.know, self.term = seen, reign.term
        return []

    def first_sight(self, now: int) -> int:
        return now + self.timing.wait_ns
