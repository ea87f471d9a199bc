"""No fence: only the address's own lifetime (`director.core.vip`) ends what this machine answers for."""

from __future__ import annotations


class Lifetime:
    """What is left where the kernel takes neither of the others. See `director.ha.fence.interface.Fence`.

    :param why: the others are not to be had.
    """

    kind = "lifetime"

    def __init__(self, why: str) -> None:
        self._why = why

    def open_until(self, boot_ns: int) -> None:
        """Who holds the address refreshes it, or does not."""

    def close(self) -> None:
        """Who holds the address removes it."""

    def holds(self) -> str:
        return self._why

    def release(self) -> None:
        """There is nothing to take away."""

    def leave(self) -> None:
        """Nor to leave."""
