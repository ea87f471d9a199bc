"""What is said in a takeover: between directors, with the store, and to whoever carries a machine's decisions out.

Instants are nanoseconds of the director's own clock, one that does not stand still while the machine sleeps.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeAlias


class Kind(enum.Enum):
    """How a term came about."""

    CAMPAIGN = "campaign"
    HAND_OVER = "hand-over"
    RECREATED = "re-created"
    FIRST = "first"  #: an operator wrote it


class Reign(NamedTuple):
    """Who owns, in a term."""

    owner: str
    incarnation: str  #: of the owner's process
    electors: frozenset[str]  #: E: who may campaign
    kind: Kind
    counts_ns: int  #: what the owner counts of a beat in the store
    term: int = 0  #: revision of the transaction that began it; 0 in a transaction that begins one


class Seen(NamedTuple):
    """The record and the beat key as the store had them at one revision. Without a record *mod* is 0."""

    reign: Reign | None
    mod: int  #: revision that last wrote the record
    beat: int  #: revision that last wrote the beat key; 0: absent


# --- over the peer link


class Beat(NamedTuple):
    """An owner's, to everybody."""

    term: int
    incarnation: str  #: of the owner's process
    sent: int  #: by the owner's clock; comes back as it is, and only counts in the process that said it
    counts_ns: int  #: for how long from then on the owner will count on the answer


class Ack(NamedTuple):
    """The promise: whoever says so does not answer for an address before its promise is over. Names the beat."""

    term: int
    incarnation: str  #: the owner's
    sent: int


# --- with the store


class Aim(enum.Enum):
    BEAT = "beat"
    CAMPAIGN = "campaign"
    CHANGE = "change"  #: who may campaign
    RECREATE = "re-create"
    HAND_OVER = "hand over"


class Transaction(NamedTuple):
    """If the record was last written at *mod* (0: is absent) and, unless None, the beat key at *beat*: write *reign*, unless
    None, and the beat key. Sent once: a repetition would be a second one."""

    aim: Aim
    mod: int
    beat: int | None
    reign: Reign | None
    term: int  #: the sender's, when it sent it
    until: int  #: what it is evidence for if it is done: its sending, and what may be counted of it


class Outcome(enum.Enum):
    DONE = "done"
    ELSE = "a comparison did not hold"
    UNKNOWN = "nobody knows"
    NOT_SENT = "certainly not done, and it never will be"


# --- to be done, in order; where one fails those after it are left undone


class SendBeat(NamedTuple):
    """To every director that is linked."""

    beat: Beat


class SendAck(NamedTuple):
    to: str
    ack: Ack


class SendBye(NamedTuple):
    """To every director that is linked."""


class Read(NamedTuple):
    """Read record and beat key, linearizably, and tell by `Takeover.seen`."""


class Commit(NamedTuple):
    """Tell the outcome by `Takeover.answered`."""

    transaction: Transaction


class OpenFence(NamedTuple):
    """Until that instant, whenever this is done."""

    until: int


class CloseFence(NamedTuple):
    """In the kernel, before anything after it."""


class Gained(NamedTuple):
    """This director answers from now on."""

    term: int


class Lost(NamedTuple):
    """It does not any more."""

    term: int
    why: str


Effect: TypeAlias = SendBeat | SendAck | SendBye | Read | Commit | OpenFence | CloseFence | Gained | Lost
