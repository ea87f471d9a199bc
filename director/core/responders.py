"""What a host's agent-check responder has said so far, and what follows. No clock, no I/O.

As in HAProxy: what an answer does not mention stays as it was said before; an answer that does not come changes nothing;
``up`` and ``ready`` take back what the responder itself said, and never what a probe, a client or an operator found.
Otherwise than in HAProxy, a responder only ever lowers: more than 100 % is 100 %, and a maximum above the configured one is
the configured one.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.agent_check import Answer
from cluster.model import AdminState, LoadReport

_ADMIN = {"drain": AdminState.DRAIN, "maint": AdminState.DOWN}
_HEALTH = ("down", "fail", "stopped")


class Relayed(LoadReport, frozen=True):
    """A report that no agent made: a responder's words in an agent's."""


class Said(NamedTuple):
    """All that counts of what it said."""

    percent: int | None = None
    max_connections: int | None = None
    admin: str | None = None
    health: str | None = None
    why: str = ""

    def then(self, answer: Answer) -> Said:
        """After *answer*, too."""
        return Said(
            self.percent if answer.percent is None else answer.percent,
            self.max_connections if answer.max_connections is None else answer.max_connections,
            answer.admin or self.admin,
            answer.health or self.health,
            answer.why if answer.health is not None else self.why,
        )

    @property
    def order(self) -> tuple[AdminState, str] | None:
        """What it orders, and why; None: that the host be in use."""
        if self.health in _HEALTH:
            return AdminState.DOWN, f"its responder says {self.health}" + (f": {self.why}" if self.why else "")
        if self.admin in _ADMIN:
            return _ADMIN[self.admin], f"its responder says {self.admin}"
        return None

    @property
    def report(self) -> Relayed:
        """What it asks, in an agent's words."""
        order = self.order
        return Relayed(
            weight=None if self.percent is None else min(1.0, self.percent / 100),
            max_connections=self.max_connections,
            state="ready" if order is None else "drain" if order[0] is AdminState.DRAIN else "down",
        )


class Responder(NamedTuple):
    """How it goes with asking one."""

    said: str = ""  #: the last line it said
    at: float | None = None  #: monotonic seconds, when it said that
    problem: str = ""  #: why the last try had no answer, or what of it is unknown; empty: all is well
    answers: bool = False  #: the last try had an answer
