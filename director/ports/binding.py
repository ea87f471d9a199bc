"""Listening sockets: one for each address of a host name, or a UNIX socket's file with its mode from the start.

Nobody can connect before ``listen``, and that comes last: after the file has its mode and its owner.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import socket
import stat
from typing import Any, NamedTuple

from cluster.address import Address
from director.ports.passing import SOCKETS

#: Waiting clients the kernel may hold; Linux caps it at net.core.somaxconn.
BACKLOG = 4096
#: socket(7)'s names that Python does not have: bind to an address that this machine may get later.
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
#: A name's addresses that this machine does not have, as ::1 where IPv6 is off: the others do.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
#: Where any port will do, one that is free at the name's first address may be taken at the next; twice is bad luck.
PORT_TRIES = 10


class BindError(Exception):
    """A listener's address could not be taken; says which and why."""


class FileAccess(NamedTuple):
    """Whose a UNIX socket's file is; abstract sockets have none."""

    mode: int = 0o660
    owner: str | None = None  #: a name or a number; None: this process's
    group: str | None = None


#: Its owner and its group may connect.
OURS = FileAccess()


def bind(address: Address, *, absent: bool = False, access: FileAccess = OURS) -> list[socket.socket]:
    """Non-blocking listening sockets, at least one. Port 0 becomes the same port everywhere.

    A UNIX socket's file that nobody listens on any more is replaced; one that answers is not.

    :param absent: the address need not be this machine's (yet): a virtual one.

    Sockets that another process passed on are used instead of new ones.

    :raises BindError: the address is taken, not ours, or not permitted.
    """
    sockets = _inherited(address, access) or _bind(address, absent=absent, access=access)
    SOCKETS.made(str(address), sockets)
    return sockets


def _inherited(address: Address, access: FileAccess) -> list[socket.socket]:
    try:
        sockets = SOCKETS.take(str(address), _names(address))
        if sockets and address.path is not None and not _leave_alone(address.path):
            _give(address.path, access)
        return sockets
    except (OSError, LookupError) as error:
        raise _refused(address, error) from error


def _bind(address: Address, *, absent: bool, access: FileAccess) -> list[socket.socket]:
    try:
        if address.path is not None:
            return [_listen_unix(address.path, access)]
        for tries_left in reversed(range(PORT_TRIES)):
            try:
                return _listen_everywhere(_names(address), absent=absent)
            except OSError as error:
                if address.port or error.errno != errno.EADDRINUSE or not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")
    except (OSError, LookupError) as error:
        raise _refused(address, error) from error


def refusal(address: Address, *, absent: bool = False) -> str:
    """Why `bind` would refuse a TCP *address* now; empty when it would not. Nobody can connect meanwhile."""
    if address.is_unix:
        return ""
    try:
        if SOCKETS.is_inherited(str(address), _names(address)):
            return ""
        for sock in _listen_everywhere(_names(address), absent=absent, backlog=None):
            sock.close()
    except OSError as error:
        return str(_refused(address, error))
    return ""


def _refused(address: Address, error: Exception) -> BindError:
    return BindError(f"cannot listen on {address}: {getattr(error, 'strerror', None) or error.args[0]}")


def change_access(address: Address, access: FileAccess) -> None:
    """Of a UNIX socket that listens already. Raises BindError."""
    if address.path is not None and not _leave_alone(address.path):
        try:
            _give(address.path, access)
        except (OSError, LookupError) as error:
            raise _refused(address, error) from error


def remove(address: Address) -> None:
    """Remove a UNIX socket's file, if *address* has one; before its socket is closed, since whoever comes next may take
    the path from then on. Not once another process has the socket."""
    if SOCKETS.given_away:
        return
    if address.path is not None and not _leave_alone(address.path):
        with contextlib.suppress(OSError):
            os.unlink(address.path)


# --- TCP --------------------------------------------------------------------------------------------------


def _names(address: Address) -> list[tuple[int, Any]]:
    """What to bind, by family."""
    if address.path is not None:
        return [(socket.AF_UNIX, address.path)]
    if address.is_ip:
        return [(socket.AF_INET6 if ":" in address.host else socket.AF_INET, (address.host, address.port))]
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(family), name) for family, _, _, _, name in found))


def _listen_everywhere(names: list[tuple[int, Any]], *, absent: bool, backlog: int | None = BACKLOG) -> list[socket.socket]:
    port, found, missing = 0, [], None
    try:
        for family, name in names:
            try:
                found.append(_listen(family, (name[0], name[1] or port, *name[2:]), absent=absent, backlog=backlog))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
            else:
                port = found[-1].getsockname()[1]
        if missing is not None and not found:
            raise missing
    except BaseException:
        for sock in found:
            sock.close()
        raise
    return found


def _listen(family: int, name: Any, *, absent: bool, backlog: int | None) -> socket.socket:
    """:param backlog: None: take the name, and do not listen."""
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, absent)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, absent)
        sock.bind(name)
        if backlog is not None:
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


# --- UNIX sockets -----------------------------------------------------------------------------------------


def _listen_unix(path: str, access: FileAccess) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if path.startswith("@"):
            sock.bind("\0" + path[1:])
            sock.listen(BACKLOG)
            return sock
        os.fchmod(sock.fileno(), access.mode)  # Linux makes the file with the socket's mode, less the umask
        _make_room(path)
        sock.bind(path)
        try:
            _give(path, access)
            sock.listen(BACKLOG)
        except BaseException:
            os.unlink(path)
            raise
    except BaseException:
        sock.close()
        raise
    return sock


def _leave_alone(path: str) -> bool:
    """It has no file, or one that is somebody else's."""
    return path.startswith("@") or path in SOCKETS.foreign


def _give(path: str, access: FileAccess) -> None:
    os.chmod(path, access.mode)  # before it may be another's
    uid, gid = ids(access)
    if (uid, gid) != (-1, -1):
        os.chown(path, uid, gid, follow_symlinks=False)


def ids(access: FileAccess) -> tuple[int, int]:
    """As ``chown`` takes them.

    :raises LookupError: nobody has such a name.
    """
    uid = gid = -1
    if access.owner is not None:
        try:
            uid = int(access.owner) if access.owner.isdecimal() else pwd.getpwnam(access.owner).pw_uid
        except KeyError:
            raise LookupError(f"there is no user {access.owner!r}") from None
    if access.group is not None:
        try:
            gid = int(access.group) if access.group.isdecimal() else grp.getgrnam(access.group).gr_gid
        except KeyError:
            raise LookupError(f"there is no group {access.group!r}") from None
    return uid, gid


def _make_room(path: str) -> None:
    """Remove a socket's file that nobody serves."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        what = "a symbolic link" if stat.S_ISLNK(kind) else "a directory" if stat.S_ISDIR(kind) else "a file"
        raise OSError(errno.EEXIST, f"{what} is there, and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
