"""How many TCP connections this machine has open at one of its addresses: sock_diag(7), filtered by the kernel."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

_NETLINK_SOCK_DIAG = 4
_BY_FAMILY, _DONE, _ERROR = 20, 3, 2  # SOCK_DIAG_BY_FAMILY, NLMSG_DONE, NLMSG_ERROR
_REQUEST, _DUMP = 0x1, 0x300  # NLM_F_*
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
    """:raises OSError: as the kernel answers."""
    count = _count(socket.AF_INET, address.packed) if address.version == 4 else 0
    mapped = b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed
    return count + _count(socket.AF_INET6, mapped)


def _count(family: int, packed: bytes) -> int:
    # struct inet_diag_hostcond: family, prefix length, port (-1: any), address
    condition = struct.pack("=BBxxi", family, 8 * len(packed), -1) + packed
    # struct inet_diag_bc_op: what, where to go on if it holds, where if not (beyond the end: no)
    code = struct.pack("=BBH", _SOURCE, 4 + len(condition), 8 + len(condition)) + condition
    attribute = struct.pack("=HH", 4 + len(code), _BYTECODE) + code
    body = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, _STATES) + bytes(48) + attribute
    message = _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + body
    count = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.sendto(message, (0, 0))
        while True:
            data = sock.recv(_READ_BYTES)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, at)
                if kind == _DONE:
                    return count
                if kind == _ERROR:
                    error = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                    raise OSError(error, f"sock_diag: {error}")
                count += kind == _BY_FAMILY
                at += max(_HEADER.size, (length + 3) & ~3)
