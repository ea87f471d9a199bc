"""When each host is to be looked at next: one timer for all of them."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Hashable
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from director.timing.alarm import Alarm

#: Probes started in one turn of the reactor; more than a few hundred microseconds would delay connections.
START_BATCH = 20
#: Between two looks at which probes are due: thousands of hosts share a timer instead of having one each. No probe's time
#: matters to a hundredth of a second, and jitter is more.
REST_S = 0.01


class ProbeLoop(Service):
    """Calls back when a key's time comes, or up to `REST_S` later, with one timer for all keys.

    :param monotonic: the clock of the times given to `schedule`; the reactor only wakes.
    """

    log = Logger()

    def __init__(self, *, reactor: Any, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.setName("probe loop")
        self._monotonic = monotonic
        self._alarm = Alarm(self._rung, reactor=reactor, monotonic=monotonic)
        self._due: dict[Hashable, tuple[float, int, Callable[[], None]]] = {}
        # Forgotten and superseded entries stay until their time comes or they outnumber the others.
        self._heap: list[tuple[float, int, Hashable]] = []
        self._entries = 0
        self._rested_at = -math.inf  # the next look, when none is late

    def schedule(self, key: Hashable, at: float, start: Callable[[], None]) -> None:
        """Call *start* at *at*, once; replaces what was scheduled for *key*. Before the service runs, it waits."""
        self._entries += 1
        self._due[key] = (at, self._entries, start)
        heapq.heappush(self._heap, (at, self._entries, key))
        if len(self._heap) > 2 * len(self._due) + START_BATCH:
            self._heap = [(at, entry, key) for key, (at, entry, _) in self._due.items()]
            heapq.heapify(self._heap)
        self._arm()

    def forget(self, key: Hashable) -> None:
        """Drop what was scheduled for *key*, if anything."""
        self._due.pop(key, None)

    def startService(self) -> None:
        super().startService()
        self._arm()

    def stopService(self) -> None:
        super().stopService()
        self._alarm.cancel()

    def _arm(self) -> None:
        if self.running and self._heap:
            self._alarm.at(max(self._heap[0][0], self._rested_at))

    def _rung(self) -> None:
        now, started = self._monotonic(), 0
        self._rested_at = -math.inf
        while self._heap and self._heap[0][0] <= now and started < START_BATCH:
            _, entry, key = heapq.heappop(self._heap)
            due = self._due.get(key)
            if due is None or due[1] != entry:
                continue
            del self._due[key]
            started += 1
            try:
                due[2]()
            except Exception:
                self.log.failure("starting the probe of {key} broke", key=key)
        if not self._heap or self._heap[0][0] > now:
            self._rested_at = now + REST_S
        self._arm()
