"""The constants as few ticks of an explorer's clock, and a machine's memory as a value that can be looked up."""

from __future__ import annotations

from typing import Any

from cluster.takeover.state import PAST
from cluster.takeover.timing import Timing
from cluster.takeover.words import Transaction

#: What every clock reads, always: time passes by bringing all deadlines nearer.
NOW = 1


class Ticks(Timing, frozen=True, kw_only=True):
    """Everything that only says when a step is worth taking is nought: then it may be taken at any time."""

    beat_ns: int = 0
    late_ns: int = 0
    silence_ns: int = 0
    promise_ns: int = 3
    count_ns: int = 2
    wait_ns: int = 3
    etcd_count_ns: int = 2
    etcd_beat_ns: int = 0
    answer_ns: int = 0
    remove_ns: int = 0

    def __post_init__(self) -> None:
        """Broken constants are explored as well."""

    def covers(self, count_ns: int) -> bool:
        return True


def is_deadline(name: str) -> bool:
    return name.endswith(("_until", "_from")) or name == "etcd_evidence"


def nearer(deadline: int, by: int) -> int:
    """A deadline *by* ticks later; one that is past is as good as any other."""
    left = deadline - by
    return left if left > NOW else PAST


def aged(value: Any, by: int) -> Any:
    """A value of a memory after *by* ticks."""
    if isinstance(value, Transaction):
        return value._replace(until=nearer(value.until, by))
    return value


def frozen(memory: dict[str, Any], by: int = 0) -> tuple[tuple[str, Any], ...]:
    """*memory* as a value, *by* ticks later, in the one way to write it."""
    items = []
    for name, value in memory.items():
        if isinstance(value, dict):
            value = tuple(sorted((who, left) for who, each in value.items() if (left := nearer(each, by)) != PAST))
        elif is_deadline(name):
            value = nearer(value, by)
        else:
            value = aged(value, by)
        items.append((name, value))
    return tuple(items)


def thawed(value: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    tables = ("evidence", "late_from", "silent_from")
    return {name: dict(each) if name in tables else each for name, each in value}
