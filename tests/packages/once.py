"""What several of these tests need, and takes long: made once for all processes of a test run, which ``conftest.py`` ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def folder() -> Path:
    """Of this run: that of the process that all of its workers are children of."""
    run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    return Path(tempfile.gettempdir()) / f"txdirector-packages-{run}"


def once(name: str, make: Callable[[Path], None]) -> Path:
    """What *make* put into the folder that it is given, the first time. Where it failed the next one tries again."""
    made = folder() / name
    made.parent.mkdir(exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            unfinished = made.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(made)
    return made
