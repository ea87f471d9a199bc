"""Adding and removing addresses of a network interface: two messages of rtnetlink(7), by hand.

A library (pyroute2) does this too, at 25 MB of memory and with an event loop of its own inside every call; for two
messages of four attributes that is more to own than these lines. Calls are answered by the kernel at once: they take
some tens of microseconds on the reactor's thread.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import IPv4Interface, IPv6Interface
from typing import TypeAlias

Interface: TypeAlias = IPv4Interface | IPv6Interface

_NEWADDR, _DELADDR = 20, 21  # RTM_*
_REQUEST, _ACK, _REPLACE, _CREATE = 0x1, 0x4, 0x100, 0x400  # NLM_F_*
_ERROR = 2  # NLMSG_ERROR
_ADDRESS, _LOCAL, _CACHEINFO, _FLAGS = 1, 2, 6, 8  # IFA_*
_NODAD = 0x02  # IFA_F_NODAD
_HEADER = struct.Struct("=IHHII")
_ADDRESS_HEADER = struct.Struct("=BBBBI")
#: An answer is a header, an error number and the request's header; the request is echoed with errors.
_ANSWER_BYTES = 4096
#: The kernel answers within the call that asks. Never seen to pass; without it a lost answer would hang the director.
_TIMEOUT_S = 1


def add_address(device: str, address: Interface, lifetime_s: int) -> None:
    """Give *device* the address for *lifetime_s*, or give it that long again.

    Its preferred lifetime is 0: the machine answers to it, and never chooses it as the source of its own connections.
    IPv6 does without duplicate address detection, which would keep it silent for a second.

    :raises OSError: as the kernel answers: no such device, not permitted, ….
    """
    attributes = _attributes(address) + _attribute(_CACHEINFO, struct.pack("=IIII", 0, lifetime_s, 0, 0))
    if address.version == 6:
        attributes += _attribute(_FLAGS, struct.pack("=I", _NODAD))
    _ask(_NEWADDR, _CREATE | _REPLACE, device, address, attributes)


def remove_address(device: str, address: Interface) -> bool:
    """Take the address away; False when it was not there.

    :raises OSError: as the kernel answers.
    """
    try:
        _ask(_DELADDR, 0, device, address, _attributes(address))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return False
        raise
    return True





def _attributes(address: Interface) -> bytes:
    return _attribute(_LOCAL, address.packed) + _attribute(_ADDRESS, address.packed)


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


def _ask(kind: int, flags: int, device: str, address: Interface, attributes: bytes) -> None:
    try:
        index = socket.if_nametoindex(device)
    except OSError:  # Python's has neither number nor text
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), device) from None
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = _ADDRESS_HEADER.pack(family, address.network.prefixlen, 0, 0, index) + attributes
    message = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.sendto(message, (0, 0))
        answer = sock.recv(_ANSWER_BYTES)
    answered = _HEADER.unpack_from(answer)[1]
    error = -struct.unpack_from("=i", answer, _HEADER.size)[0] if answered == _ERROR else 0
    if error:
        raise OSError(error, os.strerror(error), str(address))
