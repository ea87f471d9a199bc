"""How an operator's request is refused. One class for each kind of answer; every transport translates them itself.

`cluster.errors.StoreUnavailable` passes through the control interface unchanged: it is nobody's wrong request.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.errors import Misuse, OutcomeUnknown, Problem, StoreUnavailable


class Refused(Misuse):
    """Base: the request was understood to be impossible and nothing was changed. The message is for the operator."""


class Invalid(Refused):
    """A parameter is missing, unknown, or not what its type allows; *place* names it."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.place = place


class Wrong(Invalid):
    """A document with errors: all of them, each with its place."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.place = problems[0].place
        self.problems = tuple(problems)


class Forbidden(Refused):
    """The caller's role does not allow it."""


class NotFound(Refused):
    """No such operation, service, group, host, user or connection."""


class Conflict(Refused):
    """Possible in general, but not in the present state."""


class Stale(Conflict):
    """What the change was made for has changed meanwhile: look again."""


def away(error: StoreUnavailable) -> str:
    """What an operator is told when the store did not answer: never that nothing was changed when nobody knows."""
    if isinstance(error, OutcomeUnknown):
        return f"it is not known whether the change was made, the store did not answer: {error}; look before trying again"
    return f"the store is unavailable, nothing was changed: {error}"
