"""How an operator's request is refused. One class for each kind of answer; every transport translates them itself.

`cluster.errors.StoreUnavailable` passes through the control interface unchanged: it is nobody's wrong request.
"""

from __future__ import annotations

from cluster.errors import Misuse


class Refused(Misuse):
    """Base: the request was understood to be impossible and nothing was changed. The message is for the operator."""


class Invalid(Refused):
    """A parameter is missing, unknown, or not what its type allows; *place* names it."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.place = place


class Forbidden(Refused):
    """The caller's role does not allow it."""


class NotFound(Refused):
    """No such operation, service, group or host."""


class Conflict(Refused):
    """Possible in general, but not in the present state."""
