"""The inventory of one director among several: what others see of hosts, and when it counts."""

from __future__ import annotations

import msgspec

from cluster.model import (
    HostState,
    LoadReport,
    Observed,
    Probe,
    Service,
)
from director.core.events import HostJudged
from director.core.pictures import picture_services, why_not
from tests.unit.core.inventory_kit import HEALTH, InventoryTestCase, group, ref


class SeveralDirectorsTests(InventoryTestCase):
    """What other directors see, where this one has seen nothing."""

    NO_PROBE = msgspec.structs.replace(HEALTH, probe=Probe(kind="none"))

    def observe(self, *names: str, by: str = "d2", state: HostState | None = HostState.DOWN, blind: bool = False) -> None:
        record = None if state is None else Observed(state=state, since=7.0, why="refused", boot_id="x", blind=blind)
        self.inventory.set_observed({(by, ref(name)): record for name in names}, self.now)

    def blue(self, *names: str) -> None:
        self.apply(Service(groups={"blue": group(*names, health=self.NO_PROBE)}))

    def why_not(self, name: str) -> str:
        return why_not(self.inventory.services["web"].groups["blue"], self.entry(name), self.now)

    def test_unseen_host(self) -> None:
        """A host that this director has not seen is out while another sees it down, and eased in afterwards."""
        self.web("a", "b", "c")
        self.observe("a")
        self.assertEqual(self.rotation(), {"b", "c"})
        self.assertEqual(self.why_not("a"), "down as d2 sees it: refused")
        self.assertIs(self.entry("a").health.state, HostState.UP)
        self.now += 1
        self.observe("a", state=None)
        self.assertEqual(self.rotation(), {"a", "b", "c"})
        self.assertEqual(self.entry("a").up_since, self.now)

    def test_more_hosts_make_a_director_believed(self) -> None:
        """Who sees most of all hosts down is not believed; it is as soon as there are so many hosts that it is not most."""
        self.blue("a", "b", "c")
        self.observe("a", "b")
        self.assertEqual(self.rotation(), {"a", "b", "c"})
        self.blue("a", "b", "c", "d", "e")
        self.assertEqual(self.rotation(), {"c", "d", "e"})
        self.blue("a", "b", "c")
        self.assertEqual(self.rotation(), {"a", "b", "c"})

    def test_host_that_joins_amid_isolation(self) -> None:
        """While a director is isolated, the silence of a host that was configured meanwhile is no evidence either."""
        self.blue("a", "b", "c")
        self.now += 60
        for name in "abc":
            self.inventory.reported(ref(name), LoadReport(), self.now)
        for name in "abc":
            self.inventory.agent_lost(ref(name), "reset", self.now)
        self.assertTrue(self.inventory.isolation.isolated)
        self.blue("a", "b", "c", "d")
        self.inventory.reported(ref("d"), LoadReport(), self.now)
        self.inventory.agent_lost(ref("d"), "reset", self.now)
        self.assertTrue(self.inventory.isolation.isolated)
        self.assertIs(self.entry("d").health.state, HostState.UP)

    def test_silent_amid_isolation(self) -> None:
        """While a director is isolated it still notices who falls silent, at the time when its report is overdue, and who is not."""
        self.blue("a", "b", "c", "d")
        self.now += 60
        for name in "abcd":
            self.report(name)
        for name in "abc":
            self.inventory.agent_lost(ref(name), "reset", self.now)
        self.assertTrue(self.inventory.isolation.isolated)
        due = self.entry("d").health.overdue_at
        self.assertEqual(self.inventory.next_deadline(), due)
        for now, silent in ((due - 0.1, 3), (due, 4)):
            self.inventory.tick(now)
            self.assertEqual(self.inventory.isolation.silent, silent)
        self.assertGreater(self.inventory.next_deadline(), due)

    def test_before_configuration(self) -> None:
        """What others see of a host holds when the host is configured later."""
        self.observe("a")
        self.web("a", "b", "c")
        self.assertEqual(self.rotation(), {"b", "c"})

    def test_mine_first(self) -> None:
        """A heartbeat or a passed probe brings the host in whatever others see, and mine takes it out."""
        self.web("a", "b", "c", "d", "e")
        self.observe("a", "b")
        self.report("a", utilisation=0.1)
        self.inventory.probe_result(self.entry("b"), True, "", 0.0, self.now)
        self.assertEqual(self.rotation(), {"a", "b", "c", "d", "e"})
        self.now += HEALTH.timeout_s
        self.inventory.set_directors(["d2"], self.now)
        self.take_down("c")
        self.assertNotIn("c", self.rotation())

    def test_mine_runs_out(self) -> None:
        """When nothing of mine is fresh any more, the others' word holds: at that time, without any other input."""
        self.blue("a", "b", "c")
        self.observe("a")
        self.report("a", utilisation=0.1)
        self.inventory.agent_left(ref("a"), self.now)
        self.assertIn("a", self.rotation())
        end = self.now + HEALTH.timeout_s
        while self.inventory.next_deadline() <= end:
            self.assertIn("a", self.rotation())
            self.now = self.inventory.next_deadline()
            self.inventory.tick(self.now)
        self.assertNotIn("a", self.rotation())
        self.assertEqual(self.now, end)

    def test_witness(self) -> None:
        """A living director that has written nothing sees the host up; one that is blind does not count."""
        self.web("a", "b", "c")
        self.inventory.set_directors(["d2", "d3"], self.now)
        self.observe("a")
        self.assertIn("a", self.rotation())
        self.observe("a", by="d3", state=HostState.UP, blind=True)
        self.assertNotIn("a", self.rotation())
        self.observe("a", by="d3", state=None)
        self.assertIn("a", self.rotation())
        self.inventory.set_directors(["d2"], self.now)
        self.assertNotIn("a", self.rotation())

    def test_cut_off(self) -> None:
        """A director that sees more than half of the hosts down takes none of them out here, and later one again."""
        self.web("a", "b", "c", "d")
        self.observe("a", "b")
        self.assertEqual(self.rotation(), {"c", "d"})
        self.observe("c")
        self.assertEqual(self.rotation(), {"a", "b", "c", "d"})
        self.observe("b", "c", state=None)
        self.assertEqual(self.rotation(), {"b", "c", "d"})

    def test_silence_is_no_evidence(self) -> None:
        """A host whose agent falls silent here stays in while another director hears it, and is out when none does."""
        self.blue("a", "b", "c")
        for name in "abc":
            self.report(name, utilisation=0.1)
        self.inventory.set_directors(["d2"], self.now)
        for _ in range(5):
            self.now += 1.0
            for name in "bc":
                self.report(name, utilisation=0.1)
            self.inventory.tick(self.now)
        self.assertIs(self.entry("a").health.state, HostState.DOWN)
        self.assertEqual(self.rotation(), {"a", "b", "c"})
        self.assertEqual(self.entry("a").verdict.why, "silent here, but d2 sees it up")
        self.observe("a")
        self.assertEqual(self.rotation(), {"b", "c"})
        self.observe("a", state=None)
        self.inventory.set_directors([], self.now)
        self.assertEqual(self.rotation(), {"b", "c"})
        self.assertIn("silent", self.why_not("a"))

    def test_picture(self) -> None:
        """The host's picture tells what others see, whose word holds, and that is an event once."""
        self.web("a", "b", "c")
        self.inventory.drain()
        self.observe("a")
        self.observe("a")
        [judged] = [event for event in self.inventory.drain() if isinstance(event, HostJudged)]
        self.assertFalse(judged.before.down)
        [service] = picture_services(self.inventory, self.now, 0.0, lambda name: ())
        host = next(each for each in service.groups[0].hosts if each.name == "a")
        self.assertEqual((host.state, host.in_rotation, host.overruled), (HostState.UP, False, host.why_not))
        [seen] = host.seen_by_others
        self.assertEqual((seen.director, seen.state, seen.why, seen.since), ("d2", HostState.DOWN, "refused", 7.0))
