"""Directors a, b and c, and what happens to the one that is looked at."""

from __future__ import annotations

from cluster.takeover.machine import Takeover
from cluster.takeover.timing import MS, Timing
from cluster.takeover.words import (
    Ack,
    Aim,
    Beat,
    Commit,
    Effect,
    Kind,
    Outcome,
    Reign,
    Seen,
    SendBeat,
    Transaction,
)

TIMING = Timing()
T0 = 10_000 * MS
ALL = frozenset("abc")


def reign(owner: str = "a", *, term: int = 5, electors: frozenset[str] = ALL, incarnation: str = "",
          kind: Kind = Kind.CAMPAIGN) -> Reign:
    return Reign(owner, incarnation or f"{owner}0", electors, kind, TIMING.etcd_count_ns, term)


def seen(owner: str = "a", *, mod: int = 5, beat: int = 5, **more: object) -> Seen:
    return Seen(reign(owner, **{"term": mod, **more}), mod, beat)  # type: ignore[arg-type]


def standby(me: str = "b", *, knows: Seen | None = None) -> Takeover:
    """One that started long ago, and has read that a owns in term 5."""
    machine = Takeover(me, f"{me}0", TIMING)
    machine.start(T0 - 5000 * MS)
    machine.seen(seen() if knows is None else knows, T0 - 4000 * MS)
    machine.suspect_from = T0 + TIMING.silence_ns
    return machine


def owner(me: str = "a", *, electors: frozenset[str] = ALL, at: int = T0) -> Takeover:
    """One that won term 5 long ago, without evidence."""
    machine = Takeover(me, f"{me}0", TIMING)
    machine.term = 4
    machine.own(reign(me, electors=electors), 5, 5, 0)
    machine.seen(seen(me, electors=electors), at)
    return machine


def answering(**more: object) -> Takeover:
    """An owner that everybody promises at `T0`."""
    machine = owner(**more)  # type: ignore[arg-type]
    machine.turn(T0)
    for peer in sorted(machine.others):
        machine.ack(peer, promise(), T0)
    machine.etcd_beat_from = 0
    assert machine.answers(T0)
    return machine


def promise(sent: int = T0, *, term: int = 5, incarnation: str = "a0") -> Ack:
    return Ack(term, incarnation, sent)


def beat(term: int = 5, sent: int = T0, incarnation: str = "a0") -> Beat:
    return Beat(term, incarnation, sent, TIMING.count_ns)


def of(kind: type[Effect], effects: list[Effect]) -> list[Effect]:
    return [each for each in effects if isinstance(each, kind)]


def sent(effects: list[Effect], aim: Aim | None = None) -> list[Transaction]:
    found = [each.transaction for each in effects if isinstance(each, Commit)]
    return [each for each in found if aim is None or each.aim is aim]


__all__ = [
    "ALL", "MS", "T0", "TIMING", "Aim", "Beat", "Kind", "Outcome", "SendBeat", "answering", "beat", "of", "owner", "promise",
    "reign", "seen", "sent", "standby",
]
