"""How many connections of a local port are established: asked of the kernel, in what time it takes at most.

Linux answers over netlink (``sock_diag(7)``), filtering by state but not by port; where that is not allowed,
``/proc/net/tcp`` and ``tcp6`` (``proc(5)``) say the same more slowly. Parsing is pure; `ConnectionCounter` reads.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable

from cluster.shortage import short_of

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ESTABLISHED = 1
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_REQUEST = struct.Struct("=BBBBI48x")  # inet_diag_req_v2: family, protocol, extensions, pad, states; socket id
_SOURCE_PORT_AT = _HEADER.size + 4  # inet_diag_msg: family, state, timer, retransmits, then the socket id's ports
#: Room for some 150 sockets in one answer; the kernel fills up to 32 KiB of it.
_CHUNK_BYTES = 64 * 1024
#: A count may take this share of the time. Measured: ten thousand sockets take 25 ms over netlink and 60 by /proc, so
#: they are counted every second or three; a hundred thousand, every dozen seconds.
_TIME_SHARE = 0.02
#: Connections after which counting stops and says "at least so many".
MAX_COUNT = 1_000_000


def diag_request(family: int) -> bytes:
    """A netlink message that asks for every established TCP socket of *family*."""
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _ESTABLISHED)
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0) + body


def count_diag(data: bytes, port: int) -> tuple[int, bool]:
    """Count the sockets of local *port* in one netlink answer.

    :returns: the count, and whether the dump is complete.
    :raises OSError: the kernel answered with an error, or with what is no netlink.
    """
    wanted = struct.pack("!H", port)
    count = at = 0
    while at + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, at)[:2]
        if kind == _NLMSG_DONE:
            return count, True
        if kind == _NLMSG_ERROR or length < _HEADER.size:
            raise OSError("the kernel refused to list sockets")
        count += data[at + _SOURCE_PORT_AT : at + _SOURCE_PORT_AT + 2] == wanted
        at += (length + 3) & ~3
    return count, False


def count_proc(lines: Iterable[str], port: int) -> int:
    """Count the established sockets of local *port* among the lines of ``/proc/net/tcp``."""
    suffix = f":{port:04X}"
    count = 0
    for line in lines:
        fields = line.split(None, 4)
        count += len(fields) > 3 and fields[3] == "01" and fields[1].endswith(suffix)
    return count


def read_diag(port: int) -> int:
    """Ask the kernel. Raises OSError where it does not answer."""
    total = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as channel:
        channel.settimeout(1.0)  # the kernel answers within the call; never hang should it not
        for family in (socket.AF_INET, socket.AF_INET6):
            channel.send(diag_request(family))
            done = False
            while not done and total < MAX_COUNT:
                count, done = count_diag(channel.recv(_CHUNK_BYTES), port)
                total += count
    return total


def read_proc(port: int) -> int:
    """Read ``/proc``. Raises OSError where there is none."""
    total = 0
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as file:
                total += count_proc(file, port)
        except FileNotFoundError:
            if name == "tcp":
                raise
    return total


class ConnectionCounter:
    """Counts, but not more often than is cheap: the last count stands meanwhile.

    :param readers: tried in order; one that raises OSError is not asked again, unless this machine was short of something.
    """

    def __init__(
        self, port: int, *, monotonic: Callable[[], float],
        readers: tuple[Callable[[int], int], ...] = (read_diag, read_proc),
    ) -> None:
        self._port = port
        self._monotonic = monotonic
        self._readers = list(readers)
        self._count: int | None = None
        self._next_at = 0.0

    def count(self) -> int | None:
        """Established connections of the port; None when nobody can tell."""
        before = self._monotonic()
        if self._count is not None and before < self._next_at:
            return self._count
        while self._readers:
            try:
                self._count = self._readers[0](self._port)
                break
            except OSError as error:
                self._count = None
                if short_of(error.errno or 0):
                    break
                del self._readers[0]
        after = self._monotonic()
        self._next_at = after + (after - before) / _TIME_SHARE
        return self._count
