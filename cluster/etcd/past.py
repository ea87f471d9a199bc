"""How far a replay of past changes has come. Pure.

etcd replays the changes under a prefix when a watch asks for an old revision, but does not say when it has caught up.
What it replayed can be compared with what is there: the replay is not done while a record is missing that exists, or
one is there that does not. Changes that cancel each other out at the very end would be missed by that; so whoever
reads also waits until nothing has come for a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from cluster.store import Changes, PastWrite


class Past:
    """The newest *limit* changes from *start* to *end*, both revisions included.

    :param there: the revision that last wrote each key which exists at *end*.
    """

    def __init__(self, there: Mapping[str, int], start: int, end: int, *, limit: int) -> None:
        self._there = there
        self._end = end
        self._missing = {key for key, revision in there.items() if revision >= start}
        self._left_over: set[str] = set()
        self._changes: deque[PastWrite] = deque(maxlen=max(0, limit))
        self._reached = start - 1

    @property
    def agrees(self) -> bool:
        """Whether what was replayed leads to what is there."""
        return self.certain or not (self._missing or self._left_over)

    @property
    def certain(self) -> bool:
        """Whether nothing can follow."""
        return self._reached >= self._end

    @property
    def newest_first(self) -> tuple[PastWrite, ...]:
        return tuple(reversed(self._changes))

    def take(self, changes: Changes) -> None:
        """The next changes that etcd replays."""
        self._reached = changes.revision
        if changes.revision > self._end:
            return
        for record in changes.written:
            self._changes.append(PastWrite(record.key, record.value, changes.revision, None))
            if record.key not in self._there:
                self._left_over.add(record.key)
            elif self._there[record.key] == changes.revision:
                self._missing.discard(record.key)
        for key in changes.deleted:
            self._changes.append(PastWrite(key, None, changes.revision, None))
            self._left_over.discard(key)
