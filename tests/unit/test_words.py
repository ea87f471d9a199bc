"""One word for one thing: names that once meant several things mean one."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]

#: Each with what it is, as a class or a function of a module.
MEANINGS = {
    "Order": "cluster/model/kept.py",  # a standing one, about a host's admin state
    "Link": "director/relay/link.py",  # a relayed connection's two ends
    "Connection": "director/traffic/connection.py",  # a client's
    "Evidence": "director/core/transitions.py",  # of a host's health
    "Roster": "director/reports/roster.py",  # which agent speaks for which host
    "Explanation": "director/core/snapshot.py",  # of which host a client would get
    "Snapshot": "cluster/snapshot.py",  # of the store, on disk
    "plan": "director/core/plan.py",  # the steps from one configuration to another
}
#: What each of these meant has a word of its own now.
GONE = {"Change", "Plan", "Summary", "summary", "snapshot"}


class WordTests(SynchronousTestCase):
    def test_one_meaning(self) -> None:
        """Whoever reads one of these words knows which it is."""
        found: dict[str, list[str]] = defaultdict(list)
        for package in ("agent", "cluster", "director"):
            for path in sorted((ROOT / package).rglob("*.py")):
                for node in ast.parse(path.read_text()).body:
                    name = node.name if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) else \
                        node.target.id if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else ""
                    if name in MEANINGS or name in GONE:
                        found[name].append(str(path.relative_to(ROOT)))
        self.assertEqual(found, {word: [place] for word, place in MEANINGS.items()})
