"""A time of day of its own for a process that a test starts, set while the process runs: libfaketime, Debian's ``faketime``.

The monotonic clocks stay as they are: a step is what an administrator, or NTP, does to CLOCK_REALTIME. What libfaketime
0.9.10 gets wrong then: ``clock_nanosleep`` with a monotonic deadline, so Python's ``time.sleep``, fails with EINVAL.
"""

from __future__ import annotations

import os
from pathlib import Path
from unittest import SkipTest

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
#: What clocks do wrong, as libfaketime says it: steps, in seconds, and rates.
STEPS = ("-3600", "+3600", "-5")
FAST = "+0 x1.02"
RIGHT = "+0"


def require_faketime() -> None:
    """Skip where libfaketime is not installed, fail in CI."""
    if LIBRARY is None:
        if os.environ.get("CI") == "true":
            raise AssertionError("libfaketime is not installed: apt-get install faketime")
        raise SkipTest("needs libfaketime: apt-get install faketime")


class TimeOfDay:
    """The clock of every process that has `environment`; *path* is a file for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(RIGHT)
        self.environment = {
            "LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(path), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    @staticmethod
    def forget(pid: int) -> None:
        """A process with the clock has ended, perhaps killed: remove what it left in shared memory."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            Path("/dev/shm", name).unlink(missing_ok=True)

    def set(self, what: str) -> None:
        """From now on: so many seconds off, perhaps with a rate."""
        new = self._path.with_suffix(".new")
        new.write_text(what)
        new.replace(self._path)
