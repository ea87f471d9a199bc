"""The default: by what there is to go by.

`LoadAware` while an agent reports in the group, else `WeightedLeastConnections`. Open connections are the hosts', not the
schedulers', so nothing is lost when one takes over from the other.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from cluster.model import LoadReport
from director.core.host import Host
from director.core.schedulers.base import Scheduler
from director.core.schedulers.least import WeightedLeastConnections
from director.core.schedulers.loadaware import LoadAware
from director.core.schedulers.sticky import Around

#: After so long without any report it is `weightedleastconns` again: a capacity is not known for longer either.
SILENCE_S = 180.0


class Auto(Around):
    """See the module."""

    def __init__(self) -> None:
        super().__init__(WeightedLeastConnections())
        self._hosts: Collection[Host] = ()
        self._eligible: dict[Host, None] = {}
        self._reported_at = -math.inf
        self._put_in_front(self._inner)

    @property
    def resolved(self) -> str:
        return "loadaware" if self._reported_at > -math.inf else "weightedleastconns"

    def _switch(self, scheduler: Scheduler) -> None:
        self._inner = scheduler
        scheduler.configure(self._hosts)
        for host in self._eligible:
            scheduler.add(host)
        self._put_in_front(scheduler)

    def _put_in_front(self, scheduler: Scheduler) -> None:
        """What every connection calls is the scheduler's own, without a call in between."""
        self.pick = scheduler.pick  # type: ignore[method-assign]
        self.picked = scheduler.picked  # type: ignore[method-assign]
        self.closed = scheduler.closed  # type: ignore[method-assign]

    def configure(self, hosts: Collection[Host]) -> None:
        self._hosts = hosts
        super().configure(hosts)

    def add(self, host: Host) -> None:
        self._eligible[host] = None
        super().add(host)

    def remove(self, host: Host) -> None:
        del self._eligible[host]
        super().remove(host)

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        return self._inner.pick(client, exclude, now)

    def preview(self, client: bytes | None, now: float) -> Host | None:
        return self._inner.preview(client, now)

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        return self._inner.factors(host, client, now)

    def reported(self, host: Host, report: LoadReport, now: float) -> None:
        first = self._reported_at == -math.inf
        self._reported_at = now
        if first:
            self._switch(LoadAware())
        super().reported(host, report, now)

    def cleanup(self, now: float) -> int:
        if now - self._reported_at > SILENCE_S and self._reported_at > -math.inf:
            self._reported_at = -math.inf
            self._switch(WeightedLeastConnections())
        return super().cleanup(now)
