"""What the configuration, agents and DNS say there is, placed in pools: live, and forgotten without a trace."""

from __future__ import annotations

import math
import random

from msgspec.structs import replace

from cluster.model import (
    AdminState,
    Caps,
    CapShare,
    Host,
    HostRef,
    HostState,
    Limits,
    LoadReport,
    Probe,
    Reason,
    Registered,
    Service,
)
from director.core.events import HostAdded, HostRemoved
from director.core.inventory import Inventory
from director.core.pictures import picture_services
from tests.unit.core.inventory_kit import HEALTH, InventoryTestCase, group, order, ref

CAPS = Caps(number=1, maximum=10, shares={"d1": CapShare(grant=3, ceiling=3), "d2": CapShare(grant=7, ceiling=7)})


class CapsTests(InventoryTestCase):
    def test_share(self) -> None:
        """A director lets in its own share of a maximum, from the moment that it knows it, whichever comes first."""
        for director, maximum, caps, share in (
            ("d1", 10, CAPS, 3), ("d2", 10, CAPS, 7), ("d3", 10, CAPS, 0), ("d1", 10, None, 0), ("d1", 2, CAPS, 2),
            (None, 10, CAPS, None), ("d1", 0, CAPS, None),
        ):
            for caps_first in (True, False):
                self.inventory = Inventory(now=self.now, random=random.Random(7).random, director=director)
                spec = Service(groups={"blue": group("a")}, limits=Limits(max_connections=maximum))
                if not caps_first:
                    self.apply(spec)
                self.inventory.set_caps("web", caps, self.now)
                if caps_first:
                    self.apply(spec)
                service = self.inventory.services["web"]
                self.assertEqual(service.share, share, (director, maximum, caps_first))
                self.assertEqual(service.admission.maximum, share if share is not None else maximum or math.inf)

    def test_taken_back(self) -> None:
        """Without a record nobody is let in; a record of a service that is not there is kept."""
        self.inventory = Inventory(now=self.now, random=random.Random(7).random, director="d1")
        self.inventory.set_caps("mail", CAPS, self.now)
        self.web("a", limits=Limits(max_connections=10))
        self.inventory.set_caps("web", CAPS, self.now)
        self.assertEqual((self.inventory.caps("web"), self.inventory.capped()), (CAPS, ("mail", "web")))
        self.inventory.set_caps("web", None, self.now)
        self.inventory.set_caps("gopher", None, self.now)
        self.assertEqual((self.inventory.caps("web"), self.inventory.capped()), (None, ("mail",)))
        self.assertIs(self.arrive(), Reason.SERVICE_FULL)


class RemovalTests(InventoryTestCase):
    def test_cut(self) -> None:
        """Open connections of a host that is removed are cut where the group says so."""
        for on_down in ("keep", "cut"):
            for gone in (Service(groups={"blue": group("a", on_down=on_down)}), Service(groups={"red": group("a")}), None):
                self.apply(Service(groups={"blue": group("a", "b", on_down=on_down)}))
                removed = self.entry("b")
                self.inventory.drain()
                self.apply(gone)
                cuts = {event.entry: event.cut for event in self.inventory.drain() if isinstance(event, HostRemoved)}
                self.assertIs(cuts[removed], on_down == "cut")
                self.apply(None)

    def test_nothing_is_left(self) -> None:
        """Nothing of a host that was removed counts any more: reports, probes, turnarounds, comparisons, silence, slow start."""
        self.web("a", "b", "c")
        self.now += 100.0
        blue = self.inventory.services["web"].groups["blue"]
        self.report("a", utilisation=0.5, rate=50.0, completions=50.0)
        self.inventory.probe_result(self.entry("a"), True, "", 0.0, self.now, 3.0)
        self.inventory.set_order(ref("a"), "operator", order(AdminState.DRAIN), self.now)
        self.inventory.set_order(ref("a"), "operator", None, self.now)
        self.inventory.recompute(self.now + 1.0)
        entry = self.entry("a")
        self.assertIn(entry, blue.ramping)
        self.inventory.agent_lost(ref("a"), "reset", self.now)
        self.assertTrue(self.inventory.isolation.is_silent(ref("a")))
        self.inventory.client_ended(entry.host, Reason.HOST_RESET, 0, 0.0, self.now)
        self.assertEqual(self.inventory.resetting, {entry.host})
        left = group("a", "b", "c")
        del left.hosts["a"]
        self.apply(Service(groups={"blue": left}))
        self.assertEqual((blue.capacity.known(entry.ref), blue.seen.scale(entry.ref), list(blue.probed.keys)), (None, 1.0, []))
        self.assertEqual((blue.ramping, self.inventory.resetting, set(blue.hosts)), (set(), set(), {"b", "c"}))
        self.assertFalse(self.inventory.isolation.is_silent(ref("a")))
        self.assertIsNone(self.inventory.entry_of(entry.host))
        self.assertRaises(KeyError, blue.comparison.discard, entry.host)
        self.inventory.connect_failed(entry.host, "refused", self.now)
        self.inventory.connect_succeeded(entry.host, self.now, self.now)
        self.assertFalse(self.inventory.client_ended(entry.host, Reason.HOST_RESET, 0, 0.0, self.now))
        self.assertEqual(entry.connect_failures, 1)

    def test_of_a_group(self) -> None:
        """A group that is removed has no weights due, and a service that is removed lets nobody in."""
        self.web("a")
        self.report("a", weight=0.5)
        self.assertLess(self.inventory.next_recompute(), math.inf)
        admission = self.inventory.services["web"].admission
        self.apply(Service(groups={"red": group("b")}))
        self.assertEqual((self.inventory.next_recompute(), set(self.inventory.hosts)), (math.inf, {ref("b", "red")}))
        self.apply(None)
        self.apply(None)
        self.assertIs(admission.arrive(None, object(), self.now), Reason.NO_HOST)


class ChangeTests(InventoryTestCase):
    def test_hosts(self) -> None:
        """A host that is configured otherwise is the same host with another weight, maximum and place."""
        self.web("a", "b")
        entry = self.entry("a")
        blue = group("a", "b")
        blue.hosts["a"] = Host(address="10.0.0.1:80", weight=2.5, max_connections=7, backup=True)
        self.apply(Service(groups={"blue": blue}))
        self.assertIs(self.entry("a"), entry)
        host = entry.host
        self.assertEqual((host.weight, host.configured_weight, host.max_connections, host.backup), (2.5, 2.5, 7, True))
        self.assertEqual(self.rotation(), {"b"})

    def test_policy(self) -> None:
        """A group's new health policy holds for all its hosts at once, and so does a host's port of probes."""
        self.web("a", "b")
        self.now += 60.0
        for _ in range(2):
            self.inventory.probe_result(self.entry("a"), False, "refused", 0.0, self.now)
        self.assertEqual(self.rotation(), {"a", "b"})
        self.apply(Service(groups={"blue": group("a", "b", health=replace(HEALTH, fall=2))}))
        self.assertEqual(self.rotation(), {"b"})
        for name in "ab":
            self.inventory.probe_started(self.entry(name), self.now)
            self.inventory.probe_result(self.entry(name), True, "", 0.0, self.now)
        due = [self.entry(name).health.next_probe_at for name in "ab"]
        self.now += 0.5
        blue = group("a", "b", health=replace(HEALTH, fall=2))
        blue.hosts["b"] = replace(blue.hosts["b"], probe_port=81)
        self.apply(Service(groups={"blue": blue}))
        self.assertEqual([self.entry(name).health.next_probe_at for name in "ab"], [due[0], self.now])

    def test_fail_open(self) -> None:
        """It can be switched on while all hosts are down, and off again."""
        self.web("a")
        self.now += 60.0
        self.take_down("a")
        self.assertIs(self.arrive(), Reason.NO_HOST)
        self.web("a", groups={"blue": group("a", health=replace(HEALTH, fail_open="all"))})
        self.assertEqual(self.rotation(), {"a"})
        self.web("a")
        self.assertIs(self.arrive(), Reason.NO_HOST)

    def test_easing_in(self) -> None:
        """A host that is known later than two seconds after the start begins with a tenth of its weight."""
        for after_s, weight in ((0.0, 1.0), (2.0, 1.0), (2.01, 0.1)):
            self.setUp()
            self.now += after_s
            self.inventory.apply_service("web", Service(groups={"blue": group("a")}), self.now)
            self.assertAlmostEqual(self.entry("a").host.weight, weight)

    def test_picture(self) -> None:
        """The enabled group is told from the others by its name."""
        self.apply(Service(groups={"blue": group("a"), "green": group("b")}, enable="".join(("gr", "een"))))
        (picture,) = picture_services(self.inventory, self.now, 0.0, lambda name: ())
        self.assertEqual([(each.name, each.enabled) for each in picture.groups], [("blue", False), ("green", True)])


class DiscoveryTests(InventoryTestCase):
    def names(self) -> dict[str, str]:
        return {entry.ref.host: entry.origin for entry in self.inventory.hosts.values()}

    def test_hidden(self) -> None:
        """What DNS says is beside the configured and the registered hosts, and hidden by them, by name or by address."""
        self.web("a", "b")
        registered = Registered(host=Host(address="10.1.1.1:80"), agent="n", boot_id="b", at=0.0, approved=True)
        found = {"a": Host(address="10.2.0.1:80"), "x": Host(address="10.0.0.2:80"), "y": Host(address="10.1.1.1:80"),
                 "z": Host(address="10.2.0.2:80")}
        self.inventory.set_discovered("web", "blue", found, self.now)
        self.assertEqual(self.names(), {"a": "configured", "b": "configured", "y": "discovered", "z": "discovered"})
        self.inventory.set_registered(ref("n"), registered, self.now)
        self.assertEqual(self.names(), {"a": "configured", "b": "configured", "n": "registered", "z": "discovered"})
        self.inventory.set_registered(ref("n"), replace(registered, approved=False), self.now)
        self.web("b")
        self.assertEqual(self.names(), {"b": "configured", "a": "discovered", "x": "discovered", "y": "discovered", "z": "discovered"})
        self.inventory.set_discovered("web", "blue", {}, self.now)
        self.inventory.set_discovered("web", "blue", {}, self.now)
        self.assertEqual(self.names(), {"b": "configured"})

    def test_elsewhere(self) -> None:
        """What is said of a group that is not there waits for it, and is no other group's."""
        self.inventory.set_discovered("web", "red", {"x": Host(address="10.2.0.1:80")}, self.now)
        self.inventory.set_discovered("mail", "blue", {"x": Host(address="10.2.0.1:80")}, self.now)
        self.inventory.set_registered(HostRef("mail", "blue", "n"), Registered(
            host=Host(address="10.1.1.1:80"), agent="n", boot_id="b", at=0.0, approved=True), self.now)
        self.web("a")
        self.inventory.set_discovered("web", "green", {"x": Host(address="10.2.0.1:80")}, self.now)
        self.assertEqual(set(self.inventory.hosts), {ref("a")})
        self.inventory.drain()
        self.apply(Service(groups={"blue": group("a"), "red": group()}))
        self.assertEqual(set(self.inventory.hosts), {ref("a"), ref("x", "red")})
        self.assertEqual([event.entry.ref for event in self.inventory.drain() if isinstance(event, HostAdded)], [ref("x", "red")])


class EntryTests(InventoryTestCase):
    def test_probes(self) -> None:
        """A host's port of probes is its own; the rest of the policy is its group's."""
        blue = group("a", "b", health=replace(HEALTH, probe=Probe(kind="http", port=90, path="/up")))
        blue.hosts["a"] = replace(blue.hosts["a"], probe_port=81)
        self.apply(Service(groups={"blue": blue}))
        self.assertEqual([self.entry(name).health._policy.probe for name in "ab"],
                         [Probe(kind="http", port=81, path="/up"), Probe(kind="http", port=90, path="/up")])

    def test_new(self) -> None:
        """Of a new host nothing is known."""
        self.web("a")
        entry = self.entry("a")
        self.assertEqual((entry.agent, entry.boot_id, entry.report, entry.agent_weight, entry.target, entry.address_error,
                          entry.connect_failures, entry.tally, entry.drain_seen, entry.responder, entry.report_at, entry.reported_at),
                         (None, None, None, 1.0, None, "not resolved yet", 0, None, None, None, -math.inf, -math.inf))
        self.assertTrue(entry.unresolved)
        self.inventory.resolved(entry, None, "no such name")
        self.assertEqual((entry.unresolved, entry.address_error), (False, "no such name"))
        self.inventory.resolved(entry, "10.0.0.1")
        self.assertEqual((entry.unresolved, entry.target, entry.address_error), (False, "10.0.0.1", ""))
        self.assertEqual((entry.health.state, entry.admin, entry.registered), (HostState.UP, AdminState.UP, False))

    def test_totals(self) -> None:
        """Clients that were served and have ended, those whose connect failed, and those that are open."""
        self.web("a")
        entry = self.entry("a")
        tickets = [self.arrive() for _ in range(5)]
        admission = self.inventory.services["web"].admission
        for ticket in tickets[:3]:
            admission.leave(ticket, Reason.CLIENT_CLOSED, self.now)  # type: ignore[arg-type]
        self.inventory.connect_failed(entry.host, "refused", self.now)
        self.assertEqual(entry.totals._asdict() | {"seconds": 0}, {
            "turnarounds": 0, "seconds": 0, "unasked": 0, "finished": 2, "failed": 1, "in_flight": 2})

    def test_remembered(self) -> None:
        """What another process heard counts as when it was made; no weight in it means all of it."""
        self.web("a")
        entry = self.entry("a")
        for report, weight in ((LoadReport(weight=0.25), 0.25), (LoadReport(), 1.0)):
            entry.remember(report, 42.0)
            self.assertEqual((entry.report, entry.report_at, entry.agent_weight), (report, 42.0, weight))
