"""Giving way to the relay's threads."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from director.timing import courtesy


class PolitelyTests(SynchronousTestCase):
    def test_gives_way(self) -> None:
        """Every item comes, in order; the core is offered after each few of them, and never before the first."""
        said: list[object] = []
        self.patch(courtesy, "give_way", lambda: said.append("way"))
        for item in courtesy.politely(range(5), 2):
            said.append(item)
        self.assertEqual(said, [0, 1, "way", 2, 3, "way", 4])
