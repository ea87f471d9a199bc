"""The guards of SCHEDULING: against hosts that hang, and against hosts that draw too much.

**stall.** A host that has at least two connections and has finished none for 8 times the usual duration hangs, or will not
keep up: with *q* the quiet time over the usual duration, ``1 + q / 8``. Durations cannot say so, for nothing ends.

**cap.** What looks best by every other measure may be a sinkhole that fails fast. A host that has had more than 1.5 times
its fair share (by weight) of the last 32 picks per host costs ``2 + 10 * excess``: more than it can look better by. And a
host whose last report with completions told of a fifth of errors is on trial: between two reports it gets three clients,
which is what W takes a verdict from. It needs no more to show that it has healed, and a fair share of a second's clients
would be dozens.
"""

from __future__ import annotations

from collections import deque
from math import inf

from cluster.model import LoadReport
from director.core.capacity import LEAST_COMPLETIONS, MOST_ERRORS
from director.core.host import Host

#: Quiet times below so many usual durations are no stall.
STALL_AFTER = 8.0
STALL_CONNECTIONS = 2
#: Picks per host that are remembered.
WINDOW = 32
#: Shares up to this multiple of the fair one are left alone.
MOST_SHARE = 1.5
CAPPED = 2.0
EXCESS_COST = 10.0
#: Of a host on trial that has had its clients: more than the others can have in flight.
TRIED = 64.0


def stall(own: int, quiet_s: float, usual_s: float, after: float = STALL_AFTER) -> float:
    """The factor of a host with *own* connections that has finished none for *quiet_s*."""
    if own < STALL_CONNECTIONS or quiet_s <= after * usual_s:
        return 1.0
    return 1.0 + quiet_s / max(usual_s, 1e-6) / after


class Trial:
    """One host's, at one director."""

    __slots__ = ("_failing", "_picks", "factor")

    def __init__(self) -> None:
        self.factor = 1.0
        self._failing = False  #: by its last report with completions
        self._picks = 0  #: since its last report

    def reported(self, report: LoadReport) -> None:
        self._picks = 0
        self.factor = 1.0
        if report.errors is not None and (report.completions or report.rate):
            self._failing = report.errors >= MOST_ERRORS

    def picked(self) -> None:
        self._picks += 1
        if self._failing and self._picks >= LEAST_COMPLETIONS:
            self.factor = TRIED


class Shares:
    """How the last picks were shared out."""

    def __init__(self, most: float = MOST_SHARE) -> None:
        self._most = most
        self._picks: deque[Host] = deque()
        self._counts: dict[Host, int] = {}
        self._size = 0
        self._total = 0.0

    def copy(self) -> Shares:
        other = Shares(self._most)
        other._picks, other._counts = self._picks.copy(), self._counts.copy()
        other._size, other._total = self._size, self._total
        return other

    def resize(self, hosts: int, total_weight: float) -> None:
        """The pool has so many hosts, of so much weight."""
        self._size = WINDOW * hosts
        self._total = total_weight
        while len(self._picks) > self._size:
            self._forget()

    def picked(self, host: Host) -> Host | None:
        """Count a pick. Returns the host whose pick was forgotten for it."""
        self._picks.append(host)
        self._counts[host] = self._counts.get(host, 0) + 1
        return self._forget() if len(self._picks) > self._size else None

    def _forget(self) -> Host:
        host = self._picks.popleft()
        if self._counts[host] > 1:
            self._counts[host] -= 1
        else:
            del self._counts[host]
        return host

    def cap(self, host: Host) -> float:
        """The factor. A window that is not full yet is taken for one of fair shares."""
        count = self._counts.get(host, 0)
        fair = host.weight * self._size
        share = count * self._total / fair if fair else inf if count else 0.0
        return CAPPED + EXCESS_COST * (share - self._most) if share > self._most else 1.0
