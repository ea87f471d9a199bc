"""The states of a host's health, and what leads from one to another: a table that `director.core.health` follows."""

from __future__ import annotations

import enum
from typing import NamedTuple

from cluster.model import HostState


class Cause(enum.Enum):
    """Why a host changes its state; the values are the words of the reference."""

    PROBES_FAILED = "`fall` probes in a row failed"
    CONNECTS_FAILED = "`fall` connects of clients in a row failed"
    GONE = "its agent's connection broke, and a client's connect was refused"
    SILENT_AND_FAILING = "silent for `timeout_s` and the last check failed"
    SILENT_UNREACHED = "no probe configured, silent for `timeout_s`, no connect succeeded since"
    TRIAL_FAILED = "a connect failed on trial"
    CHECK_FAILED = "a probe or a connect failed"
    SILENT = "its agent's connection broke, or it is silent for `suspect_after_s`"
    CLEARED = "heard again, checks pass, no trial"
    BACK_BUT_SILENT = "`rise` probes in a row passed, its agent still silent"
    PROBED_BACK = "`rise` probes in a row passed"
    HEARD_BACK = "no probe configured, `rise` heartbeats in a row"
    ON_TRIAL = "neither probe nor agent, back-off over"
    REACHED = "silence alone had taken it out, a client's connect succeeded"


class Evidence(enum.Enum):
    """What this director has seen of a host itself; silence is nothing seen."""

    REACHED = "not down, and heard, probed or reached lately, or on trial"
    FAILED = "down by failed checks"
    SILENT = "down by silence alone"
    NONE = "not down, and neither heard nor reached lately"


_TAKE_OUT = (
    (Cause.PROBES_FAILED, HostState.DOWN),
    (Cause.CONNECTS_FAILED, HostState.DOWN),
    (Cause.GONE, HostState.DOWN),
    (Cause.SILENT_AND_FAILING, HostState.DOWN),
    (Cause.SILENT_UNREACHED, HostState.DOWN),
)

#: For each state, what leads out of it; the first cause that holds does.
TABLE: dict[HostState, tuple[tuple[Cause, HostState], ...]] = {
    HostState.UP: (
        *_TAKE_OUT,
        (Cause.CHECK_FAILED, HostState.SUSPECT),
        (Cause.SILENT, HostState.SUSPECT),
    ),
    HostState.SUSPECT: (
        *_TAKE_OUT,
        (Cause.TRIAL_FAILED, HostState.DOWN),
        (Cause.CLEARED, HostState.UP),
    ),
    HostState.DOWN: (
        (Cause.BACK_BUT_SILENT, HostState.SUSPECT),
        (Cause.PROBED_BACK, HostState.UP),
        (Cause.HEARD_BACK, HostState.UP),
        (Cause.ON_TRIAL, HostState.SUSPECT),
        (Cause.REACHED, HostState.SUSPECT),
    ),
}


class Transition(NamedTuple):
    """A change of state, at monotonic seconds."""

    at: float
    before: HostState
    after: HostState
    why: str


class Check(NamedTuple):
    """The result of an active probe."""

    at: float
    ok: bool
    detail: str
    duration_s: float


def diagram() -> str:
    """`TABLE` as a mermaid state diagram, for the reference."""
    causes: dict[tuple[HostState, HostState], list[str]] = {}
    for before, rows in TABLE.items():
        for cause, after in rows:
            causes.setdefault((before, after), []).append(cause.value.replace("`", ""))
    arrows = [f"    {before.value} --> {after.value}: {'<br/>or '.join(each)}"
              for (before, after), each in causes.items()]
    return "\n".join(["stateDiagram-v2", "    [*] --> up: new", *arrows])
