"""The Python relay: raw descriptors in an epoll object of its own, which is one descriptor of the reactor.

How it works:

- Each connection is two `End` records in a table indexed by descriptor. Both descriptors are registered once,
  edge-triggered; for writability only once a send blocked (the host's from the start: that is how a connect ends).
- An event marks an end readable or writable, and the stream it concerns is pumped until something blocks
  (`director.relay.stream`). A small message is one read and one write.
- Whatever happens to a connection, the caller hears of it after the batch of events, when its descriptors are closed:
  so no callback ever runs in the middle of a batch, and no event of a batch can concern a descriptor opened since.
- Limits are looked at by a coarse `TimedWheel`, which wakes by itself, and only while connections are.

Linux only: epoll, splice(2), SIOCOUTQ.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cluster.errors import Misuse
from cluster.model import Reason
from director.relay.descriptors import error_of, on_socket, reset_on_close, unsent
from director.relay.interface import RST_GRACE_S, Counters, Limits, Progress, RelayEvents
from director.relay.link import End, Link, Reset
from director.relay.outbox import Outbox
from director.relay.pipes import MAX_PIPES, PipePool
from director.relay.stream import forward, pump
from director.relay.timed_wheel import TimedWheel
from director.relay.turnarounds import NO_TALLY, STILL_S, Tallies, Turnarounds
from director.relay.wheel import TICK_S
from director.timing.seldom import Seldom, more

_IN, _OUT, _IN_OUT = select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT
_RDHUP, _PRI, _ERR = select.EPOLLRDHUP, select.EPOLLPRI, select.EPOLLERR
_READ = _IN | _RDHUP | _PRI | select.EPOLLET
_READ_WRITE = _READ | _OUT

#: Events taken from the kernel at once: the callbacks of one batch wait for all of it.
BATCH = 128
#: Batches in a row before the reactor gets its turn.
BATCHES = 4
#: A handle is a serial number over the client's descriptor, which finds the connection again.
_FD_BITS = 24


@implementer(IReadDescriptor)
class PythonRelay:
    """See `director.relay.interface.Relay`.

    :param seconds: a monotonic clock.
    :param pipes: at most.
    """

    name = "python"
    _log = Logger()
    _flow = staticmethod(pump)

    def __init__(self, *, reactor: Any, seconds: Callable[[], float] = time.monotonic, pipes: int = MAX_PIPES) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._now = seconds()
        self._events: RelayEvents | None = None
        self._epoll: select.epoll | None = None
        self._ends: list[End | None] = []
        self._wheel: TimedWheel[Link] = TimedWheel(self._look, reactor=reactor)
        self._pipes = PipePool(maximum=pipes)
        self._outbox = Outbox(reactor)
        self._serial = 0
        self._seldom = Seldom()
        self._tallies = Tallies()
        self._open = self._connecting = 0
        self._closed_to_host = self._closed_to_client = 0

    # --- Relay --------------------------------------------------------------------------------------------

    def start(self, events: RelayEvents) -> None:
        self._events = events
        self._epoll = select.epoll()
        self._reactor.addReader(self)

    def relay(
        self, token: object, client: int, host: int, limits: Limits, preface: bytes = b"", tally: int = NO_TALLY
    ) -> int:
        if self._epoll is None:
            raise Misuse("the relay is not running")
        now = self._seconds()
        self._serial += 1
        handle = self._serial << _FD_BITS | client
        client_end, host_end = self._new_ends(token, client, host, now)
        if preface:
            client_end.hold = preface
            client_end.moved = -len(preface)
        host_end.waits = True
        client_end.asks = self._tallies.by_number.get(tally)
        link = Link(token, handle, client_end, host_end, limits, now)
        ends = self._ends
        if client >= len(ends) or host >= len(ends):
            ends.extend([None] * (max(client, host) + 1 - len(ends) + len(ends) // 8))
        ends[client], ends[host] = client_end, host_end
        self._open += 1
        self._connecting += 1
        try:
            self._epoll.register(client, _READ)
            self._epoll.register(host, _READ_WRITE)
        except OSError as error:  # ENOMEM, ENOSPC (max_user_watches)
            if (held := self._seldom.due("epoll")) is not None:
                self._log.warn("epoll refuses a descriptor: {error}{more}", error=error, more=more(held))
            self._end(link, Reason.RELAY_ERROR, reset=True)
            self._outbox.deliver_soon()
            return handle
        self._wheel.put(link, now + (limits.connect_s or float("inf")), now)
        return handle

    def _new_ends(self, token: object, client: int, host: int, now: float) -> tuple[End, End]:
        return End(client, now), End(host, now)

    def kill(self, handle: int, reason: Reason) -> None:
        link = self._find(handle)
        if link is not None:
            self._end(link, reason, reset=True)
            self._outbox.deliver_soon()

    def progress(self, handle: int) -> Progress | None:
        link = self._find(handle)
        return None if link is None else link.progress(self._seconds())

    def tokens(self) -> list[object]:
        return [link.token for link in self._links()]

    def counters(self) -> Counters:
        to_host, to_client, stalled = self._closed_to_host, self._closed_to_client, 0
        for link in self._links():
            to_host += max(link.client.moved, 0)
            to_client += max(link.host.moved, 0)
            stalled += not link.connecting and not (link.client.empty and link.host.empty)
        pipes = self._pipes
        return Counters(self._open, self._connecting, to_host, to_client, pipes.spliced_bytes, stalled, pipes.count)

    def owes_s(self) -> float:
        return 0.0

    def tally(self) -> int:
        return NO_TALLY if self._epoll is None else self._tallies.take()

    def free_tally(self, number: int) -> None:
        self._tallies.give(number)

    def turnarounds(self, number: int) -> Turnarounds:
        return self._tallies.read(number)

    def stop(self) -> None:
        if self._epoll is None:
            return
        self._reactor.removeReader(self)
        for link in list(self._links()):
            self._end(link, Reason.SHUTDOWN, reset=True)
        self._epoll.close()
        self._epoll = None
        self._pipes.close()
        self._tallies = Tallies()
        self._wheel.stop()
        self._outbox.stop()

    # --- the reactor's descriptor -------------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "relay"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor lets go of us: when it stops."""
        self.stop()

    def doRead(self) -> None:
        """Serve what is ready, up to `BATCHES`; then the reactor has its turn, and comes back at once for the rest."""
        self._now = now = self._seconds()
        ends = self._ends
        for _ in range(BATCHES):
            if self._epoll is None:  # stopped by a callback
                return
            batch = self._epoll.poll(0, BATCH)
            for fd, mask in batch:
                end = ends[fd]
                if end is None:
                    continue
                try:
                    if end.calm and mask | _OUT == _IN_OUT:
                        other = end.other
                        if end.asks is not None:
                            other.asked = True
                        elif end.asked or now - end.active > STILL_S:
                            end.spoke(now)
                        end.active = now
                        if not forward(end, other):
                            self._move(end)
                    else:
                        self._ready(end, mask)
                except Exception:
                    self._fail(end)
            if self._outbox:
                self._outbox.deliver()
            if len(batch) < BATCH:
                return

    def _ready(self, end: End, mask: int) -> None:
        """The rules of what an event means."""
        link = end.link
        assert link is not None
        if mask & ~_OUT:
            end.readable = True
            if mask & _RDHUP:
                end.finishing = True
                end.calm = False
            if mask & _PRI:
                end.urgent = True
                end.calm = False
        if link.connecting:
            if end is link.host:
                self._host_answered(link, mask)
            elif mask & _ERR:
                self._end(link, Reason.CLIENT_RESET, reset=True)
            return
        if mask & _ERR:
            end.broken = end.broken or error_of(end.fd) or errno.ECONNRESET
        if mask & _OUT and not end.writable:
            end.writable = True
            self._move(end.other)
        if mask & ~_OUT and end.link is not None:
            self._move(end)

    # --- connecting ---------------------------------------------------------------------------------------

    def _host_answered(self, link: Link, mask: int) -> None:
        if mask & (_ERR | select.EPOLLHUP):
            error = error_of(link.host.fd)
            if error:
                self._give_back(link, error)
                return
        elif not mask & _OUT:
            return
        link.connecting = False
        self._connecting -= 1
        link.host.active = self._now
        assert self._events is not None
        self._outbox.append((self._events.connected, (link.token,)))
        for end in (link.client, link.host):
            if end.readable or end.hold is not None:
                self._move(end)
                if end.link is None:
                    return
            else:
                end.calm = end.writable  # what moved before may have filled it
        if link.limits.max_age_s or link.limits.idle_s < link.limits.connect_s:  # else it is looked at early enough
            self._put_sooner(link)

    def _give_back(self, link: Link, error: int) -> None:
        assert self._events is not None
        self._forget(link)
        os.close(link.host.fd)
        self._outbox.append((self._events.connect_failed, (link.token, link.client.fd, error)))

    # --- streams ------------------------------------------------------------------------------------------

    def _move(self, source: End) -> None:
        """Something changed for the stream from *source*: move what can be moved, and act on what that showed."""
        target, link = source.other, source.link
        assert link is not None
        if link.reset is not None:
            self._pass_reset(link)
            return
        turn_is_over = not source.done and self._flow(source, target, self._pipes, self._now)
        if source.broken or target.broken:
            self._broke(link, source if source.broken else target)
        elif source.done:
            return
        elif source.eof and source.empty:
            self._pass_end(link, source)
        else:
            if turn_is_over:
                self._again(source)
            elif not target.writable:
                self._await_writable(target)
                target.calm = False
            source.calm = source.writable and target.writable and not (source.bulk or source.finishing or source.urgent)

    def _again(self, end: End) -> None:
        """Have the kernel report *end* again, in a later batch, if it is still ready."""
        assert self._epoll is not None
        self._epoll.modify(end.fd, _READ_WRITE if end.waits else _READ)

    def _await_writable(self, end: End) -> None:
        if not end.waits:
            end.waits = True
            self._again(end)

    def _pass_end(self, link: Link, source: End) -> None:
        """*source* is read to its end: FIN to the other end, or both are through."""
        source.done = True
        source.calm = False
        source.active = self._now
        if link.reason is None:
            link.reason = Reason.CLIENT_CLOSED if source is link.client else Reason.HOST_CLOSED
        if source.other.done:
            self._end(link, link.reason)
            return
        try:
            on_socket(source.other.fd, socket.SocketType.shutdown, socket.SHUT_WR)
        except OSError:  # ENOTCONN: it was reset; its event is under way
            source.other.broken = source.other.broken or errno.ECONNRESET
            self._broke(link, source.other)
        else:
            quiet_s = link.limits.half_closed_s
            if quiet_s and (quiet_s < link.limits.idle_s or not link.limits.idle_s):  # else it is looked at early enough
                self._put_sooner(link)

    def _broke(self, link: Link, end: End) -> None:
        """*end* was reset, or is lost: nothing can be sent there, but what can still be read from it is passed on first."""
        link.reset = Reset(end, self._now + RST_GRACE_S)
        link.reason = end.why_broken()
        end.calm = False
        end.readable = True
        end.other.discard(self._pipes)
        self._pass_reset(link)

    def _pass_reset(self, link: Link) -> None:
        """Reset the other end once it has everything, or the time is up."""
        assert link.reset is not None and link.reason is not None
        source, by = link.reset
        target = source.other
        if self._now < by and not target.broken:
            turn_is_over = not source.done and self._flow(source, target, self._pipes, self._now)
            whole = source.done or (source.eof and source.empty)
            if not target.broken and not (whole and not unsent(target.fd)):
                if not target.writable:
                    self._await_writable(target)
                elif turn_is_over:
                    self._again(source)
                self._put_sooner(link)
                return
        self._end(link, link.reason, reset=True)

    # --- the end ------------------------------------------------------------------------------------------

    def _end(self, link: Link, reason: Reason, *, reset: bool = False) -> None:
        """Close both ends, with RST if *reset*, and leave word."""
        assert self._events is not None
        self._forget(link)
        for end in (link.client, link.host):
            if end.pipe is not None:
                end.discard(self._pipes)
            if reset and not end.broken:
                reset_on_close(end.fd)
            os.close(end.fd)
        to_host, to_client = link.client.moved, link.host.moved
        if to_host < 0:  # a preface, not all of which was taken
            to_host = 0
        self._closed_to_host += to_host
        self._closed_to_client += to_client
        self._outbox.append((self._events.closed, (link.token, reason, to_host, to_client)))

    def _forget(self, link: Link) -> None:
        """No event of its descriptors comes any more: closing is not enough while a child just forked has them, too."""
        assert self._epoll is not None
        for end in (link.client, link.host):
            try:  # noqa: SIM105 - suppress() costs as much as the call
                self._epoll.unregister(end.fd)
            except FileNotFoundError:  # it had been refused
                pass
            self._ends[end.fd] = None
            end.link = None
            del end.other  # the cycle
        self._wheel.discard(link)
        self._open -= 1
        if link.connecting:
            self._connecting -= 1

    def _fail(self, end: End) -> None:
        """Called while an exception is handled: it costs this connection, and no other."""
        self._log.failure("relaying failed")
        if end.link is not None:
            self._end(end.link, Reason.RELAY_ERROR, reset=True)

    def _find(self, handle: int) -> Link | None:
        fd = handle & ((1 << _FD_BITS) - 1)
        end = self._ends[fd] if fd < len(self._ends) else None
        return end.link if end is not None and end.link is not None and end.link.handle == handle else None

    def _links(self) -> Iterator[Link]:
        for end in self._ends:
            if end is not None and end.link is not None and end is end.link.client:
                yield end.link

    # --- limits -------------------------------------------------------------------------------------------

    def _put_sooner(self, link: Link) -> None:
        """A limit of *link* may have moved closer."""
        self._wheel.sooner(link, self._next_look(link, self._now), self._now)

    def _next_look(self, link: Link, now: float) -> float:
        if link.reset is not None:
            return min(link.reset.by, now + TICK_S)
        return link.deadline()[0]

    def _look(self) -> None:
        """The wheel rang: cut what ran out, put the others back."""
        self._now = now = self._seconds()
        for link in self._wheel.due(now):
            try:
                self._look_at(link)
            except Exception:
                self._fail(link.client)
        self._outbox.deliver()
        if self._epoll is not None:
            self._wheel.wind(now)

    def _look_at(self, link: Link) -> None:
        if link.reset is not None:
            self._pass_reset(link)
            return
        at, reason = link.deadline()
        if self._now < at:
            self._wheel.put(link, at, self._now)
        elif reason is None:
            self._give_back(link, errno.ETIMEDOUT)
        else:
            self._end(link, reason, reset=True)
