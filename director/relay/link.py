"""What is remembered about a relayed connection: two ends, and a record over both.

Kept small: thousands sit idle. No buffers, no dictionaries, no socket objects; a connection's part of the relay's
memory is these three records, two places in the table of descriptors and one in the wheel.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from cluster.model import Reason
from director.relay.interface import Limits, Progress
from director.relay.pipes import Pipe, PipePool
from director.relay.turnarounds import STILL_S, Tally

#: Of the errors that break an end: no reset, but keepalive or the retransmissions ended it, for want of an answer. The
#: kernel says "unreachable" where the last router has said so.
LOST = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN})


class End:
    """A descriptor, and the stream that starts there and ends at `other`."""

    __slots__ = (
        "active",
        "asked",
        "asks",
        "broken",
        "bulk",
        "calm",
        "done",
        "eof",
        "fd",
        "finishing",
        "hold",
        "link",
        "moved",
        "other",
        "pipe",
        "piped",
        "readable",
        "urgent",
        "waits",
        "writable",
    )
    link: Link | None  #: None once the connection is over
    other: End

    def __init__(self, fd: int, now_s: float) -> None:
        self.fd = fd
        # the descriptor
        self.readable = False  #: not known to block
        self.writable = True  #: not known to block
        self.waits = False  #: registered for writability
        self.finishing = False  #: the peer's FIN is announced; bytes may be left before it
        self.urgent = False  #: TCP urgent data was seen: a read stops before its mark, so a short one proves nothing
        self.broken = 0  #: by which errno: reset, timed out or unreachable
        # the stream from here
        #: Nothing is special about it, and both ends are writable, so that no event for writability is awaited at
        #: either: the relay's fast path may serve it, which sees what came to read and nothing else.
        self.calm = False
        self.bulk = False  #: worth a pipe
        self.eof = False  #: read to its end
        self.done = False  #: its end is passed on, or what is left is of no use
        self.hold: bytes | None = None  #: read, but not yet taken by the other end
        self.pipe: Pipe | None = None
        self.piped = 0  #: bytes inside the pipe
        self.moved = 0  #: bytes the other end took; starts below 0 by the length of a preface
        self.active = now_s  #: last progress
        # whose turn it is to speak
        self.asks: Tally | None = None  #: a client's, whose bytes are questions: where they are counted
        self.asked = False  #: a host's: the client spoke since it did

    @property
    def empty(self) -> bool:
        """Nothing that was read is still on its way."""
        return self.hold is None and not self.piped

    def spoke(self, now_s: float) -> None:
        """The first bytes came from a host that was asked, or was silent for long. Before `active` is brought up to date."""
        tally = self.other.asks
        if tally is None:
            return
        if self.asked:
            self.asked = False
            tally.count += 1
            tally.seconds += now_s - self.other.active
        else:
            tally.unasked += now_s - self.active > STILL_S

    def moved_since(self, start: int, fresh: bool, now_s: float) -> None:
        """Bytes may have moved, or been read: progress for the limits, and perhaps somebody's turn to speak.

        :param start: `moved` before.
        :param fresh: nothing was on its way before.
        """
        if self.asks is not None:
            if self.moved > start and self.moved > 0:  # a preface is nobody's word
                self.other.asked = True
        elif fresh and (self.moved != start or not self.empty):
            self.spoke(now_s)
        if self.moved != start:
            self.active = now_s

    def why_broken(self) -> Reason:
        """How the connection ends because this end is broken."""
        lost, mine = self.broken in LOST, self.link is not None and self is self.link.client
        if lost:
            return Reason.CLIENT_LOST if mine else Reason.HOST_LOST
        return Reason.CLIENT_RESET if mine else Reason.HOST_RESET

    def discard(self, pipes: PipePool) -> None:
        """The stream from here is of no use any more: drop what is on its way."""
        self.done = True
        self.calm = False
        self.hold = None
        if self.pipe is not None:
            pipes.drop(self.pipe)
            self.pipe = None
            self.piped = 0


class Reset(NamedTuple):
    """A reset on its way to the other end."""

    source: End  #: the end that broke
    by: float  #: when the other end is reset at the latest


class Link:
    """Both ends, and what concerns the connection as a whole. Times are monotonic seconds."""

    __slots__ = (
        "bucket",
        "client",
        "connecting",
        "handle",
        "host",
        "limits",
        "reason",
        "reset",
        "started",
        "token",
    )

    def __init__(self, token: object, handle: int, client: End, host: End, limits: Limits, now_s: float) -> None:
        self.token = token
        self.handle = handle
        self.client = client
        self.host = host
        self.limits = limits
        self.connecting = True
        self.started = now_s
        self.reason: Reason | None = None  #: whose FIN or RST came first
        self.reset: Reset | None = None  #: once an end has broken
        self.bucket = 0  #: the wheel's
        client.link = host.link = self
        client.other, host.other = host, client

    @property
    def half_closed(self) -> bool:
        return self.client.done or self.host.done

    @property
    def active(self) -> float:
        """Last progress in either direction."""
        return max(self.client.active, self.host.active)

    def progress(self, now_s: float) -> Progress:
        return Progress(max(self.client.moved, 0), max(self.host.moved, 0), now_s - self.active)

    def deadline(self) -> tuple[float, Reason | None]:
        """When the next limit runs out if nothing moves until then, and the reason it gives; None for a connect."""
        limits = self.limits
        if self.connecting:
            return self.started + (limits.connect_s or float("inf")), None
        if self.half_closed:
            quiet, reason = limits.half_closed_s, Reason.HALF_CLOSED_TIMEOUT
        else:
            quiet, reason = limits.idle_s, Reason.IDLE_TIMEOUT
        at = self.active + (quiet or float("inf"))
        if limits.max_age_s and self.started + limits.max_age_s < at:
            return self.started + limits.max_age_s, Reason.MAX_AGE
        return at, reason
