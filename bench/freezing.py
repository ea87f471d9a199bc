"""Processes taken off the CPU by their control group: unlike SIGSTOP at whatever point of the kernel's they are in."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
#: Where such a group is made, what freezes it and what thaws it: cgroup v1, v2, and v2 beside v1.
_KINDS = ((ROOT / "freezer", "freezer.state", "FROZEN", "THAWED"), (ROOT, "cgroup.freeze", "1", "0"),
          (ROOT / "unified", "cgroup.freeze", "1", "0"))
#: For a group that is empty to be gone.
_GONE_S = 5.0


def freeze(pids: Iterable[int]) -> Callable[[], None]:
    """Freeze them; answers what thaws them.

    :raises OSError: there is no freezer, or this process may not use it.
    """
    for kind in _KINDS:
        root, file = kind[:2]
        group = root / f"txdirector-bench-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / file).exists():
                break
            group.rmdir()
    else:
        raise OSError("no freezer: neither cgroup v1's nor v2's")
    _, _, frozen, thawed = kind
    for pid in pids:
        (group / "cgroup.procs").write_text(str(pid))
    (group / file).write_text(frozen)

    def thaw() -> None:
        (group / file).write_text(thawed)
        for pid in (group / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(pid)
        until = time.monotonic() + _GONE_S
        while group.exists() and time.monotonic() < until:
            with contextlib.suppress(OSError):
                group.rmdir()

    return thaw
