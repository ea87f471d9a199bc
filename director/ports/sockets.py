"""The system calls of every connection: accepting a client, and starting a connect to a host.

On bare descriptors, without socket objects: of what Python does for a connection those are the largest part. The native
relay's extension has both in C; without it they are made of what Python offers. Decisions are the caller's alone.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import cycle
from pathlib import Path
from typing import Any

from cluster.address import Address
from cluster.model import Keepalive
from cluster.shortage import short_of

try:
    from director.relay import _relay as _native
except ImportError:
    IN_C = False
else:
    IN_C = True

# plain numbers: the socket module's enumerations cost a look-up in Python at each use
_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
_AF_INET, _AF_INET6, _AF_UNIX = int(socket.AF_INET), int(socket.AF_INET6), int(socket.AF_UNIX)

#: ip(7): leave the port of a bound address to connect(2), which knows the other end, so that each host may be given every
#: port. Goes for IPv6 too. The socket module of Python 3.11 does not name it.
IP_BIND_ADDRESS_NO_PORT = 24
#: SO_LINGER on, of 0 s: closing resets.
_RESET = struct.pack("ii", 1, 0)
_NO_PORT = (-errno.EADDRNOTAVAIL, -errno.EADDRINUSE)

#: Addresses whose form for the kernel is remembered: those of ten thousand hosts, which are probed all the time.
KEPT_ADDRESSES = 16_384

#: As Linux has them where nobody has changed the sysctl, which a kernel without /proc cannot be asked for.
_KEEPALIVE_DEFAULTS = {"intvl": 75, "probes": 9}

#: Options of TCP, each with its value.
Options = tuple[tuple[int, int], ...]

#: A client as accepted: its descriptor and its name, the packed address and two bytes of port; None over a UNIX socket.
Client = tuple[int, bytes | None]


def _accept(fd: int) -> Client:
    listening = socket.socket(fileno=fd)
    try:
        client, peer = listening.accept()
    finally:
        listening.detach()
    client.setblocking(False)
    family = int(client.family)
    if family == _AF_UNIX:
        return client.detach(), None
    ip = socket.inet_pton(family, peer[0].partition("%")[0])
    return client.detach(), ip + struct.pack("!H", peer[1])


def keepalive_options(spec: Keepalive) -> Options:
    """What a new socket needs, and nothing that it has from its kernel: each costs a connection a system call."""
    wanted = ((socket.TCP_KEEPIDLE, spec.idle_s), (socket.TCP_KEEPINTVL, spec.interval_s), (socket.TCP_KEEPCNT, spec.count),
              (socket.TCP_USER_TIMEOUT, round(spec.user_timeout_s * 1000)))
    return tuple((option, value) for option, value in wanted if value)


def inherited_options(spec: Keepalive) -> Options:
    """What a listening socket needs, whose clients inherit it: all, for it may have had others before."""
    of_kernel = ((socket.TCP_KEEPINTVL, _of_kernel("intvl")), (socket.TCP_KEEPCNT, _of_kernel("probes")),
                 (socket.TCP_USER_TIMEOUT, 0))
    return (*of_kernel, *keepalive_options(spec))


def _of_kernel(name: str) -> int:
    try:
        return int(Path(f"/proc/sys/net/ipv4/tcp_keepalive_{name}").read_text())
    except (OSError, ValueError):
        return _KEEPALIVE_DEFAULTS[name]


def connector(address: Address, sources: Sequence[str] = (), options: Options = ()) -> Callable[[], int]:
    """What starts a non-blocking connect to *address* (a literal, or a UNIX socket) whenever it is called: with
    TCP_NODELAY and SO_KEEPALIVE on TCP. It answers a descriptor, connected or under way, or an errno below 0.

    :param sources: addresses of this machine to connect from, in turn; the next one is tried where one has no port left.
        Those of another family than *address* do not count.
    :param options: of each connection over TCP, besides those two.
    """
    family, name = _sockaddr(address)
    ways = [_from(family, name, source, options) for source in sources_for(address, sources)]
    if ways:
        return ways[0] if len(ways) == 1 else partial(_in_turn, cycle(ways), len(ways))
    if IN_C:
        return partial(_native.connect, _packed(family, name), _packed_options(options))
    return partial(_connect, family, name, None, options)


def knocker(address: Address, sources: Sequence[str] = ()) -> Callable[[], int]:
    """As `connector`, for a connect over TCP that does not end the handshake by itself, and that closing resets
    (`director.checks.knock`)."""
    family, name = _sockaddr(address)
    begin = partial(_connect, family, name, silent=True)
    ways = [partial(begin, _sockaddr(Address(source, 0))[1]) for source in sources_for(address, sources)]
    return partial(_in_turn, cycle(ways), len(ways)) if ways else begin


def sources_for(address: Address, sources: Sequence[str]) -> tuple[str, ...]:
    """Those of *sources* that *address*, a literal, can be reached from."""
    if not sources or address.is_unix:
        return ()
    return tuple(source for source in sources if (":" in source) is (":" in address.host))


def _packed_options(options: Options) -> bytes:
    return b"".join(struct.pack("ii", *each) for each in options)


def _from(family: int, name: str | tuple[str, int], source: str, options: Options) -> Callable[[], int]:
    source_name = _sockaddr(Address(source, 0))[1]
    if IN_C:
        return partial(_native.connect_from, _packed(family, source_name), _packed(family, name), _packed_options(options))
    return partial(_connect, family, name, source_name, options)


def _in_turn(ways: Iterator[Callable[[], int]], count: int) -> int:
    answer = -errno.EADDRNOTAVAIL
    for _ in range(count):
        answer = next(ways)()
        if answer not in _NO_PORT:
            break
    return answer


def lacked(error: int, address: Address | None) -> str:
    """What this machine lacks, as `cluster.shortage.short_of` says, when a connect to *address* failed with *error*; empty:
    the failure is about *address*."""
    if error == errno.EADDRNOTAVAIL and address is not None and not _has_source(address):
        return ""
    return short_of(error)


def _has_source(address: Address) -> bool:
    """Whether the kernel has an address of ours to reach *address* from: IPv6 may be switched off. It says so to UDP too,
    which no number of TCP connections keeps from a port."""
    family, name = _sockaddr(address)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            return sock.connect_ex(name) != errno.EADDRNOTAVAIL
    except OSError:  # no descriptor: nothing is learnt
        return True


def _connect(
    family: int, name: str | tuple[str, int], source: str | tuple[str, int] | None = None, options: Options = (), *,
    silent: bool = False,
) -> int:
    try:
        sock = socket.SocketType(family, _STREAM)
    except OSError as refused:
        return -(refused.errno or errno.EIO)
    if silent:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    elif family != _AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in options:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    try:
        if source is not None:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind(source)
        error: int = sock.connect_ex(name)
    except OSError as refused:
        error = refused.errno or errno.EIO
    if error in (0, errno.EINPROGRESS):
        return sock.detach()
    sock.close()
    return -error


def packed_name(address: Address) -> bytes:
    """The name, as in `Client`, of an IP address and port."""
    return ipaddress.ip_address(address.host).packed + struct.pack("!H", address.port)


def family_of(ip: bytes) -> socket.AddressFamily:
    """Of a packed address."""
    return socket.AF_INET if len(ip) == 4 else socket.AF_INET6


def local_name(fd: int, family: int) -> Any:
    """``getsockname`` of a plain descriptor, or None."""
    try:
        sock = socket.socket(family, socket.SOCK_STREAM, fileno=fd)
    except OSError:
        return None
    try:
        return sock.getsockname()
    except OSError:
        return None
    finally:
        sock.detach()


def _sockaddr(address: Address) -> tuple[int, str | tuple[str, int]]:
    """What ``socket`` and ``connect`` take; ``@name``: an abstract UNIX socket."""
    if address.path is not None:
        path = address.path
        return _AF_UNIX, "\0" + path[1:] if path.startswith("@") else path
    return _scoped(address) if "%" in address.host else _plain(address)


def _scoped(address: Address) -> tuple[int, str | tuple[str, int]]:
    """With an interface's name in it, whose number may be another by and by."""
    family, _, _, _, name = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )[0]
    return int(family), name  # type: ignore[return-value]


_plain = lru_cache(maxsize=KEPT_ADDRESSES)(_scoped)


def _packed(family: int, name: str | tuple[str | int, ...]) -> bytes:
    """A ``struct sockaddr_un``, ``_in`` or ``_in6``."""
    start = struct.pack("=H", family)
    if isinstance(name, str):
        raw = os.fsencode(name)
        return start + raw if name.startswith("\0") else start + raw + b"\0"
    host, port = str(name[0]), int(name[1])
    start += struct.pack("!H", port)
    if family == _AF_INET:
        return start + socket.inet_aton(host) + bytes(8)
    flow, scope = (int(part) for part in name[2:4])
    return start + struct.pack("!I", flow) + socket.inet_pton(family, host.partition("%")[0]) + struct.pack("=I", scope)


#: Take the next client of a listening descriptor; its own is non-blocking. Raises BlockingIOError when nobody waits, and
#: other OSErrors as accept(2).
accept: Callable[[int], Client] = _native.accept if IN_C else _accept
