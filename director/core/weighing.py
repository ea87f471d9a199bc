"""What a group's pool is told of its hosts. Effective weights are kept up to date each in time, and no more of them than
have changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cluster.model import AdminState, HostRef, LoadReport
from director.core.entries import GroupEntry, HostEntry
from director.core.schedulers import follows_reports
from director.core.weights import effective, next_step_s, slow_start

#: Weights follow reports at most this often; a thousand reports a second cost twenty recomputations.
RECOMPUTE_S = 0.05

#: How to go through many hosts: one by one, and maybe pausing. Nothing must change meanwhile.
Walk = Callable[[Iterable[Any]], Iterable[Any]]


def take(group: GroupEntry, entry: HostEntry, report: LoadReport, at: float, now: float) -> None:
    """A report came, made at *at*: weights are due soon, a changed maximum holds at once."""
    entry.report, entry.report_at = report, at
    seen = group.seen.reported(entry.ref, entry.totals, report.utilisation, report.in_flight, now)
    group.capacity.reported(entry.ref, report, now, seen)
    group.pool.reported(entry.host, report, now)
    entry.agent_weight = 1.0 if report.weight is None else report.weight
    _limit(group, entry)
    group.weigh_by(now + RECOMPUTE_S)


def look_at_turns(group: GroupEntry, walk: Walk, now: float) -> None:
    """Tell the scheduler of the turnarounds since the last look, where they mean anything."""
    for entry in walk(group.hosts.values()):
        if entry.tally is None and not entry.host.picks:  # nobody was given to it
            continue
        before, after = entry.looked_at, entry.totals
        if after == before:
            continue
        entry.looked_at = after
        group.seen.judge(before, after, now)
        count = after.turnarounds - before.turnarounds
        if count > 0 and group.seen.source == "turnarounds":
            group.pool.turned(entry.host, count, after.seconds - before.seconds, now)


def told(group: GroupEntry, entry: HostEntry, weight: float | None, now: float) -> None:
    """The host told a probe its weight, or none: that holds at once, and for the others within a second."""
    if group.probed.answered(entry.ref, weight, now):
        weigh(group, entry, group.capacity.factor(entry.ref, now), now)


def refresh(group: GroupEntry, entry: HostEntry, now: float) -> None:
    """Availability, maximum and weight of one host, after anything about it changed."""
    admissible = entry.admin is AdminState.UP
    _limit(group, entry)
    weigh(group, entry, group.capacity.factor(entry.ref, now), now)
    group.pool.set_available(entry.host, admissible and not (entry.verdict.down or entry.conduct.ejected), admissible)


def weigh_news(group: GroupEntry, walk: Walk, now: float) -> None:
    """Weigh who reported, and who is in its slow start, if that is due."""
    if group.recompute_at > now:
        return
    group.recompute_at = math.inf
    factors = group.capacity.news(now)
    for entry in tuple(group.ramping):
        factors.setdefault(entry.ref, group.capacity.factor(entry.ref, now))
    _weigh_each(group, factors, walk, now)


def weigh_all(group: GroupEntry, walk: Walk, now: float) -> None:
    """Weigh everybody who ever reported, or told a probe: the age of that tells, and the others' median."""
    factors = group.capacity.factors(now)
    for ref in group.probed.keys:
        if ref not in factors:
            factors[ref] = group.capacity.factor(ref, now)
    _weigh_each(group, factors, walk, now)


def _weigh_each(group: GroupEntry, factors: Mapping[HostRef, float], walk: Walk, now: float) -> None:
    for ref, factor in walk(factors.items()):
        weigh(group, group.hosts[ref.host], factor, now)


def weigh(group: GroupEntry, entry: HostEntry, capacity: float, now: float) -> None:
    """Bring one host's weight up to date. *capacity*: its W."""
    ramp_s = group.spec.health.slow_start_s
    ramp = slow_start(now - entry.up_since, ramp_s)
    step = next_step_s(now - entry.up_since, ramp_s)
    if step is None:
        group.ramping.discard(entry)
    else:
        group.ramping.add(entry)
        group.weigh_by(now + step)
    if not follows_reports(group.spec.parameters):
        capacity = 1.0
    weight = effective(entry.spec.weight, capacity, ramp, entry.agent_weight, group.probed.factor(entry.ref, now))
    if weight != entry.host.weight:
        group.pool.set_weight(entry.host, weight, capacity)


def _limit(group: GroupEntry, entry: HostEntry) -> None:
    """The lower of the configured maximum and the one that the agent asks for, where 0 means none."""
    configured = entry.spec.max_connections
    asked = (entry.report.max_connections if entry.report is not None else None) or 0
    maximum = min(configured, asked) if configured and asked else configured or asked
    if maximum != entry.host.max_connections:
        group.pool.set_maximum(entry.host, maximum)
