"""Shortages of this machine's own: telling them from what other machines do, and asking for more descriptors.

A shortage of ours says nothing about whom we wanted to reach. What the network says (refused, timed out, no route) does.
"""

from __future__ import annotations

import errno
import resource
from typing import Any

DESCRIPTORS, MEMORY, PORTS, PROCESSES = "descriptors", "memory", "ports", "processes"
#: What an operator's limits of a director leave it: clients at a time, and new ones a second.
CONNECTIONS, ACCEPTS = "connections", "accepts"

#: Errors of socket(2), bind(2), connect(2), accept(2), open(2) and send(2) that this process or machine makes. A connect
#: without a free local port is EADDRNOTAVAIL (RFC 6056 ports: ip_local_port_range), a bind without one EADDRINUSE.
_SHORT_OF = {
    errno.EMFILE: DESCRIPTORS, errno.ENFILE: DESCRIPTORS,
    errno.ENOBUFS: MEMORY, errno.ENOMEM: MEMORY,
    errno.EADDRNOTAVAIL: PORTS, errno.EADDRINUSE: PORTS,
}


class OutOfResources(Exception):
    """This machine lacked something, so that nothing was learnt of others; *what* is one of the first four above."""

    def __init__(self, what: str) -> None:
        super().__init__(f"this machine is out of {what}")
        self.what = what


def short_of(error: int) -> str:
    """What this machine lacks when a system call fails with *error*; empty: that is no shortage of ours."""
    return _SHORT_OF.get(error, "")


def errno_of(error: BaseException) -> int:
    """The errno behind an exception of Python's or one of Twisted's about connecting and listening; 0: there is none."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    inner: Any = error
    for name in ("socketError", "osError"):  # CannotListenError, ConnectError
        inner = getattr(inner, name, None) or inner
    number = getattr(inner, "errno", inner)
    return number if isinstance(number, int) else 0


def raise_descriptors() -> tuple[int, int]:
    """Raise this process's soft limit of descriptors to its hard one.

    The soft one is low (1,024) for the sake of programs that use select(2), which nothing here does.

    :returns: the soft limit as it was and as it is; `resource.RLIM_INFINITY` for none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # beyond fs.nr_open, which was lowered since
            return soft, soft
    return soft, hard
