"""A host's rate as the directors see it, for agents that know none (the stock agent's is one).

An agent beside any server knows how busy the machine is, but not how much it gets done. This director knows its own part
of that: between two reports it counted *turnarounds* (`director.relay.turnarounds`) and connections that ended. From them:

    own rate = completions / time             completions: turnarounds where they mean something, else connections
    scale    = (agent's in-flight + k) / (own in-flight + k)         both smoothed; within [1, 16]
    rate     = own rate x scale               what all directors and other clients together have the host do

The scale needs no other director's word: the agent's in-flight is of the whole port, and whoever has half of the connections
sees about half of what happens on them. The *k* keeps a single idle connection of somebody else from looking like another
director's half.

**Plausibility.** Turnarounds stand for requests only where hosts answer. Where they mostly speak by themselves (streams
with pauses, pushes), or where most connections end without any answer, connections that ended are counted instead. That
is decided for a group, not for a host, and slowly: rates of one group are compared with each other, and must count the
same thing.

A window lasts from one report to the next, or longer where less than `LEAST_COMPLETIONS` fell into it: a slow host that
finishes two in a second has a rate, too.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

Source = Literal["turnarounds", "connections"]

#: Fewer completions in a window say nothing about a rate.
LEAST_COMPLETIONS = 3
#: Reports that come sooner (a burst behind a busy reactor) are one: over less time rates are noise.
LEAST_WINDOW_S = 0.5
#: A window that still has too few completions begins anew: what was long ago says nothing of now.
MOST_WINDOW_S = 10.0
#: Time constant of both in-flight averages: above the time between connections, below that between changes of shares.
IN_FLIGHT_S = 10.0
#: *k*, in connections.
DOUBT = 2.0
#: As in SCHEDULING: beyond this it is a mistake, and not the number of directors.
MOST_SCALE = 16.0
#: Time constant of what a group's plausibility is judged by.
JUDGE_S = 60.0
#: Events before anything is judged.
LEAST_EVIDENCE = 10.0
#: Share of unasked bursts, beside turnarounds, that makes them implausible, and that makes them plausible again.
MOST_UNASKED, FEW_UNASKED = 1.0, 0.5
#: Turnarounds for each connection that ended, likewise.
LEAST_TURNS, ENOUGH_TURNS = 0.5, 0.75

Key = TypeVar("Key", bound=Hashable)


class Turns(Protocol):
    """Totals of a tally."""

    @property
    def total(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def unasked(self) -> int: ...


class Tallied(Protocol):
    """A host's tally in a relay."""

    number: int

    def read(self) -> Turns: ...
    def free(self) -> None: ...


class Totals(NamedTuple):
    """What this director has seen of a host so far."""

    turnarounds: int = 0
    seconds: float = 0.0  #: of all turnarounds together
    unasked: int = 0  #: bursts
    finished: int = 0  #: connections that were served and ended
    failed: int = 0  #: connects that failed, and connections reset at once
    in_flight: int = 0  #: now


class Window(NamedTuple):
    """What a host did in a stretch of time that ended with a report."""

    source: Source  #: what was counted
    completions: int  #: by this director, failed connects included
    rate: float  #: of everybody, a second
    utilisation: float | None  #: mean of the reports
    errors: float  #: failed fraction of *completions*
    turnaround_s: float | None  #: mean


class _Watched:
    """One host."""

    __slots__ = ("agents", "at", "busy_s", "known_s", "last", "own", "since", "start", "window")

    def __init__(self, totals: Totals, in_flight: float | None, now: float) -> None:
        self.last = totals
        self.at = now
        self.own = float(totals.in_flight)
        self.agents = in_flight
        self.window: Window | None = None  #: the last whole one
        self.begin(totals, now)

    def begin(self, totals: Totals, now: float) -> None:
        self.start, self.since = totals, now
        self.busy_s = self.known_s = 0.0  #: utilisation over time, and the time of which it is known


class Seen(Generic[Key]):
    """The hosts of one group. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._watched: dict[Key, _Watched] = {}
        self._turns = self._unasked = self._finished = 0.0
        self._judged_at = -math.inf
        self.source: Source = "turnarounds"
        self.why = ""  #: why turnarounds do not count; empty while they do

    def reported(
        self, key: Key, totals: Totals, utilisation: float | None, in_flight: float | None, now: float
    ) -> Window | None:
        """A report came; *in_flight* is the agent's count. Returns the window that it ended, if any. O(1)."""
        watched = self._watched.get(key)
        if watched is None:
            self._watched[key] = _Watched(totals, in_flight, now)
            return None
        elapsed = max(now - watched.at, 0.0)
        watched.last, watched.at = totals, now
        share = 1.0 - math.exp(-elapsed / IN_FLIGHT_S)
        watched.own += (totals.in_flight - watched.own) * share
        if in_flight is None or watched.agents is None:
            watched.agents = in_flight
        else:
            watched.agents += (in_flight - watched.agents) * share
        if utilisation is not None:
            watched.busy_s += utilisation * elapsed
            watched.known_s += elapsed
        return self._end(watched, totals, now)

    def judge(self, before: Totals, after: Totals, now: float) -> None:
        """What one host did between two looks: do turnarounds mean anything in this group? O(1), but where that changes."""
        fade = math.exp(-max(now - self._judged_at, 0.0) / JUDGE_S)
        self._judged_at = now
        self._turns = self._turns * fade + max(after.turnarounds - before.turnarounds, 0)
        self._unasked = self._unasked * fade + max(after.unasked - before.unasked, 0)
        self._finished = self._finished * fade + max(after.finished - before.finished, 0)
        if self._turns + self._unasked + self._finished < LEAST_EVIDENCE:
            return
        counted = self.source == "turnarounds"
        if self._unasked > self._turns * (MOST_UNASKED if counted else FEW_UNASKED):
            self.why = "hosts speak without being asked"
        elif self._turns < self._finished * (LEAST_TURNS if counted else ENOUGH_TURNS):
            self.why = "connections end without an answer"
        else:
            self.why = ""
        source: Source = "connections" if self.why else "turnarounds"
        if source != self.source:
            self.source = source
            for watched in self._watched.values():
                watched.begin(watched.last, watched.at)

    def window(self, key: Key) -> Window | None:
        """The last one of a host."""
        watched = self._watched.get(key)
        return None if watched is None else watched.window

    @property
    def words(self) -> str:
        """What rates count here; empty while there are none."""
        if all(watched.window is None for watched in self._watched.values()):
            return ""
        if self.why:
            return f"rates count connections that ended, not turnarounds: {self.why}"
        return "rates count turnarounds: first bytes of a host after bytes of its client"

    def scale(self, key: Key) -> float:
        """Everybody's connections to the host beside this director's own."""
        watched = self._watched.get(key)
        return 1.0 if watched is None else _scale(watched)

    def discard(self, key: Key) -> None:
        """Forget a host; no error if it is not known."""
        self._watched.pop(key, None)

    def _end(self, watched: _Watched, totals: Totals, now: float) -> Window | None:
        start, lasted = watched.start, now - watched.since
        turns, finished = totals.turnarounds - start.turnarounds, totals.finished - start.finished
        failed = totals.failed - start.failed
        completions = max(turns if self.source == "turnarounds" else finished, 0) + failed
        if lasted < LEAST_WINDOW_S or completions < LEAST_COMPLETIONS:
            if lasted >= MOST_WINDOW_S:
                watched.begin(totals, now)
            return None
        watched.window = Window(
            self.source, completions, completions / lasted * _scale(watched),
            watched.busy_s / watched.known_s if watched.known_s else None,
            failed / completions,
            (totals.seconds - start.seconds) / turns if turns > 0 else None,
        )
        watched.begin(totals, now)
        return watched.window


def _scale(watched: _Watched) -> float:
    if watched.agents is None:
        return 1.0
    return min(max((watched.agents + DOUBT) / (watched.own + DOUBT), 1.0), MOST_SCALE)
