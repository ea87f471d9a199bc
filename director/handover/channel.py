"""The private socket between the two processes: frames, and descriptors by SCM_RIGHTS.

The new process reads the offer before its reactor runs, so that the sockets are there when its configuration is checked.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from director.handover.frames import AnyFrame, Garbled, Offer, Reader, encode

#: Where the new process finds its end.
VARIABLE = "TXDIRECTOR_HANDOVER"
#: For the offer, which the old process sends at once; its store may be large, and its machine busy.
OFFER_S = 30.0
_CHUNK_BYTES = 256 * 1024
#: Of one message; the kernel passes 253, Twisted sends 64.
_MOST_DESCRIPTORS = 256


class OfferFailed(Exception):
    """There is no offer to be had; says why."""


class _Channel(Protocol):
    transport: Any

    def __init__(self, heard: Callable[[AnyFrame], None], over: Callable[[str], None]) -> None:
        self._heard = heard
        self._over = over
        self._reader = Reader()
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (frame := self._reader.next()) is not None:
                self._heard(frame)
        except Garbled as error:
            self.transport.abortConnection()
            self._tell(f"the other process is not understood: {error}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._tell("the other process closed the connection")
        self.lost.callback(None)

    def _tell(self, why: str) -> None:
        over, self._over = self._over, lambda _: None
        over(why)


class Channel:
    """One end, on the reactor.

    :param sock: is taken over.
    :param heard: called with each frame.
    :param over: called once, when the connection has ended, with why.
    """

    log = Logger()

    def __init__(self, sock: socket.socket, heard: Callable[[AnyFrame], None], over: Callable[[str], None], *,
                 reactor: Any) -> None:
        self._protocol = _Channel(heard, over)
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr: self._protocol  # type: ignore[method-assign]
        sock.setblocking(False)
        reactor.adoptStreamConnection(sock.fileno(), socket.AF_UNIX, factory)
        sock.close()  # the reactor has a duplicate

    def send(self, frame: AnyFrame, descriptors: Sequence[int] = ()) -> None:
        """What cannot be sent any more is lost; `over` tells."""
        transport = self._protocol.transport
        if transport is not None and transport.connected:
            for descriptor in descriptors:
                transport.sendFileDescriptor(descriptor)
            transport.write(encode(frame))

    def close(self) -> Deferred[None]:
        """Fires once what was said is sent, or cannot be."""
        self._protocol.transport.loseConnection()
        return self._protocol.lost


def receive_offer(sock: socket.socket) -> tuple[Offer, list[int]]:
    """Wait for the old process's first frame.

    :raises OfferFailed: none came.
    """
    reader, descriptors, deadline = Reader(), [], time.monotonic() + OFFER_S
    try:
        while (frame := reader.next()) is None:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            data, some, _, _ = socket.recv_fds(sock, _CHUNK_BYTES, _MOST_DESCRIPTORS)
            descriptors += some
            if not data:
                raise OfferFailed("the old process closed the connection")
            reader.feed(data)
    except (OSError, Garbled) as error:
        raise OfferFailed(f"the old process made no offer: {error}") from error
    if not isinstance(frame, Offer) or len(descriptors) != sum(count for _, count in frame.sockets) + frame.lock:
        raise OfferFailed("the old process made an offer that is not understood")
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return frame, descriptors
