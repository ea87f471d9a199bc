"""Turnarounds: what a relay that never parses still sees of who speaks.

A *turnaround* is the first byte from a host after bytes from its client; its time runs from the client's last byte, or
from its FIN where that came later, since some hosts answer only then. For request/response protocols turnarounds are
requests. A pipeline of requests is one, and so is whatever a host sends in pieces.

*unasked* counts what speaks against that reading: a host that began to speak after `STILL_S` of silence although its client
had said nothing since. A banner right after the connect is none.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

#: A host that begins to speak after so long, without having been asked, pushes. Longer than a throttled cgroup's pause
#: (quotas are of 100 ms by default), so that an answer in several pieces is no push.
STILL_S = 0.15
#: For `Relay.relay`: nothing is counted.
NO_TALLY = 0


class Turnarounds(NamedTuple):
    """Of one tally's connections; totals since the tally was taken."""

    total: int = 0
    seconds: float = 0.0  #: of all of them together
    unasked: int = 0


class Tallying(Protocol):
    """The part of a relay that counts; see `director.relay.interface.Relay`."""

    def tally(self) -> int: ...
    def free_tally(self, number: int) -> None: ...
    def turnarounds(self, number: int) -> Turnarounds: ...


class HostTally:
    """One host's, in the relay of its service."""

    def __init__(self, relay: Tallying) -> None:
        self._relay = relay
        self.number = relay.tally()

    def read(self) -> Turnarounds:
        return self._relay.turnarounds(self.number)

    def free(self) -> None:
        """The host is gone."""
        self._relay.free_tally(self.number)
        self.number = NO_TALLY


class Tally:
    """What the Python relay's connections count in."""

    __slots__ = ("count", "seconds", "unasked")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.unasked = 0


class Tallies:
    """The Python relay's tallies by number. A connection has the tally itself, so that the next user of a number that was
    given back begins at zero."""

    def __init__(self) -> None:
        self.by_number: dict[int, Tally] = {}
        self._last = NO_TALLY

    def take(self) -> int:
        self._last += 1
        self.by_number[self._last] = Tally()
        return self._last

    def give(self, number: int) -> None:
        self.by_number.pop(number, None)

    def read(self, number: int) -> Turnarounds:
        tally = self.by_number.get(number)
        return Turnarounds() if tally is None else Turnarounds(tally.count, tally.seconds, tally.unasked)
