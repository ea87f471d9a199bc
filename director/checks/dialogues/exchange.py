"""Bytes that are said and bytes that are waited for, step by step, as an operator wrote them down.

Texts stand for bytes one to one (ISO 8859-1): ``\\u00ff`` is the byte 0xff.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cluster.model import ProbeStep
from director.checks.dialogues.interface import Dialogue, ProbeFailed

#: Of what a host said, so much is shown.
SHOWN = 60


class Exchange(Dialogue):
    """Each step says what it has to say, and waits until what it waits for has come, the last of them at the latest; what is
    to be said after that is the farewell.

    :param most: bytes that a step may wait for.
    """

    def __init__(self, steps: Sequence[ProbeStep], most: int) -> None:
        super().__init__()
        self._steps = list(steps)
        self._most = most
        self._got = b""

    def begin(self) -> bytes:
        return self._advance()[0]

    def heard(self, data: bytes) -> bytes | None:
        self._got += data
        say, over = self._advance()
        if over:
            return None
        if len(self._got) >= self._most:
            raise ProbeFailed(f"no match in {self._most} bytes: {shown(self._got)}")
        return say

    def _advance(self) -> tuple[bytes, bool]:
        """What is to be said now, and whether that is all."""
        say = b""
        while self._steps:
            step = self._steps[0]
            say += step.send.encode("latin-1")
            if step.receive is not None:
                match = re.search(step.receive.encode("latin-1"), self._got[:self._most], re.MULTILINE)
                if match is None:
                    self._steps[0] = ProbeStep(receive=step.receive)
                    return say, False
                self.seen, self._got = shown(match[0]), self._got[match.end():]
            self._steps.pop(0)
        self.farewell = say
        return b"", True

def shown(data: bytes) -> str:
    """Foreign bytes for people: a line of printable characters, not too long."""
    text = data[:SHOWN].decode("latin-1").strip().encode("unicode_escape").decode("ascii")
    return text + ("…" if len(data) > SHOWN else "")
