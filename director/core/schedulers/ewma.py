"""Peak EWMA: the host whose latency times its open connections is least.

The latency is an average that follows a rise at once and a fall slowly, as in Finagle's and Linkerd's balancers: a sample
above it replaces it, one below moves it by ``1 - exp(-dt / decay)``; without samples it decays towards 0 by the same
time constant, so that a host that was slow is tried again. Samples are turnarounds where there are any, else the
durations of connections.

All hosts decay alike, so the order of ``latency * exp(-age / decay) * (n + 1) / W`` is that of its logarithm without the
common term ``-now / decay``: a key that time does not change, and no sweep is needed.
"""

from __future__ import annotations

import math

from cluster.model import Reason
from director.core.host import Host
from director.core.schedulers.least import LeastLoaded, ended_by_itself, turns

DECAY_S = 10.0
#: Samples below this are noise of clocks, and 0 has no logarithm.
LEAST_S = 1e-5
#: Turnarounds stand in for durations so long after the last one.
TURNED_S = 30.0
#: Hosts of which nothing is known yet come first while idle, and after all others once they have a connection: one
#: connection is a test, many are a herd.
UNKNOWN_IDLE = -math.inf
UNKNOWN_BUSY = 1e15
#: Logarithm of how much more than the usual one a host may be worth: all there is, and a number still.
MOST_FASTER = 50.0


class _Latency:
    __slots__ = ("at", "log_s", "turned_at")

    def __init__(self) -> None:
        self.log_s = math.nan  #: log of the average as it was at `at`
        self.at = -math.inf
        self.turned_at = -math.inf


class PeakEwma(LeastLoaded):
    """See the module. When the best host is idle, all idle ones in turn, by weight over latency. Pick O(1), events
    O(log n)."""

    def __init__(self, decay_s: float = DECAY_S) -> None:
        super().__init__()
        self._decay_s = decay_s
        self._latencies: dict[Host, _Latency] = {}
        self._usual = 0.0  # log of a latency, for the turns of hosts of which none is known
        self._usual_at = 0.0  # the time of the last sample of any

    def score(self, host: Host) -> float:
        known = self._latencies.get(host)
        if known is None:
            return UNKNOWN_BUSY * (host.in_flight + 1) / host.weight if host.in_flight else UNKNOWN_IDLE
        return known.log_s + known.at / self._decay_s + math.log((host.in_flight + 1) / host.weight)

    def share(self, host: Host) -> float:
        known = self._latencies.get(host)
        faster = math.exp(self._usual - known.log_s) if known is not None else 1.0
        return turns(host.weight / host.capacity, host.capacity * faster)

    def worth(self, host: Host, now: float) -> float:
        known = self._latencies.get(host)
        if known is None:
            return host.weight
        faster = self._usual - known.log_s + (self._usual_at - known.at) / self._decay_s
        return host.weight * math.exp(min(faster, MOST_FASTER))

    def _sample(self, host: Host, seconds: float, now: float) -> None:
        value = math.log(max(seconds, LEAST_S))
        known = self._latencies.get(host)
        if known is None:
            known = self._latencies[host] = _Latency()
            known.log_s = value
        else:
            kept = math.exp((known.at - now) / self._decay_s)
            before = math.exp(known.log_s) * kept
            # What has decayed since the last sample is made up for by it, as long as it is no higher.
            known.log_s = max(value, math.log(before + math.exp(value) * (1.0 - kept)))
        known.at = now
        self._usual += (value - self._usual) / 16
        self._usual_at = now

    def closed(self, host: Host, duration_s: float, reason: Reason, now: float) -> None:
        known = self._latencies.get(host)
        if ended_by_itself(reason) and (known is None or now - known.turned_at > TURNED_S):
            self._sample(host, duration_s, now)
        super().closed(host, duration_s, reason, now)

    def turned(self, host: Host, count: int, total_s: float, now: float) -> None:
        if count:
            self._sample(host, total_s / count, now)
            self._latencies[host].turned_at = now
            self._rescore(host)

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        numbers = super().factors(host, client, now)
        numbers.pop("load", None)  # a logarithm, of use to nobody
        known = self._latencies.get(host)
        if known is None:
            return numbers
        latency_s = math.exp(known.log_s + (known.at - now) / self._decay_s)
        cost = {"load": latency_s * (host.in_flight + 1) / host.weight} if host.weight > 0 else {}
        return {**numbers, "latency_s": latency_s, **cost}
