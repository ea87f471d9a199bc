"""Stopping one thread of another process, as a debugger does: ptrace(2), PTRACE_SEIZE and PTRACE_INTERRUPT.

Nothing of the process is made for it, and its other threads run on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

#: Of linux/ptrace.h and linux/wait.h.
_DETACH, _SEIZE, _INTERRUPT = 17, 0x4206, 0x4207
_ANY_KIND = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def threads(pid: int) -> dict[str, int]:
    """By name. The main thread, in which the reactor runs, is called as the program is."""
    return {(task / "comm").read_text().strip(): int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()}


@contextlib.contextmanager
def stopped(thread: int) -> Iterator[None]:
    """While it lasts the thread does not run. To be entered and left on one thread.

    :raises OSError: this kernel, or this container, lets nobody be a debugger.
    """
    _ptrace(_SEIZE, thread)
    try:
        _ptrace(_INTERRUPT, thread)
        os.waitpid(thread, _ANY_KIND)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            _ptrace(_DETACH, thread)


def died(thread: int) -> bool:
    """Whether a stopped one was killed with its process; until this was asked the process cannot end."""
    return os.waitpid(thread, _ANY_KIND | os.WNOHANG)[0] == thread


def _ptrace(request: int, thread: int) -> None:
    if _libc.ptrace(request, thread, None, None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")
