"""A dialogue with bytes that come whole, or one by one."""

from __future__ import annotations

from collections.abc import Callable

from director.checks.dialogues import Dialogue, ProbeFailed


def verdict(dialogue: Dialogue, said: bytes, pieces: int = 1_000_000) -> str:
    """What comes of it that the host says *said*: what made it pass, why it did not, or ``waits``."""
    dialogue.begin()
    try:
        for start in range(0, len(said), pieces):
            if dialogue.heard(said[start:start + pieces]) is None:
                return f"passed: {dialogue.seen}"
    except ProbeFailed as error:
        return f"failed: {error}"
    return "waits"


def both_ways(make: Callable[[], Dialogue], said: bytes) -> str:
    """The verdict, which must not depend on how the bytes come."""
    whole, single = verdict(make(), said), verdict(make(), said, 1)
    assert whole == single, (whole, single)
    return whole
