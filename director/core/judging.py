"""The verdicts on hosts, kept true: whatever bears on a verdict marks its host, and `Judging.conclude` judges who is marked.

A part of the inventory, which owns the entries, and calls `conclude` at the end of each of its mutations. A verdict is
`director.core.merge`'s: of this director's own evidence, of what the others say, and of who is believed. Evidence ages,
so a host about which others say anything is looked at when this director's own evidence runs out.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping

from cluster.model import HostRef, Observed
from director.core.entries import HostEntry
from director.core.events import Event, HostJudged, HostMoved, IsolationChanged
from director.core.host import Host
from director.core.isolation import Isolation
from director.core.merge import merge
from director.core.others import Others
from director.core.transitions import Transition


class Judging:
    """Times are monotonic seconds.

    :param hosts: the inventory's, which changes under it.
    :param events: what happens is appended here.
    """

    def __init__(self, hosts: Mapping[HostRef, HostEntry], events: list[Event], panic_fraction: float) -> None:
        self.isolation = Isolation(panic_fraction)
        self.others = Others(panic_fraction)
        self.resetting: set[Host] = set()  #: hosts that reset clients at once, and have served none since
        self._hosts = hosts
        self._events = events
        self._isolated = False  # as the health machines were told
        self._marked: dict[HostEntry, None] = {}
        self._deadlines: list[tuple[float, int, HostEntry]] = []  # one of each host at most that is not superseded
        self._sequence = 0

    # --- what bears on verdicts

    def added(self, entry: HostEntry, now: float) -> None:
        """A new host. Others may know it already."""
        self._marked[entry] = None
        if self._isolated:
            self.moved(entry, entry.health.tick(now, True), now)

    def removed(self, entry: HostEntry, now: float) -> None:
        self._marked.pop(entry, None)
        self.resetting.discard(entry.host)
        self.isolation.gone(entry.ref, now)

    def moved(self, entry: HostEntry, transition: Transition | None, now: float) -> None:
        """The health machine took an input, which may have changed its state."""
        self._watch(entry, now)
        if transition is not None:
            self._events.append(HostMoved(entry, transition))
        if transition is not None or not entry.verdict.mine or entry.ref in self.others:
            self._marked[entry] = None

    def fell_silent(self, entry: HostEntry, now: float) -> None:
        age = entry.health.heartbeat_age(now)
        if age is not None:
            self.isolation.fell_silent(entry.ref, now - age, now)

    def observed(self, records: Mapping[tuple[str, HostRef], Observed | None]) -> None:
        """What others have written, by director and host; None: no more, the director sees the host up."""
        for (director, ref), record in records.items():
            self.others.put(director, ref, record)
            entry = self._hosts.get(ref)
            if entry is not None:
                self._marked[entry] = None

    def directors(self, names: Iterable[str]) -> None:
        """The other directors that live."""
        self.others.set_live(names)
        self._mark_all()

    # --- time

    def next_deadline(self) -> float:
        """When `tick` may have something to do; inf: never, as things stand."""
        return self._deadlines[0][0] if self._deadlines else math.inf

    def tick(self, now: float) -> None:
        """Let time pass: silences, ends of grace."""
        while self._deadlines and self._deadlines[0][0] <= now:
            due, _, entry = heapq.heappop(self._deadlines)
            if due != entry.watched_at or self._hosts.get(entry.ref) is not entry:
                continue  # superseded by an earlier look, or gone
            entry.watched_at = math.inf
            if now >= entry.health.overdue_at:
                self.fell_silent(entry, now)  # first, so that silence in bulk is recognised before it is acted upon
            self.moved(entry, entry.health.tick(now, self.isolation.isolated), now)

    def _watch(self, entry: HostEntry, now: float) -> None:
        """See that the machine is looked at by its deadline. Heartbeats move deadlines later, which is noticed when the
        earlier one comes up: one heap entry a host, whatever the heartbeats."""
        deadline = entry.health.deadline()
        if self.isolation.isolated and not self.isolation.is_silent(entry.ref):
            # the machine expects nothing of silence now, but the isolation's end depends on knowing who is silent
            deadline = min(deadline, max(now, entry.health.overdue_at))
        if now < entry.health.fresh_until and entry.ref in self.others:
            deadline = min(deadline, entry.health.fresh_until)
        if deadline < entry.watched_at:
            self._sequence += 1
            heapq.heappush(self._deadlines, (deadline, self._sequence, entry))
            entry.watched_at = deadline

    # --- the verdicts

    def conclude(self, now: float) -> list[HostEntry]:
        """Judge who is marked; those whose verdict turned, from or to "down". Cheap when nobody is marked.

        Where isolation began or ended every machine is told; where another director began or ceased to be believed,
        every host is judged.
        """
        if (self.isolation.since is not None) is not self._isolated:
            self._isolated = self.isolation.isolated
            self._events.append(IsolationChanged(self._isolated))
            for entry in self._hosts.values():
                self.moved(entry, entry.health.tick(now, self._isolated), now)
        if self.others.judged_for != len(self._hosts) and self.others.judge_cut_off(len(self._hosts)):
            self._mark_all()
        if not self._marked:
            return []
        marked, self._marked = self._marked, {}
        return [entry for entry in marked if self._judge(entry, now)]

    def _judge(self, entry: HostEntry, now: float) -> bool:
        """Whether the verdict turned."""
        self._watch(entry, now)
        before = entry.verdict
        entry.verdict = merge(entry.health.evidence(now), self.others.about(entry.ref), self.others.cut_off)
        if entry.verdict != before:
            self._events.append(HostJudged(entry, before))
        if entry.verdict.down == before.down:
            return False
        if before.down:
            entry.up_since = now
        return True

    def _mark_all(self) -> None:
        self._marked.update(dict.fromkeys(self._hosts.values()))
