"""What befell a network interface and its addresses besides what we did: rtnetlink(7) tells whoever asked to hear.

An address that somebody flushed, or a link that was down for a moment, is back before anybody looks at the state; so this
listens to events instead.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_NEWLINK, _DELLINK, _DELADDR = 16, 17, 21  # RTM_*
_LINK, _IPV4_ADDRESS, _IPV6_ADDRESS = 0x1, 0x10, 0x100  # RTMGRP_*
_NAME = 3  # IFLA_IFNAME
_ADDRESS, _LOCAL = 1, 2  # IFA_*
_RUNNING = 0x40  # IFF_RUNNING: up, and has a carrier
_GET_FLAGS = 0x8913  # SIOCGIFFLAGS
_REQUEST = struct.Struct("=16sh22x")  # struct ifreq: name, flags
_HEADER = struct.Struct("=IHHII")
_LINK_HEADER = struct.Struct("=BxHiII")
_ADDRESS_HEADER = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
#: Of one datagram; the kernel's are of a page or two.
_READ_BYTES = 32_768
#: In one look: more than a machine with a thousand containers makes in a quarter of a second.
_MOST_READS = 1_000


class Removed(NamedTuple):
    """An address is gone."""

    interface: int  #: its number
    address: bytes


class LinkState(NamedTuple):
    """An interface is as said; it may have been before."""

    name: str
    running: bool


class Befell(NamedTuple):
    """Since the last look. *lost* addresses may be there again by now."""

    lost: frozenset[bytes] = frozenset()
    interrupted: bool = False  #: the link was down; it may be still
    running: bool = True


def parse(data: bytes) -> Iterator[Removed | LinkState]:
    """What one datagram of the kernel's tells; what is not understood is passed over."""
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, start)
        if length < _HEADER.size or start + length > len(data):
            return
        body = data[start + _HEADER.size : start + length]
        if kind == _DELADDR and len(body) >= _ADDRESS_HEADER.size:
            found = _attributes(body[_ADDRESS_HEADER.size :])
            address = found.get(_LOCAL) or found.get(_ADDRESS)
            if address:
                yield Removed(_ADDRESS_HEADER.unpack_from(body)[4], address)
        elif kind in (_NEWLINK, _DELLINK) and len(body) >= _LINK_HEADER.size:
            name = _attributes(body[_LINK_HEADER.size :]).get(_NAME, b"").rstrip(b"\0").decode("utf-8", "replace")
            yield LinkState(name, kind == _NEWLINK and bool(_LINK_HEADER.unpack_from(body)[3] & _RUNNING))
        start += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    found, start = {}, 0
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[start + _ATTRIBUTE.size : start + length]  # without NLA_F_*
        start += (length + 3) & ~3
    return found


def is_running(device: str) -> bool:
    """Whether it is up and has a carrier; one that is not there has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, _GET_FLAGS, _REQUEST.pack(device.encode(), 0))
        except OSError:
            return False
    return bool(_REQUEST.unpack(answer)[1] & _RUNNING)


class Lookout:
    """Listens from its making on.

    :raises OSError: the kernel does not let us.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, _LINK | _IPV4_ADDRESS | _IPV6_ADDRESS))
            self._running = is_running(device)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Of what becomes readable when something befell some interface."""
        return self._socket.fileno()

    def look(self) -> Befell:
        """What befell the interface since the last look."""
        lost: set[bytes] = set()
        interrupted = False
        for event in self._events():
            if event is None:  # more came than fitted: anything may have happened
                interrupted = True
            elif isinstance(event, LinkState):
                if event.name == self._device:
                    interrupted = interrupted or not event.running
                    self._running = event.running
            elif event.interface == self._index():
                lost.add(event.address)
        return Befell(frozenset(lost), interrupted, self._running)

    def close(self) -> None:
        self._socket.close()

    def _events(self) -> Iterator[Removed | LinkState | None]:
        for _ in range(_MOST_READS):
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS
                yield None
                continue
            yield from parse(data)

    def _index(self) -> int:
        try:
            return socket.if_nametoindex(self._device)
        except OSError:
            return 0
