"""Subscribers do not stand in each other's way."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import director
from director.engine.telling import tell_each

#: A loop over subscribers that calls them itself: the first that raises keeps the news from the rest.
_BARE = re.compile(r"for (\w+) in (?:list|tuple)?\(?self\.on_\w+\)?:\n\s+\1\(")


class TellTests(SynchronousTestCase):
    def test_each_is_told(self) -> None:
        """One that raises is logged, and the others are told all the same; who subscribes meanwhile is not told."""
        heard: list[str] = []

        def joins(news: str) -> None:
            heard.append(news)
            subscribers.append(joins)

        def broken(news: str) -> None:
            raise ValueError(news)

        subscribers = [broken, joins, broken, heard.append]
        tell_each(subscribers, "news")
        self.assertEqual(heard, ["news", "news"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_nobody_tells_otherwise(self) -> None:
        """No loop over subscribers calls them bare."""
        sources = Path(director.__file__).parent.rglob("*.py")
        self.assertEqual([path.name for path in sources if _BARE.search(path.read_text())], [])
