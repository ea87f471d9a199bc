"""Accepting clients: each address of a listener is a service in the tree and one descriptor of the reactor.

No transports and no protocols: accepted descriptors go straight to a `Frontend`. Options that Linux lets accepted
sockets inherit (TCP_NODELAY, SO_KEEPALIVE and its times) are set once, on the listening socket.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Protocol

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from cluster.address import Address
from cluster.shortage import ACCEPTS, short_of
from director.ports.binding import OURS, FileAccess, bind, change_access, remove
from director.ports.passing import SOCKETS
from director.ports.sockets import Options, accept
from director.resources.backlog import queue_of
from director.resources.places import Places
from director.resources.shortages import ACCEPT, Shortages
from director.traffic.turning_away import program

#: Clients taken in one turn of the reactor, so that a connect storm can't starve the relay.
ACCEPTS_PER_TURN = 64
#: How long accepting pauses when descriptors or kernel memory ran out: long enough for connections to end,
#: short enough that clients, who wait in the backlog meanwhile, hardly notice.
PAUSE_S = 0.1
#: The least pause where a director's rate is spent: clients then come some at a time, not one by one.
PACE_S = 0.01
#: How long the kernel keeps a client that says nothing: the least there is, one answer to its SYN that is sent again.
DEFER_S = 1

#: accept(2) errors of one connection that is already gone again.
_GONE = frozenset(
    {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}
)

#: socket(7); the socket module does not name it.
_SO_ATTACH_FILTER = 26
#: A classic BPF program over TCP's header: nothing of a packet that has SYN without ACK, all of any other. So handshakes
#: that are under way are finished.
_DROP_SYN = b"".join(struct.pack("HBBI", *each) for each in (
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x54, 0, 0, 0x12),  # of them ACK and SYN
    (0x15, 0, 1, 0x02),  # SYN alone: the next, else the one after
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
))


class Accepts(Protocol):
    """Whoever takes accepted clients over."""

    def accepted(self, fd: int, name: bytes | None) -> None:
        """Own *fd*, a connected non-blocking socket; *name* as in `director.ports.sockets.Client`. Must not raise."""


@implementer(IReadDescriptor)
class Listener(Service):
    """One listening socket.

    :param frontend: takes the clients.
    :param sock: listens already; the stop closes it, for good.
    :param places: of which the frontend takes one for each client; while there is none, clients wait in the backlog.
    :param shortages: told of every pause.
    """

    log = Logger()

    def __init__(self, address: Address, frontend: Accepts, *, reactor: Any, sock: socket.socket,
                 places: Places | None = None, shortages: Shortages | None = None) -> None:
        self.setName(f"listener {address}")
        self.address = address
        self._frontend = frontend
        self._reactor = reactor
        self._socket: socket.socket | None = sock
        self._places = places or Places()
        self._shortages = shortages or Shortages()
        self._resume: Any = None
        self._reading = False
        self._delayed = False  # accepting paused, and the backlog was not empty since

    def startService(self) -> None:
        super().startService()
        if self._socket is not None and not self._reading:
            SOCKETS.join(self)
            self._go_on()

    def stopService(self) -> None:
        super().stopService()
        self.hold()
        if self._socket is not None:
            remove(self.address)
            self._socket.close()
            self._socket = None

    def hold(self) -> None:
        """Accept nobody until `release`."""
        self._places.forget(self._go_on)
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._reading:
            self._reactor.removeReader(self)
            self._reading = False

    def release(self) -> None:
        if self.running and self._socket is not None and not self._reading:
            self.hold()  # what paused it is found anew
            self._go_on()

    def descriptors(self) -> list[int]:
        return [] if self._socket is None else [self._socket.fileno()]

    # IReadDescriptor

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def logPrefix(self) -> str:
        return "Listener"

    def connectionLost(self, reason: Any) -> None:
        """The reactor gives the descriptor up only at its own end; `stopService` closes it."""

    def doRead(self) -> None:
        listening, accepted, places = self.fileno(), self._frontend.accepted, self._places
        pace = places.pace
        for _ in range(ACCEPTS_PER_TURN):
            if not self._reading:
                return
            if places.taken >= places.most:
                self._wait_for_place()
                return
            if pace is not None and (wait_s := pace.wait(self._reactor.seconds())):
                self._slow_down(wait_s)
                return
            try:
                client = accept(listening)
            except BlockingIOError:
                self._delayed = False
                return
            except OSError as error:
                if error.errno in _GONE:
                    continue
                if short_of(error.errno or 0):
                    self.pause(error)
                    return
                raise
            if pace is not None:
                pace.take(self._reactor.seconds())
            if self._delayed:
                places.delayed += 1
            try:
                accepted(*client)
            except Exception:  # else the reactor would take the listener for broken, and never read it again
                self.log.failure("a client could not be taken")

    def give_to(self, frontend: Accepts, *, speaking: bool = False) -> None:
        """Who takes clients from now on.

        :param speaking: over TCP clients come when they have said something, or nothing for a second (TCP_DEFER_ACCEPT).
        """
        self._frontend = frontend
        if self._socket is not None and not self.address.is_unix:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_S if speaking else 0)

    def set_options(self, options: Options) -> None:
        """Of TCP, which clients inherit from now on."""
        if self._socket is not None and not self.address.is_unix:
            for option, value in options:
                self._socket.setsockopt(socket.IPPROTO_TCP, option, value)

    @property
    def queue(self) -> tuple[int, int] | None:
        """Clients that wait to be accepted, and how many may; None where it is not known."""
        return queue_of(self._socket) if self._socket is not None else None

    def turn_away(self, at: Collection[IPv4Address | IPv6Address] | None = None) -> None:
        """Let the kernel drop clients that would connect now, unanswered: they try again after a second, and by then
        somebody else answers at this address. Those that are connected or wait to be accepted go on.

        :param at: only those that come to one of these addresses; empty: nobody any more.
        """
        if self._socket is not None and not (self.address.is_unix and at is not None):
            code = _DROP_SYN if at is None else program(at)
            filter_ = ctypes.create_string_buffer(code)
            attached = struct.pack("HP", len(code) // 8, ctypes.addressof(filter_))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)

    def pause(self, error: OSError) -> None:
        """Stop accepting for `PAUSE_S`; clients wait in the backlog."""
        if self._reading:
            self._stop_reading(short_of(error.errno or 0), f"accepting on {self.address} pauses: {error.strerror}")
            self._resume = self._reactor.callLater(PAUSE_S, self._go_on)

    def _wait_for_place(self) -> None:
        """Stop accepting until a client has gone."""
        places = self._places
        self._stop_reading(places.short_of, f"accepting on {self.address} waits until one of {places.taken} clients ends")
        self._places.wait(self._go_on)

    def _slow_down(self, wait_s: float) -> None:
        """Stop accepting until the director's rate has room for another client."""
        self._stop_reading(ACCEPTS, f"accepting on {self.address} pauses: more clients come than node.limits.new_per_s")
        self._resume = self._reactor.callLater(max(wait_s, PACE_S), self._go_on)

    def _stop_reading(self, what: str, why: str) -> None:
        self._places.pauses += 1
        self._shortages.met(what, ACCEPT, why)
        self._reactor.removeReader(self)
        self._reading, self._delayed = False, True

    def _go_on(self) -> None:
        self._resume = None
        if not SOCKETS.held:
            self._reactor.addReader(self)
            self._reading = True


class Listeners(MultiService):
    """One ``listen`` entry of a service: a `Listener` for each address of a name, one for all else.

    :param frontend: takes the clients.
    :param sockets: those to use instead of binding the first time; they listen already.
    :param absent: the address need not be this machine's (yet): a virtual one.
    :param access: of a UNIX socket's file.
    :param options: of TCP, which clients inherit.
    :param places: as a `Listener`'s.
    :param shortages: as a `Listener`'s.
    :ivar address: as bound, once it is.
    """

    def __init__(self, address: Address, frontend: Accepts, *, reactor: Any, sockets: Sequence[socket.socket] = (),
                 absent: bool = False, access: FileAccess = OURS, options: Options = (), places: Places | None = None,
                 shortages: Shortages | None = None) -> None:
        super().__init__()
        self.setName(f"listener {address}")
        self.address = address
        self._frontend = frontend
        self._reactor = reactor
        self._sockets = sockets
        self._absent = absent
        self._access = access
        self._options = options
        self._places = places
        self._shortages = shortages

    def open(self) -> None:
        """Bind now, so that an error is the caller's; `startService` does it otherwise.

        :raises director.binding.BindError:
        """
        if list(self):
            return
        sockets = self._sockets or bind(self.address, absent=self._absent, access=self._access)
        self._sockets = ()
        if not self.address.is_unix:
            self.address = self.address._replace(port=sockets[0].getsockname()[1])
        for sock in sockets:
            own = self.address if self.address.is_unix else Address(*sock.getsockname()[:2])
            listener = Listener(own, self._frontend, reactor=self._reactor, sock=sock, places=self._places,
                                shortages=self._shortages)
            listener.set_options(self._options)
            listener.setServiceParent(self)

    def privilegedStartService(self) -> None:
        self.open()

    def startService(self) -> None:
        self.open()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        stopped: Deferred[Any] = super().stopService()
        for listener in list(self):
            listener.disownServiceParent()  # a start binds anew
        return stopped

    def set_access(self, access: FileAccess) -> None:
        """Of a UNIX socket's file, from now on. Raises `director.ports.binding.BindError`."""
        if access != self._access:
            self._access = access
            change_access(self.address, access)

    def give_to(self, frontend: Accepts, *, speaking: bool = False) -> None:
        """`Listener.give_to`, at every address."""
        self._frontend = frontend
        for listener in self:
            listener.give_to(frontend, speaking=speaking)

    def set_options(self, options: Options) -> None:
        """`Listener.set_options`, at every address."""
        self._options = options
        for listener in self:
            listener.set_options(options)

    def turn_away(self, at: Collection[IPv4Address | IPv6Address] | None = None) -> None:
        """`Listener.turn_away`, at every address."""
        for listener in self:
            listener.turn_away(at)
