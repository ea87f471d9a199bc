"""Breadth first through a `World`: the shortest way to two owners, or that there is none within the bounds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from tests.explore.steps import Steps
from tests.explore.world import State, Step, World


class Found(NamedTuple):
    states: int
    exhausted: bool  #: every state within the bounds was looked at
    schedule: tuple[Step, ...]  #: to two owners; empty: there is none
    seconds: float


def explore(world: World, *, most: int = 10_000_000, along: Sequence[Step] = (), as_far: bool = False) -> Found:
    """Stops at the first state with two owners, or when *most* states are known.

    :param along: how it begins: steps by their first words; every step that begins so is followed.
    :param as_far: it is no error if there is no such step: it goes on from there.
    """
    begun = time.monotonic()
    steps = Steps(world)
    before: dict[State, State | None] = {world.first(): None}
    queue = list(before)
    for words in along:
        reached = {after: state for state in queue for step, after in steps.after(state) if step[: len(words)] == words}
        if not reached:
            if as_far:
                break
            raise LookupError(f"nothing {words} after {len(before)} states")
        before.update((after, state) for after, state in reached.items() if after not in before)
        queue = list(reached)
        for after in queue:
            if world.owners(after) > 1:
                return Found(len(before), False, schedule(steps, before, after), time.monotonic() - begun)
    for state in queue:
        for _, after in steps.after(state):
            if after in before:
                continue
            before[after] = state
            queue.append(after)
            if world.owners(after) > 1:
                return Found(len(before), False, schedule(steps, before, after), time.monotonic() - begun)
        if len(before) >= most:
            return Found(len(before), False, (), time.monotonic() - begun)
    return Found(len(before), True, (), time.monotonic() - begun)


def schedule(steps: Steps, before: dict[State, State | None], end: State) -> tuple[Step, ...]:
    found: list[Step] = []
    state: State | None = end
    while state is not None and (former := before[state]) is not None:
        found.append(next(step for step, after in steps.after(former) if after == state))
        state = former
    return tuple(reversed(found))


#: Of steps on a walk, where others are 1: faults and campaigns are rare, else nobody ever gets as far as to answer.
RARE = {"is killed, and starts": 0.02, "the record is deleted": 0.01, "hands over": 0.05, "removes": 0.02, "campaign": 0.05}


def _likely(step: Step) -> float:
    return next((RARE[word] for word in step if word in RARE), 1.0)


class Walked(NamedTuple):
    steps: int
    moves: int  #: from one owner to another
    answered: float  #: of all ticks
    schedule: tuple[Step, ...]  #: to two owners; empty: there were none


def walk(world: World, random: Random, *, most: int, length: int = 400) -> Walked:
    """Deep instead of broad: *most* steps at random, beginning anew after every *length*."""
    steps = Steps(world)
    moves = ticks = answered = 0
    for begun in range(0, most, length):
        state, path, owner = world.first(), [], None
        hurry = random.uniform(0.1, 0.6)  # how often time passes
        for _ in range(min(length, most - begun)):
            after = list(steps.after(state))
            tick = random.random() < hurry
            step, state = after[0] if tick else random.choices(after, [_likely(step) for step, _ in after])[0]
            path.append(step)
            owners = world.owners(state)
            if owners > 1:
                return Walked(begun + len(path), moves, 0.0, tuple(path))
            if tick:
                ticks += 1
                answered += owners
            if owners:
                now = world.who(state)
                moves += owner not in (None, now)
                owner = now
    return Walked(most, moves, answered / max(1, ticks), ())
