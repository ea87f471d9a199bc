"""What the parts of a leader ask of whoever decides that it leads: by a lease (`director.ha.leading`), or by promises
(`director.ha.reigning`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from cluster.store import Committed, Compare, Lease, Operation
from director.ha.leading import Known


class Leads(Protocol):
    """See the module."""

    director: str
    known: Known | None
    on_gained: list[Callable[[int], None]]
    on_lost: list[Callable[[], None]]
    on_known: list[Callable[[Known | None], None]]
    owned: set[str]
    problems: dict[str, str]

    @property
    def needed_s(self) -> float:
        """How long the right to a virtual address must last still for it to be refreshed."""
        ...

    @property
    def linger_s(self) -> float:
        """How long an address may outlive that right."""
        ...

    @property
    def names_first(self) -> bool:
        """Whether the store must name the owner of an address before it is taken."""
        ...

    @property
    def leads(self) -> bool:
        """Whether this director leads at this very moment."""
        ...

    @property
    def term(self) -> int:
        """Of the present leadership; 0 while this director does not lead."""
        ...

    def remaining_s(self) -> float:
        """For how long it certainly leads as things stand; 0 when it does not."""
        ...

    def fenced(self, operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
        """Commit as the leader. Not ``succeeded``: another leads by now, or a comparison of *when* failed."""
        ...

    def resign(self, hold_s: float = ...) -> Deferred[None]:
        """Lead no more, and don't campaign for *hold_s*; fires when others can take over."""
        ...

    def promise(self, for_s: float) -> bool:
        """Don't campaign for *for_s*; False, and no promise, when this director leads or may at any moment."""
        ...

    @property
    def lease(self) -> Lease | None:
        """By which it leads, or would."""
        ...

    def adopt(self, lease: Lease, term: int) -> None:
        """Lead in the place of another process of this director; before the start."""
        ...

    def let_go(self) -> None:
        """Another process leads in this one's place."""
        ...
