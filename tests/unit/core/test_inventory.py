"""The inventory: configuration, orders, heartbeats and checks in; rotation and weights out."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import (
    Access,
    AdminState,
    Host,
    HostRef,
    HostState,
    Limits,
    LoadReport,
    Probe,
    Reason,
    Registered,
    Registration,
    Service,
    Sticky,
)
from director.core.entries import HostEntry
from director.core.events import HostAdded, HostJudged, HostMoved, HostRemoved, IsolationChanged, Served
from director.core.inventory import Inventory
from director.core.pictures import picture_services, why_not
from director.core.pool import Ticket
from tests.unit.core.inventory_kit import HEALTH, InventoryTestCase, group, order, ref


class ConfigurationTests(InventoryTestCase):
    def test_scheduler_stays(self) -> None:
        """A scheduler keeps what it has learnt unless it, its parameters or the stickiness are configured anew."""
        blue = group("a", scheduler="maglev", parameters={"table_size": 1009})
        self.apply(Service(groups={"blue": blue}))
        pool = self.inventory.services["web"].groups["blue"].pool
        scheduler = pool.scheduler
        self.apply(Service(groups={"blue": msgspec.structs.replace(blue, parameters={"table_size": 1009})},
                           limits=Limits(max_connections=9)))
        self.assertIs(pool.scheduler, scheduler)
        for changes, sticky in (({"parameters": {"table_size": 2003}}, None), ({"scheduler": "random", "parameters": {}}, None),
                                ({"scheduler": "random", "parameters": {}}, Sticky())):
            before = pool.scheduler
            self.apply(Service(groups={"blue": msgspec.structs.replace(blue, **changes)}, sticky=sticky))
            self.assertIsNot(pool.scheduler, before, changes)

    def test_new_hosts_are_announced_and_take_connections(self) -> None:
        """A configured host is announced once and in rotation at once."""
        self.web("a", "b")
        added = [event.entry.ref.host for event in self.inventory.drain() if isinstance(event, HostAdded)]
        self.assertEqual(added, ["a", "b"])
        self.assertEqual(self.rotation(), {"a", "b"})

    def test_same_configuration_touches_nothing(self) -> None:
        """Applying the same again keeps every host object and says nothing."""
        self.web("a", "b")
        before = dict(self.inventory.hosts)
        self.inventory.drain()
        self.web("a", "b")
        self.assertEqual(self.inventory.drain(), [])
        self.assertEqual(self.inventory.hosts, before)

    def test_removed_host_keeps_its_tickets(self) -> None:
        """A removed host leaves the rotation; its open connections count down to nothing."""
        self.web("a")
        ticket = self.arrive()
        assert isinstance(ticket, Ticket)
        self.web("b")
        self.assertIn(HostRemoved, {type(event) for event in self.inventory.drain()})
        self.assertEqual(self.rotation(), {"b"})
        service = self.inventory.services["web"]
        self.assertEqual(service.admission.connections, 1)
        service.admission.leave(ticket, Reason.CLIENT_CLOSED, self.now)
        self.assertEqual((service.admission.connections, ticket.host.in_flight), (0, 0))

    def test_changed_address_is_another_host(self) -> None:
        """Nothing observed of the old backend is believed of the one that took its name."""
        self.web("a", "b")
        self.now += 60
        for address in ("10.9.9.9:80", "10.0.0.1:80"):
            self.take_down("a")
            self.assertEqual(self.rotation(), {"b"})
            blue = group("a", "b")
            blue.hosts["a"] = Host(address=address)
            self.apply(Service(groups={"blue": blue}))
            self.assertEqual(self.rotation(), {"a", "b"})

    def test_enabling_another_group_keeps_counts(self) -> None:
        """In-flight of the former group stays right after a switch."""
        spec = Service(groups={"blue": group("a"), "green": group("g")})
        self.apply(spec)
        ticket = self.arrive()
        assert isinstance(ticket, Ticket)
        self.apply(msgspec.structs.replace(spec, enable="green"))
        other = self.arrive()
        assert isinstance(other, Ticket)
        self.assertEqual((ticket.host.name, other.host.name), ("a", "g"))
        admission = self.inventory.services["web"].admission
        admission.leave(ticket, Reason.CLIENT_CLOSED, self.now)
        admission.leave(other, Reason.CLIENT_CLOSED, self.now)
        self.assertEqual((ticket.host.in_flight, other.host.in_flight, admission.connections), (0, 0, 0))

    def test_scheduler_changes_live(self) -> None:
        """Changing the scheduler or stickiness keeps hosts and connections."""
        self.web("a", "b")
        ticket = self.arrive()
        assert isinstance(ticket, Ticket)
        self.apply(Service(groups={"blue": group("a", "b", scheduler="maglev")}, sticky=Sticky(mode="table")))
        self.assertEqual(ticket.host.in_flight, 1)
        again = [self.arrive() for _ in range(4)]
        self.assertEqual(len({each.host for each in again if isinstance(each, Ticket)}), 1)

    def test_removed_service_is_gone(self) -> None:
        """Removing a service announces its hosts' removal."""
        self.web("a")
        self.inventory.drain()
        self.apply(None)
        self.assertEqual([type(event) for event in self.inventory.drain()], [HostRemoved])
        self.assertEqual((self.inventory.services, self.inventory.hosts), ({}, {}))

    def test_new_access_list_applies(self) -> None:
        """The access list follows the configuration."""
        self.web("a")
        self.apply(Service(groups={"blue": group("a")}, access=Access(deny=("10.0.0.0/8",))))
        self.assertFalse(self.inventory.services["web"].access.allows(b"\x0a\0\0\1"))


class SplitTests(InventoryTestCase):
    def split(self, split: dict[str, float], *, scheduler: str = "leastconns", **changes: object) -> None:
        groups = {name: group(host, scheduler=scheduler) for name, host in (("blue", "a"), ("green", "b"))}
        self.apply(msgspec.structs.replace(Service(groups=groups, split=split), **changes))

    def groups(self, number: int = 8) -> set[str]:
        """Those that *number* clients of one address are given to."""
        tickets = [self.arrive() for _ in range(number)]
        assert all(isinstance(ticket, Ticket) for ticket in tickets)
        return {ticket.host.ref.group for ticket in tickets if isinstance(ticket, Ticket)}

    def test_live(self) -> None:
        """Shares hold from the next client on; a split that ends leaves all to the enabled group."""
        self.split({"blue": 1.0, "green": 1.0})
        self.assertEqual(self.groups(), {"blue", "green"})
        self.split({"blue": 0.0, "green": 1.0})
        self.assertEqual(self.groups(), {"green"})
        self.split({})
        self.assertEqual(self.groups(), {"blue"})

    def test_by_address(self) -> None:
        """Where the service is sticky, or a group is by its scheduler."""
        for changes in ({"sticky": Sticky()}, {"sticky": Sticky(mode="table")}, {"scheduler": "maglev"}):
            self.apply(None)
            self.split({"blue": 1.0, "green": 1.0}, **changes)
            self.assertEqual(len(self.groups()), 1, changes)

    def test_strangers(self) -> None:
        """What the store should not say is survived: groups that are not there, nobody with a share."""
        for split in ({"blue": 0.0, "gone": 1.0}, {"gone": 1.0}, {"blue": 0.0}):
            self.split(split)
            self.assertEqual(self.groups(), {"blue"})
        self.split({"green": 1.0})
        self.assertEqual(self.groups(), {"green"})

    def test_counted_on(self) -> None:
        """Clients that strayed are counted over all changes of the split."""
        self.split({"blue": 0.0, "green": 1.0})
        self.inventory.set_order(ref("b", "green"), "operator", order(AdminState.DRAIN), self.now)
        for _ in range(2):
            self.assertEqual(self.groups(3), {"blue"})
            self.split({})
            self.split({"blue": 0.0, "green": 1.0}, sticky=Sticky())
        self.assertEqual(self.inventory.services["web"].strayed, {"green": 6})


class OrderTests(InventoryTestCase):
    def test_most_restrictive_order_wins_and_only_its_author_clears_it(self) -> None:
        """An agent's up does not lift an operator's drain, nor the other way round."""
        self.web("a", "b")
        self.inventory.set_order(ref("a"), "operator", order(AdminState.DRAIN), self.now)
        self.inventory.set_order(ref("a"), "agent", order(AdminState.DOWN), self.now)
        self.assertIs(self.entry("a").admin, AdminState.DOWN)
        self.inventory.set_order(ref("a"), "agent", None, self.now)
        self.assertIs(self.entry("a").admin, AdminState.DRAIN)
        self.assertEqual(self.rotation(), {"b"})
        self.inventory.set_order(ref("a"), "operator", None, self.now)
        self.assertEqual(self.rotation(), {"a", "b"})

    def test_order_before_configuration_is_kept(self) -> None:
        """An order that arrives before its host is configured holds from the host's first moment."""
        self.inventory.set_order(ref("a"), "operator", order(AdminState.DOWN), self.now)
        self.web("a", "b")
        self.assertEqual(self.rotation(), {"b"})

    def test_why_not_names_the_author(self) -> None:
        """The operator reads who ordered a host out, and why."""
        self.web("a")
        self.inventory.set_order(ref("a"), "operator", order(AdminState.DRAIN), self.now)
        blue = self.inventory.services["web"].groups["blue"]
        self.assertEqual(why_not(blue, self.entry("a"), self.now), "draining, ordered by operator ann: test")

    def test_drain_deadline_counts_from_when_it_was_seen(self) -> None:
        """The cut is due a relative time after this director first saw the drain."""
        self.web("a")
        self.now += 5
        self.inventory.set_order(ref("a"), "operator", order(AdminState.DRAIN, deadline_s=30.0), self.now)
        self.assertEqual([(each.ref.host, due) for each, due in self.inventory.drains()], [("a", self.now + 30)])

    def test_back_slowly(self) -> None:
        """A host that is ordered into service again begins with a part of its weight; one that is ordered out keeps its."""
        for state in (AdminState.DRAIN, AdminState.DOWN):
            self.web("a", "b")
            self.now += 60
            self.inventory.set_order(ref("a"), "operator", order(state), self.now)
            self.assertEqual(self.entry("a").host.weight, 1.0)
            self.now += 60
            self.inventory.set_order(ref("a"), "operator", None, self.now)
            self.assertAlmostEqual(self.entry("a").host.weight, 0.1)
            self.apply(None)

    def test_local_order_counts_in_the_operators_place(self) -> None:
        """Here alone a host is up that is drained everywhere; the agent's order still counts; the store ends it."""
        self.web("a", "b")
        self.inventory.set_order(ref("a"), "operator", order(AdminState.DRAIN), self.now)
        self.inventory.set_order(ref("a"), "local", order(AdminState.UP), self.now)
        self.assertEqual((self.rotation(), self.inventory.drains()), ({"a", "b"}, []))
        self.inventory.set_order(ref("a"), "agent", order(AdminState.DOWN), self.now)
        self.assertEqual(self.rotation(), {"b"})
        self.inventory.set_order(ref("a"), "agent", None, self.now)
        self.now += 5
        self.assertEqual(self.inventory.drop_local_orders(self.now), [ref("a")])
        self.assertEqual([(each.ref.host, since) for each, since in self.inventory.drains()],
                         [("a", self.now + self.inventory.services["web"].spec.timeouts.drain_s)])

    def test_local_order_says_so(self) -> None:
        """The operator reads that an order is this director's alone, in the picture and in the reason."""
        self.web("a")
        self.inventory.set_order(ref("a"), "local", order(AdminState.DOWN), self.now)
        blue = self.inventory.services["web"].groups["blue"]
        self.assertEqual(why_not(blue, self.entry("a"), self.now), "down, ordered by operator, here only, ann: test")
        picture = picture_services(self.inventory, self.now, 0.0, lambda name: ())[0].groups[0].hosts[0]
        self.assertEqual([(each.by, each.state) for each in picture.orders], [("local", AdminState.DOWN)])

    def test_picture_of_one(self) -> None:
        """A picture of one service, group or host is that part of the whole one, and no other host is pictured for it."""
        looked_at: list[str] = []

        def walk(entries: Iterable[Any]) -> Iterable[Any]:
            for entry in entries:
                if isinstance(entry, HostEntry):  # the shares of a group are asked of all its hosts, of each in a few looks
                    looked_at.append(str(entry.ref))
                yield entry

        inventory = Inventory(now=self.now, random=lambda: 0.5, walk=walk)
        for name in ("mail", "web"):
            inventory.apply_service(name, Service(groups={"blue": group("a", "b"), "green": group("c")}), self.now)

        def pictured(*names: str) -> Any:
            return picture_services(inventory, self.now, 0.0, lambda name: (), *names)

        whole = pictured()
        for service in whole:
            self.assertEqual(pictured(service.name), (service,))
            for part in service.groups:
                self.assertEqual(pictured(service.name, part.name)[0].groups, (part,))
                for host in part.hosts:
                    looked_at.clear()
                    self.assertEqual(pictured(service.name, part.name, host.name)[0].groups[0].hosts, (host,))
                    self.assertEqual(looked_at, [f"{service.name}/{part.name}/{host.name}"])
        self.assertEqual((pictured("gopher"), pictured("web", "red")[0].groups, pictured("web", "blue", "z")[0].groups[0].hosts),
                         ((), (), ()))

    def test_next_recompute_knows_every_group(self) -> None:
        """Weights are due when the first of the groups has them due, whichever services have come and gone."""
        ramps = False
        for turn in range(40):
            name = f"s{turn % 5}"
            ramping = Service(groups={"blue": group("a", "b", health=msgspec.structs.replace(HEALTH, slow_start_s=5.0))})
            self.inventory.apply_service(name, None if turn % 7 == 6 else ramping, self.now)
            for entry in self.inventory.hosts.values():
                for ok in (False, False, False, True, True) if turn % 3 == 0 else (True,):
                    self.inventory.probe_started(entry, self.now)
                    self.inventory.probe_result(entry, ok, "", 0.0, self.now)
            if turn % 2:
                self.inventory.recompute(self.now)
            due = [each.recompute_at for service in self.inventory.services.values() for each in service.groups.values()]
            self.assertEqual(self.inventory.next_recompute(), min(due, default=math.inf))
            ramps |= self.inventory.next_recompute() < math.inf
            self.now += 0.7
        self.assertTrue(ramps)

    def test_new_boot_id_clears_the_agents_order(self) -> None:
        """A restarted agent starts clean; the operator's order stands."""
        self.web("a")
        self.inventory.set_order(ref("a"), "agent", order(AdminState.DRAIN, boot_id="one"), self.now)
        self.inventory.agent_connected(ref("a"), "agent", "one", self.now)
        self.assertIs(self.entry("a").admin, AdminState.DRAIN)
        self.inventory.agent_connected(ref("a"), "agent", "two", self.now)
        self.assertIs(self.entry("a").admin, AdminState.UP)


class RegistrationTests(InventoryTestCase):
    def registered(self, *, approved: bool) -> Registered:
        return Registered(host=Host(address="10.1.1.1:80"), agent="n", boot_id="b", at=0.0, approved=approved)

    def test_in_its_own_group(self) -> None:
        """A registered host joins the group that it registered for, and no other."""
        self.apply(Service(groups={"blue": group("a"), "red": group("b")}))
        self.inventory.set_registered(ref("n", "red"), self.registered(approved=True), self.now)
        self.apply(Service(groups={"blue": group("a"), "red": group("b")}, limits=Limits(queue=1)))
        groups = self.inventory.services["web"].groups
        self.assertEqual((set(groups["blue"].hosts), set(groups["red"].hosts)), ({"a"}, {"b", "n"}))

    def test_only_approved_hosts_join(self) -> None:
        """A registered host waits for approval; approved it takes connections."""
        self.apply(Service(groups={"blue": group("a", registration=Registration(mode="approve"))}))
        self.inventory.set_registered(ref("n"), self.registered(approved=False), self.now)
        (picture,) = picture_services(self.inventory, self.now, 0.0, lambda name: ())
        self.assertEqual([(each.name, each.address) for each in picture.groups[0].waiting], [("n", "10.1.1.1:80")])
        self.assertEqual(self.rotation(), {"a"})
        self.inventory.set_registered(ref("n"), self.registered(approved=True), self.now)
        self.assertEqual(self.rotation(), {"a", "n"})
        self.inventory.set_registered(ref("n"), None, self.now)
        self.assertEqual(self.rotation(), {"a"})

    def test_configured_host_hides_a_registered_one(self) -> None:
        """What the operator configured under the same name wins."""
        self.inventory.set_registered(ref("a"), self.registered(approved=True), self.now)
        self.web("a")
        self.assertEqual(self.entry("a").spec.address, "10.0.0.1:80")
        self.assertFalse(self.entry("a").registered)

    def test_registered_as_configured(self) -> None:
        """The same host passes from the operator to its agent and back, and stays what it was."""
        blue = group("b")
        blue.hosts["n"] = self.registered(approved=True).host
        for registered in (False, True, False):
            self.apply(Service(groups={"blue": group("b") if registered else blue}))
            self.inventory.set_registered(ref("n"), self.registered(approved=True), self.now)
            self.assertIs(self.entry("n").registered, registered)
        self.assertEqual(len([event for event in self.inventory.drain() if isinstance(event, HostRemoved)]), 0)

    def test_late_host_ramps_up(self) -> None:
        """A host that joins a running director starts at a tenth of its weight and reaches it with time."""
        self.web("a")
        self.now += 60
        self.inventory.set_registered(ref("n"), self.registered(approved=True), self.now)
        self.assertAlmostEqual(self.entry("n").host.weight, 0.1)
        while (due := self.inventory.next_recompute()) < 1e9:
            self.now = due
            self.inventory.recompute(self.now)
        self.assertEqual(self.entry("n").host.weight, 1.0)
        self.assertLessEqual(self.now, 160 + HEALTH.slow_start_s + 0.5)


class HealthTests(InventoryTestCase):
    def settle(self, until: float) -> None:
        """Let time pass deadline by deadline."""
        while (due := self.inventory.next_deadline()) <= until:
            self.now = max(self.now, due)
            self.inventory.tick(self.now)
        self.now = until

    def test_probes_take_a_host_out_and_bring_it_back_slowly(self) -> None:
        """`fall` failures take it out, `rise` successes bring it back with slow start; both are announced."""
        self.web("a", "b")
        self.now += 60
        self.inventory.drain()
        self.take_down("a")
        self.assertEqual(self.rotation(), {"b"})
        for _ in range(HEALTH.rise):
            self.inventory.probe_result(self.entry("a"), True, "ok", 0.0, self.now)
        self.assertEqual(self.rotation(), {"a", "b"})
        self.assertAlmostEqual(self.entry("a").host.weight, 0.1)
        moves = [e.transition.after for e in self.inventory.drain() if isinstance(e, HostMoved)]
        self.assertEqual(moves, [HostState.SUSPECT, HostState.DOWN, HostState.UP])

    def test_nothing_is_evicted_during_grace(self) -> None:
        """For one heartbeat timeout after the start, failed probes count but do not evict."""
        self.web("a", "b")
        self.take_down("a")
        self.assertEqual(self.rotation(), {"a", "b"})
        self.settle(self.now + HEALTH.timeout_s + 0.1)
        self.assertEqual(self.rotation(), {"b"})

    def test_failed_connects_of_clients_are_noticed(self) -> None:
        """Passive checks: `fall` failed connects in a row take the host out."""
        self.web("a", "b")
        self.now += 60
        for _ in range(HEALTH.fall):
            self.inventory.connect_failed(self.entry("a").host, "refused", self.now)
        self.assertEqual((self.rotation(), self.entry("a").connect_failures), ({"b"}, HEALTH.fall))

    def test_retry_of_who_only_clients_can_check(self) -> None:
        """An operator's retry puts a host without probe and agent back into rotation at once, on trial."""
        self.web("a", "b")
        self.apply(Service(groups={"blue": group(
            "a", "b", health=msgspec.structs.replace(HEALTH, probe=Probe(kind="none")))}))
        self.now += 60
        for _ in range(HEALTH.fall):
            self.inventory.connect_failed(self.entry("a").host, "refused", self.now)
        self.assertEqual(self.rotation(), {"b"})
        self.inventory.retry(ref("a"), self.now)
        self.assertEqual(self.rotation(), {"a", "b"})
        self.assertIn(HostState.SUSPECT, [e.transition.after for e in self.inventory.drain() if isinstance(e, HostMoved)])
        for _ in range(HEALTH.rise):
            self.inventory.connect_succeeded(self.entry("a").host, self.now, self.now)
        self.assertIs(self.entry("a").health.state, HostState.UP)

    def test_bytes_of_early_resets(self) -> None:
        """A reset after up to as many bytes as configured is one at once; after more, or by the client, it is none."""
        self.apply(Service(groups={"blue": group("a", "b", health=msgspec.structs.replace(HEALTH, early_reset_bytes=100))}))
        for sent, reason, at_once in ((0, Reason.HOST_RESET, True), (99, Reason.HOST_RESET, True), (100, Reason.HOST_RESET, True),
                                      (101, Reason.HOST_RESET, False), (0, Reason.CLIENT_CLOSED, False)):
            self.assertIs(self.inventory.client_ended(self.entry("a").host, reason, sent, 0.1, self.now), at_once, (sent, reason))

    def test_goodbye(self) -> None:
        """The silence of an agent that said goodbye means nothing; one of a host that nobody knows is no error."""
        self.web("a", "b")
        for name in ("a", "b"):
            self.inventory.agent_connected(ref(name), f"agent-{name}", "boot", self.now)
        self.inventory.agent_left(ref("a"), self.now)
        self.inventory.agent_left(ref("x"), self.now)
        self.assertEqual([self.entry(name).agent is None for name in ("a", "b")], [True, False])
        self.inventory.tick(self.now + HEALTH.suspect_after_s + 0.1)
        self.assertEqual([self.entry(name).health.state for name in ("a", "b")], [HostState.UP, HostState.SUSPECT])

    def test_resetting(self) -> None:
        """A host that resets clients at once does so until one was served: a client that leaves at once tells nothing."""
        self.web("a", "b")
        host = self.entry("a").host
        for sent, reason, resetting in ((0, Reason.HOST_RESET, {host}), (0, Reason.CLIENT_CLOSED, {host}),
                                        (10_000, Reason.CLIENT_CLOSED, set())):
            self.inventory.client_ended(host, reason, sent, 0.1, self.now)
            self.assertEqual(self.inventory.resetting, resetting, (sent, reason))

    def test_every_turn_is_told(self) -> None:
        """Of each verdict that turns, down and up."""
        self.web("a", "b")
        self.now += 60
        self.inventory.drain()
        self.take_down("a")
        for _ in range(HEALTH.rise):
            self.inventory.probe_result(self.entry("a"), True, "ok", 0.0, self.now)
        self.assertEqual([(event.before.down, event.entry.ref.host) for event in self.inventory.drain()
                          if isinstance(event, HostJudged)], [(False, "a"), (True, "a")])

    def test_nothing_is_told_of_who_is_gone(self) -> None:
        """A removed host's deadlines go with it."""
        self.web("a", "b", "c", "d")
        self.now += 60
        for name in ("a", "b"):
            self.report(name)
        self.apply(Service(groups={"blue": group("d", "b", "c")}))
        self.inventory.drain()
        self.settle(self.now + HEALTH.timeout_s + 1)
        self.assertEqual({event.entry.ref.host for event in self.inventory.drain() if isinstance(event, HostMoved)}, {"b"})
        self.assertEqual(self.inventory.next_deadline(), math.inf)

    def test_new_policy_judges_at_once(self) -> None:
        """A host that is down by a new health policy is out of rotation."""
        self.web("a", "b")
        self.now += 60
        self.inventory.probe_result(self.entry("a"), False, "refused", 0.0, self.now)
        self.assertEqual(self.rotation(), {"a", "b"})
        self.apply(Service(groups={"blue": group("a", "b", health=msgspec.structs.replace(HEALTH, fall=1))}))
        self.assertEqual(self.rotation(), {"b"})

    def test_new_leader_gives_grace(self) -> None:
        """After a change of leader nothing is evicted for one heartbeat timeout, hosts that come meanwhile included."""
        self.web("a", "b")
        self.now += 60
        self.inventory.leader_changed(self.now)
        self.web("a", "b", "c")
        self.assertTrue(self.inventory.in_grace(self.now))
        self.take_down("a")
        self.take_down("c")
        self.assertEqual(self.rotation(), {"a", "b", "c"})
        self.settle(self.now + HEALTH.timeout_s + 0.1)
        self.assertEqual(self.rotation(), {"b"})
        self.assertFalse(self.inventory.in_grace(self.now))

    def test_queue_is_served_when_a_report_raises_the_maximum(self) -> None:
        """Clients wait while the agent asks for few; its next report that allows more serves them in the same instant."""
        self.apply(Service(groups={"blue": group("a")}, limits=Limits(queue=5)))
        self.report("a", max_connections=1)
        self.assertIsInstance(self.arrive(), Ticket)
        self.assertEqual([self.arrive(name) for name in "xyz"], [None, None, None])
        self.inventory.drain()
        self.report("a", max_connections=3)
        self.assertEqual([[waiter for waiter, _ in e.clients] for e in self.inventory.drain() if isinstance(e, Served)],
                         [["x", "y"]])
        self.report("a", max_connections=0)
        self.assertEqual([[waiter for waiter, _ in e.clients] for e in self.inventory.drain() if isinstance(e, Served)],
                         [["z"]])

    def test_queue_is_served_when_a_report_raises_the_weight_from_nothing(self) -> None:
        """A weight of 0 takes nobody; the report that raises it serves those who wait, by the next recomputation."""
        self.web("a", "b", limits=Limits(queue=5))
        self.apply(Service(groups={"blue": group("a", "b", hosts={
            "a": Host(address="10.0.0.1:80"), "b": Host(address="10.0.0.2:80", max_connections=1)})}, limits=Limits(queue=5)))
        self.report("a", weight=0.0)
        self.inventory.recompute(self.now + 1)
        self.assertIsInstance(self.arrive(), Ticket)
        self.assertIsNone(self.arrive("x"))
        self.now += 2
        self.report("a", weight=1.0)
        self.inventory.drain()
        self.now = self.inventory.next_recompute()
        self.inventory.recompute(self.now)
        self.assertEqual([[waiter for waiter, _ in e.clients] for e in self.inventory.drain() if isinstance(e, Served)],
                         [["x"]])

    def test_queue_is_served_when_a_host_comes_back(self) -> None:
        """Clients that wait for a full service are served as soon as somebody can take them."""
        spec = Service(groups={"blue": group("a", "b")}, limits=Limits(queue=5))
        for host in ("a", "b"):
            spec.groups["blue"].hosts[host] = Host(address="10.0.0.9:80", max_connections=1)
        self.apply(spec)
        self.inventory.set_order(ref("b"), "operator", order(AdminState.DOWN), self.now)
        self.assertIsInstance(self.arrive(), Ticket)
        self.assertIsNone(self.arrive("waiting"))
        self.inventory.drain()
        self.inventory.set_order(ref("b"), "operator", None, self.now)
        served = [event for event in self.inventory.drain() if isinstance(event, Served)]
        self.assertEqual([waiter for waiter, _ in served[0].clients], ["waiting"])

    def test_silence_in_bulk_is_my_own_isolation(self) -> None:
        """All agents silent at once: the mode begins, nobody is evicted by silence, and it ends when they are back."""
        names = [f"h{i}" for i in range(6)]
        probe = msgspec.structs.replace(HEALTH, probe=Probe(kind="none"))
        self.apply(Service(groups={"blue": group(*names, health=probe)}))
        for _ in range(20):
            self.now += 1
            for name in names:
                self.report(name)
        self.settle(self.now + 30)
        self.assertTrue(self.inventory.isolation.isolated)
        self.assertEqual(self.rotation(), set(names))
        for name in names:
            self.report(name)
        self.assertFalse(self.inventory.isolation.isolated)
        changes = [event.isolated for event in self.inventory.drain() if isinstance(event, IsolationChanged)]
        self.assertEqual(changes, [True, False])

    def test_one_silent_agent_without_probe_is_taken_out(self) -> None:
        """With nothing else to go by, silence beyond the timeout evicts one host among many that report."""
        names = ["a", "b", "c", "d"]
        probe = msgspec.structs.replace(HEALTH, probe=Probe(kind="none"))
        self.apply(Service(groups={"blue": group(*names, health=probe)}))
        for second in range(20):
            self.settle(101.0 + second)
            for name in names:
                if name != "a" or second < 5:
                    self.report(name)
        self.assertEqual(self.rotation(), {"b", "c", "d"})


class WeightTests(InventoryTestCase):
    def test_reports_move_weights_after_a_pause(self) -> None:
        """Reports are coalesced: weights follow at `next_recompute`, not at each report."""
        self.web("fast", "slow", "usual")
        self.now += 60
        for _ in range(30):
            self.now += 1
            self.report("fast", utilisation=0.5, rate=200.0, errors=0.0, completions=200.0)
            self.report("slow", utilisation=0.5, rate=50.0, errors=0.0, completions=50.0)
            self.report("usual", utilisation=0.5, rate=100.0, errors=0.0, completions=100.0)
        self.assertEqual(self.entry("fast").host.weight, 1.0)
        self.inventory.recompute(self.now + 0.05)
        weights = [self.entry(name).host.weight for name in ("slow", "usual", "fast")]
        self.assertEqual([round(weight, 3) for weight in weights], [0.5, 1.0, 2.0])

    def test_reports_may_be_left_out_of_weights(self) -> None:
        """With `reports = false` weights are what was ordered, from the next second on; a slow start still counts."""
        for name in ("weightedleastconns", "weightedroundrobin"):
            self.setUp()
            self.test_reports_move_weights_after_a_pause()
            spec = group("fast", "slow", "usual", scheduler=name, parameters={"reports": False})
            self.web(groups={"blue": spec})
            self.now += 1.0
            self.inventory.clean_up(self.now)
            self.assertEqual({self.entry(name).host.weight for name in ("slow", "usual", "fast")}, {1.0})
            self.web(groups={"blue": msgspec.structs.replace(spec, parameters={})})
            self.inventory.clean_up(self.now)
            self.assertEqual(round(self.entry("slow").host.weight, 3), 0.5)

    def test_silence_tells_on_weights(self) -> None:
        """When all agents fall silent, nobody asks for weights; housekeeping lets them drift back all the same."""
        self.test_reports_move_weights_after_a_pause()
        for seconds in (90, 121):
            self.inventory.clean_up(self.now + seconds)
        self.assertEqual({self.entry(name).host.weight for name in ("slow", "usual", "fast")}, {1.0})

    def test_agent_lowers_weight_and_maximum(self) -> None:
        """What the agent asks multiplies the weight and lowers, never raises, the maximum."""
        spec = Service(groups={"blue": group("a")})
        spec.groups["blue"].hosts["a"] = Host(address="10.0.0.1:80", weight=2.0, max_connections=10)
        self.apply(spec)
        self.report("a", weight=0.25, max_connections=50)
        self.inventory.recompute(self.now + 1)
        self.assertEqual((self.entry("a").host.weight, self.entry("a").host.max_connections), (0.5, 10))
        self.report("a", max_connections=4)
        self.assertEqual(self.entry("a").host.max_connections, 4)

    def test_reports_of_unknown_hosts_change_nothing(self) -> None:
        """A report for a host that is not configured is ignored."""
        self.web("a")
        self.inventory.reported(HostRef("web", "blue", "ghost"), LoadReport(), self.now)
        self.inventory.reported(HostRef("no", "such", "thing"), LoadReport(), self.now)
        self.assertEqual(set(self.inventory.hosts), {ref("a")})


ACTIONS = st.sampled_from(
    ["arrive", "leave", "apply", "shrink", "drain", "up", "down", "fail", "pass", "report", "time", "switch", "split",
     "local down", "local up", "resync"]
)


class NewsTests(InventoryTestCase):
    def test_told(self) -> None:
        """The caller is told of each event, and of each deadline that moves, to earlier or to later; and of nothing else."""
        told: list[float] = []
        self.inventory = Inventory(now=self.now, random=lambda: 0.5, on_news=lambda: told.append(self.inventory.next_deadline()))

        def news() -> int:
            self.inventory.drain()
            count = len(told)
            told.clear()
            return count

        self.web("a", "b")
        self.assertGreater(news(), 0)
        self.now += 60
        self.report("a")
        self.assertEqual(told, [self.now + HEALTH.suspect_after_s])
        self.assertEqual(news(), 1)
        self.report("a")
        self.assertEqual(news(), 0)
        self.now += 1
        self.report("b")  # later than the other's
        self.assertEqual(news(), 0)
        self.now += HEALTH.suspect_after_s - 1
        self.report("a")
        self.inventory.tick(self.now)  # the earlier look found nothing
        self.assertEqual((news(), self.inventory.next_deadline()), (1, self.now + 1))


class PropertyTests(SynchronousTestCase):
    @settings(max_examples=150)
    @given(st.lists(st.tuples(ACTIONS, st.integers(0, 3)), max_size=80), st.integers(0, 2**32))
    def test_counts_and_rotation_stay_right(self, script: list[tuple[str, int]], seed: int) -> None:
        """Whatever happens: only hosts that may take connections do, and every count returns to zero."""
        now = 10.0
        inventory = Inventory(now=now, random=random.Random(seed).random)
        names = ["a", "b", "c", "d"]
        full = Service(
            groups={"blue": group(*names), "green": group("a", "b")}, limits=Limits(max_connections=6, queue=2)
        )
        inventory.apply_service("web", full, now)
        tickets: list[Ticket] = []
        admission = inventory.services["web"].admission
        for action, which in script:
            now += 0.3
            entry = inventory.hosts.get(ref(names[which]))
            match action:
                case "arrive":
                    answer = admission.arrive(bytes([10, 0, 0, which]), object(), now)
                    if isinstance(answer, Ticket):
                        chosen = inventory.entry_of(answer.host)
                        assert chosen is not None
                        assert chosen.admin is AdminState.UP and chosen.health.state is not HostState.DOWN
                        tickets.append(answer)
                case "leave" if tickets:
                    gone = tickets.pop(which % len(tickets))
                    tickets += [ticket for _, ticket in admission.leave(gone, Reason.CLIENT_CLOSED, now)]
                case "apply":
                    inventory.apply_service("web", full, now)
                case "shrink":
                    kept = group(*names[: which + 1])
                    inventory.apply_service("web", msgspec.structs.replace(full, groups={"blue": kept}), now)
                case "switch":
                    inventory.apply_service("web", msgspec.structs.replace(full, enable="green"), now)
                case "split":
                    split = {"blue": 1.0, "green": float(which)}
                    inventory.apply_service("web", msgspec.structs.replace(full, split=split), now)
                case "drain" | "down":
                    inventory.set_order(ref(names[which]), "operator", order(AdminState(action)), now)
                case "up":
                    inventory.set_order(ref(names[which]), "operator", None, now)
                case "local down" | "local up":
                    inventory.set_order(ref(names[which]), "local", order(AdminState(action.split()[1])), now)
                case "resync":
                    inventory.drop_local_orders(now)
                case "fail" | "pass" if entry is not None:
                    inventory.probe_result(entry, action == "pass", "", 0.0, now)
                case "report" if entry is not None:
                    inventory.reported(entry.ref, LoadReport(utilisation=0.5, rate=9.0, completions=9.0), now)
                case "time":
                    now += which
                    inventory.tick(now)
                    inventory.recompute(now)
            for event in inventory.drain():
                if isinstance(event, Served):
                    tickets += [ticket for _, ticket in event.clients]
            picture_services(inventory, now, 0.0, lambda name: ())
        hosts = {ticket.host for ticket in tickets}
        while tickets:
            gone = tickets.pop()
            served = [ticket for _, ticket in admission.leave(gone, Reason.CLIENT_CLOSED, now)]
            tickets += served
            hosts.update(ticket.host for ticket in served)
        self.assertEqual({host.in_flight for host in hosts} | {admission.connections}, {0})

