"""Writes lines to a target without ever waiting for it.

A line goes out at once, in the caller's turn, when nothing waits before it and the target takes it (`cluster.log.channel`).
Otherwise it waits in a bounded backlog (`cluster.log.backlog`) until

- the reactor sees room in the pipe, socket or terminal;
- the reactor's pool has written the batch before it, to a target whose writes may wait (a file): one batch at a time, so
  that the order stays, and a disk that hangs costs one thread of the pool and the lines that no longer fit;
- `RETRY_S` has passed, after any error: a full disk, a reader that is gone.

Before the reactor runs and after it ended a file is written to directly: there is nobody yet, or no more, to be held up.
`close` waits for the rest, `CLOSE_S` at most.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.internet.interfaces import IWriteDescriptor
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from cluster.log.backlog import Backlog
from cluster.log.channel import Channel
from cluster.log.datagrams import Datagrams

#: After an error; a failing write is one cheap call.
RETRY_S = 1.0
#: For the last lines, when all else is over. A reader that lives takes a full backlog in milliseconds.
CLOSE_S = 1.0
#: Between two looks at a target that said there was room but had none.
_PAUSE_S = 0.01


#: What a log is written to.
Channels: TypeAlias = Channel | Datagrams


class _Batch:
    """What the pool writes. The thread alone sets the last three; *over* is the last that it sets."""

    def __init__(self, channel: Channels, data: bytes) -> None:
        self.channel = channel
        self.data = data
        self.written = 0
        self.failed = False
        self.over = False

    def write(self) -> None:
        try:
            while self.written < len(self.data):
                self.written += self.channel.write(self.data[self.written :])
        except OSError:
            self.failed = True
        self.over = True


@implementer(IWriteDescriptor)
class LineWriter:
    """One log's target. To be called in the reactor's thread only.

    :param told: makes the line that says how many were dropped.
    :param monotonic: for `close`, when the reactor keeps no time any more.
    """

    def __init__(self, channel: Channels, told: Callable[[int], bytes], *, reactor: Any,
                 monotonic: Callable[[], float] = time.monotonic) -> None:
        self._channel = channel
        self._backlog = Backlog(told)
        self._reactor = reactor
        self._monotonic = monotonic
        self._running = False
        self._closed = False
        # what the backlog waits for; at most one of them
        self._batch: _Batch | None = None
        self._room = False
        self._retry: Any = None
        reactor.callWhenRunning(self._begin)
        reactor.addSystemEventTrigger("during", "shutdown", self._end)

    @property
    def dropped(self) -> int:
        """Lines that there was no room for."""
        return self._backlog.dropped

    def write(self, line: bytes) -> None:
        """Write *line*, which ends in a newline, now or later or, when too much waits already, never."""
        if not self._closed:
            self._backlog.add(line)
            self._go_on()

    def replace(self, channel: Channels) -> None:
        """Write to *channel* from now on; the one before is closed. A line that it has in part is written anew."""
        self._stop_waiting()
        before, self._channel = self._channel, channel
        if self._batch is None:  # otherwise `_batch_over` does it
            self._renew(before)
            self._go_on()

    def close(self) -> None:
        """Write what waits, as far as the target takes it within `CLOSE_S`. For when the reactor has ended."""
        self._closed, self._running = True, False
        self._stop_waiting()
        batch, self._batch = self._batch, None
        if batch is not None and not batch.over:
            return  # the disk hangs; it may have part of the batch, so that nothing can follow
        if batch is not None:
            self._backlog.wrote(batch.written)
            if batch.channel is not self._channel:
                self._renew(batch.channel)
        deadline = self._monotonic() + CLOSE_S
        with contextlib.suppress(OSError):
            while (data := self._next(self._channel)) and (left := deadline - self._monotonic()) > 0:
                try:
                    if self._channel.ready(left):
                        self._backlog.wrote(self._channel.write(data))
                except BlockingIOError:
                    time.sleep(_PAUSE_S)
        self._channel.close()

    def _begin(self) -> None:
        self._running = True
        self._go_on()

    def _end(self) -> None:
        self._running = False  # the pool ends in the same phase

    def _go_on(self) -> None:
        if self._batch is not None or self._room or self._retry is not None:
            return
        if self._running and self._channel.may_wait:
            self._hand_over()
        else:
            self._write_now()

    def _write_now(self) -> None:
        channel = self._channel
        try:
            while data := self._next(channel):
                self._backlog.wrote(channel.write(data))
        except BlockingIOError:
            self._wait_for_room()
        except OSError:
            self._try_later()

    def _next(self, channel: Channels) -> bytes:
        return self._backlog.first() if channel.whole else self._backlog.head(channel.most)

    def _hand_over(self) -> None:
        data = self._next(self._channel)
        if data:
            self._batch = batch = _Batch(self._channel, data)
            deferToThreadPool(self._reactor, self._reactor.getThreadPool(), batch.write).addBoth(
                lambda _: self._batch_over(batch)
            )

    def _batch_over(self, batch: _Batch) -> None:
        if self._batch is not batch:
            return  # closed meanwhile
        self._batch = None
        self._backlog.wrote(batch.written)
        if batch.channel is not self._channel:
            self._renew(batch.channel)
        elif batch.failed:
            self._try_later()
        self._go_on()

    def _renew(self, before: Channels) -> None:
        before.close()
        self._backlog.begin_anew()

    # --- waiting

    def _wait_for_room(self) -> None:
        if self._running:
            try:
                self._reactor.addWriter(self)
            except OSError:  # a device that cannot be waited for
                self._try_later()
            else:
                self._room = True

    def _try_later(self) -> None:
        if self._running:
            self._retry = self._reactor.callLater(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._go_on()

    def _stop_waiting(self) -> None:
        if self._room:
            self._room = False
            self._reactor.removeWriter(self)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    # IWriteDescriptor

    def fileno(self) -> int:
        return self._channel.fd

    def logPrefix(self) -> str:
        return "Log"

    def doWrite(self) -> None:
        self._stop_waiting()
        self._go_on()

    def connectionLost(self, _reason: Any) -> None:
        """The reader is gone; another one may come (to a FIFO). The reactor has forgotten us already."""
        self._room = False
        self._try_later()
