"""The seam between deciding and moving bytes.

The director accepts a client, picks a host, starts a non-blocking connect and hands both descriptors to a relay. The
relay waits for the connect, moves the bytes, and reports. Every implementation passes one contract suite
(``tests/contract/test_relay.py``).

The contract:

1. Descriptors handed over belong to the relay, which closes them; but when a connect fails, the *client's* comes back
   with `RelayEvents.connect_failed`, unread and open, for another host to be tried.
2. For each `Relay.relay` call there is exactly one final event: `connect_failed` or `closed`. `connected` comes before
   `closed` when the connect succeeded. Events come on the reactor's thread, never from within a call to the relay.
3. While the connect is pending the client's bytes stay in the kernel. A client's FIN then is not an abort; its
   RST is: `closed` with `Reason.CLIENT_RESET`, without `connected`.
4. *preface* is sent to the host before the client's first byte.
5. FIN is passed on as FIN, each direction by itself. RST is passed on as RST, but only after what was readable has been
   forwarded and the send queue is empty (SIOCOUTQ) or `RST_GRACE_S` has passed: a reset must not destroy a
   finished answer.
6. Progress in either direction is activity, spliced bytes too.
7. Memory is bounded: what the peer would not take is buffered up to one chunk, then reading stops.
8. Turnarounds (`director.relay.turnarounds`) are counted under the tally that a connection was given, without an event.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cluster.model import Reason
from director.relay.turnarounds import NO_TALLY, Turnarounds

#: How long a reset may wait for the other side's send queue to empty.
RST_GRACE_S = 1.0


class Limits(NamedTuple):
    """Seconds for one connection; 0 turns a limit off."""

    connect_s: float
    idle_s: float
    half_closed_s: float
    max_age_s: float = 0.0  #: from hand-over; the caller has applied the jitter


class Progress(NamedTuple):
    """One open connection, for an operator's eye."""

    to_host: int  #: bytes
    to_client: int  #: bytes
    idle_s: float


class Counters(NamedTuple):
    """Totals since start, and gauges, for metrics only; never used for decisions."""

    open: int  #: connections now, pending connects included
    connecting: int
    to_host_bytes: int
    to_client_bytes: int
    spliced_bytes: int
    stalled: int  #: connections with a buffer waiting for a slow reader
    pipes: int  #: pipes in the pool or in use


class RelayEvents(Protocol):
    """Who is told. *token* is what `Relay.relay` was given."""

    def connected(self, token: object) -> None:
        """The host answered the connect."""

    def connect_failed(self, token: object, client: int, error: int) -> None:
        """The host did not; *client* is the caller's again. *error*: an errno, ``ETIMEDOUT`` after *connect_s*."""

    def closed(self, token: object, reason: Reason, to_host: int, to_client: int) -> None:
        """It is over; bytes each way, the preface not counted."""


class Relay(Protocol):
    """A mover of bytes. All calls are on the reactor's thread."""

    name: str  #: ``python`` or ``native``

    def start(self, events: RelayEvents) -> None: ...

    def relay(
        self, token: object, client: int, host: int, limits: Limits, preface: bytes = b"", tally: int = NO_TALLY
    ) -> int:
        """Take over *client* (connected) and *host* (non-blocking connect under way, or done).

        :param tally: where its turnarounds are counted; one that is free counts nothing.
        :returns: a handle for `kill` and `progress`, never reused while the process lives.
        """

    def kill(self, handle: int, reason: Reason) -> None:
        """End a connection now: both sides are reset, `closed` follows with *reason*. A handle of a connection that is
        over is ignored."""

    def progress(self, handle: int) -> Progress | None:
        """How far a connection got; None when it is over."""

    def tokens(self) -> list[object]:
        """Of all connections that are not over; looks at every one. One whose end waits to be told may be missing."""

    def counters(self) -> Counters: ...

    def owes_s(self) -> float:
        """For how long a thread of its own has owed a sign of life; 0 where there are none. Asks for the next sign, so the
        first look finds nothing: look every few seconds."""

    def tally(self) -> int:
        """A number to count a host's turnarounds under; `NO_TALLY` when there is no room for one more, or it has stopped."""

    def free_tally(self, number: int) -> None:
        """The host is gone. Its connections that are still open are not counted under whatever has the number next."""

    def turnarounds(self, number: int) -> Turnarounds:
        """Cheap: a few loads. Zeros for a number that is free, and when the relay has stopped."""

    def stop(self) -> None:
        """End every connection with `Reason.SHUTDOWN`, deliver their events before returning, release everything."""
