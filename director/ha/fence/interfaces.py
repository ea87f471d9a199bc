"""Network interfaces and the programs on them: messages of rtnetlink(7), by hand as in `director.ha.netlink`."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_NEWLINK, _GETLINK, _NEWQDISC, _NEWTFILTER, _DELTFILTER, _GETTFILTER = 16, 18, 36, 44, 45, 46  # RTM_*
_REQUEST, _ACK, _REPLACE, _DUMP, _CREATE = 0x1, 0x4, 0x100, 0x300, 0x400  # NLM_F_*
_ERROR, _DONE = 2, 3  # NLMSG_*
_LINK_GROUP, _TC_GROUP = 0x1, 0x8  # RTMGRP_LINK, and RTNLGRP_TC as a bit
_LOOPBACK = 0x8  # IFF_LOOPBACK
_NAME, _LINK_INFO = 3, 18  # IFLA_*
_SLAVE_KIND = 4  # IFLA_INFO_SLAVE_KIND
_KIND, _OPTIONS = 1, 2  # TCA_*
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_OFFLOAD, _BPF_ID = 6, 7, 8, 9, 11  # TCA_BPF_*; FLAGS_GEN
_SKIP_HARDWARE = 1  # TCA_CLS_FLAGS_SKIP_HW: a network card has no such clock
_DIRECT = 1  # TCA_BPF_FLAG_ACT_DIRECT: what the program returns is what is done
_CLSACT = 0xFFFFFFF1
#: The two hooks of an interface: TC_H_MIN_INGRESS and TC_H_MIN_EGRESS of clsact.
ENTERING, LEAVING = 0xFFFFFFF2, 0xFFFFFFF3
#: Before every other filter of clsact, and by a number of our own among those who think so too.
_PREFERENCE, _HANDLE = 1, 0x7478
_ETH_P_ALL = 3
#: What filters of ours are called; `tc filter show dev … ingress` shows it.
NAME = "txdirector-fence"
#: A bridge looks at its ports' packets before this machine does, and most are for others: what is for this machine enters by
#: the bridge itself. The like for what is like it. Members of a VRF are interfaces as any other.
_PORTS = (b"bridge", b"bond", b"team", b"openvswitch", b"batadv")

_HEADER = struct.Struct("=IHHII")
_LINK_MESSAGE = struct.Struct("=BxHiII")
_TC_MESSAGE = struct.Struct("=BxHiIII")
_READ_BYTES = 65_536
#: The kernel answers within the call that asks; a lost answer must not hang the director.
_TIMEOUT_S = 1


class Nic(NamedTuple):
    """An interface that may carry packets for this machine."""

    number: int
    name: str


class Interfaces:
    """Those of the network namespace in which this is made.

    :raises OSError: the kernel does not let us ask.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(_TIMEOUT_S)
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def links(self) -> list[Nic]:
        """All but the loopback and ports of bridges and bonds."""
        found = []
        for body in self._ask(_GETLINK, _DUMP, _LINK_MESSAGE.pack(0, 0, 0, 0, 0)):
            _, _, index, flags, _ = _LINK_MESSAGE.unpack_from(body)
            attributes = dict(_attributes(body[_LINK_MESSAGE.size :]))
            kind = dict(_attributes(attributes.get(_LINK_INFO, b""))).get(_SLAVE_KIND, b"").rstrip(b"\0")
            if not flags & _LOOPBACK and kind not in _PORTS:
                found.append(Nic(index, attributes[_NAME].rstrip(b"\0").decode(errors="replace")))
        return found

    def attach(self, link: Nic, hook: int, program: int) -> None:
        """Put the program (its descriptor) there, in the place of one that was there before: no packet passes between."""
        clsact = _TC_MESSAGE.pack(0, 0, link.number, 0xFFFF0000, _CLSACT, 0) + _attribute(_KIND, b"clsact\0")
        with suppress(FileExistsError):
            self._ask(_NEWQDISC, _ACK | _CREATE, clsact)
        options = _attribute(_BPF_NAME, NAME.encode() + b"\0") + b"".join(
            _attribute(kind, struct.pack("=I", value))
            for kind, value in ((_BPF_FD, program), (_BPF_FLAGS, _DIRECT), (_BPF_OFFLOAD, _SKIP_HARDWARE)))
        self._ask(_NEWTFILTER, _ACK | _CREATE | _REPLACE, self._filter(link, hook) + _attribute(_OPTIONS, options))

    def attached(self, link: Nic, hook: int) -> int:
        """The number of the fence's program that is there, of this process or another; 0: none."""
        try:
            bodies = self._ask(_GETTFILTER, 0, self._filter(link, hook))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENODEV):  # no such filter, chain, clsact, interface
                return 0
            raise
        options = dict(_attributes(dict(_attributes(bodies[0][_TC_MESSAGE.size :])).get(_OPTIONS, b"")))
        if options.get(_BPF_NAME, b"").rstrip(b"\0") != NAME.encode():
            return 0
        number: int = struct.unpack("=I", options.get(_BPF_ID, bytes(4)))[0]
        return number

    def detach(self, link: Nic, hook: int) -> None:
        """Take the fence's program away; clsact stays, others may use it."""
        self._ask(_DELTFILTER, _ACK, self._filter(link, hook))

    @staticmethod
    def _filter(link: Nic, hook: int) -> bytes:
        info = _PREFERENCE << 16 | socket.htons(_ETH_P_ALL)
        return _TC_MESSAGE.pack(0, 0, link.number, _HANDLE, hook, info) + _attribute(_KIND, b"bpf\0")

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """What the kernel answers, message by message. Raises OSError as it says."""
        self._number += 1
        self._socket.sendto(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, self._number, 0) + body, (0, 0))
        found: list[bytes] = []
        while True:
            data = self._socket.recv(_READ_BYTES)
            for answer, number, content in _messages(data):
                if number != self._number:
                    continue  # of a question that was given up
                if answer == _ERROR:
                    error = -struct.unpack_from("=i", content)[0]
                    if error:
                        raise OSError(error, os.strerror(error))
                    return found
                if answer == _DONE:
                    return found
                found.append(content)
                if not flags & (_DUMP | _ACK):
                    return found


def listen() -> socket.socket:
    """A socket that becomes readable when an interface or what is on it changes. Raises OSError."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        made.bind((0, _LINK_GROUP | _TC_GROUP))
    except OSError:
        made.close()
        raise
    return made


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, start)
        if length < _HEADER.size:
            return
        yield kind, number, data[start + _HEADER.size : start + length]
        start += (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, start)
        if length < 4:
            return
        yield kind & 0x3FFF, data[start + 4 : start + length]
        start += (length + 3) & ~3
