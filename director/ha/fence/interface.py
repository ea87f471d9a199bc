"""The seam between who decides how long this machine may answer for some virtual addresses, and what enforces it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address


class Fence(Protocol):
    """A deadline for a set of virtual addresses. Until then the machine answers for them, if it has them; afterwards it does
    not, be this process stopped, killed or slow. A new fence is closed.

    It is on nobody's side but the clock's: what a dead process last wrote holds until its instant, no longer.
    """

    kind: str  #: ``tc``, ``nft`` or ``lifetime``: what enforces it

    def open_until(self, boot_ns: int) -> None:
        """Let the machine answer until that instant of CLOCK_BOOTTIME, nanoseconds. The last call counts: it may be earlier
        than the one before. An instant that has passed, however late the call is, leaves the fence closed.

        :raises OSError: the kernel refuses; what was said before holds.
        """

    def close(self) -> None:
        """The machine answers no more. Once this returned, no packet passes.

        :raises OSError: the kernel refuses; what was said before holds.
        """

    def holds(self) -> str:
        """Empty while the kernel enforces the deadline to the millisecond; else why it does not, for operators to read: the
        addresses' lifetime must be waited for then."""

    def release(self) -> None:
        """Take the fence away, for good; the addresses must be off the interface. A process that dies without it leaves the
        fence, and so closed."""

    def leave(self) -> None:
        """Another process of this director has a fence of its own for the addresses: look after this one no more."""
