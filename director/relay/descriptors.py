"""What the Python relay asks of sockets, of which it keeps descriptors and no objects."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any

# plain numbers: the socket module's enumerations cost a look-up in Python at each use
_FAMILY, _KIND = int(socket.AF_INET), int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
_LINGER_0 = struct.pack("ii", 1, 0)


def on_socket(fd: int, method: Callable[..., Any], *arguments: object) -> Any:
    """Call a method of the socket behind *fd*."""
    borrowed = socket.SocketType(_FAMILY, _KIND, 0, fd)
    try:
        return method(borrowed, *arguments)
    finally:
        borrowed.detach()


def error_of(fd: int) -> int:
    """What the kernel holds against *fd*, as an errno; told once."""
    error: int = on_socket(fd, socket.SocketType.getsockopt, socket.SOL_SOCKET, socket.SO_ERROR)
    return error


def reset_on_close(fd: int) -> None:
    """Have the close of *fd* send RST."""
    on_socket(fd, socket.SocketType.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)


def unsent(fd: int) -> int:
    """Bytes in the send queue that the peer's kernel has not acknowledged (SIOCOUTQ)."""
    (size,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))
    return int(size)


def unread(fd: int) -> int:
    """Bytes in the receive queue (FIONREAD)."""
    (size,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))
    return int(size)
