"""Letting the relay's threads run, where they share a core with the interpreter.

While the interpreter is busy, the kernel would let a relay thread on the same core wait for its next tick, 4 ms on common
kernels; and it takes a busy thread for one that has had its share, so that no waking up preempts. So whatever keeps the
interpreter busy beside connections (reports, pages, metrics) offers the core every fifty microseconds or so. That
costs a system call of half a microsecond, and nothing where nobody waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import sched_yield as give_way
from typing import TypeVar

__all__ = ["give_way", "politely"]

T = TypeVar("T")


def politely(items: Iterable[T], every: int = 4) -> Iterator[T]:
    """*items*, giving way after *every* so many of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % every == 0:
            give_way()
