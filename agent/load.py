"""Arithmetic of load: what happened in an interval becomes a `LoadReport`. No clock, no I/O."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import msgspec

from agent.exposition import Served
from agent.utilisation import Own
from cluster.model import LoadReport
from cluster.wire import MAX_CUSTOM

#: Custom metrics of the agent's own: CPU, memory and load of the machine; CPU, memory and throttling of the service.
OWN_CUSTOM = 6


class Sample(NamedTuple):
    """What the machine says. None: unknown."""

    cpu: float | None = None  #: busy share of all cores since the last sample, 0..1
    memory: float | None = None  #: used share, 0..1
    load: float | None = None  #: one-minute load average per core
    connections: int | None = None  #: established, of the service's port
    own: Own | None = None  #: of the service apart from the machine
    served: Served | None = None  #: by the service's own counters


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """What the application said last; each value holds until it is said anew. None: nothing said."""

    utilisation: float | None = None  #: 0..1, replaces the agent's own
    in_flight: float | None = None
    latency_s: float | None = None
    weight: float | None = None  #: lower the host's weight by this factor, 0..1
    max_connections: int | None = None
    capacity: float | None = None
    state: Literal["ready", "drain", "down"] = "ready"
    custom: dict[str, float] = {}

    def check(self) -> None:
        """Whether a report can carry this. Raises ValueError."""
        fields = {name: value for name, value in msgspec.to_builtins(self).items() if value is not None}
        msgspec.convert(fields, LoadReport)
        numbers = [value for value in (*fields.values(), *self.custom.values()) if isinstance(value, float)]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a report's numbers are finite")
        if len(self.custom) > MAX_CUSTOM - OWN_CUSTOM:
            raise ValueError(f"at most {MAX_CUSTOM - OWN_CUSTOM} custom metrics")


class LoadMeter:
    """Counts what an application begins and finishes; `cut` ends an interval.

    - *rate*, *errors* and *latency_s* are of what finished within the interval, as the application counts here or, until
      something began or finished here, by its own counters; unknown without either.
    - *in_flight*: what the application stated, else its own count, else the port's established connections.
    - *utilisation*: what the application stated, else the larger of ``in_flight`` over *max_in_flight* and the service's
      own (`agent.utilisation`), or the busy share of the machine's CPUs where that is unknown. Memory is no part of it (a
      full page cache is healthy) but goes along as a custom metric, as do the CPU and the load average.

    :param max_in_flight: what can be served at once; 0: unknown.
    """

    def __init__(self, now: float, *, max_in_flight: int = 0) -> None:
        self.stated = Stated()
        self._max_in_flight = max_in_flight
        self._used = False
        self._open = 0
        self._since = now
        self._finished = 0
        self._failed = 0
        self._timed = 0
        self._latency_s = 0.0

    def state(self, **fields: Any) -> None:
        """The application states *fields* of `Stated`.

        :raises TypeError: an unknown field.
        :raises ValueError: a value outside its range; nothing is changed.
        """
        stated = msgspec.structs.replace(self.stated, **fields)
        stated.check()
        self.stated = stated

    def begin(self) -> None:
        """A request or connection arrived."""
        self._used = True
        self._open += 1

    def finish(self, *, ok: bool = True, latency_s: float | None = None) -> None:
        """One that began is done, in *latency_s* if known. More finishes than begins count, but not below zero."""
        self._used = True
        self._open = max(0, self._open - 1)
        self._finished += 1
        self._failed += not ok
        if latency_s is not None:
            self._timed += 1
            self._latency_s += max(0.0, latency_s)  # a clock that steps back must not spoil the report

    def in_flight(self, connections: int | None) -> float | None:
        """What is being served now, if known, given the count of the port's connections."""
        if self.stated.in_flight is not None:
            return self.stated.in_flight
        return self._open if self._used else connections

    def cut(self, sample: Sample, now: float) -> LoadReport:
        """The report of the interval since the last cut; a new one begins."""
        stated = self.stated
        in_flight = self.in_flight(sample.connections)
        own = sample.own
        busy = sample.cpu if own is None else own.utilisation
        shares = [] if busy is None else [busy]
        if self._max_in_flight and in_flight is not None:
            shares.append(in_flight / self._max_in_flight)
        custom = {"cpu": sample.cpu, "memory": sample.memory, "load": sample.load}
        if own is not None:
            custom |= {f"{own.source}_cpu": own.cpu, "cgroup_memory": own.memory, "throttled": own.throttled}
        utilisation = stated.utilisation
        if utilisation is None and shares:
            utilisation = min(1.0, max(shares))
        elapsed = now - self._since
        served = sample.served
        if self._used:
            served = Served(
                rate=self._finished / elapsed, completions=self._finished,
                errors=self._failed / self._finished if self._finished else None,
                latency_s=self._latency_s / self._timed if self._timed else None,
            ) if elapsed > 0 else None
        report = LoadReport(
            utilisation=utilisation,
            in_flight=in_flight,
            latency_s=stated.latency_s if served is None or served.latency_s is None else served.latency_s,
            rate=None if served is None else served.rate,
            errors=None if served is None else served.errors,
            completions=None if served is None else served.completions,
            capacity=stated.capacity,
            max_connections=stated.max_connections,
            weight=stated.weight,
            state=stated.state,
            custom={key: round(value, 4) for key, value in custom.items() if value is not None} | stated.custom,
        )
        self._since = now
        self._finished = self._failed = self._timed = 0
        self._latency_s = 0.0
        return report
