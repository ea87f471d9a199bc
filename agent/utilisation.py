"""How busy a service is, of what it could have: arithmetic. No clock, no I/O.

::

    utilisation = own use / (own use + the least headroom)

Own use is CPU time of the service per second. Headroom is what is free at each *level* that bounds it: its cgroup's
quota, the quota of each ancestor (which it shares with its siblings), and the CPUs that it may run on (which it shares
with the whole machine). So:

- Throttled at 20 % of a core: own use 0.2, nothing left below the quota: 1, though the machine is idle.
- Alone on a machine without quotas: the share of the machine that is busy.
- Beside a neighbour that burns the rest of the machine: 1, since there is no more to be had without a fight.
- One of four services of 25 % each on a machine, each at half of its quota: 0.5, not the sum.

``rate / utilisation`` is then what the service would finish per second if it took all that is free, which is what a
weight wants to know. The larger of own share and the machine's busy share would call a small service on a machine that
others use moderately twice as busy as it is.

An idle service on a machine that is full would look idle by this alone; but whoever comes next must queue for the CPU.
So the last tenth of the CPUs counts for everybody: from 0 at 90 % to 1 at 100 % busy (`CROWDED`).

Pressure stall information is no part of it: ``cpu.pressure`` tells of any task that waited at all, so ten threads that
wake together on an idle machine look pressed, and version 1 has none for a cgroup. Neither is the share of throttled
periods, which bursts raise at half of the quota; nor memory, of which a healthy runtime or cache takes whatever it may.
Throttling and memory are reported beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from agent.cgroups import Ticks

#: The busy share of its CPUs from which a service is not alone to be asked: the next task will probably have to wait.
CROWDED = 0.9
#: A shorter time says nothing: CPU time comes in ticks of 10 ms, and a quota in periods of 100 ms.
LEAST_S = 0.1


class Level(NamedTuple):
    """A quota that bounds the service."""

    cores: float
    used_s: float | None = None  #: CPU time of all below it, ever; None: as the service's own
    periods: int = 0
    throttled: int = 0  #: of the periods


class Reading(NamedTuple):
    """Everything at one moment."""

    at: float  #: seconds, of a monotonic clock
    who: object  #: what was measured; two readings compare only if it is the same
    used_s: float  #: CPU time of the service, ever
    levels: Mapping[str, Level]  #: by their names
    machine: Mapping[int, Ticks]  #: of each CPU
    allowed: frozenset[int] | None = None  #: CPUs that the service may use; None: all


class Use(NamedTuple):
    """What happened between two readings."""

    utilisation: float  #: 0..1, see the module
    own: float  #: own use of the tightest limit, 0..1
    throttled: float | None  #: share of the quota's periods in which the service had to stop; None: no quota


class Own(NamedTuple):
    """A service's own load. Shares are 0..1; None: unknown, or without limit."""

    source: Literal["cgroup", "process"]
    utilisation: float  #: see the module
    cpu: float  #: CPU time used, of its tightest limit
    throttled: float | None = None  #: of the quota's periods
    memory: float | None = None  #: of the memory limit, what can be dropped at once left out


def use(before: Reading, after: Reading) -> Use | None:
    """The service's use between two readings; None where they tell nothing, as after a restart."""
    elapsed = after.at - before.at
    if before.who != after.who or elapsed < LEAST_S:
        return None
    mine = [cpu for cpu in after.machine
            if cpu in before.machine and (after.allowed is None or cpu in after.allowed)]
    idle = sum(max(0, after.machine[cpu].idle - before.machine[cpu].idle) for cpu in mine)
    total = sum(max(0, after.machine[cpu].total - before.machine[cpu].total) for cpu in mine)
    used = (after.used_s - before.used_s) / elapsed
    if total <= 0 or used < 0:
        return None
    free = min(1.0, idle / total)
    used = min(used, float(len(mine)))
    limits, headroom, throttled = [float(len(mine))], [free * len(mine)], []
    for name, level in after.levels.items():
        earlier = before.levels.get(name, level)  # a limit that is new or changed holds for all of the interval
        level_used = used
        if level.used_s is not None and earlier is not level and earlier.used_s is not None:
            level_used = max(used, (level.used_s - earlier.used_s) / elapsed)
        limits.append(level.cores)
        headroom.append(max(0.0, level.cores - level_used))
        periods = max(1, level.periods - earlier.periods)
        throttled.append(min(1.0, max(0, level.throttled - earlier.throttled) / periods))
    least = min(headroom)
    share = used / (used + least) if used + least > 0 else 1.0
    crowd = max(0.0, (1.0 - free - CROWDED) / (1.0 - CROWDED))
    return Use(min(1.0, max(share, crowd)), min(1.0, used / min(limits)), max(throttled, default=None))
