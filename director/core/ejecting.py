"""Outliers taken out of rotation and brought back: what `director.core.outliers` finds, made true in entries and pools.

A part of the inventory, which owns both, and tells it of failures, of the time, and of groups that ran out of hosts.
"""

from __future__ import annotations

from cluster.model import HostState
from director.core.entries import GroupEntry, HostEntry
from director.core.events import Event, HostEjected, HostReturned
from director.core.outliers import Walk
from director.core.transitions import Transition
from director.core.weighing import refresh


class Ejecting:
    """:param events: what happens is appended here."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def failed(self, group: GroupEntry, entry: HostEntry, now: float, *, grace: bool) -> None:
        """The host failed a client. During grace that counts, and ejects nobody."""
        health = group.spec.health
        if not health.outliers.enabled:
            return
        elsewhere = group.pool.in_flight - entry.host.in_flight
        why = group.comparison.failed(entry.conduct, elsewhere, now, health.outliers, health.early_reset_s)
        if why and not grace:
            self._eject(group, entry, why, now)

    def tick(self, group: GroupEntry, walk: Walk, now: float, *, grace: bool) -> None:
        """Every second or so."""
        policy = group.spec.health.outliers
        for conduct in group.comparison.due(now, policy):
            self.release(group, group.hosts[conduct.host.name], now)
        self.relieve(group, now)
        if policy.enabled:
            for conduct, why in group.comparison.close_window(now, policy, walk):
                if not grace:
                    self._eject(group, group.hosts[conduct.host.name], why, now)

    def relieve(self, group: GroupEntry, now: float) -> None:
        """After the rotation changed: who is ejected is better than nobody."""
        if group.comparison.ejected and (group.pool.failing_open or not group.pool.available):
            for conduct in tuple(group.comparison.ejected):
                self.release(group, group.hosts[conduct.host.name], now)

    def release(self, group: GroupEntry, entry: HostEntry, now: float) -> None:
        """Bring a host back, as one that joins."""
        if not entry.conduct.ejected:
            return
        group.comparison.release(entry.conduct, now)
        entry.up_since = now
        refresh(group, entry, now)
        self._note(entry, "back from its ejection", now)
        self._events.append(HostReturned(entry))

    def _eject(self, group: GroupEntry, entry: HostEntry, why: str, now: float) -> None:
        if entry.health.state is HostState.DOWN or not group.pool.rotates(entry.host):
            return
        for_s = group.comparison.eject(entry.conduct, why, in_rotation=group.pool.available, now=now,
                                       policy=group.spec.health.outliers)
        if for_s is not None:
            refresh(group, entry, now)
            self._note(entry, f"ejected for {for_s:g} s: {why}", now)
            self._events.append(HostEjected(entry, why, for_s))

    def _note(self, entry: HostEntry, why: str, now: float) -> None:
        """For the history; its state of health stays what it was."""
        state = entry.health.state
        entry.health.history.append(Transition(now, state, state, why))
