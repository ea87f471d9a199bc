"""Deadlines that are cheap to set, cheap to drop, and early by one tick at most, of which whoever owns the wheel thinks.

An item sits in one bucket. Buckets are coarser the further away they are, so that thousands of connections with
hour-long limits share a few of them. Nothing moves when a connection makes progress: whoever owns the wheel looks
at what is due, works out the real deadline, and puts it back when that is later.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

#: Finest step. A reset that waits for a send queue is looked at this often.
TICK_S = 0.01
#: Items are looked at again at least this often, so a deadline is late by at most 1/16 of it: one second.
HORIZON_S = 16.0
_HORIZON_TICKS = int(HORIZON_S / TICK_S)


class Item(Protocol):
    """What a wheel can hold: hashable by identity, with a place for its bucket."""

    bucket: int  #: owned by the wheel; 0 outside of it


T = TypeVar("T", bound=Item)


class Wheel(Generic[T]):
    """Buckets of items by time, in ticks of a monotonic clock."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[int, set[T]] = {}

    def put(self, item: T, at_s: float, now_s: float) -> bool:
        """Have *item* come due at *at_s*, or earlier if it lies beyond the horizon; it must be outside the wheel.

        :returns: whether this opened a bucket, which may be the earliest one.
        """
        wait_s = at_s - now_s
        ticks = _HORIZON_TICKS if wait_s >= HORIZON_S else int(wait_s / TICK_S) + 1 if wait_s > 0 else 1
        step = 1 << ticks.bit_length() - 4 if ticks > 8 else 1  # 1/16 to 1/8 of the wait
        bucket = -(-(int(now_s / TICK_S) + ticks) // step) * step
        item.bucket = bucket
        items = self._buckets.get(bucket)
        if items is None:
            self._buckets[bucket] = {item}
            self.wind(now_s)
            return True
        items.add(item)
        return False

    def wind(self, now_s: float) -> None:
        """A bucket was opened."""

    def sooner(self, item: T, at_s: float, now_s: float) -> bool:
        """Like `put` for an item that may be in the wheel already: it never moves to a later bucket."""
        if item.bucket and item.bucket * TICK_S <= at_s:
            return False
        self.discard(item)
        return self.put(item, at_s, now_s)

    def discard(self, item: T) -> None:
        """Take *item* out, if it is in."""
        items = self._buckets.get(item.bucket)
        if items is not None:
            items.discard(item)
        item.bucket = 0

    def due(self, now_s: float) -> list[T]:
        """Take out everything whose bucket has come."""
        tick = int(now_s / TICK_S)
        found: list[T] = []
        for bucket in [bucket for bucket in self._buckets if bucket <= tick]:
            found.extend(self._buckets.pop(bucket))
        for item in found:
            item.bucket = 0
        return found

    def next_s(self) -> float | None:
        """When the earliest bucket that holds anything comes; None when the wheel is empty. Forgets empty buckets."""
        for bucket in [bucket for bucket, items in self._buckets.items() if not items]:
            del self._buckets[bucket]
        return min(self._buckets) * TICK_S if self._buckets else None
