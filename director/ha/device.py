"""The network interface on the clients' side, as far as virtual addresses go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from director.ha.lookout import Befell, Lookout
from director.ha.neighbours import announce
from director.ha.netlink import Interface, add_address, remove_address


@implementer(IReadDescriptor)
class Device:
    """Raises OSError as the kernel answers."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._lookout: Lookout | None = None
        self._reactor: Any = None
        self._told: Callable[[], None] = lambda: None
        self._befell = Befell()

    def listen(self, reactor: Any, told: Callable[[], None]) -> None:
        """Begin to hear what befalls it, and say so when it is something."""
        self._lookout = Lookout(self.device)
        self._told = told
        self._reactor = reactor
        self._befell = self._lookout.look()
        reactor.addReader(self)

    def befell(self) -> Befell:
        """What befell it since the last look; nothing without `listen`."""
        self._look()
        befell, self._befell = self._befell, Befell(running=self._befell.running)
        return befell

    def close(self) -> None:
        if self._lookout is not None:
            self._reactor.removeReader(self)
            self._lookout.close()
            self._lookout = None

    def add(self, address: Interface, lifetime_s: int) -> None:
        add_address(self.device, address, lifetime_s)

    def remove(self, address: Interface) -> None:
        remove_address(self.device, address)

    def announce(self, address: Interface) -> None:
        announce(self.device, address.ip)

    def _look(self) -> bool:
        """Whether anything befell it since the last time; refreshed addresses are told too, and nothing."""
        if self._lookout is None:
            return False
        before, new = self._befell, self._lookout.look()
        self._befell = Befell(before.lost | new.lost, before.interrupted or new.interrupted, new.running)
        return self._befell != before

    # --- what the reactor calls

    def doRead(self) -> None:
        if self._look():
            self._told()

    def fileno(self) -> int:
        return -1 if self._lookout is None else self._lookout.fileno()

    def logPrefix(self) -> str:
        return "device"

    def connectionLost(self, reason: Any) -> None:
        """The reactor stops."""
