"""Listening sockets that pass from one process to the next: upgrades, and systemd's socket activation.

While a process is replaced two of them have every listening socket, and one of them accepts: the other is *held*. A socket
is known by the address that it was asked for, which the next process asks for too; systemd's by the name it is bound to.
Descriptors are a process's, and so is what is known of them: `SOCKETS`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

from cluster.address import Address


class Acceptor(Protocol):
    """Whoever accepts from listening sockets."""

    def hold(self) -> None:
        """Accept nobody until `release`; clients wait in the kernel's queue."""

    def release(self) -> None: ...

    def descriptors(self) -> Sequence[int]:
        """That listen."""


class Listening(NamedTuple):
    """The sockets of one address."""

    asked: str  #: the address as configured; empty: known by what they are bound to
    sockets: tuple[socket.socket, ...]


class ListeningSockets:
    """Those of this process."""

    def __init__(self) -> None:
        self.held = False  #: another process accepts
        self.given_away = False  #: for good: the files of UNIX sockets are the other's
        self._acceptors: WeakSet[Any] = WeakSet()
        self._made: dict[int, tuple[int, str]] = {}  # by inode: the number of the call that made it, and what it asked for
        self._calls = 0
        self._inherited: list[Listening] = []
        self._foreign: set[str] = set()  # files of UNIX sockets that systemd made

    # --- those of another process

    def inherit(self, listening: Iterable[Listening]) -> None:
        """They are to be used instead of binding."""
        for each in listening:
            for sock in each.sockets:
                sock.setblocking(False)
            self._inherited.append(each)

    def take(self, asked: str, names: Iterable[tuple[int, Any]]) -> list[socket.socket]:
        """The sockets for an address; empty: there are none yet. *names*: what it would be bound to, by family."""
        for number, each in enumerate(self._inherited):
            if each.asked == asked:
                del self._inherited[number]
                return list(each.sockets)
        wanted = {_plain(family, name) for family, name in names}
        found = [each for each in self._inherited if not each.asked and _bound(each.sockets[0]) in wanted]
        self._inherited = [each for each in self._inherited if each not in found]
        self._foreign.update(name for each in found for _, name in [_bound(each.sockets[0])] if isinstance(name, str))
        return [sock for each in found for sock in each.sockets]

    @property
    def foreign(self) -> tuple[str, ...]:
        """Files of UNIX sockets whose mode, owner and end are systemd's business."""
        return tuple(self._foreign)

    def leave_alone(self, paths: Iterable[str]) -> None:
        """These are `foreign`, too."""
        self._foreign.update(paths)

    def is_inherited(self, asked: str, names: Iterable[tuple[int, Any]]) -> bool:
        """Whether `take` would find any."""
        wanted = {_plain(family, name) for family, name in names}
        return any(each.asked == asked or (not each.asked and _bound(each.sockets[0]) in wanted) for each in self._inherited)

    def unused(self) -> list[str]:
        """Close those that nobody asked for, and tell their names. The files of UNIX sockets go with what was configured."""
        names = []
        for each in self._inherited:
            for sock in each.sockets:
                name = _bound(sock)[1]
                names.append(each.asked or (name if isinstance(name, str) else str(Address(*name))))
                if each.asked and isinstance(name, str) and name.startswith("/") and name not in self._foreign:
                    _unlink(name)
                sock.close()
        self._inherited.clear()
        return names

    # --- for another process

    def made(self, asked: str, sockets: Iterable[socket.socket]) -> None:
        """They were asked for by this address."""
        self._calls += 1
        for sock in sockets:
            self._made[os.fstat(sock.fileno()).st_ino] = self._calls, asked

    def join(self, acceptor: Acceptor) -> None:
        """From now on it is held and released with the others."""
        self._acceptors.add(acceptor)
        if self.held:
            acceptor.hold()

    def listening(self) -> list[tuple[str, list[int]]]:
        """Every address asked for, and its descriptors, in the order in which they were asked for."""
        found: dict[tuple[int, str], list[int]] = {}
        inodes = {}
        for acceptor in self._acceptors:
            for descriptor in acceptor.descriptors():
                inode = os.fstat(descriptor).st_ino
                inodes[inode] = self._made.get(inode, (0, ""))
                found.setdefault(inodes[inode], []).append(descriptor)
        self._made = inodes
        return [(asked, descriptors) for (_, asked), descriptors in sorted(found.items())]

    def hold(self) -> None:
        """Accept nobody until `release`."""
        self.held = True
        for acceptor in list(self._acceptors):
            acceptor.hold()

    def release(self) -> None:
        self.held = False
        for acceptor in list(self._acceptors):
            acceptor.release()

    def give_away(self) -> None:
        """Another process has them, for good. What is held stays so."""
        self.given_away = True


def _plain(family: int, name: Any) -> tuple[int, Any]:
    return int(family), name if isinstance(name, str) else tuple(name[:2])


def _bound(sock: socket.socket) -> tuple[int, Any]:
    name = sock.getsockname()
    return _plain(sock.family, "@" + name[1:].decode(errors="replace") if isinstance(name, bytes) else name)


def _unlink(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


#: This process's.
SOCKETS = ListeningSockets()
