"""Accepting clients: each listener is a service in the tree and one descriptor of the reactor.

No transports and no protocols: accepted descriptors go straight to a `Frontend`. Options that Linux lets accepted
sockets inherit (TCP_NODELAY, SO_KEEPALIVE) are set once, on the listening socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import stat
import struct
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from cluster.address import Address
from director.sockets import accept

#: Clients taken in one turn of the reactor, so that a connect storm can't starve the relay.
ACCEPTS_PER_TURN = 64
#: Waiting clients the kernel may hold; Linux caps it at net.core.somaxconn.
BACKLOG = 4096
#: socket(7)'s names that Python does not have: bind to an address that this machine may get later.
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
#: How long accepting pauses when descriptors or kernel memory ran out: long enough for connections to end,
#: short enough that clients, who wait in the backlog meanwhile, hardly notice.
PAUSE_S = 0.1

#: accept(2) errors of one connection that is already gone again.
_GONE = frozenset(
    {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}
)
#: accept(2) errors that mean this process or machine is out of something.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


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


class BindError(Exception):
    """A listener's address could not be taken; says which and why."""


class Accepts(Protocol):
    """Whoever takes accepted clients over."""

    def accepted(self, fd: int, name: bytes | None) -> None:
        """Own *fd*, a connected non-blocking socket; *name* as in `director.sockets.Client`. Must not raise."""


def bind(address: Address, *, absent: bool = False) -> socket.socket:
    """A non-blocking listening socket.

    A UNIX socket's file that nobody listens on any more is replaced; one that answers is not.

    :param absent: the address need not be this machine's (yet): a virtual one.

    :raises BindError: the address is taken, not ours, or not permitted.
    """
    try:
        if address.path is not None:
            return _listen(socket.AF_UNIX, _unix_name(address.path))
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        host = address.host
        if not address.is_ip:
            family, _, _, _, sockaddr = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)[0]
            host = str(sockaddr[0])
        return _listen(family, (host, address.port), absent=absent)
    except OSError as error:
        raise BindError(f"cannot listen on {address}: {error.strerror or error}") from error


def _listen(family: int, name: Any, *, absent: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, absent)
        elif family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, absent)
        sock.bind(name)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix_name(path: str) -> str:
    """The name to bind: abstract for ``@…``, else *path*, freed of a socket file that nobody serves."""
    if path.startswith("@"):
        return "\0" + path[1:]
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(path) == errno.ECONNREFUSED:
                    os.unlink(path)
    return path


@implementer(IReadDescriptor)
class Listener(Service):
    """One address of one service.

    :param frontend: takes the clients.
    :param sock: an already listening socket to use instead of binding (socket activation, upgrades).
    :param absent: the address need not be this machine's (yet): a virtual one.
    """

    log = Logger()

    def __init__(self, address: Address, frontend: Accepts, *, reactor: Any, sock: socket.socket | None = None,
                 absent: bool = False) -> None:
        self.setName(f"listener {address}")
        self.address = address
        self._frontend = frontend
        self._reactor = reactor
        self._socket = sock
        self._absent = absent
        self._resume: Any = None
        self._reading = False

    def open(self) -> None:
        """Bind now, so that an error is the caller's; `startService` does it otherwise.

        :raises BindError:
        """
        if self._socket is None:
            self._socket = bind(self.address, absent=self._absent)
        if self.address.path is None and self.address.port == 0:
            self.address = self.address._replace(port=self._socket.getsockname()[1])

    def privilegedStartService(self) -> None:
        self.open()

    def startService(self) -> None:
        self.open()
        super().startService()
        self._reactor.addReader(self)
        self._reading = True

    def stopService(self) -> None:
        super().stopService()
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._reading:
            self._reactor.removeReader(self)
            self._reading = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            if self.address.path is not None and not self.address.path.startswith("@"):
                with contextlib.suppress(OSError):
                    os.unlink(self.address.path)

    # IReadDescriptor

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def logPrefix(self) -> str:
        return "Listener"

    def connectionLost(self, reason: Any) -> None:
        """The reactor gives the descriptor up only at its own end; `stopService` closes it."""

    def doRead(self) -> None:
        listening, accepted = self.fileno(), self._frontend.accepted
        for _ in range(ACCEPTS_PER_TURN):
            if not self._reading:
                return
            try:
                client = accept(listening)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _GONE:
                    continue
                if error.errno in _EXHAUSTED:
                    self.pause(error)
                    return
                raise
            accepted(*client)

    def turn_away(self) -> None:
        """Let the kernel drop clients that would connect now, unanswered: they try again after a second, and by then
        somebody else answers at this address. Those that are connected or wait to be accepted go on."""
        if self._socket is not None:
            filter_ = ctypes.create_string_buffer(_DROP_SYN)
            program = struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(filter_))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def pause(self, error: OSError) -> None:
        """Stop accepting for `PAUSE_S`; clients wait in the backlog."""
        if self._reading:
            self.log.warn("accepting on {address} pauses: {why}", address=str(self.address), why=error.strerror)
            self._reactor.removeReader(self)
            self._reading = False
            self._resume = self._reactor.callLater(PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._reactor.addReader(self)
        self._reading = True
