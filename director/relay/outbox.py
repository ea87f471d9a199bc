"""What the Python relay has to tell, kept until no event of a batch can concern what it is about."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger


class Outbox(deque[tuple[Callable[..., None], tuple[object, ...]]]):
    """Whom to call and with what, in order. A callback may put more in, which is told in the same `deliver`."""

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor
        self._soon: IDelayedCall | None = None

    def deliver(self) -> None:
        """Tell everything; what a callback raises is logged, and keeps nothing from the others."""
        while self:
            tell, about = self.popleft()
            try:
                tell(*about)
            except Exception:
                self._log.failure("an event of the relay was not handled")

    def deliver_soon(self) -> None:
        """`deliver` in a turn of the reactor's own: never from within a call to the relay."""
        if self._soon is None or not self._soon.active():
            self._soon = self._reactor.callLater(0, self.deliver)

    def stop(self) -> None:
        """Tell everything now."""
        if self._soon is not None and self._soon.active():
            self._soon.cancel()
        self._soon = None
        self.deliver()
