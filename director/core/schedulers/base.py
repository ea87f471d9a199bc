"""What a scheduler is: the choice among hosts that may take a connection now.

A scheduler is told which hosts are *eligible*; it never checks states itself. The pool adds a host when it may take new
connections (available, weight above 0, below its maximum, right tier) and removes it when not, so that a pick never
scans. Randomness is passed in; time comes with each event.

Three sources feed a scheduler (SCHEDULING): configuration (weights), this director's own observations (`picked`,
`closed`) and the agents' reports (`reported`). Simple schedulers ignore most of it.

Two rules every scheduler keeps:

1. While any eligible host is outside *exclude*, `pick` answers one.
2. `pick` remembers nothing; what a choice changes, `picked` changes. So a pick can be looked at without being made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

from cluster.model import LoadReport, Reason
from director.core.host import Host

#: Uniform in [0, 1), like ``random.random``.
Random = Callable[[], float]


class Parts(NamedTuple):
    """How often new connections come to a host, beside the parts of the other eligible ones, as long as connections last
    alike on all of them (`director.core.expected`)."""

    idle: float  #: while hosts are mostly idle
    busy: float  #: while all have connections


#: Where all hosts are alike.
ALIKE = Parts(1.0, 1.0)


class Scheduler(Protocol):
    """Every method but `configure` is O(log n) or better in the number of hosts."""

    def configure(self, hosts: Collection[Host]) -> None:
        """All hosts of the group, eligible or not, changed by configuration. Consistent hashing rebuilds here, from
        names and configured weights only; others have nothing to do, or forget who is gone."""

    def add(self, host: Host) -> None:
        """*host* became eligible (its weight is above 0)."""

    def remove(self, host: Host) -> None:
        """*host* is not eligible any more. Its events may still arrive until its last connection closed."""

    def reweigh(self, host: Host) -> None:
        """``host.weight`` of an eligible host changed."""

    def pick(self, client: bytes | None, exclude: Collection[Host], now: float) -> Host | None:
        """Choose an eligible host outside *exclude* (at most a few, already tried for this client).

        :param client: the client's packed address (4 or 16 bytes), None for UNIX clients.
        """

    def picked(self, host: Host, client: bytes | None, now: float) -> None:
        """A connection of *client* was given to *host*; ``host.in_flight`` and ``host.turn`` are already raised."""

    def closed(self, host: Host, duration_s: float, reason: Reason, now: float) -> None:
        """A connection of *host* ended; ``host.in_flight`` is already lowered."""

    def reported(self, host: Host, report: LoadReport, now: float) -> None:
        """*host*'s agent reported."""

    def turned(self, host: Host, count: int, total_s: float, now: float) -> None:
        """*count* turnarounds of *host* ended since the last time, which took *total_s* seconds together: first bytes from
        it after bytes from its client, on connections of this director."""

    def preview(self, client: bytes | None, now: float) -> Host | None:
        """What `pick` would answer for certain; None when it would be drawn at random, or nobody is eligible."""

    def factors(self, host: Host, client: bytes | None, now: float) -> dict[str, float]:
        """Every number that matters in whether *host* is chosen for *client*, to be shown to an operator."""

    def rule(self, client: bytes | None, now: float) -> str:
        """By which rule `pick` would choose now, as a sentence that goes on behind the scheduler's name."""

    def parts(self, host: Host, now: float) -> Parts:
        """Of an eligible host. O(1)."""

    def looking(self, now: float) -> AbstractContextManager[None]:
        """Within it all that is shown is as a pick at *now* would find it; afterwards all is as it was before. Nothing
        must happen meanwhile. O(n)."""

    @property
    def resolved(self) -> str:
        """The scheduler that it has chosen to be for now, by name; empty when it is what it is called."""

    @property
    def entries(self) -> int:
        """How many clients it remembers."""

    def cleanup(self, now: float) -> int:
        """Forget clients whose time is over; answers how many. O(forgotten)."""


class Quiet:
    """Do-nothing answers for what most schedulers ignore."""

    def configure(self, hosts: Collection[Host]) -> None: ...

    def reweigh(self, host: Host) -> None: ...

    def picked(self, host: Host, client: bytes | None, now: float) -> None: ...

    def closed(self, host: Host, duration_s: float, reason: Reason, now: float) -> None: ...

    def reported(self, host: Host, report: LoadReport, now: float) -> None: ...

    def turned(self, host: Host, count: int, total_s: float, now: float) -> None: ...

    def parts(self, host: Host, now: float) -> Parts:
        return ALIKE

    def looking(self, now: float) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def resolved(self) -> str:
        return ""

    @property
    def entries(self) -> int:
        return 0

    def cleanup(self, now: float) -> int:
        return 0
