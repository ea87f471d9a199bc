"""Who leads: one director's part in it, as a machine without I/O and without a clock of its own.

The leader's record lies at one key, under a lease of the director that wrote it. Its ``create_revision`` is the *term*:
it grows with every leader, and a transaction that compares it (`Leadership.fence`) fails once somebody else leads.

Rules:

1. Nobody campaigns before it knows that the key is absent, and nobody writes the key but by create-if-absent.
2. A director leads only while its lease is certainly promised: until the deadline that counts from the *sending* of the
   last renewal that was answered. The store lets the lease go no earlier, so that two never lead at once.
3. A lease that was given up never leads again. So a campaign whose outcome is unknown costs nothing: its record, if it
   is ever written, dies with the lease.
4. What the watch tells of revisions before the term is old news.
5. After an order to resign, and while a promise to others stands, the director does not campaign.

`TABLE` holds every transition; `Leadership` turns calls into its inputs. Late answers (a lease that is no longer wanted, the
outcome of a campaign that was given up) are legal in every state; a call that is not raises `Misuse` and changes
nothing. Times are seconds of a clock that does not stand still while the machine sleeps (CLOCK_BOOTTIME).
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple, TypeAlias

from cluster.errors import Misuse
from cluster.store import Compare, Put, Record

#: After a campaign in vain: a store that answered is asked again soon, one that is overloaded not too often.
RETRY_S = 0.25


class State(enum.Enum):
    OFF = "off"  #: takes no part
    WAITING = "waiting"  #: another leads, or nobody may be told yet
    LEASING = "leasing"  #: the key is absent; a lease is asked for
    CAMPAIGNING = "campaigning"  #: the record is being written
    LEADING = "leading"
    RESIGNING = "resigning"  #: leads no more, and is telling so
    STOPPING = "stopping"  #: the same, for good


class Input(enum.Enum):
    START = "started"
    ADOPTED = "started in the place of a process that leads"
    VACANT = "the key is absent, nothing holds the director back"
    TAKEN = "another's record, or none where its own should be"
    GRANTED = "a lease, and the key is still absent"
    UNGRANTED = "no lease"
    WON = "its record is written, its lease not lapsed"
    BEATEN = "the key was not absent"
    UNANSWERED = "the store did not answer"
    LAPSED = "the lease's deadline passed, or it was lost"
    RESIGN = "ordered to resign"
    RESIGNED = "the record is deleted, or the store did not answer"
    STOP = "stopped"


class AskLease(NamedTuple):
    """Ask for a lease; answer with `Leadership.granted` or `Leadership.ungranted`."""


class Campaign(NamedTuple):
    """Commit *put* if *when* holds; answer with `Leadership.committed` or `Leadership.unanswered`."""

    put: Put
    when: Compare


class Gained(NamedTuple):
    """This director leads from now on."""

    term: int


class Lost(NamedTuple):
    """It leads no more. Comes before whatever else is to be done about it."""

    term: int
    why: str
    lapsed: bool = False  #: by the clock; not by an order, nor by what the store said of the record


class Resign(NamedTuple):
    """Delete the record of *term*, revoke *lease*; answer with `Leadership.resigned`."""

    term: int
    lease: int


class GiveUp(NamedTuple):
    """Revoke *lease*; no answer."""

    lease: int


Effect: TypeAlias = AskLease | Campaign | Gained | Lost | Resign | GiveUp

_S, _I = State, Input

#: Every transition, with the effects it has, in order.
TABLE: dict[tuple[State, Input], tuple[State, tuple[type[Effect], ...]]] = {
    (_S.OFF, _I.START): (_S.WAITING, ()),
    (_S.OFF, _I.ADOPTED): (_S.LEADING, ()),
    (_S.WAITING, _I.VACANT): (_S.LEASING, (AskLease,)),
    (_S.WAITING, _I.RESIGN): (_S.WAITING, ()),
    (_S.WAITING, _I.STOP): (_S.OFF, ()),
    (_S.LEASING, _I.GRANTED): (_S.CAMPAIGNING, (Campaign,)),
    (_S.LEASING, _I.TAKEN): (_S.WAITING, ()),
    (_S.LEASING, _I.UNGRANTED): (_S.WAITING, ()),
    (_S.LEASING, _I.RESIGN): (_S.WAITING, ()),
    (_S.LEASING, _I.STOP): (_S.OFF, ()),
    (_S.CAMPAIGNING, _I.WON): (_S.LEADING, (Gained,)),
    (_S.CAMPAIGNING, _I.BEATEN): (_S.WAITING, (GiveUp,)),
    (_S.CAMPAIGNING, _I.TAKEN): (_S.WAITING, (GiveUp,)),
    (_S.CAMPAIGNING, _I.UNANSWERED): (_S.WAITING, (GiveUp,)),
    (_S.CAMPAIGNING, _I.LAPSED): (_S.WAITING, (GiveUp,)),
    (_S.CAMPAIGNING, _I.RESIGN): (_S.WAITING, (GiveUp,)),
    (_S.CAMPAIGNING, _I.STOP): (_S.OFF, (GiveUp,)),
    (_S.LEADING, _I.TAKEN): (_S.WAITING, (Lost, GiveUp)),
    (_S.LEADING, _I.LAPSED): (_S.WAITING, (Lost, GiveUp)),
    (_S.LEADING, _I.RESIGN): (_S.RESIGNING, (Lost, Resign)),
    (_S.LEADING, _I.STOP): (_S.STOPPING, (Lost, Resign)),
    (_S.RESIGNING, _I.RESIGN): (_S.RESIGNING, ()),
    (_S.RESIGNING, _I.RESIGNED): (_S.WAITING, ()),
    (_S.RESIGNING, _I.STOP): (_S.STOPPING, ()),
    (_S.STOPPING, _I.RESIGNED): (_S.OFF, ()),
}

#: Calls that are wrong where `TABLE` has no row for them; anything else is late news there, and ignored.
_ORDERS = frozenset((Input.START, Input.ADOPTED, Input.RESIGN, Input.RESIGNED, Input.STOP))


class Leadership:
    """One director's machine. Every call returns the effects to carry out, in order.

    :param key: of the leader's record.
    :param value: what the record says while this director leads.
    """

    def __init__(self, key: str, value: bytes) -> None:
        self.state = State.OFF
        self.term = 0  #: of the last leadership of this director's own; 0: it never led
        self._key = key
        self._value = value
        self._vacant = False  #: as far as is known
        self._lease: int | None = None
        self._until = -math.inf  #: what the lease certainly promises
        self._not_before = -math.inf  #: no campaign

    # --- what is known ---

    def leads(self, now: float) -> bool:
        """Whether this director certainly leads at *now*, whenever `tick` was called last."""
        return self.state is State.LEADING and now < self._until

    def until(self, now: float) -> float:
        """Until when it certainly leads as things stand; *now* or earlier when it does not."""
        return self._until if self.leads(now) else -math.inf

    def fence(self) -> Compare:
        """What every transaction of the leader compares. Raises `Misuse` when this director does not lead."""
        if self.state is not State.LEADING:
            raise Misuse("only the leader writes that")
        return Compare(self._key, self.term, created=True)

    def deadline(self) -> float:
        """When to call `tick` next; infinite when only other calls bring news."""
        if self.state in (State.CAMPAIGNING, State.LEADING):
            return self._until
        if self.state is State.WAITING and self._vacant:
            return self._not_before
        return math.inf

    # --- inputs ---

    def start(self, now: float) -> list[Effect]:
        """Take part."""
        return self._feed(Input.START) + self._campaign_or(None, now)

    def adopt(self, lease: int, until: float, term: int) -> list[Effect]:
        """Take part in the place of another process of this director, which leads by that lease in that term."""
        effects = self._feed(Input.ADOPTED)
        self._lease, self._until, self.term = lease, until, term
        return effects

    def seen(self, record: Record | None, revision: int, now: float) -> list[Effect]:
        """The key as it was at *revision*: what a watch delivers."""
        if self.state is State.LEADING and revision < self.term:
            return []
        self._vacant = record is None
        if record is not None and record.lease == self._lease and self._lease is not None:
            return self._won(record.create_revision, now)
        if self.state is State.LEADING:
            return self._feed(Input.TAKEN, "the record was deleted" if record is None else "another leads")
        return self._campaign_or(None if record is None else Input.TAKEN, now)

    def granted(self, lease: int, until: float) -> list[Effect]:
        """A lease, certainly promised until *until*."""
        if self.state is not State.LEASING:
            return [GiveUp(lease)]
        self._lease, self._until = lease, until
        return self._feed(Input.GRANTED)

    def ungranted(self, now: float) -> list[Effect]:
        """The lease asked for was not granted, or nobody knows."""
        self._hold_back(now + RETRY_S)
        return self._feed(Input.UNGRANTED)

    def committed(self, lease: int, succeeded: bool, revision: int, now: float) -> list[Effect]:
        """The outcome of *lease*'s campaign."""
        if lease != self._lease or self.state is not State.CAMPAIGNING:
            return []
        if succeeded:
            return self._won(revision, now)
        self._hold_back(now + RETRY_S)
        return self._feed(Input.BEATEN)

    def unanswered(self, lease: int, now: float) -> list[Effect]:
        """The outcome of *lease*'s campaign is not known."""
        if lease != self._lease:
            return []
        self._hold_back(now + RETRY_S)
        return self._feed(Input.UNANSWERED)

    def extended(self, lease: int, until: float) -> None:
        """*lease* is promised until then."""
        if lease == self._lease:
            self._until = max(self._until, until)

    def lease_lost(self, lease: int, now: float) -> list[Effect]:
        """The store has no such lease any more."""
        return self._lapsed(now, "its lease is gone") if lease == self._lease else []

    def tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        if self.state in (State.CAMPAIGNING, State.LEADING) and now >= self._until:
            return self._lapsed(now)
        return self._campaign_or(None, now)

    def resign(self, until: float) -> list[Effect]:
        """An order: lead no more, and don't campaign before *until*, so that another does."""
        if self.state is not State.OFF:
            self._hold_back(until)
        return self._feed(Input.RESIGN, "ordered to resign")

    def promise(self, until: float) -> None:
        """Don't campaign before *until*, whoever asked. Raises `Misuse` when this director leads, or may any moment."""
        if self.state not in (State.OFF, State.WAITING):
            raise Misuse("whoever campaigns promises nothing")
        self._hold_back(until)

    def resigned(self, now: float) -> list[Effect]:
        """`Resign` is done, or as far as the store answered."""
        return self._feed(Input.RESIGNED) + self._campaign_or(None, now)

    def stop(self) -> list[Effect]:
        """Take no part from now on; wait for `resigned` if `Resign` is among the effects."""
        return self._feed(Input.STOP, "it stops")

    # --- inside ---

    def _campaign_or(self, other: Input | None, now: float) -> list[Effect]:
        if self.state is State.WAITING and self._vacant and now >= self._not_before:
            return self._feed(Input.VACANT)
        return [] if other is None else self._feed(other)

    def _won(self, term: int, now: float) -> list[Effect]:
        if self.state is not State.CAMPAIGNING:
            return []
        if now >= self._until:
            return self._lapsed(now)
        self.term = term
        self._vacant = False
        return self._feed(Input.WON)

    def _lapsed(self, now: float, why: str = "the store did not answer in time") -> list[Effect]:
        self._hold_back(now + RETRY_S)
        return self._feed(Input.LAPSED, why)

    def _hold_back(self, until: float) -> None:
        self._not_before = max(self._not_before, until)

    def _feed(self, given: Input, why: str = "") -> list[Effect]:
        row = TABLE.get((self.state, given))
        if row is None:
            if given in _ORDERS:
                raise Misuse(f"{given.value}, though {self.state.value}")
            return []
        self.state, kinds = row
        effects = [self._effect(kind, given, why) for kind in kinds]
        if self.state not in (State.CAMPAIGNING, State.LEADING):
            self._lease = None
        return effects

    def _effect(self, kind: type[Effect], given: Input, why: str) -> Effect:
        if kind is AskLease:
            return AskLease()
        if kind is Gained:
            return Gained(self.term)
        if kind is Lost:
            return Lost(self.term, why, given is Input.LAPSED)
        assert self._lease is not None
        if kind is Campaign:
            return Campaign(Put(self._key, self._value, self._lease), Compare(self._key, 0))
        return Resign(self.term, self._lease) if kind is Resign else GiveUp(self._lease)


def diagram() -> str:
    """`TABLE` as a mermaid state diagram, for the reference."""
    arrows = [f"    {before.value} --> {after.value}: {given.value}" for (before, given), (after, _) in TABLE.items()]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {State.OFF.value}", *arrows])
