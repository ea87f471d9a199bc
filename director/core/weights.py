"""The weight that schedulers see: configured x capacity x slow start x what the agent asked for x what
probes are told."""

from __future__ import annotations

#: Share of its weight that a joining host begins with (SCHEDULING): enough to be measured, too little to hurt.
SLOW_START_FLOOR = 0.1
#: Steps of a ramp: each moves the weight by less than a twentieth, below what a scheduler's noise hides.
RAMP_STEPS = 20
#: Weights are never recomputed faster than this (DESIGN 1, the loop per report).
SHORTEST_STEP_S = 0.05


def slow_start(elapsed_s: float, ramp_s: float) -> float:
    """Share of its weight, 0.1 to 1, that a host carries *elapsed_s* after it joined or came back.

    Linear over *ramp_s*; a ramp of 0 is none.
    """
    if elapsed_s >= ramp_s:
        return 1.0
    return SLOW_START_FLOOR + (1.0 - SLOW_START_FLOOR) * max(elapsed_s, 0.0) / ramp_s


def next_step_s(elapsed_s: float, ramp_s: float) -> float | None:
    """Seconds until the ramp is worth another look; None when it is over. Never less than `SHORTEST_STEP_S`: what is left of
    a ramp may be too little to be added to the time."""
    left = ramp_s - elapsed_s
    if left <= 0.0:
        return None
    return max(min(left, ramp_s / RAMP_STEPS), SHORTEST_STEP_S)


def effective(
    configured: float, capacity: float = 1.0, ramp: float = 1.0, agent: float = 1.0, probed: float = 1.0,
) -> float:
    """The product of the factors; exactly 0 when the operator, the agent or the host said 0.

    :param capacity: W of SCHEDULING, from `director.core.capacity.Capacity`.
    :param ramp: from `slow_start`.
    :param agent: the factor that the agent asked for, 0 to 1.
    :param probed: from `director.core.probed_weight`.
    """
    return configured * capacity * ramp * agent * probed
