"""Which process this is, so that another on the same machine can tell whether it still runs."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def whereabouts() -> str:
    """Of this process; empty where there is no Linux ``/proc``."""
    try:
        return f"{_machine()}/{os.getpid()}/{_started(os.getpid())}"
    except OSError:
        return ""


def has_ended(text: str) -> bool | None:
    """Whether the process that said *text* is over; None where that can't be told from here: another machine, another
    boot of this one, another container, or it did not say."""
    machine, _, rest = text.rpartition("/")
    machine, _, pid = machine.rpartition("/")
    try:
        if machine != _machine() or not pid.isdecimal():
            return None
        return _started(int(pid)) != rest
    except FileNotFoundError:
        return True
    except OSError:
        return None


def _machine() -> str:
    """This boot of this kernel, and the namespace in which process ids count."""
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.readlink(_PROC / 'self/ns/pid')}"


def _started(pid: int) -> str:
    """In ticks since the boot (proc(5), field 22 of stat): tells a process from a later one of the same id."""
    stat = (_PROC / str(pid) / "stat").read_text()
    return stat.rpartition(")")[2].split()[19]
