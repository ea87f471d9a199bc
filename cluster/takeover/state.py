"""What a director remembers of a takeover, in memory only, and what follows from that alone.

Every instant kept here is a deadline, and all that is ever asked of one is whether it is past. So a machine does the same
whatever its clock reads, and what is past is as good as `PAST`: the explorer (``tests/explore``) counts on both.
"""

from __future__ import annotations

from cluster.takeover.timing import Timing
from cluster.takeover.words import CloseFence, Effect, Gained, Lost, OpenFence, Reign, Seen, Transaction

#: Before every instant that a clock reads.
PAST = 0


class Memory:
    """:param me: this director's name.
    :param incarnation: of its process; random, a new one at each start.
    """

    def __init__(self, me: str, incarnation: str, timing: Timing) -> None:
        self.me = me
        self.incarnation = incarnation
        self.timing = timing
        self.stopping = False
        self.term = 0  #: kt: the highest known; 0: nothing was read from the store since the start
        self.know: Seen | None = None  #: seen last; None: nothing, or something else was done since
        self.observed_until = PAST  #: `know` was first seen H before
        self.promised_until = PAST  #: the last promise to anybody was made P before
        self.suspect_from = PAST  #: the owner was last heard S before
        self.gone: frozenset[str] = frozenset()  #: whose machines refuse a connection
        self.campaign: Transaction | None = None  #: whose outcome is not known
        self.campaign_until = PAST  #: it is waited for until then
        # an owner's
        self.owner = False
        self.answering = False
        self.mod = 0  #: the record's revision; 0: not known, or there is no record
        self.required: frozenset[str] = frozenset()  #: Ereq: whose evidence is asked for
        self.evidence: dict[str, int] = {}  #: ev, by director
        self.etcd_evidence = PAST  #: evE
        self.late_from: dict[str, int] = {}  #: a director's acknowledgement is missing from then on
        self.silent_from: dict[str, int] = {}  #: and it may be left out from then on
        self.etcd_beat_from = PAST  #: the next beat in the store
        self.open_until = PAST  #: what the fence was told
        self.hold_until = PAST  #: after a record was re-created: no evidence from the store, no other member
        self.change: Transaction | None = None  #: of the record, whose outcome is not known
        self.change_until = PAST
        self.absent = False  #: there is no record
        self.tried = False  #: a re-creation was sent whose outcome is not known
        self.alive: frozenset[str] = frozenset()  #: directors whose membership stands: a hint
        self.wishing: frozenset[str] = frozenset()  #: those of them that wish to be among those who may campaign

    @property
    def others(self) -> frozenset[str]:
        """Whose evidence an owner needs."""
        return self.required - {self.me}

    def limit(self, now: int) -> int:
        """R5: until when the fence may be open, by all evidence. A sole member needs none."""
        ends = (max(self.evidence.get(each, PAST), self.etcd_evidence) for each in self.others)
        return min(ends, default=now + self.timing.count_ns)

    def promised_by_all(self, now: int) -> bool:
        """Whether promises alone, without the store, hold everybody back."""
        return all(self.evidence.get(each, PAST) > now for each in self.others)

    def waited(self, now: int) -> bool:
        """R5: the own promises and the wait after the first sight are over."""
        return now >= self.promised_until and now >= self.observed_until

    def answers(self, now: int) -> bool:
        """Whether this director answers for the addresses, whenever it was last asked."""
        return self.owner and self.waited(now) and self.limit(now) > now

    def may_change(self, now: int) -> bool:
        """R10, R11, R13: an owner that answers, knows its record's revision, has no change under way and no hold."""
        return self.answers(now) and self.mod > 0 and self.change is None and now >= self.hold_until

    def refresh(self, now: int) -> list[Effect]:
        """R5: open the fence for as long as evidence lasts, or say that it does not."""
        if self.answers(now):
            limit = self.limit(now)
            effects: list[Effect] = []
            if limit > self.open_until:
                self.open_until = limit
                effects.append(OpenFence(limit))
            if not self.answering:
                self.answering = True
                effects.append(Gained(self.term))
            return effects
        if self.answering:
            self.answering = False
            return [*self.shut(), Lost(self.term, "neither the other directors nor the store confirm it any more")]
        return []

    def shut(self) -> list[Effect]:
        self.open_until = PAST
        return [CloseFence()]

    def step_down(self, why: str) -> list[Effect]:
        """Own no more, in this term for good: only a record of a higher one makes an owner. The fence is closed first."""
        effects = self.shut()
        if self.answering:
            effects.append(Lost(self.term, why))
        self.owner = self.answering = self.absent = False
        self.mod = 0
        self.required = frozenset()
        self.evidence, self.late_from, self.silent_from = {}, {}, {}
        self.etcd_evidence = self.etcd_beat_from = self.hold_until = PAST
        self.know, self.change, self.campaign = None, None, None
        return effects

    def own(self, reign: Reign, term: int, mod: int, etcd_evidence: int) -> None:
        """R9: begin *term*, with everybody who may campaign in it to be asked."""
        self.owner, self.term, self.mod = True, term, mod
        self.required = reign.electors
        self.evidence, self.late_from, self.silent_from = {}, {}, {}
        self.etcd_evidence, self.etcd_beat_from, self.hold_until = etcd_evidence, PAST, PAST
        self.gone = frozenset()
        self.know, self.campaign, self.change = None, None, None
        self.absent = False
