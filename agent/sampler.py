"""What the machine says about its load. Every call is a few small reads of ``/proc``: well under a millisecond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import psutil

from agent.connections import ConnectionCounter
from agent.exposition import Served
from agent.load import Sample
from agent.own import OwnLoad


class Sampler(Protocol):
    def sample(self) -> Sample: ...

    def connections(self) -> int | None:
        """Established connections of the service's port; None: unknown."""
        ...


class MachineSampler:
    """CPU, memory and load average of this machine, the connections of *port*, and the service's own load.

    :param own: what reads that; None: the machine's stands for it.
    :param served: what tells what the service's own counters say.
    """

    def __init__(self, port: int | None, *, monotonic: Callable[[], float], own: OwnLoad | None = None,
                 served: Callable[[], Served | None] = lambda: None) -> None:
        self._served = served
        self._own = own
        self._counter = None if port is None else ConnectionCounter(port, monotonic=monotonic)
        self._cores = psutil.cpu_count() or 1
        psutil.cpu_percent(None)  # the next call tells the share since this one

    def sample(self) -> Sample:
        return Sample(
            cpu=min(1.0, psutil.cpu_percent(None) / 100),
            memory=psutil.virtual_memory().percent / 100,
            load=psutil.getloadavg()[0] / self._cores,
            connections=self.connections(),
            served=self._served(),
            own=None if self._own is None else self._own.sample(),
        )

    def connections(self) -> int | None:
        return None if self._counter is None else self._counter.count()
