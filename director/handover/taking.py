"""The new process: has what the old one offers, becomes ready, takes over, and hears how the old one gets on."""

from __future__ import annotations

import socket
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from director.handover.channel import VARIABLE, Channel, OfferFailed, receive_offer
from director.handover.frames import Accepting, AnyFrame, Cut, Offer, Progress, Ready, Refused, Retired, Take, Tell, encode
from director.ports.passing import SOCKETS, Listening
from director.version import VERSION

#: A scrape waits so long for what the old process has counted. It answers in milliseconds.
TELL_S = 2.0

__all__ = ["OfferFailed", "Predecessor", "Takes", "predecessor"]


class Takes(Protocol):
    """A director that can take another's place."""

    def take_over(self, take: Take, lock: int | None) -> Deferred[None]:
        """Know what the old process knew, and own what it owned. Fires when it may serve; fails when it cannot."""

    def serve(self) -> None:
        """The old process knows that this one is the owner."""

    def follows(self, ask: Callable[[], Deferred[None]]) -> None:
        """*ask* fires once `heard_of` was told all that the old process has counted by now."""

    def heard_of(self, progress: Progress, cut: Callable[[str, str], None]) -> None:
        """The old process's last clients; *cut* ends one's connections."""

    def alone(self) -> None:
        """The old process has ended."""


class Predecessor:
    """The process that this one replaces."""

    log = Logger()

    def __init__(self, sock: socket.socket, offer: Offer, descriptors: list[int]) -> None:
        self._sock = sock
        self.offer = offer
        self._lock = descriptors.pop() if offer.lock else None
        SOCKETS.hold()
        SOCKETS.leave_alone(offer.foreign)
        given = iter(descriptors)
        SOCKETS.inherit([
            Listening(asked, tuple(socket.socket(fileno=next(given)) for _ in range(count)))
            for asked, count in offer.sockets
        ])
        self._channel: Channel | None = None
        self._serving = False
        self._asked: dict[int, Deferred[None]] = {}
        self._questions = 0
        self.alone = False  #: the other process has ended

    def refuse(self, why: str) -> None:
        """This process cannot serve; before `follow`."""
        self._sock.settimeout(1.0)
        with suppress(OSError):  # it learns from our exit code
            self._sock.sendall(encode(Refused(why=why)))

    def follow(self, director: Takes, *, reactor: Any, on_serving: Callable[[], None],
               on_abandoned: Callable[[str], None]) -> None:
        """From now on the reactor listens to it.

        :param on_serving: called once this process is the main one.
        :param on_abandoned: called when there is nothing to take over any more, with why.
        """
        def heard(frame: AnyFrame) -> None:
            if isinstance(frame, Take):
                Deferred.fromCoroutine(self._take(director, frame)).addErrback(self._cannot)
            elif isinstance(frame, Retired):
                on_serving()
            elif isinstance(frame, Progress):
                director.heard_of(frame, lambda service, client: self._say(Cut(service=service, client=client)))
                self._answered(frame.answers)

        def over(why: str) -> None:
            self.alone = True
            for number in list(self._asked):
                self._answered(number)
            if self._serving:
                director.alone()
            else:
                on_abandoned(why)

        self._channel = Channel(self._sock, heard, over, reactor=reactor)
        director.follows(lambda: self._ask(reactor))

    def _ask(self, reactor: Any) -> Deferred[None]:
        """Fires once the old process has said what it has counted, or has had its time to."""
        self._questions += 1
        number, asked = self._questions, Deferred[None]()
        self._asked[number] = asked
        timer = reactor.callLater(TELL_S, self._answered, number)
        asked.addCallback(lambda _: timer.cancel() if timer.active() else None)
        self._say(Tell(number=number))
        return asked

    def _answered(self, number: int) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.callback(None)

    def ready(self) -> None:
        self._say(Ready(version=VERSION))

    def failed(self, why: str) -> None:
        """This process cannot serve; after `follow`."""
        self._say(Refused(why=why))

    async def _take(self, director: Takes, take: Take) -> None:
        await director.take_over(take, self._lock)
        self._serving = True
        self._say(Accepting())
        SOCKETS.release()
        director.serve()

    def _cannot(self, failure: Any) -> None:
        self.log.failure("this process cannot take over", failure)
        self.failed(failure.getErrorMessage() or repr(failure.value))

    def _say(self, frame: AnyFrame) -> None:
        if self._channel is not None:
            self._channel.send(frame)


def predecessor(environment: MutableMapping[str, str]) -> Predecessor | None:
    """Who started this process to be replaced by it; None: nobody. The variable is taken out.

    :raises OfferFailed: it offers nothing.
    """
    number = environment.pop(VARIABLE, "")
    if not number:
        return None
    sock = socket.socket(fileno=int(number))
    sock.set_inheritable(False)
    return Predecessor(sock, *receive_offer(sock))
