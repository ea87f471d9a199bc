"""Elements of nftables' sets, changed many in one transaction: messages of nfnetlink, by hand.

libnftables would read all sets of the machine before each, which takes milliseconds where there are many; a refresh comes
many times a second.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

_NETFILTER = 12  # NETLINK_NETFILTER
_NFTABLES = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11  # NFNL_MSG_BATCH_*
_NEW, _DELETE = _NFTABLES << 8 | 12, _NFTABLES << 8 | 14  # NFT_MSG_NEWSETELEM, _DELSETELEM
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400  # NLM_F_*
_ERROR = 2  # NLMSG_ERROR
_NESTED = 0x8000  # NLA_F_NESTED
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_ELEMENT, _KEY, _VALUE, _TIMEOUT = 1, 1, 1, 4  # NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE, NFTA_SET_ELEM_TIMEOUT
_FAMILIES = {"inet": 1, "arp": 3, "netdev": 5}  # NFPROTO_*
_HEADER = struct.Struct("=IHHII")
_FAMILY_HEADER = struct.Struct("!BBH")
_READ_BYTES = 65_536
#: The kernel answers within the call that asks; a lost answer must not hang the director.
_TIMEOUT_S = 1


class Add(NamedTuple):
    """Elements that lapse after so long."""

    family: str
    name: str  #: the set's
    keys: Sequence[bytes]
    timeout_ms: int


class Delete(NamedTuple):
    """Elements, all of which must be there; none given: whatever is."""

    family: str
    name: str
    keys: Sequence[bytes] = ()


class Elements:
    """Of the tables called *table*, in the network namespace in which this is made.

    :raises OSError: the kernel has no nftables.
    """

    def __init__(self, table: str) -> None:
        self._table = _attribute(_TABLE, table.encode() + b"\0")
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self._socket.settimeout(_TIMEOUT_S)
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def change(self, changes: Sequence[Add | Delete]) -> None:
        """All of them at once, or none.

        :raises OSError: the first that could not be done; ENOENT: there is no such element, set or table.
        """
        first = self._number + 1
        batch = self._message(_BATCH_BEGIN, 0, _FAMILY_HEADER.pack(0, 0, _NFTABLES))
        for at, change in enumerate(changes, 1):
            kind, flags, timeout = (_NEW, _CREATE, change.timeout_ms) if isinstance(change, Add) else (_DELETE, 0, None)
            body = self._table + _attribute(_SET, change.name.encode() + b"\0")
            if change.keys:
                body += _attribute(_ELEMENTS | _NESTED, b"".join(_element(key, timeout) for key in change.keys))
            header = _FAMILY_HEADER.pack(_FAMILIES[change.family], 0, 0)
            batch += self._message(kind, flags | (_ACK if at == len(changes) else 0), header + body)
        last = self._number
        batch += self._message(_BATCH_END, 0, _FAMILY_HEADER.pack(0, 0, _NFTABLES))
        self._socket.sendto(batch, (0, 0))
        while not self._answered(first, last):
            pass

    def _answered(self, first: int, last: int) -> bool:
        """Whether the kernel has said of the *last* message that it was done. Raises OSError as it says of any."""
        data = self._socket.recv(_READ_BYTES)
        start, done = 0, False
        while start + _HEADER.size <= len(data):
            length, kind, _, number, _ = _HEADER.unpack_from(data, start)
            if length < _HEADER.size:
                break
            if kind == _ERROR and number >= first:  # others are of a batch whose failure was told
                error = -struct.unpack_from("=i", data, start + _HEADER.size)[0]
                if error:
                    raise OSError(error, os.strerror(error))
                done = done or number == last
            start += (length + 3) & ~3
        return done

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        self._number += 1
        return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, self._number, 0) + body


def _element(key: bytes, timeout_ms: int | None) -> bytes:
    content = _attribute(_KEY | _NESTED, _attribute(_VALUE, key))
    if timeout_ms is not None:
        content += _attribute(_TIMEOUT, struct.pack("!Q", timeout_ms))
    return _attribute(_ELEMENT | _NESTED, content)


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)
