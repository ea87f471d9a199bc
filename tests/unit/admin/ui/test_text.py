"""Numbers and times as people read them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from director.admin.ui import text

THIN = "\N{NARROW NO-BREAK SPACE}"


class TextTests(SynchronousTestCase):
    def test_numbers(self) -> None:
        """No zeros that say nothing, and no 0 for what is unknown."""
        for value, says in ((None, text.UNKNOWN), (0.0, "0"), (1.5, "1.5"), (100.0, "100"), (1234567, f"1{THIN}234{THIN}567"),
                            (2.5e9, "2.5e+09"), (0.001, "0")):
            self.assertEqual(text.number(value), says)
        self.assertEqual((text.number(100.0, 0), text.fixed(3), text.fixed(12345.6)), ("100", "3.00", f"12{THIN}346"))
        self.assertEqual((text.percent(0.256), text.percent(None)), ("26 %", text.UNKNOWN))
        self.assertEqual([text.share(each) for each in (1.0, 0.256, 0.0951, 0.0123, 0.0001, 0.0)],
                         ["100 %", "26 %", "10 %", "1.2 %", "0.01 %", text.UNKNOWN])
        self.assertEqual((text.count(5), text.count(5, 1000)), ("5", f"5 / 1{THIN}000"))

    def test_sizes(self) -> None:
        for bytes_, says in ((0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (25_000, "25 kB"), (3e15, "3000 TB")):
            self.assertEqual(text.size(int(bytes_)), says)

    def test_durations(self) -> None:
        """The two largest units that matter."""
        for seconds, says in (
            (None, text.UNKNOWN), (0.0, "0 ms"), (0.0001, "0.1 ms"), (0.35, "350 ms"), (4.2, "4 s"), (60, "1 min"),
            (61, "1 min 1 s"), (7500, "2 h 5 min"), (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"), (86400 + 30, "1 d"),
        ):
            self.assertEqual(text.duration(seconds), says)

    def test_times(self) -> None:
        self.assertEqual([text.ago(at, 100.0) for at in (None, 99.5, 40.0, 160.0)],
                         [text.UNKNOWN, "now", "1 min ago", "in 1 min"])
        self.assertEqual([text.heard(age) for age in (None, 1.9, 2.9)], [text.UNKNOWN, "< 2 s", "2 s"])
        self.assertEqual((text.iso(0.25), text.utc(0.25)), ("1970-01-01T00:00:00.250Z", "1970-01-01 00:00:00"))

    def test_page_number(self) -> None:
        """Whatever an address says."""
        for given, number in (("3", 3), ("0", 1), ("", 1), ("-1", 1), ("9" * 99, 1), ("٣", 1), ("2x", 1)):
            self.assertEqual(text.page_number(given), number, given)

    def test_values(self) -> None:
        """Cut with a sign of it."""
        self.assertEqual((text.value("abc", 3), text.value("abcd", 3), text.value({"a": 1})), ("abc", "ab…", '{"a":1}'))
