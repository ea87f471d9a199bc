"""What turns beside the reactor, and what is said when it does not."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from director.engine.turning import STUCK_S, stuck


class Owing:
    """Of a relay, what is looked at."""

    def __init__(self, owes_s: float) -> None:
        self.looks = 0
        self._owes_s = owes_s

    def owes_s(self) -> float:
        self.looks += 1
        return self._owes_s


class TurningTests(SynchronousTestCase):
    def said(self, **owed: float) -> str:
        relays: Any = {name: Owing(owes_s) for name, owes_s in owed.items()}
        return stuck(relays)

    def test_turning(self) -> None:
        """A thread may be late, for as long as a machine may give nobody a turn."""
        self.assertEqual(self.said(), "")
        self.assertEqual(self.said(native=0.0, python=0.0), "")
        self.assertEqual(self.said(native=STUCK_S - 0.1), "")

    def test_stuck(self) -> None:
        """Then it hangs, whichever relay's it is."""
        self.assertEqual(self.said(native=STUCK_S), "a thread of the native relay has not turned for 5 s")
        self.assertEqual(self.said(native=0.0, python=61.4), "a thread of the python relay has not turned for 61 s")
