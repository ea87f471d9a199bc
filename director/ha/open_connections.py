"""The TCP connections that this machine has open at one address: sock_diag(7), filtered by the kernel."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DONE, _ERROR = 20, 3, 2  # SOCK_DIAG_BY_FAMILY, NLMSG_DONE, NLMSG_ERROR
_DESTROY = 21  # SOCK_DESTROY: in kernels with CONFIG_INET_DIAG_DESTROY, for whoever may configure the network
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300  # NLM_F_*
#: struct inet_diag_msg begins so: family, state, timer, retransmits; then 48 bytes that identify the socket.
_ID = slice(4, 52)
_BYTECODE = 1  # INET_DIAG_REQ_BYTECODE
_SOURCE = 7  # INET_DIAG_BC_S_COND
#: By their numbers in the kernel: all but those that nobody serves any more (TIME_WAIT, CLOSE) and listening sockets.
#: 12 is a handshake under way.
_STATES = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11, 12))
_HEADER = struct.Struct("=IHHII")
_READ_BYTES = 65_536
#: The kernel answers within the call that asks; as for `director.ha.netlink`.
_TIMEOUT_S = 1


def open_connections(address: IPv4Address | IPv6Address) -> int:
    """How many there are.

    :raises OSError: as the kernel answers.
    """
    return sum(1 for _ in _found(address))


def end_connections(address: IPv4Address | IPv6Address) -> int:
    """Have whoever serves them see an error (ECONNABORTED), of an address that is another machine's by now: nothing that
    their clients send comes here any more. Answers how many.

    :raises OSError: as the kernel answers, EOPNOTSUPP where it cannot.
    """
    count = 0
    found = list(_found(address))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(_TIMEOUT_S)
        for each in found:
            sock.sendto(_message(_DESTROY, _ACK, each[0], each[_ID]), (0, 0))
            error = _error(sock.recv(_READ_BYTES), 0)
            if error not in (0, errno.ENOENT):  # it ended meanwhile
                raise OSError(error, os.strerror(error))
            count += not error
    return count


def _found(address: IPv4Address | IPv6Address) -> Iterator[bytes]:
    """An inet_diag_msg of each."""
    if address.version == 4:
        yield from _found_by(socket.AF_INET, address.packed)
    mapped = b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed
    yield from _found_by(socket.AF_INET6, mapped)


def _found_by(family: int, packed: bytes) -> Iterator[bytes]:
    # struct inet_diag_hostcond: family, prefix length, port (-1: any), address
    condition = struct.pack("=BBxxi", family, 8 * len(packed), -1) + packed
    # struct inet_diag_bc_op: what, where to go on if it holds, where if not (beyond the end: no)
    code = struct.pack("=BBH", _SOURCE, 4 + len(condition), 8 + len(condition)) + condition
    attribute = struct.pack("=HH", 4 + len(code), _BYTECODE) + code
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.sendto(_message(_BY_FAMILY, _DUMP, family, bytes(48) + attribute), (0, 0))
        while True:
            data = sock.recv(_READ_BYTES)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError(_error(data, at), f"sock_diag: {_error(data, at)}")
                if kind == _BY_FAMILY:
                    yield data[at + _HEADER.size:at + length]
                at += max(_HEADER.size, (length + 3) & ~3)


def _message(kind: int, flags: int, family: int, rest: bytes) -> bytes:
    """struct inet_diag_req_v2, from its states on *rest*."""
    body = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, _STATES) + rest
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body


def _error(data: bytes, at: int) -> int:
    """Of an NLMSG_ERROR; 0 in one that only acknowledges."""
    return -int(struct.unpack_from("=i", data, at + _HEADER.size)[0])
