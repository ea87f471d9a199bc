"""A service's own counters, read and made figures of."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from twisted.trial.unittest import SynchronousTestCase

from agent.exposition import Counts, Served, Tally, selector, sums

PAGE = """\
# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{code="200",method="get"} 1027 1395066363000
http_requests_total{code="500",method="get"} 3
http_requests_total{code="503",method="po\\"st"} 4.0
http_requests_total_of_others 99
http_seconds_sum 1.5e+1
http_seconds_count 1034 # {trace_id="x"} 0.5
broken{ 5
"""


def read(page: str, *texts: str) -> list[float | None]:
    return sums(page, map(selector, texts))


class Reading(SynchronousTestCase):
    def test_sums(self) -> None:
        """Of all samples that have the labels; None where there are none; other lines are not looked at."""
        self.assertEqual(
            read(PAGE, "http_requests_total", 'http_requests_total{code="500"}', 'http_requests_total{code=~"5.."}',
                 'http_requests_total{ code = "503", method="po\\"st" }', 'http_requests_total{method!="x"}'[:-12] + "}",
                 'http_requests_total{code="404"}', "absent", "http_seconds_sum", "http_seconds_count"),
            [1034, 3, 7, 4, 1034, None, None, 15, 1034])

    def test_a_page_that_is_not_right(self) -> None:
        """A wanted line that is broken, negative, no number, or there twice spoils the page."""
        for line in ('a{b="c" 1', 'a{b="c"}', "a", "a ", "a x", "a 1_000", "a -1", "a NaN", "a +Inf", "a 1 x", "a 1\na 2",
                     'a{b="c"} 1\na{b="c"} 1', 'a{b="c",b="d"} 1', 'a{b=~"c"} 1', 'a{b="c"}1', "a1 1\na 0x10", "a 1e999",
                     "a{" + ",".join(f'l{n}="x"' for n in range(65)) + "} 1"):
            with self.subTest(line):
                self.assertRaises(ValueError, read, line, "a")
        self.assertEqual(read("<html>a 1</html>\n\0", "a"), [None])

    def test_selectors_that_are_none(self) -> None:
        for text in ("", "1a", "a{", "a{b}", 'a{b="c"', 'a{b="c"} 1', 'a{b=c}', 'a{b=~"("}', "a b", 'a{b="c"x="d"}'):
            with self.subTest(text):
                self.assertRaises(ValueError, selector, text)

    @given(st.dictionaries(st.text(max_size=8), st.floats(0, 1e12), max_size=6))
    def test_what_the_library_writes(self, values: dict[str, float]) -> None:
        """Any label, in both formats."""
        registry = CollectorRegistry()
        counter = Counter("a", "text", ["b"], registry=registry)
        for label, value in values.items():
            counter.labels(label).inc(value)
        for write in (generate_latest, generate_openmetrics):
            page = write(registry).decode()
            found, = read(page, "a_total")
            self.assertEqual(found is None, not values)
            self.assertAlmostEqual(found or 0.0, sum(values.values()), delta=1.0)

    @given(st.text('a{}b="c\\",\n 1.e#', max_size=50))
    @example('a{b="\\')
    def test_any_page(self, page: str) -> None:
        """Nothing but ValueError."""
        try:
            found = read(page, "a", 'a{b="c"}')
        except ValueError:
            return
        self.assertTrue(all(value is None or value >= 0 for value in found))


class Figures(SynchronousTestCase):
    def setUp(self) -> None:
        self.tally = Tally(counts_errors=True, keep_s=4.0)

    def test_between_two_pages(self) -> None:
        """Rates, shares and means are of what was between; the first page alone says nothing."""
        self.assertIsNone(self.tally.take(0.0))
        self.tally.put(Counts(1.0, 100, 10, 50.0, 100))
        self.assertIsNone(self.tally.take(1.0))
        self.tally.put(Counts(3.0, 140, 20, 54.0, 140))
        self.assertEqual(self.tally.take(3.1), Served(20.0, 40, 0.25, 0.1))

    def test_every_completion_is_reported_once(self) -> None:
        """Two pages for a report are one; a report without a page repeats the rate, of nothing new, for a while."""
        for second in range(3):
            self.tally.put(Counts(float(second), 10.0 * second))
        self.assertEqual(self.tally.take(2.0), Served(10.0, 20, 0.0))
        self.assertEqual(self.tally.take(3.0), Served(10.0, 0))
        self.assertIsNone(self.tally.take(6.1))
        self.tally.put(Counts(7.0, 500.0))
        self.assertIsNone(self.tally.take(7.0))
        self.tally.put(Counts(8.0, 505.0))
        self.assertEqual(self.tally.take(8.0), Served(5.0, 5, 0.0))

    def test_nothing_served(self) -> None:
        """A rate of 0 is known; shares of nothing are not."""
        for second in range(2):
            self.tally.put(Counts(float(second), 100))
        self.assertEqual(self.tally.take(1.0), Served(0.0, 0))

    def test_counters_that_began_anew(self) -> None:
        """A service that restarted: no figure from before and after, of any counter; then as ever."""
        self.tally.put(Counts(1.0, 100, 10))
        self.tally.put(Counts(2.0, 150, 5))
        self.assertIsNone(self.tally.take(2.0))
        self.tally.put(Counts(3.0, 160, 6))
        self.assertEqual(self.tally.take(3.0), Served(10.0, 10, 0.1))

    @given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 1e9), st.floats(0, 1e9), st.booleans()), max_size=20))
    def test_always_figures(self, steps: list[tuple[float, float, float, bool]]) -> None:
        """Whatever comes: shares are shares, rates are not negative."""
        now = 0.0
        for step, requests, errors, take in steps:
            now += step
            self.tally.put(Counts(now, requests, errors))
            served = self.tally.take(now) if take else None
            if served is not None:
                self.assertTrue(served.rate >= 0 and served.completions >= 0 and 0 <= (served.errors or 0) <= 1, served)
