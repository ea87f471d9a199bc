"""The old process: starts the new one, gives it everything in one step, and ends; or goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from director.admin.offers import Upgraded
from director.engine.errors import Conflict
from director.handover.channel import VARIABLE, Channel
from director.handover.frames import Accepting, AnyFrame, Cut, Offer, Progress, Ready, Refused, Retired, Take, Tell
from director.ports.passing import SOCKETS

#: From the last word of the old process to the new one's first client. Clients wait in the kernel's queue meanwhile,
#: which has room for thousands; a new process that takes longer does not do it at all.
TAKE_S = 10.0
#: Between two words of progress.
PROGRESS_S = 1.0
#: For the last one to be heard.
LAST_WORD_S = 2.0


class Gives(Protocol):
    """A director as far as it can be given away."""

    def offer(self) -> tuple[Offer, list[int]]:
        """What it has now, and the descriptors that go with it."""

    def freeze(self) -> Deferred[Take]:
        """Accept nobody and write nothing; fires with all that it knows. Fails when that cannot be in time."""

    def thaw(self) -> None:
        """Go on: nobody took over."""

    def retire(self) -> None:
        """Another process serves. What is open goes on to its end."""

    def progress(self) -> Progress:
        """Since the last time it was asked."""

    def cut(self, service: str, client: str) -> None:
        """End a client's connections."""


class Successor(ProcessProtocol):
    """The new process, and what came of it.

    :ivar ended: fires with how it ended.
    """

    def __init__(self) -> None:
        self.ended: Deferred[str] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        code, number = getattr(reason.value, "exitCode", None), getattr(reason.value, "signal", None)
        how = f"was ended by {signal.Signals(number).name}" if number else f"ended with exit code {code}"
        self.ended.callback(f"the new process {how}")


class Giving:
    """At most one upgrade at a time.

    :param environment: what the new process needs besides this one's environment.
    :param ready_s: how long the new process may take until it could serve.
    :param on_over: called when another process serves, with its number.
    """

    log = Logger()

    def __init__(self, director: Gives, *, reactor: Any, environment: Callable[[], Mapping[str, str]], ready_s: float,
                 on_over: Callable[[int], None]) -> None:
        self._director = director
        self._reactor = reactor
        self._environment = environment
        self._ready_s = ready_s
        self._on_over = on_over
        self._channel: Channel | None = None
        self._waiting: Deferred[AnyFrame] | None = None
        self._failed = ""
        self._telling: Deferred[None] | None = None
        self.under_way = False

    async def upgrade(self, who: str) -> Upgraded:
        """:raises Conflict: this process serves on; says why."""
        if self.under_way:
            raise Conflict("an upgrade is under way")
        self.under_way = True
        self._failed = ""
        process, successor = self._spawn()
        frozen = False
        try:
            ready = await self._answer(Ready, self._ready_s, "was not ready")
            self.log.info("the new process, {pid}, is ready: it takes over", pid=process.pid)
            frozen = True
            take = await self._director.freeze()
            self._say(msgspec.structs.replace(take, ordered_by=who))
            await self._answer(Accepting, TAKE_S, "did not take over")
        except BaseException as error:
            why = await self._ended(process, successor, error)
            if frozen:
                self._director.thaw()
            self.under_way = False
            self.log.error("{why}; this process serves on", why=why)
            raise Conflict(f"{why}; the process that was there serves on") from error
        SOCKETS.give_away()
        self._on_over(process.pid)
        self._say(Retired())
        self._director.retire()
        progress = self._director.progress()
        self._say(progress)
        self._go_on_telling()
        return Upgraded(pid=process.pid, version=ready.version, connections=progress.connections,
                        at_most_s=progress.at_most_s)

    async def close(self) -> None:
        """This process ends: the last word."""
        if self._telling is not None:
            self._telling.cancel()
        if self._channel is not None and SOCKETS.given_away:
            self._say(self._director.progress())
            await self._channel.close().addTimeout(LAST_WORD_S, self._reactor).addErrback(lambda failure: None)

    # --- inside

    def _spawn(self) -> tuple[Any, Successor]:
        ours, theirs = socket.socketpair()
        successor = Successor()
        try:
            environment = os.environ | self._environment() | {VARIABLE: "3"}
            process = self._reactor.spawnProcess(
                successor, sys.orig_argv[0], sys.orig_argv, env=environment,
                childFDs={0: 0, 1: 1, 2: 2, 3: theirs.fileno()},
            )
        finally:
            theirs.close()
        self.log.info("upgrading: process {pid} starts", pid=process.pid)
        self._channel = Channel(ours, self._heard, self._lost, reactor=self._reactor)
        offer, descriptors = self._director.offer()
        self._channel.send(offer, descriptors)
        successor.ended.addCallback(self._gone)
        return process, successor

    async def _answer(self, kind: type[Any], within_s: float, otherwise: str) -> Any:
        """Wait for a frame of that *kind*."""
        if self._failed:
            raise Conflict(self._failed)
        self._waiting = Deferred()
        timer = self._reactor.callLater(within_s, self._fail, f"the new process {otherwise} within {within_s:g} s")
        try:
            frame = await self._waiting
        finally:
            self._waiting = None
            if timer.active():
                timer.cancel()
        if isinstance(frame, Refused):
            raise Conflict(f"the new process cannot serve: {frame.why}")
        if not isinstance(frame, kind):
            raise Conflict(f"the new process said {type(frame).__name__} where {kind.__name__} was expected")
        return frame

    async def _ended(self, process: Any, successor: Successor, error: BaseException) -> str:
        """See that the new process is no more, so that only one serves; answers why it failed."""
        if not successor.ended.called:
            try:
                process.signalProcess("KILL")
            except Exception:  # it has ended just now
                self.log.debug("the new process is gone")
            await successor.ended
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if isinstance(error, Conflict):
            return str(error)
        if not isinstance(error, CancelledError):
            self.log.failure("the upgrade failed")
        return f"the upgrade failed: {error}"

    def _heard(self, frame: AnyFrame) -> None:
        if isinstance(frame, Cut):
            self._director.cut(frame.service, frame.client)
        elif isinstance(frame, Tell):
            self._say(msgspec.structs.replace(self._director.progress(), answers=frame.number))
        elif self._waiting is not None and not self._waiting.called:
            self._waiting.callback(frame)

    def _lost(self, why: str) -> None:
        """The process itself ends now, or did; how is said by its exit code, if that comes soon."""
        if self.under_way and not SOCKETS.given_away:
            self._reactor.callLater(0.2, self._fail, why)

    def _gone(self, how: str) -> str:
        if self.under_way and not SOCKETS.given_away:
            self._fail(f"{how} before it served; its standard error and its log say why")
        return how

    def _fail(self, why: str) -> None:
        self._failed = self._failed or why
        if self._waiting is not None and not self._waiting.called:
            self._waiting.errback(Conflict(self._failed))

    def _say(self, frame: AnyFrame) -> None:
        if self._channel is not None:
            self._channel.send(frame)

    def _go_on_telling(self) -> None:
        async def tell() -> None:
            while True:
                await deferLater(self._reactor, PROGRESS_S)
                self._say(self._director.progress())

        self._telling = Deferred.fromCoroutine(tell())
        self._telling.addErrback(self._untold)

    def _untold(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("progress was not told", failure)
