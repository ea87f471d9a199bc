"""Steps of saying and waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import ProbeStep
from director.checks.dialogues import ProbeFailed
from director.checks.dialogues.exchange import Exchange, shown
from tests.unit.checks.dialogues.kit import both_ways, verdict

SMTP = (ProbeStep(receive=r"^220[ -].*\n"), ProbeStep(send="HELO probe\r\n", receive=r"^250 .*\n"), ProbeStep(send="QUIT\r\n"))


class ExchangeTests(SynchronousTestCase):
    def test_banner_first(self) -> None:
        """Each step when the one before has got what it waits for; what is said last is the farewell."""
        dialogue = Exchange(SMTP, 100)
        self.assertEqual(dialogue.begin(), b"")
        self.assertEqual([dialogue.heard(each) for each in (b"22", b"0 mx", b"\r\n")], [b"", b"", b"HELO probe\r\n"])
        self.assertEqual([dialogue.heard(each) for each in (b"250 wel", b"come\r\n")], [b"", None])
        self.assertEqual((dialogue.seen, dialogue.farewell), ("250 welcome", b"QUIT\r\n"))

    def test_answers_ahead(self) -> None:
        """What came in one piece counts for the steps after, from where the last match ended."""
        steps = (ProbeStep(send="a", receive="1"), ProbeStep(send="b", receive="2"), ProbeStep(send="c"), ProbeStep(receive="3"))
        dialogue = Exchange(steps, 100)
        self.assertEqual([dialogue.begin(), dialogue.heard(b"x1x2x"), dialogue.heard(b"3")], [b"a", b"bc", None])

    def test_limit(self) -> None:
        """What does not match within it is no match, wherever it would have matched."""
        steps = (ProbeStep(send="?", receive="yes"),)
        self.assertEqual(both_ways(lambda: Exchange(steps, 8), b"12345yes"), "passed: yes")
        self.assertIn("failed: no match in 8 bytes", verdict(Exchange(steps, 8), b"123456yes"))
        self.assertRaises(ProbeFailed, Exchange(steps, 8).heard, b"123456yes")

    def test_bytes(self) -> None:
        """Texts stand for bytes, in patterns too, where a class of them is no class of characters."""
        steps = (ProbeStep(send="\x00\xff", receive="[\xf0-\xff]\x00$"),)
        dialogue = Exchange(steps, 100)
        self.assertEqual((dialogue.begin(), dialogue.heard(b"\xef\x00"), dialogue.heard(b"\xfe\x00")), (b"\0\xff", b"", None))

    @given(st.lists(st.sampled_from([b"220 x\r\n", b"250 y\n", b"a", b"\n", b"2"]), max_size=20).map(b"".join))
    def test_pieces(self, said: bytes) -> None:
        """However the bytes come."""
        self.assertTrue(both_ways(lambda: Exchange(SMTP, 1000), said))

    def test_shown(self) -> None:
        """Nothing that a terminal would obey, nothing long."""
        self.assertEqual(shown(b"\x1b[31m\xff\r\n"), r"\x1b[31m\xff")
        self.assertEqual(len(shown(b"x" * 1000)), 61)
