"""Who owns the virtual addresses, by promises: one director's part, as a machine without I/O and without a clock of its own.

Everybody who may campaign (the *electors*) promises an owner, beat by beat over the peer link, not to answer for the
addresses for P. The owner's kernel lets traffic pass until an absolute deadline, the oldest promise's end as the owner
counts it from the *sending* of its beat: Q, which is shorter. Where a promise is missing a beat in the store stands for it,
which every campaign compares. So the former owner's fence is closed before the next one's opens, whatever is lost, late,
frozen or killed, and nothing is written while all is well.

The rules, R1 to R15, and why they suffice: ``docs/reference/takeover.md``. Each is named where it is kept. The machine below
is the one that ``tests/explore`` explores, every rule in it taken out in turn.

Inputs are the public methods; each returns what is to be done, in order. Nothing that comes late, twice or out of order is
wrong. Where an effect cannot be carried out, those after it must not be.
"""

from __future__ import annotations

from cluster.takeover.standby import Standby
from cluster.takeover.state import PAST
from cluster.takeover.words import Ack, Aim, Beat, CloseFence, Effect, Outcome, Read, Seen, SendBye, Transaction


class Takeover(Standby):
    """One director's machine; all state is `cluster.takeover.state.Memory`'s."""

    def start(self, now: int) -> list[Effect]:
        """R2: what a former process promised may still count, and its fence may be open."""
        self.promised_until = self.forgotten(now)
        self.observed_until = self.first_sight(now)
        self.suspect_from = now + self.timing.silence_ns
        return [*self.at_start(), Read()]

    def forgotten(self, now: int) -> int:
        return now + self.timing.promise_ns

    def at_start(self) -> list[Effect]:
        return [CloseFence()]

    def turn(self, now: int) -> list[Effect]:
        """Every `Timing.beat_ns`."""
        return self._own_turn(now) if self.owner else self._standby_turn(now)

    def look(self, now: int) -> list[Effect]:
        """At `deadline`: the waits may be over, or the evidence."""
        return self.refresh(now) if self.owner else []

    def deadline(self, now: int) -> int | None:
        """When to `look`, besides the turns; None: at no time that is known."""
        if not self.owner:
            return None
        waits = max(self.promised_until, self.observed_until)
        until = waits if waits > now else self.limit(now)
        return until if until > now else None

    # --- over the peer link

    def beat(self, peer: str, beat: Beat, now: int) -> list[Effect]:
        return self.beaten(peer, beat, now)

    def ack(self, peer: str, ack: Ack, now: int) -> list[Effect]:
        return self.acknowledged(peer, ack, now)

    def link_lost(self, peer: str, now: int) -> list[Effect]:
        """R4: its promises are missing from now on. R7: to who does not own it says nothing."""
        if not self.owner or peer not in self.required:
            return []
        self.late_from[peer] = PAST
        return self.etcd_beat(now)

    def left(self, peer: str, now: int) -> list[Effect]:
        """R7, R14: its machine refuses connections, or it said good-bye, its fence closed."""
        if self.owner:
            return []
        self.gone |= {peer}
        return self._standby_turn(now)

    # --- of the store

    def seen(self, seen: Seen, now: int) -> list[Effect]:
        """Read, or watched: *seen* was asked for after `start`, and is no older than what was told before."""
        if not self.owner:
            return self._standby_sight(seen, now)
        if seen.reign is None or seen.reign.term == self.term:
            return self._own_sight(seen, now)
        if seen.reign.term < self.term:
            return []
        if self._is_recreation(seen):
            return self.recreated(seen.mod, now)
        effects = self.step_down("another owns by now")  # R15
        return [*effects, *self._standby_sight(seen, now)]

    def answered(self, sent: Transaction, outcome: Outcome, revision: int, now: int) -> list[Effect]:
        """*revision*: of what was done."""
        if sent.aim is Aim.BEAT:
            return self._beaten_in_etcd(sent, outcome, now)
        if sent.aim is Aim.CAMPAIGN:
            return self._campaign_answer(sent, outcome, revision, now)
        if sent.aim is Aim.RECREATE:
            return self._recreate_answer(sent, outcome, revision, now)
        if sent.aim is Aim.HAND_OVER:
            return [] if self.owner else [Read()]
        return self._own_answer(sent, outcome, revision, now)

    def directory(self, alive: frozenset[str], wishing: frozenset[str]) -> None:
        """Who is a member, and who of them wishes to be among those who may campaign; hints (R10, R11)."""
        self.alive, self.wishing = alive, wishing

    # --- orders

    def stop(self) -> list[Effect]:
        """R14: an owner hands over before, if anybody is there to take it."""
        self.stopping = True
        return [*(self.step_down("it stops") if self.owner else self.shut()), SendBye()]
