"""Places for clients: how many a process's descriptors are enough for, and who waits until one is free.

Descriptors are counted before they are taken. Each client is counted with two, its own and that to its host, even while it
waits for a host; what the admin, probes, agents, other directors and the store need is kept back. So when clients take
all there is for them, accepting pauses, the others wait in the kernel's backlog, and nothing else goes short.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Callable
from typing import NamedTuple

from cluster.shortage import DESCRIPTORS
from director.core.bucket import TokenBucket

PER_CLIENT = 2
PER_PIPE = 2
#: What a director has open before its first client: listeners, epoll objects, the log, the store. Counted at the start;
#: this stands in until then.
OWN = 32
#: Kept back beside that: 200 probes and 100 questions to DNS at once, the rest for operators, other directors and the store.
SPARE = 512
#: Of small limits this part is kept back instead.
SPARE_PART = 4


class Room(NamedTuple):
    """How a limit of descriptors is divided."""

    limit: float  #: infinite for none
    reserve: int  #: not for clients
    clients: float  #: at a time


def divide(limit: float, *, own: int = OWN, agents: int = 0, pipes: int = 0) -> Room:
    """Divide *limit* between clients and everything else.

    :param own: descriptors that are open for other things than clients.
    :param agents: that may connect, a descriptor each; they get half of what is left at most.
    :param pipes: that relays may have.
    """
    if math.isinf(limit):
        return Room(limit, own + agents + SPARE + pipes * PER_PIPE, math.inf)
    left = max(0, int(limit) - own)
    agents = min(agents, left // 2)
    reserve = own + agents + min(SPARE, (left - agents) // SPARE_PART) + pipes * PER_PIPE
    return Room(limit, reserve, max(1, (int(limit) - reserve) // PER_CLIENT))


def soft_limit() -> float:
    """Descriptors this process may have; infinite for any number."""
    return _limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def hard_limit() -> float:
    """Descriptors this process may ask to have."""
    return _limit(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _limit(number: int) -> float:
    return math.inf if number == resource.RLIM_INFINITY else number


def in_use() -> int:
    """Descriptors this process has open. The kernel counts them since Linux 6.2; before, they are listed."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))


class Places:
    """The clients of one process: counted by the frontends, looked at by the listeners."""

    def __init__(self, most: float = math.inf, *, pace: TokenBucket | None = None) -> None:
        self.most = most
        self.short_of = DESCRIPTORS  #: what lacks when all places are taken
        self.pace = pace  #: of accepting; None: as fast as clients come
        self.taken = 0
        self.pauses = 0  #: how often a listener stopped accepting for want of a place or a descriptor
        self.delayed = 0  #: clients who were in the backlog then
        self._waiting: dict[Callable[[], None], None] = {}

    def leave(self) -> None:
        """A client has gone."""
        self.taken -= 1
        if self._waiting and self.taken < self.most:
            self._wake()

    def resize(self, most: float, short_of: str = DESCRIPTORS) -> None:
        """So many may be there from now on; nobody is thrown out."""
        self.most, self.short_of = most, short_of
        if self._waiting and self.taken < most:
            self._wake()

    def wait(self, resume: Callable[[], None]) -> None:
        """Call *resume*, once, when there is a place; others who wait are told too, and who comes late waits again."""
        self._waiting[resume] = None

    def forget(self, resume: Callable[[], None]) -> None:
        self._waiting.pop(resume, None)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for resume in waiting:
            resume()
