"""What Linux says of cgroups, both versions, and of CPUs: text in, values out. No I/O; `agent.own` reads.

Sources: cgroups(7), proc(5), and the kernel's ``admin-guide/cgroup-v2.rst`` and ``cgroup-v1/``. Every function raises
ValueError for text that is not what the kernel writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

#: From here on a v1 memory limit means none: the kernel shows the largest multiple of a page below 2**63.
_NO_MEMORY_LIMIT = 1 << 62
#: What ``cpuset.cpus`` may name; a list that says more is no list of CPUs.
_MAX_CPU = 1 << 16
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One hierarchy's mount."""

    root: str  #: the cgroup that is visible at *point*
    point: str
    controllers: frozenset[str]  #: of version 1; empty: version 2, which has all that version 1 does not have


class Place(NamedTuple):
    """Where one controller keeps a cgroup."""

    unified: bool  #: version 2
    folders: tuple[str, ...]  #: the cgroup's own first, then its ancestors as far as they are visible


def mounts(mountinfo: str) -> list[Mount]:
    """The cgroup hierarchies of ``/proc/self/mountinfo``."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if kind[0] not in ("cgroup", "cgroup2"):
            continue
        if len(fields) < 6 or len(kind) < 3:
            raise ValueError(f"no mount: {line!r}")
        options = kind[2].split(",") if kind[0] == "cgroup" else []
        found.append(Mount(_plain(fields[3]), _plain(fields[4]), frozenset(options)))
    return found


def _plain(path: str) -> str:
    """*path* without the octal escapes of blanks and backslashes."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), path)


def memberships(text: str) -> dict[str, str]:
    """The cgroup for each controller, of ``/proc/PID/cgroup``; that of version 2 under ``""``."""
    found = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if not number.isdecimal() or not colon or not path.startswith("/"):
            raise ValueError(f"no membership: {line!r}")
        found.update(dict.fromkeys(names.split(","), path))
    return found


def place(controller: str, hierarchies: Iterable[Mount], cgroups: Mapping[str, str]) -> Place | None:
    """Where *controller* keeps the cgroup whose *cgroups* are given as by `memberships`; None: it is not visible.

    A controller belongs to version 1 if it is mounted there, and to version 2 otherwise.
    """
    hierarchies = list(hierarchies)
    unified = not any(controller in mount.controllers for mount in hierarchies)
    path = cgroups.get("" if unified else controller)
    for mount in hierarchies:
        if path is None or (mount.controllers if unified else controller not in mount.controllers):
            continue
        inside = _below(path, mount.root)
        if inside is not None:
            folders = ["/".join((mount.point.rstrip("/"), *inside[:depth])) for depth in range(len(inside), -1, -1)]
            return Place(unified, tuple(folders))
    return None


def _below(path: str, root: str) -> list[str] | None:
    """The parts of *path* below *root*; None when it is elsewhere, as ``/../other`` of another namespace is."""
    parts, above = ([part for part in each.split("/") if part] for each in (path, root))
    if ".." in parts or parts[:len(above)] != above:
        return None
    return parts[len(above):]


def quota_v2(cpu_max: str) -> float | None:
    """Cores, of ``cpu.max``; None: no limit."""
    quota, period = cpu_max.split()
    return None if quota == "max" else _cores(quota, period)


def quota_v1(quota: str, period: str) -> float | None:
    """Cores, of ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``; None: no limit."""
    return None if int(quota) < 0 else _cores(quota, period)


def _cores(quota: str, period: str) -> float:
    if int(quota) <= 0 or int(period) <= 0:
        raise ValueError(f"no quota: {quota} of {period}")
    return int(quota) / int(period)


def memory_limit(text: str) -> int | None:
    """Bytes, of ``memory.max`` or ``memory.limit_in_bytes``; None: no limit."""
    if text.strip() == "max":
        return None
    limit = int(text)
    return None if limit >= _NO_MEMORY_LIMIT else limit


def counters(text: str) -> dict[str, int]:
    """``cpu.stat``, ``memory.stat``: a name and a number a line."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def cpus(text: str) -> frozenset[int]:
    """The CPUs of a list like ``0-3,7``; empty for an empty one."""
    found: set[int] = set()
    for part in text.strip().split(",") if text.strip() else []:
        first, dash, last = part.partition("-")
        span = range(int(first), int(last if dash else first) + 1)
        if not span or span[0] < 0 or span[-1] > _MAX_CPU:
            raise ValueError(f"no list of CPUs: {text!r}")
        found.update(span)
    return frozenset(found)


class Ticks(NamedTuple):
    """Time of one CPU, in any unit; only shares of it are used."""

    idle: int
    total: int


def cpu_ticks(stat: str) -> dict[int, Ticks]:
    """Each CPU's time since the start, of ``/proc/stat``. Waiting for a disk is idleness; what the hypervisor took is not.

    Guests' time is part of user and nice already.
    """
    found = {}
    for line in stat.splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name != "cpu":
            spent = [int(number) for number in numbers[:8]]
            if len(spent) < 5:
                raise ValueError(f"no CPU: {line!r}")
            found[int(name[3:])] = Ticks(spent[3] + spent[4], sum(spent))
    return found
