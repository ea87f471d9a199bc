"""Markers are replaced by what they name, and diagrams of states by tables."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docs._ext.generated import expanded

DOCS = Path(__file__).parents[3] / "docs"


class ExpandedTests(SynchronousTestCase):
    def test_marker(self) -> None:
        text = expanded("before\n\n<!-- generated: program director -->\nafter\n")
        self.assertTrue(text.startswith("before\n\n## Synopsis"))
        self.assertTrue(text.endswith("\nafter\n"))

    def test_unknown(self) -> None:
        """A marker that nothing stands behind fails the build."""
        self.assertRaises(KeyError, expanded, "<!-- generated: program nothing -->")
        self.assertRaises(KeyError, expanded, "<!-- generated: nothing -->")

    def test_diagram(self) -> None:
        """Every transition is a row."""
        text = expanded("```mermaid\nstateDiagram-v2\n    [*] --> up: new\n    up --> down: a<br/>or b\n```\n")
        self.assertEqual(text.splitlines()[2:], ["| – | up | new |", "| up | down | a; b |"])

    def test_every_page(self) -> None:
        """No page has a marker or a diagram that stays."""
        for page in DOCS.rglob("*.md"):
            text = expanded(page.read_text())
            self.assertNotIn("<!-- generated", text, page)
            self.assertNotIn("mermaid", text, page)
