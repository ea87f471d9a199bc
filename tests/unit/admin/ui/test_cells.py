"""Live cells, load lines and the words for numbers and times."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import AdminState, HostRef, HostState
from director.admin.ui import text
from director.admin.ui.cells import (
    LINE_HEIGHT,
    LINE_SAMPLES,
    LINE_WIDTH,
    MAX_LISTED,
    MAX_ROWS,
    MAX_SERVICES,
    Loads,
    changed,
    host_cells,
    hosts_of,
    shown,
    totals,
    within,
)
from director.core.snapshot import OrderPicture, TransitionPicture
from tests.unit.admin.small_director import SmallDirector, host_picture

APP1 = HostRef("web", "blue", "app1")


class CellsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.director = SmallDirector()
        self.loads = Loads()

    def cells(self, **changes: Any) -> dict[str, Any]:
        self.director.hosts[APP1] = host_picture(APP1, **changes)
        picture = self.director.picture()
        return totals(picture) | host_cells(hosts_of(picture), self.loads)

    def test_only_what_changed(self) -> None:
        """A new weight is one cell's news; nothing changed, no news."""
        before = self.cells()
        self.assertEqual(changed(before, self.cells()), {})
        self.assertEqual(changed(before, self.cells(weight=0.5)), {"web/blue/app1:weight": "0.50"})

    def test_heartbeats_in_time_are_no_news(self) -> None:
        """A host whose heartbeats come each second reads the same at every look."""
        self.assertEqual(changed(self.cells(heartbeat_age_s=0.1), self.cells(heartbeat_age_s=1.4)), {})
        self.assertEqual(self.cells(heartbeat_age_s=7.9)["web/blue/app1:heard"], "7 s")

    def test_unknown_is_not_zero(self) -> None:
        """What no agent said is a dash."""
        found = self.cells(report=None, heartbeat_age_s=None)
        self.assertEqual((found["web/blue/app1:load"], found["web/blue/app1:heard"]), ("–", "–"))

    def test_states(self) -> None:
        """A state is a mark and a word; good health that is not used is told apart; orders are a cell of their own."""
        self.assertEqual(self.cells()["web/blue/app1:state"], ("up", "up"))
        self.assertEqual(self.cells(state=HostState.DOWN)["web/blue/app1:state"], ("down", "down"))
        self.assertEqual(self.cells(in_rotation=False)["web/blue/app1:state"], ("idle", "up, unused"))
        draining = self.cells(in_rotation=False, admin=AdminState.DRAIN)
        self.assertEqual(draining["web/blue/app1:state"], ("up", "up"))
        self.assertEqual(draining["web/blue/app1:admin"], ("drain", "draining"))

    def test_shapes(self) -> None:
        """Hosts that come or go change the shapes of their group, service and director, and of no other; an order or a
        transition changes the host's."""
        before = self.cells()
        self.director.hosts[HostRef("web", "blue", "app3")] = host_picture(HostRef("web", "blue", "app3"))
        shapes = {key for key in changed(before, self.cells()) if key.endswith(":shape")}
        self.assertEqual(shapes, {":shape", "web:shape", "web/blue:shape", "web/blue/app3:shape"})
        order = OrderPicture(by="operator", state=AdminState.DRAIN, who="ada", why="", at=1.0)
        event = TransitionPicture(at=1.0, before=HostState.UP, after=HostState.SUSPECT, why="silent")
        plain = self.cells()
        for changes in ({"orders": (order,)}, {"history": (event,)}):
            self.assertIn("web/blue/app1:shape", changed(plain, self.cells(**changes)))
        self.assertIn(":bad", changed(plain, self.cells(history=(event,))))

    def test_scope(self) -> None:
        """A page gets its subject's cells, those below, and the director's; not those of names that begin alike."""
        found = {":modes": "", "web:queued": "", "web/blue:shape": "", "webmail:queued": ""}
        picture = self.director.picture()
        self.assertEqual(set(within(found, "web", picture)), {":modes", "web:queued", "web/blue:shape"})
        self.assertEqual(set(within(found, "web/blue#2", picture)), {":modes", "web/blue:shape"})
        for scope in (":bad#", ":bad#web/blue/app1"):
            self.assertEqual(set(within(found, scope, picture)), {":modes"})

    def test_page_of_services(self) -> None:
        """A page of many services gets their cells and hosts, the director's cells, and no other service's."""
        for number in range(MAX_SERVICES):
            ref = HostRef(f"s{number:02}", "main", "a")
            self.director.hosts[ref] = host_picture(ref)
        picture = self.director.picture()
        found = totals(picture)
        first, second = within(found, "#1", picture), within(found, "#2", picture)
        self.assertEqual((within(found, "", picture), {key for key in first if key in second}),
                         (first, {key for key in found if key.startswith(":")}))
        self.assertEqual(first | second, found)
        self.assertTrue({"web:queued", "web/blue:shape", "s37:queued"} <= set(first))
        self.assertTrue({"s38:queued", "s39/main:available"} <= set(second))
        self.assertEqual([host.service for host in shown(picture, "#2")], ["s38", "s39"])

    def test_bad_hosts_of_a_scope(self) -> None:
        """The page of bad hosts shows a hundred by name, from behind the last of the page before."""
        for number in range(MAX_ROWS + 1):
            ref = HostRef("web", "blue", f"n{number:03}")
            self.director.hosts[ref] = host_picture(ref, in_rotation=False)
        picture = self.director.picture()
        first = shown(picture, ":bad#")
        self.assertEqual((first[0].name, first[-1].name, len(first)), ("n000", "n099", MAX_ROWS))
        self.assertEqual([host.name for host in shown(picture, ":bad#web/blue/n099")], ["n100"])
        self.assertEqual(shown(picture, ":bad#web/blue/n100"), [])

    def test_hosts_of_a_scope(self) -> None:
        """A group's page shows its hundred hosts, a host's that one, a service's none; what is not there shows nothing."""
        for number in range(MAX_ROWS):
            ref = HostRef("web", "blue", f"n{number:03}")
            self.director.hosts[ref] = host_picture(ref)
        picture = self.director.picture()

        def names(scope: str) -> list[str]:
            return [host.name for host in shown(picture, scope)]

        self.assertEqual((len(names("web/blue#1")), names("web/blue#2")), (MAX_ROWS, ["n098", "n099"]))
        self.assertEqual(names("web/blue#1?N09"), [f"n09{digit}" for digit in range(10)])
        self.assertEqual((names("web/blue#1?what?"), names("web/blue#2?n")), ([], []))
        self.assertEqual((names("web/blue/app1"), names("web")), (["app1"], []))
        for nonsense in ("web/blue#9", "web/red#1", "web/blue/nobody", "/", "a/b/c/d", "web/blue#-1"):
            self.assertIn(names(nonsense), ([], names("web/blue#1")))

    def test_listed(self) -> None:
        """Pages of everything show a bounded number of each group's hosts, those out of use first; when others are to be
        listed the director's shape changes."""
        for number in range(MAX_LISTED):
            ref = HostRef("web", "blue", f"n{number:02}")
            self.director.hosts[ref] = host_picture(ref)
        before = self.cells()
        self.assertEqual(len(shown(self.director.picture(), "")), MAX_LISTED + 1)
        ref = HostRef("web", "blue", "n11")
        self.director.hosts[ref] = host_picture(ref, in_rotation=False)
        self.assertEqual(shown(self.director.picture(), "")[0].name, "n11")
        self.assertIn(":shape", changed(before, self.cells()))

    def test_load_lines(self) -> None:
        """A line is drawn from two samples on, keeps the last `LINE_SAMPLES`, ends at the right edge and stays within
        the drawing's height; lines of hosts that left are forgotten."""
        for n in range(LINE_SAMPLES + 10):
            self.cells(report=msgspec.structs.replace(host_picture(APP1).report, utilisation=n % 11 / 10))
            self.loads.sample(self.director.picture())
            host = next(iter(hosts_of(self.director.picture())))
            points = [tuple(map(float, point.split(","))) for point in self.loads.line(host).split()]
            self.assertEqual(len(points), 0 if n == 0 else min(n + 1, LINE_SAMPLES) + 3)
            for x, y in points[1:-2]:
                self.assertTrue(0 <= x <= LINE_WIDTH and 0 <= y <= LINE_HEIGHT, (x, y))
        self.assertEqual(points[-3][0], LINE_WIDTH)
        gone = self.director.hosts.pop(APP1)
        self.loads.sample(self.director.picture())
        self.assertEqual(self.loads.line(gone), "")

    def test_lines_without_reports(self) -> None:
        """Without an agent the line shows open connections, up to their own peak."""
        for in_flight in (0, 40, 20):
            self.cells(report=None, in_flight=in_flight)
            self.loads.sample(self.director.picture())
        heights = [float(point.split(",")[1]) for point in self.loads.line(self.director.hosts[APP1]).split()[1:-2]]
        self.assertEqual(heights, [23.0, 2.0, 12.5])


class TextTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Numbers and times as people read them."""
        for got, expected in (
            (text.number(None), "–"), (text.number(0), "0"), (text.number(2.5), "2.5"), (text.number(100, 0), "100"),
            (text.number(1234567, 0), "1\u202f234\u202f567"), (text.number(-9e15), "-9e+15"),
            (text.fixed(0.875), "0.88"), (text.fixed(1), "1.00"), (text.fixed(20000), "20\u202f000"),
            (text.percent(0.437), "44 %"), (text.percent(None), "–"),
            (text.count(3), "3"), (text.count(3, 10), "3 / 10"),
            (text.duration(0), "0 ms"), (text.duration(0.35), "350 ms"), (text.duration(0.0002), "0.2 ms"),
            (text.duration(59.6), "1 min"), (text.duration(7500), "2 h 5 min"), (text.duration(273600), "3 d 4 h"),
            (text.duration(3600), "1 h"), (text.duration(3601), "1 h"),
            (text.ago(None, 5.0), "–"), (text.ago(5.2, 5.0), "now"), (text.ago(1.0, 5.0), "4 s ago"),
            (text.ago(35.0, 5.0), "in 30 s"),
            (text.iso(1.5), "1970-01-01T00:00:01.500Z"), (text.utc(86400.0), "1970-01-02 00:00:00"),
        ):
            self.assertEqual(got, expected)

    @given(st.floats(0, 1e9))
    def test_durations_always_read(self, seconds: float) -> None:
        """Every duration is one or two numbers with units."""
        self.assertIn(len(text.duration(seconds).split()), (2, 4))
