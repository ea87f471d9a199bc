"""Lines that wait to be written: bounded, in order, whole. No I/O.

When there is no room for a line it is dropped, and so are all after it until half of the room is free; then one line says
how many they were, in the place where they are missing. (Without the half, a reader that is a little too slow would get
such a line after every other one.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

#: Waiting lines of one log. A director that logs each of 1,000 connections a second bridges six seconds with it.
MAX_BYTES = 1 << 20
#: Of one event, its traceback included. The deepest recursion's is shorter.
MAX_LINE = 1 << 16
_CUT = b" ... cut\n"


class Backlog:
    """A queue of lines, each ending in a newline.

    :param told: makes the line that says how many were dropped.
    """

    def __init__(self, told: Callable[[int], bytes], *, max_bytes: int = MAX_BYTES) -> None:
        self._told = told
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._begun = 0  # bytes of the first line that are written
        self._untold = 0
        self.size = 0  #: bytes that are held
        self.dropped = 0  #: lines, ever

    def add(self, line: bytes) -> None:
        """Take *line* or drop it. One longer than `MAX_LINE` is cut."""
        if len(line) > MAX_LINE:
            line = line[: MAX_LINE - len(_CUT)] + _CUT
        if self._untold or (self._lines and self.size + len(line) > self._max_bytes):
            self._untold += 1
            self.dropped += 1
            return
        self._lines.append(line)
        self.size += len(line)

    def head(self, most: int) -> bytes:
        """What is to be written next, at most *most* bytes: as many whole lines as there is room for, or the next piece of
        one that is longer. Empty when nothing waits."""
        if not self._lines:
            return b""
        first = self._lines[0][self._begun : self._begun + most]
        taken, size = [first], len(first)
        if self._begun + size < len(self._lines[0]):
            return first
        for line in islice(self._lines, 1, None):
            size += len(line)
            if size > most:
                break
            taken.append(line)
        return b"".join(taken)

    def first(self) -> bytes:
        """The next record, whole: for a target that takes no pieces. Empty when nothing waits."""
        return self._lines[0] if self._lines else b""

    def wrote(self, count: int) -> None:
        """The first *count* bytes of what waits are written."""
        self._begun += count
        while self._lines and self._begun >= len(self._lines[0]):
            done = len(self._lines.popleft())
            self._begun -= done
            self.size -= done
        if self._untold and self.size <= self._max_bytes // 2:
            line = self._told(self._untold)
            self._untold = 0
            self._lines.append(line)
            self.size += len(line)

    def begin_anew(self) -> None:
        """The target is another one: of a line that was written in part all is to be written again."""
        self._begun = 0
