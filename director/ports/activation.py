"""Listening sockets that systemd made: sd_listen_fds(3), and the file descriptors' names of systemd.socket(5).

They are used where the configuration asks for the address that they are bound to, instead of binding it.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import MutableMapping
from typing import NamedTuple

from director.ports.passing import Listening

#: The first descriptor, by the protocol.
FIRST = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Activated(NamedTuple):
    """What was passed."""

    listening: list[Listening]
    problems: list[str]  #: descriptors that are of no use, a sentence each


def activated(environment: MutableMapping[str, str]) -> Activated:
    """Take what systemd passed to this process; a second time there is nothing. The variables are taken out."""
    pid, count, names = (environment.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return Activated([], [])
    listening, problems, named = [], [], names.split(":")
    for number in range(int(count)):
        descriptor, name = FIRST + number, named[number] if number < len(named) else "unknown"
        if why := _useless(descriptor):
            problems.append(f"systemd's socket {name!r} (descriptor {descriptor}) {why}")
            continue
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        if sock.family != socket.AF_UNIX:  # which clients inherit, as in `director.ports.binding`
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.append(Listening("", (sock,)))
    return Activated(listening, problems)


def _useless(descriptor: int) -> str:
    """Why nobody could be accepted there; empty when that can be."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return "is no socket"
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return "does not listen: the unit needs ListenStream= and Accept=no"
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    return ""
