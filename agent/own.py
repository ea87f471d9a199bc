"""Reads what `agent.utilisation` computes with: the service's cgroup or process tree, its limits, and its CPUs.

A sample is some ten reads of ``/proc`` and ``/sys/fs/cgroup``, about half a millisecond.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from twisted.logger import Logger

from agent.cgroups import (
    Mount,
    Place,
    counters,
    cpu_ticks,
    cpus,
    memberships,
    memory_limit,
    mounts,
    place,
    quota_v1,
    quota_v2,
)
from agent.owner import PortOwner
from agent.utilisation import LEAST_S, Level, Own, Reading, use

#: Use is measured over this time at least, or over what there is yet: ten periods of a quota, so that one more or less
#: that falls into it is a tenth. Less than a second, so that reports a second apart are of one interval each.
WINDOW_S = 0.95
#: The controllers looked at; version 2 has them in one hierarchy.
_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory")


class OwnLoad:
    """The load of the service on *port*, or in *cgroup*.

    :param cgroup: the path of its cgroup as ``/proc/PID/cgroup`` tells it; None: that of whoever listens on *port*.
    :param processes: measure the process tree though there is a cgroup.
    :param root: what stands before ``/proc`` and ``/sys``.
    """

    _log = Logger()

    def __init__(self, port: int | None, *, monotonic: Callable[[], float], cgroup: str | None = None,
                 processes: bool = False, root: str = "") -> None:
        self._monotonic = monotonic
        self._cgroup = cgroup
        self._processes = processes
        self._root = root
        self._owner = None if port is None else PortOwner(port, monotonic=monotonic, root=root)
        self._readings: deque[Reading] = deque()
        self._told = ""

    def sample(self) -> Own | None:
        """The load of the last `WINDOW_S` or a little more; None while it is unknown."""
        try:
            found = self._read()
        except (OSError, ValueError) as error:
            found = None
            self._tell(f"cannot be told: {error}")
        if found is None:
            self._readings.clear()
            return None
        reading, memory, source = found
        readings = self._readings
        if readings and readings[-1].who != reading.who:
            readings.clear()
        while len(readings) > 1 and reading.at - readings[1].at >= WINDOW_S:
            readings.popleft()
        used = use(readings[0], reading) if readings else None
        if not readings or reading.at - readings[-1].at >= LEAST_S:
            readings.append(reading)
        if used is None:
            return None
        return Own(source, used.utilisation, used.own, used.throttled, memory)

    def _tell(self, what: str) -> None:
        if what != self._told:
            self._told = what
            self._log.info("the service's own load {what}", what=what)

    # --- one reading

    def _read(self) -> tuple[Reading, float | None, Literal["cgroup", "process"]] | None:
        pids = () if self._owner is None else self._owner.pids()
        if self._cgroup is not None:
            cgroups = dict.fromkeys(("", *_CONTROLLERS), self._cgroup)
        elif pids:
            cgroups = memberships(self._text(f"/proc/{pids[0]}/cgroup"))
        else:
            self._tell("is unknown: nobody that we may look at listens on the port; the machine's counts")
            return None
        hierarchies = mounts(self._text("/proc/self/mountinfo"))
        places = {name: place(name, hierarchies, cgroups) for name in _CONTROLLERS}
        cpu = places["cpu"]
        usage = cpu if cpu is not None and cpu.unified else places["cpuacct"]
        apart = cpu is not None and not cpu.unified and cgroups.get("cpu") != cgroups.get("cpuacct")
        at = self._monotonic()
        used_s = None
        if not self._processes and usage is not None and not apart and not self._is_top(usage):
            used_s = self._used_s(usage.folders[0], usage.unified)
        source: Literal["cgroup", "process"] = "cgroup"
        who: object = usage
        if used_s is None:
            if self._owner is None or not pids:
                self._tell(f"is unknown: {self._cgroup} is no cgroup here; the machine's counts")
                return None
            source, who = "process", pids
            used_s = self._owner.used_s()
        levels = {} if cpu is None else self._levels(cpu, self._usages(cpu, hierarchies, cgroups))
        allowed = self._allowed_of(pids[0]) if self._cgroup is None else self._cpuset(places["cpuset"])
        reading = Reading(at, who, used_s, levels, cpu_ticks(self._text("/proc/stat")), allowed or None)
        self._tell("is that of cgroup " + usage.folders[0] if source == "cgroup" and usage is not None else
                   "is that of the processes " + ", ".join(map(str, pids)) + " and their children")
        return reading, self._memory(places["memory"]), source

    def _text(self, path: str) -> str:
        with open(self._root + path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def _maybe(self, path: str) -> str | None:
        """The file's text; None where it does not exist: at the top, or because its controller is off."""
        try:
            return self._text(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _is_top(self, where: Place) -> bool:
        """Whether this is the machine's own cgroup: the one without ``cgroup.type``, or the one with ``release_agent``."""
        name = "cgroup.type" if where.unified else "release_agent"
        return (self._maybe(f"{where.folders[0]}/{name}") is None) == where.unified

    def _used_s(self, folder: str, unified: bool) -> float | None:
        text = self._maybe(f"{folder}/{'cpu.stat' if unified else 'cpuacct.usage'}")
        if text is None:
            return None
        if not unified:
            return int(text) / 1e9
        try:
            return counters(text)["usage_usec"] / 1e6
        except KeyError:
            raise ValueError(f"{folder}/cpu.stat has no usage_usec") from None

    def _usages(self, cpu: Place, hierarchies: list[Mount], cgroups: dict[str, str]) -> tuple[str, ...]:
        """Where the CPU time of each folder of *cpu* stands."""
        if cpu.unified:
            return cpu.folders
        beside = place("cpuacct", hierarchies, {"cpuacct": cgroups.get("cpu", "")})
        return () if beside is None or len(beside.folders) != len(cpu.folders) else beside.folders

    def _levels(self, cpu: Place, usages: tuple[str, ...]) -> dict[str, Level]:
        """Every quota from the service's cgroup to the top."""
        levels = {}
        for index, folder in enumerate(cpu.folders):
            if cpu.unified:
                text = self._maybe(f"{folder}/cpu.max")
                cores = None if text is None else quota_v2(text)
            else:
                quota, period = (self._maybe(f"{folder}/cpu.cfs_{name}_us") for name in ("quota", "period"))
                cores = None if quota is None or period is None else quota_v1(quota, period)
            if cores is not None:
                stat = counters(self._maybe(f"{folder}/cpu.stat") or "")
                used_s = self._used_s(usages[index], cpu.unified) if usages else None
                levels[folder] = Level(cores, used_s, stat.get("nr_periods", 0), stat.get("nr_throttled", 0))
        return levels

    def _allowed_of(self, pid: int) -> frozenset[int]:
        """The CPUs of a process: of its cpuset, as narrowed by itself or by whoever started it."""
        for line in self._text(f"/proc/{pid}/status").splitlines():
            name, _, value = line.partition(":")
            if name == "Cpus_allowed_list":
                return cpus(value)
        return frozenset()

    def _cpuset(self, where: Place | None) -> frozenset[int]:
        if where is not None:
            name = "cpuset.cpus.effective" if where.unified else "cpuset.effective_cpus"
            for folder in where.folders:
                text = self._maybe(f"{folder}/{name}")
                if text is not None and text.strip():
                    return cpus(text)
        return frozenset()

    def _memory(self, where: Place | None) -> float | None:
        """The largest share of a memory limit, from the service's cgroup to the top, as the kernel's killer would see it."""
        shares = []
        current, limit, idle = (("memory.current", "memory.max", "inactive_file") if where is not None and where.unified
                                else ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"))
        for folder in where.folders if where is not None else ():
            text = self._maybe(f"{folder}/{limit}")
            most = None if text is None else memory_limit(text)
            if most:
                used = int(self._text(f"{folder}/{current}"))
                droppable = counters(self._maybe(f"{folder}/memory.stat") or "").get(idle, 0)
                shares.append(min(1.0, max(0, used - droppable) / most))
        return max(shares, default=None)
