"""Which processes serve a port, and what CPU time they and their children took. Parsing is pure, `PortOwner` reads.

Whoever holds the listening socket serves the port. To see the descriptors of another user's processes takes root, or
CAP_SYS_PTRACE; without, the port has no owner that we know of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

#: A search may take this share of the time, as in `agent.connections`: 300 processes take some 10 ms.
_TIME_SHARE = 0.02
#: Holds the sockets of services that it starts on demand, besides the service itself.
_INIT = 1
_LISTEN, _SYN_RECV = "0A", "03"


class Process(NamedTuple):
    """Of ``/proc/PID/stat``."""

    parent: int
    ticks: int  #: CPU time, its own and that of children it has waited for


def process(stat: str) -> Process:
    """Raises ValueError for what is no ``/proc/PID/stat``. The name, in parentheses, may have anything in it."""
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 15:
        raise ValueError(f"no process: {stat!r}")
    return Process(int(fields[1]), sum(int(field) for field in fields[11:15]))


def listening(lines: Iterable[str], port: int) -> set[str]:
    """The inodes of the sockets that listen on *port*, of ``/proc/net/tcp``. Stops where the kernel's listening ones end, so
    that connections cost nothing."""
    suffix = f":{port:04X}"
    found = set()
    for number, line in enumerate(lines):
        fields = line.split(None, 10)
        if number == 0 or len(fields) < 10:
            continue
        if fields[3] == _LISTEN and fields[1].endswith(suffix):
            found.add(fields[9])
        elif fields[3] not in (_LISTEN, _SYN_RECV):
            break
    return found


def roots(owners: Iterable[int], processes: Mapping[int, Process]) -> tuple[int, ...]:
    """Of the processes that hold a socket, those whose parents do not; init only if it is alone."""
    holding = set(owners)
    if holding != {_INIT}:
        holding.discard(_INIT)
    return tuple(sorted(pid for pid in holding if pid not in processes or processes[pid].parent not in holding))


def tree(above: Iterable[int], processes: Mapping[int, Process]) -> list[int]:
    """*above* and everything that descends from them."""
    children: dict[int, list[int]] = {}
    for pid, each in processes.items():
        children.setdefault(each.parent, []).append(pid)
    found: list[int] = []
    waiting = [pid for pid in above if pid in processes]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += [child for child in children.get(pid, ()) if child != pid]
    return found


class PortOwner:
    """Finds the owner of *port*, and again when it has gone.

    :param root: what stands before ``/proc``.
    """

    def __init__(self, port: int, *, monotonic: Callable[[], float], root: str = "") -> None:
        self._port = port
        self._monotonic = monotonic
        self._proc = root + "/proc"
        self._held: dict[str, str] = {}  # links of the roots' descriptors, and where they led
        self._pids: tuple[int, ...] = ()
        self._search_at = 0.0
        self._tree: list[int] = []
        self._tree_at = 0.0

    def pids(self) -> tuple[int, ...]:
        """The processes that serve the port, their descendants left out; empty: unknown."""
        if self._held and all(_link(path) == target for path, target in self._held.items()):
            return self._pids
        before = self._monotonic()
        if before < self._search_at:
            return ()
        self._held, self._pids, self._tree_at = {}, (), 0.0
        try:
            self._search()
        except OSError:
            self._held, self._pids = {}, ()
        after = self._monotonic()
        self._search_at = after + (after - before) / _TIME_SHARE
        return self._pids

    def used_s(self) -> float:
        """CPU time of the processes that serve the port, and of their descendants, ever."""
        before = self._monotonic()
        if before >= self._tree_at:
            self._tree = tree(self._pids, self._processes(self._all()))
            after = self._monotonic()
            self._tree_at = after + (after - before) / _TIME_SHARE
        ticks = sum(each.ticks for each in self._processes(self._tree).values())
        return ticks / os.sysconf("SC_CLK_TCK")

    def _search(self) -> None:
        targets = {f"socket:[{inode}]" for inode in self._inodes()}
        if not targets:
            return
        held = self._holders(targets, [os.getpid()]) or self._holders(targets, self._all())
        self._pids = roots(held, self._processes(held))
        self._held = {path: target for pid in self._pids for path, target in held[pid].items()}

    def _inodes(self) -> set[str]:
        found = set()
        for name in ("tcp", "tcp6"):
            try:
                with open(f"{self._proc}/net/{name}", encoding="ascii") as file:
                    found |= listening(file, self._port)
            except FileNotFoundError:
                continue  # a kernel without IPv6
        return found

    def _all(self) -> list[int]:
        return [int(name) for name in os.listdir(self._proc) if name.isdecimal()]

    def _holders(self, targets: set[str], pids: Iterable[int]) -> dict[int, dict[str, str]]:
        """Which of *pids* hold one of *targets*, and by which links."""
        found: dict[int, dict[str, str]] = {}
        for pid in pids:
            folder = f"{self._proc}/{pid}/fd"
            try:
                names = os.listdir(folder)
            except OSError:
                continue  # it has ended, or is somebody else's
            links = {path: target for path in (f"{folder}/{name}" for name in names) if (target := _link(path)) in targets}
            if links:
                found[pid] = {path: target for path, target in links.items() if target is not None}
        return found

    def _processes(self, pids: Iterable[int]) -> dict[int, Process]:
        found = {}
        for pid in pids:
            try:
                with open(f"{self._proc}/{pid}/stat", encoding="utf-8", errors="replace") as file:
                    found[pid] = process(file.read())
            except OSError:
                continue  # it has ended
        return found


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None
