"""n of SCHEDULING: how many connections a host has in flight, as far as they weigh on it.

For connections that are short beside the reports' interval it is this director's own count: a report tells of connections
that are gone, and directors that all add the same stale number herd. For long ones the own count is one director's view
of how many there are, and blind to how much they do; so it is the larger of half the scaled own count and what the
report's utilisation implies, corrected by the own change since the report. Between the two::

    blend = exp(-(age + interval / 2) / D)          *D*: mean duration of the pool's connections
    n = (1 - blend) * own + blend * max(own * scale / 2, implied + (own - own then) * scale)

- *scale*, within [1, 16], is the agents' count of connections over the own one at that time, of the whole pool: what other
  directors send.
- *implied* is the host's part, by utilisation, of all connections there are: ``utilisation * W * K``, with *K* the pool's
  scaled connections over its sum of ``utilisation * W``. So ``implied / W`` goes as utilisation goes, in connections.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from cluster.model import LoadReport

#: Bounds of the scale: at most so many directors are believed to share a host.
MOST_SCALE = 16.0
#: The own, scaled count is never taken for less than this part of it, whatever the utilisation.
OWN_PART = 0.5
#: Step of the averages of the reports' interval and of the connections' duration.
INTERVAL_STEP = 0.2
DURATION_STEP = 1 / 64
#: Blends below this are none.
LEAST_BLEND = 0.01


class MeanDuration:
    """D: of a pool's connections; the first ones as a plain mean."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.count = 0

    def sample(self, seconds: float) -> None:
        self.count += 1
        self.seconds += (seconds - self.seconds) * max(DURATION_STEP, 1.0 / self.count)


class InFlight:
    """One host's, at one director."""

    __slots__ = ("at", "interval_s", "own_then", "total", "utilisation")

    def __init__(self) -> None:
        self.at = -math.inf  #: of the last report
        self.interval_s = 1.0
        self.utilisation: float | None = None
        self.own_then = 0
        self.total: float | None = None

    def reported(self, report: LoadReport, own: int, now: float) -> None:
        """Learn from a report, with *own* connections open now."""
        if self.at > -math.inf:
            self.interval_s += INTERVAL_STEP * (now - self.at - self.interval_s)
        self.at = now
        self.utilisation = report.utilisation
        self.own_then = own
        self.total = report.in_flight

    def blend(self, mean_s: float, now: float) -> float:
        """How much of n comes by the report, 0 to 1; 0 without one."""
        if mean_s <= 0.0 or self.utilisation is None:
            return 0.0
        blend = math.exp(-(now - self.at + self.interval_s / 2) / mean_s)
        return blend if blend >= LEAST_BLEND else 0.0

    def count(self, own: int, blend: float, weight: float, pool: PoolLoad) -> float:
        """n."""
        if not blend or self.utilisation is None:
            return own
        implied = self.utilisation * weight * pool.per_utilisation + (own - self.own_then) * pool.scale
        return (1.0 - blend) * own + blend * max(OWN_PART * pool.scale * own, implied)


class PoolLoad(NamedTuple):
    """What a pool's hosts have in common."""

    scale: float = 1.0  #: connections of all directors for each own
    per_utilisation: float = 0.0  #: K


def pool_load(pool: Iterable[tuple[InFlight, int, float]]) -> PoolLoad:
    """Of each host's record, own connections and weight. A single host's scale would be the noise of a few connections;
    directors send to all hosts alike."""
    own = own_then = total = busy = 0.0
    for record, connections, weight in pool:
        if record.utilisation is None:
            continue
        own += connections
        busy += record.utilisation * weight
        if record.total is not None:
            own_then += record.own_then
            total += record.total
    scale = min(max(total / own_then, 1.0), MOST_SCALE) if own_then else 1.0
    return PoolLoad(scale, own * scale / busy if busy > 0.0 else 0.0)
