"""The branches of things that go wrong; each is handled by a different party.

- `Misuse`: the caller on this side broke a contract. A bug of ours, or an operator's wrong request.
- `RemoteError`: a peer sent what it must not. Dropped, counted, never an exception in the log.
- `StoreUnavailable`: the shared store cannot be asked now. Never the same as "nothing there".
- `StoreFull`: it answers, and has no room for any write.
- `OutcomeUnknown`: it was asked for a change, and whether that was made nobody knows. Never told as "not made".
- `ConfigError`: a configuration with errors; carries all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Misuse(Exception):
    """A call that its contract forbids; nothing was changed."""


class RemoteError(Exception):
    """A peer broke the protocol."""


class StoreUnavailable(Exception):
    """The store did not answer; nothing is known about its content."""


class StoreFull(StoreUnavailable):
    """The store is out of space and refuses every write: nothing was changed. What is there can be read."""


class Problem(NamedTuple):
    """One error of a document: where, what, and what to do about it."""

    place: str  #: dotted key, e.g. ``services.web.groups.blue.hosts.app1.address``; empty: the document as a whole
    message: str
    hint: str = ""
    line: int | None = None
    file: str | None = None

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        text = ": ".join(part for part in (where, self.place, self.message) if part)
        return f"{text} ({self.hint})" if self.hint else text


class OutcomeUnknown(StoreUnavailable):
    """The store was asked for a change and did not answer: it may have happened, and may still happen."""


class ConfigError(Exception):
    """Every error of a configuration at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
