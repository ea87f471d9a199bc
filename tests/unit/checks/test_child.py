"""Programs that the director runs, as far as none is run: what is shown of what one says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.checks.child import MAX_SHOWN, shown


class ShownTests(SynchronousTestCase):
    def test_shown(self) -> None:
        """The last line that says something."""
        for output, line in ((b"", ""), (b"\n \n", ""), (b"OK", "OK"), (b"Trace\n  x\nIt\tis  bad\n\n", "It is bad"),
                             (b"a\x1b[31mred", "a?[31mred"), (b"\xff!", "�!"),
                             (b"x" * 300, "x" * (MAX_SHOWN - 1) + "…")):
            self.assertEqual(shown(output), line, output)

    @given(st.binary(max_size=600))
    def test_any_output(self, output: bytes) -> None:
        """It fits in one line of a log, whatever it was."""
        line = shown(output)
        self.assertTrue(line.isprintable())
        self.assertLessEqual(len(line), MAX_SHOWN)
