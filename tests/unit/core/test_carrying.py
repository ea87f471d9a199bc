"""What one process knows of hosts and clients, in the one that follows it."""

from __future__ import annotations

import inspect
import random

import msgspec

from cluster.model import AdminState, HostState, LoadReport, Service, Sticky
from director.core import carrying
from director.core.inventory import Inventory
from director.core.orders import LOCAL
from tests.unit.core.inventory_kit import HEALTH, InventoryTestCase, group, order, ref


class CarryingTests(InventoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.now += 3600.0

    def configured(self, spec: Service) -> Inventory:
        """The inventory of a process that has just started."""
        other = Inventory(now=self.now, random=random.Random(7).random)
        other.apply_service("web", spec, self.now)
        return other

    def carried(self, spec: Service) -> Inventory:
        """Through bytes, as between processes."""
        other = self.configured(spec)
        records = msgspec.msgpack.decode(
            msgspec.msgpack.encode(carrying.hosts(self.inventory)), type=list[carrying.HostRecord])
        carrying.recall_hosts(other, records, self.now)
        other.drain()
        return other

    def test_health(self) -> None:
        """A host that is down takes no clients in the next process either, and comes back by its probes; one that is up
        is verified; histories stay."""
        spec = Service(groups={"blue": group("a", "b")})
        self.apply(spec)
        self.inventory.probe_result(self.entry("b"), True, "ok", 0.1, self.now)
        self.take_down("a")
        other = self.carried(spec)
        down, up = other.hosts[ref("a")], other.hosts[ref("b")]
        self.assertEqual((down.health.state, down.health.why), (HostState.DOWN, self.entry("a").health.why))
        self.assertEqual((down.host.eligible, up.host.eligible, up.health.verified), (False, True, True))
        self.assertEqual(list(down.health.history), list(self.entry("a").health.history))
        for _ in range(HEALTH.rise):
            self.now += 1.0
            other.probe_result(down, True, "ok", 0.1, self.now)
        self.assertEqual((down.health.state, down.host.eligible), (HostState.UP, True))

    def test_agents(self) -> None:
        """Silence counts from the start of the next process; the last report and what it tells go on counting."""
        spec = Service(groups={"blue": group("a", "b")})
        self.apply(spec)
        for rate, name in ((100.0, "a"), (25.0, "b")):
            self.inventory.agent_connected(ref(name), f"agent-{name}", "boot", self.now)
            for _ in range(20):
                self.now += 1.0
                self.report(name, rate=rate, utilisation=0.5, in_flight=1)
        self.report("b", rate=25.0, utilisation=0.5, in_flight=1, weight=0.5, max_connections=7)
        self.inventory.clean_up(self.now)
        self.inventory.recompute(self.now + 1.0)
        before = {name: self.entry(name).host.weight for name in ("a", "b")}
        other = self.carried(spec)
        other.recompute(self.now + 1.0)
        for name, weight in before.items():
            self.assertAlmostEqual(other.hosts[ref(name)].host.weight, weight, places=2)
        self.assertEqual(other.hosts[ref("b")].host.max_connections, 7)
        other.tick(self.now + HEALTH.suspect_after_s - 0.1)
        self.assertIs(other.hosts[ref("a")].health.state, HostState.UP)
        other.tick(self.now + HEALTH.suspect_after_s + 0.1)
        self.assertIs(other.hosts[ref("a")].health.state, HostState.SUSPECT)

    def test_another_place(self) -> None:
        """What is known of a host is not believed of one at another address, nor of a new one."""
        self.web("a", "b")
        self.take_down("a")
        spec = Service(groups={"blue": group("b", "a", "c")})
        other = self.carried(spec)
        self.assertEqual({name.host for name, entry in other.hosts.items() if entry.host.eligible}, {"a", "b", "c"})
        self.assertEqual(other.hosts[ref("a")].health.history.maxlen, self.entry("a").health.history.maxlen)

    def test_ejections(self) -> None:
        """A host that is ejected stays out to the end of its time."""
        spec = Service(groups={"blue": group("a", "b", "c")})
        self.apply(spec)
        conduct, comparison = self.entry("a").conduct, self.inventory.services["web"].groups["blue"].comparison
        comparison.eject(conduct, "it fails", in_rotation=3, now=self.now, policy=HEALTH.outliers)
        other = self.carried(spec)
        self.assertFalse(other.hosts[ref("a")].host.eligible)
        self.now = conduct.until + 0.1
        other.clean_up(self.now)
        self.assertTrue(other.hosts[ref("a")].host.eligible)

    def test_sticky(self) -> None:
        """Clients are remembered to the end of their times, in groups that have a table still."""
        spec = Service(groups={"blue": group("a", "b")}, sticky=Sticky(mode="table", ttl_s=60.0))
        self.apply(spec)
        self.arrive()
        other = self.configured(spec)
        records = msgspec.msgpack.decode(
            msgspec.msgpack.encode(carrying.sticky(self.inventory)), type=list[carrying.StickyRecord])
        carrying.recall_sticky(other, [*records, carrying.StickyRecord(service="x", group="y", entries=[])], self.now)
        self.assertEqual(carrying.sticky(other), records)
        self.assertEqual(len(records[0].entries), 1)

    def test_local_orders(self) -> None:
        """Orders that only this director knows."""
        self.web("a", "b")
        down = order(AdminState.DOWN)
        self.inventory.set_order(ref("a"), LOCAL, down, self.now)
        self.inventory.set_order(ref("b"), "operator", down, self.now)
        self.assertEqual(carrying.local_orders(self.inventory), [carrying.LocalOrder(ref=ref("a"), order=down)])

    def test_doubted(self) -> None:
        """Where nothing is known a failed probe is enough to keep clients from a host, and passed ones let them in."""
        self.web("a", "b")
        self.inventory.probe_result(self.entry("a"), False, "refused", 0.0, self.now)
        self.inventory.probe_result(self.entry("b"), True, "ok", 0.0, self.now)
        carrying.doubt_hosts(self.inventory, self.now)
        self.assertEqual(self.rotation(), {"b"})
        for _ in range(HEALTH.rise):
            self.inventory.probe_result(self.entry("a"), True, "ok", 0.0, self.now)
        self.assertEqual(self.rotation(), {"a", "b"})

    def test_reported_without_report(self) -> None:
        """A host that never reported is as it was."""
        spec = Service(groups={"blue": group("a")})
        self.apply(spec)
        self.assertIsNone(self.carried(spec).hosts[ref("a")].report)
        self.inventory.reported(ref("a"), LoadReport(), self.now)
        self.assertEqual(self.carried(spec).hosts[ref("a")].report, LoadReport())

    def test_records_by_name(self) -> None:
        """What is carried is made of named fields: a release that has one more takes none for another."""
        for each in vars(carrying).values():
            if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__module__ == carrying.__name__:
                for parameter in inspect.signature(each).parameters.values():
                    self.assertIs(parameter.kind, inspect.Parameter.KEYWORD_ONLY, (each, parameter))
