"""A host's rate as the directors see it: windows, the other directors' part, and when turnarounds mean nothing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from director.core.schedulers.loadaware import inflight
from director.core.seen import LEAST_EVIDENCE, MOST_SCALE, MOST_WINDOW_S, Seen, Totals, Window


class SeenTestCase(SynchronousTestCase):
    """Hosts that report once a second."""

    def setUp(self) -> None:
        self.seen: Seen[str] = Seen()
        self.now = 1000.0
        self.totals: dict[str, Totals] = {}
        self.windows: dict[str, list[Window]] = {}

    def second(self, key: str = "a", utilisation: float | None = 0.5, in_flight: float | None = None, own: int = 0,
               every: float = 1.0, **more: float) -> Window | None:
        """One more second (or *every*) in which the host did so much *more*."""
        self.now += every
        before = self.totals.get(key, Totals())
        counted = {name: getattr(before, name) + value for name, value in more.items()}
        self.totals[key] = before._replace(in_flight=own, **counted)
        self.seen.judge(before, self.totals[key], self.now)
        window = self.seen.reported(key, self.totals[key], utilisation, in_flight, self.now)
        if window is not None:
            self.windows.setdefault(key, []).append(window)
        return window


class WindowTests(SeenTestCase):
    def test_turnarounds(self) -> None:
        """Between two reports: how many, how long they took, how busy the host was meanwhile."""
        self.assertIsNone(self.second(turnarounds=500, seconds=9.0))
        window = self.second(turnarounds=40, seconds=2.0, finished=5, utilisation=0.25)
        self.assertEqual(window, Window("turnarounds", 40, 40.0, 0.25, 0.0, 0.05))
        self.assertEqual(self.seen.window("a"), window)

    def test_a_slow_host(self) -> None:
        """One completion in a second becomes a rate after three; the utilisation is the mean of all that time."""
        self.second()
        self.assertIsNone(self.second(turnarounds=1, utilisation=0.2))
        self.assertIsNone(self.second(turnarounds=1, utilisation=0.4))
        window = self.second(turnarounds=1, utilisation=0.9)
        assert window is not None and window.utilisation is not None
        self.assertEqual((window.completions, window.rate), (3, 1.0))
        self.assertAlmostEqual(window.utilisation, 0.5)

    def test_an_idle_host(self) -> None:
        """One in ten seconds never becomes a rate, however many tens of seconds pass."""
        self.second()
        for _ in range(10):
            self.second(turnarounds=1)
            for _ in range(int(MOST_WINDOW_S) - 1):
                self.second()
        self.assertEqual(self.windows, {})

    def test_a_hardly_busy_host(self) -> None:
        """A window with too few completions begins anew after ten seconds, and not sooner."""
        for lasted_s, found in ((9.9, True), (10.0, False)):
            self.setUp()
            self.second()
            self.assertIsNone(self.second(turnarounds=1, every=lasted_s))
            self.assertEqual(self.second(turnarounds=2) is not None, found)

    def test_reports_in_a_burst(self) -> None:
        """A second report behind the first is no window of its own: nothing is divided by a millisecond."""
        self.second()
        self.second(turnarounds=100)
        self.assertIsNone(self.second(turnarounds=10, every=0.001))
        window = self.second(turnarounds=90, every=0.999)
        assert window is not None
        self.assertAlmostEqual(window.rate, 100.0)

    def test_failures(self) -> None:
        """Connects that fail and connections reset at once are errors, also where nothing else happens."""
        self.second()
        window = self.second(turnarounds=6, finished=6, failed=2)
        assert window is not None
        self.assertEqual((window.completions, window.errors), (8, 0.25))
        window = self.second(failed=3)
        assert window is not None
        self.assertEqual((window.completions, window.errors, window.turnaround_s), (3, 1.0, None))

    def test_unknown_utilisation(self) -> None:
        """An agent that does not know it gives none."""
        self.second(utilisation=None)
        window = self.second(turnarounds=10, utilisation=None)
        assert window is not None
        self.assertIsNone(window.utilisation)

    def test_discard(self) -> None:
        """A host that is gone, or never was, is forgotten; what was counted of it is not the next one's."""
        self.second()
        self.second(turnarounds=10)
        self.seen.discard("a")
        self.seen.discard("nobody")
        self.assertIsNone(self.seen.window("a"))
        self.assertIsNone(self.second(turnarounds=10))

    def test_counters_that_fall(self) -> None:
        """A tally that began anew gives no rate below zero."""
        self.second(turnarounds=100)
        self.totals["a"] = Totals()
        self.assertIsNone(self.second(turnarounds=1))
        self.assertIsNotNone(self.second(turnarounds=103))


class ScaleTests(SeenTestCase):
    def scaled(self, in_flight: float | None, own: int, seconds: int = 60) -> float:
        for _ in range(seconds):
            self.second(turnarounds=100, in_flight=in_flight, own=own)
        return self.windows["a"][-1].rate / 100.0

    def test_one_bound(self) -> None:
        """As many directors are believed as by the scheduler that follows the same reports."""
        self.assertEqual(MOST_SCALE, inflight.MOST_SCALE)

    def test_half_of_the_connections(self) -> None:
        """Who has half of the connections sees half of what happens."""
        self.assertApproximates(self.scaled(200, 100), 2.0, 0.03)

    def test_alone(self) -> None:
        """One director's own, and an agent that counts requests and not connections, need no scale."""
        self.assertEqual(self.scaled(100, 100), 1.0)
        self.assertEqual(self.scaled(5, 100), 1.0)
        self.assertEqual(self.scaled(None, 100), 1.0)

    def test_an_idle_connection_of_somebody_else(self) -> None:
        """Beside short connections, of which there is hardly ever one open, it is no other director."""
        self.assertLess(self.scaled(1, 0), 1.6)

    def test_bound(self) -> None:
        """However many somebody else has."""
        self.assertEqual(self.scaled(10**6, 1), MOST_SCALE)

    def test_smoothed(self) -> None:
        """One sample of both does not move it much."""
        self.scaled(100, 100)
        self.second(turnarounds=100, in_flight=200, own=50)
        self.assertLess(self.seen.scale("a"), 1.2)

    def test_nobody(self) -> None:
        self.assertEqual(self.seen.scale("nobody"), 1.0)


class PlausibilityTests(SeenTestCase):
    def test_pushes(self) -> None:
        """Hosts that mostly speak unasked are judged by connections that end, and the reason is told."""
        self.assertEqual((self.seen.source, self.seen.why), ("turnarounds", ""))
        for _ in range(30):
            self.second(turnarounds=2, unasked=50, finished=5)
        self.assertEqual((self.seen.source, self.seen.why), ("connections", "hosts speak without being asked"))
        self.assertEqual(self.windows["a"][-1][:3], ("connections", 5, 5.0))

    def test_no_answers(self) -> None:
        """Where connections end without an answer, too."""
        for _ in range(30):
            self.second(turnarounds=1, finished=5)
        self.assertEqual((self.seen.source, self.seen.why), ("connections", "connections end without an answer"))

    def test_some_pushes(self) -> None:
        """Some between requests do no harm."""
        for _ in range(30):
            self.second(turnarounds=50, unasked=10, finished=1)
        self.assertEqual(self.seen.source, "turnarounds")

    def test_of_the_group(self) -> None:
        """One host's pushes are not its own matter: rates of a group count the same thing."""
        for _ in range(30):
            self.second("a", turnarounds=20, every=0.5)
            self.second("b", turnarounds=1, unasked=9, every=0.5)
        self.assertEqual(self.seen.source, "turnarounds")
        for _ in range(200):
            self.second("a", turnarounds=1, finished=9, every=0.5)
            self.second("b", unasked=9, finished=9, every=0.5)
        self.assertEqual({self.windows[key][-1].source for key in "ab"}, {"connections"})

    def test_back(self) -> None:
        """They count again once they clearly mean something; at the border nothing goes back and forth."""
        self.test_pushes()
        for _ in range(400):
            self.second(turnarounds=10, unasked=9, finished=3)
        self.assertEqual(self.seen.source, "connections")
        for _ in range(400):
            self.second(turnarounds=10, unasked=1, finished=3)
        self.assertEqual((self.seen.source, self.seen.why), ("turnarounds", ""))

    def test_borders(self) -> None:
        """At least as many bursts unasked, or half as many turnarounds as connections; back at half and three quarters."""
        known = {"turnarounds": Totals(), "connections": Totals(unasked=1000)}
        for begins, (turnarounds, unasked, finished), source in (
            ("turnarounds", (100, 100, 0), "turnarounds"), ("turnarounds", (100, 101, 0), "connections"),
            ("turnarounds", (50, 0, 100), "turnarounds"), ("turnarounds", (49, 0, 100), "connections"),
            ("connections", (100, 50, 0), "turnarounds"), ("connections", (100, 51, 0), "connections"),
            ("connections", (75, 0, 100), "turnarounds"), ("connections", (74, 0, 100), "connections"),
            ("turnarounds", (0, 9, 0), "turnarounds"), ("turnarounds", (0, 10, 0), "connections"),
            ("turnarounds", (4, 5, 0), "turnarounds"), ("turnarounds", (4, 5, 1), "connections"),
        ):
            seen: Seen[str] = Seen()
            seen.judge(Totals(), known[begins], 10.0)
            self.assertEqual(seen.source, begins)
            seen.judge(Totals(), Totals(turnarounds, unasked=unasked, finished=finished), 36010.0)
            self.assertEqual(seen.source, source, (begins, turnarounds, unasked, finished))

    def test_fading(self) -> None:
        """Of what was seen a minute ago, the e-th part counts, of each kind."""
        for then, now, source in (
            (Totals(unasked=1000), Totals(turnarounds=736), "turnarounds"), (Totals(unasked=1000), Totals(turnarounds=735), "connections"),
            (Totals(unasked=100, finished=1000), Totals(turnarounds=276), "turnarounds"),
            (Totals(unasked=100, finished=1000), Totals(turnarounds=275), "connections"),
            (Totals(unasked=1000, turnarounds=900), Totals(unasked=10, turnarounds=425), "turnarounds"),
            (Totals(unasked=1000, turnarounds=900), Totals(unasked=10, turnarounds=424), "connections"),
        ):
            seen: Seen[str] = Seen()
            seen.judge(Totals(), then, 10.0)
            self.assertEqual(seen.source, "connections")
            seen.judge(Totals(), now, 70.0)
            self.assertEqual(seen.source, source, (then, now))

    def test_evidence(self) -> None:
        """A few events are no reason."""
        self.second()
        self.second(unasked=int(LEAST_EVIDENCE) - 1)
        self.assertEqual(self.seen.source, "turnarounds")

    def test_change_of_source(self) -> None:
        """A window that was under way counts nothing of the other kind: it begins anew at the last report."""
        self.second()
        self.second(turnarounds=2, finished=2)
        self.second(unasked=40, finished=1)
        self.assertEqual(self.windows, {})
        self.second(finished=3)
        self.assertEqual(self.windows["a"], [Window("connections", 4, 2.0, 0.5, 0.0, None)])
