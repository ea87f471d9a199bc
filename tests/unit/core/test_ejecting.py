"""Outliers out of rotation and back, whatever else happens to their group."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from cluster.model import AdminState, HostState, Outliers, Reason, Service
from director.core.events import HostEjected, HostReturned
from director.core.inventory import Inventory
from director.core.pictures import picture_services
from director.core.pool import Ticket
from tests.unit.core.inventory_kit import HEALTH, InventoryTestCase, group, order, ref

POLICY = Outliers()


class EjectingTestCase(InventoryTestCase):
    def group(self, *names: str, **changes: object) -> None:
        health = replace(HEALTH, slow_start_s=0.0, outliers=replace(POLICY, **changes))
        self.apply(Service(groups={"blue": group(*names, health=health, scheduler="roundrobin")}))
        for name in names:
            self.inventory.probe_result(self.entry(name), True, "connected", 0.0, self.now)

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.now += 1.0
            self.inventory.clean_up(self.now)

    def client(self, *closing: str, reason: Reason = Reason.HOST_CLOSED) -> None:
        """One comes; the hosts that are *closing* take it and close at once, or it ends there so."""
        ticket = self.arrive()
        assert isinstance(ticket, Ticket)
        self.inventory.connect_succeeded(ticket.host, ticket.picked_at, self.now)
        ticket.release(Reason.HOST_CLOSED, self.now)
        if ticket.host.name in closing:
            self.inventory.client_ended(ticket.host, reason, 0, self.now - ticket.picked_at, self.now)

    def clients(self, number: int, *closing: str) -> None:
        for _ in range(number):
            self.client(*closing)

    def find_out(self, name: str = "b") -> None:
        self.wait(HEALTH.timeout_s)
        self.clients(60)
        self.clients(60, name)
        self.assertTrue(self.entry(name).conduct.ejected)


class EjectingTests(EjectingTestCase):
    def test_its_own_open_connections(self) -> None:
        """Those that it has open say nothing of the others, whose clients have all ended."""
        self.group("a", "b", "c")
        self.wait(HEALTH.timeout_s)
        for _ in range(60):
            ticket = self.arrive()
            assert isinstance(ticket, Ticket)
            if ticket.host.name != "b":
                ticket.release(Reason.HOST_CLOSED, self.now)
        self.clients(18, "b")
        self.assertTrue(self.entry("b").conduct.ejected)

    def test_out_and_back(self) -> None:
        """The host takes no clients for a while, says why, and joins again as one that is new."""
        self.group("a", "b", "c")
        self.inventory.drain()
        self.find_out()
        self.assertEqual(self.rotation(), {"a", "c"})
        (ejected,) = [event for event in self.inventory.drain() if isinstance(event, HostEjected)]
        self.assertEqual((ejected.entry.ref.host, ejected.for_s), ("b", 30.0))
        picture = {host.name: host for host in picture_services(self.inventory, self.now, 0.0, lambda _: ())[0].groups[0].hosts}
        self.assertEqual(
            [(host.ejected_s, host.ejections, host.state) for host in picture.values()],
            [(None, 0, HostState.UP), (30.0, 1, HostState.UP), (None, 0, HostState.UP)])
        self.assertRegex(picture["b"].why_not, r"^ejected for another 30 s: \d+ of its last \d+ clients failed")
        self.assertIn("ejected for 30 s", picture["b"].history[-1].why)
        self.wait(29)
        self.assertEqual(self.rotation(), {"a", "c"})
        self.wait(1)
        self.assertEqual(self.rotation(), {"a", "b", "c"})
        self.assertEqual(self.entry("b").up_since, self.now)
        self.assertEqual([event.entry.ref.host for event in self.inventory.drain() if isinstance(event, HostReturned)], ["b"])

    def test_reasons(self) -> None:
        """Only ends that the host made are failures of its."""
        for reason in set(Reason) - {Reason.HOST_RESET}:  # by which it is down before
            self.setUp()
            self.group("a", "b", "c")
            self.wait(HEALTH.timeout_s)
            self.clients(60)
            for _ in range(60):
                self.client("b", reason=reason)
            self.assertIs(self.entry("b").conduct.ejected, reason is Reason.HOST_CLOSED, reason)

    def test_open_elsewhere(self) -> None:
        """Clients that other hosts have still may fail yet: nobody is measured by them."""
        for held in (True, False):
            self.setUp()
            self.group("a", "b", "c")
            self.wait(HEALTH.timeout_s)
            for _ in range(60):
                ticket = self.arrive()
                assert isinstance(ticket, Ticket)
                if ticket.host.name == "b" or not held:
                    ticket.release(Reason.HOST_CLOSED, self.now)
                if ticket.host.name == "b":
                    self.inventory.client_ended(ticket.host, Reason.HOST_CLOSED, 0, 0.0, self.now)
            self.assertIs(self.entry("b").conduct.ejected, not held)

    def test_sinkhole(self) -> None:
        """Of ten minutes' clients, a host that closes all of its gets 20 at most; one that is mended gets its share again."""
        self.group("a", "b", "c", "d")
        self.wait(HEALTH.timeout_s)
        self.clients(200)
        before = self.entry("b").host.picks
        for _ in range(600):
            self.clients(50, "b")
            self.wait(1)
        self.assertLessEqual(self.entry("b").host.picks - before, 20)  # 0.07 % of 30,000
        self.wait(300)
        self.clients(40)
        before = self.entry("b").host.picks
        self.clients(40)
        self.assertEqual(self.entry("b").host.picks - before, 10)

    def test_grace(self) -> None:
        """Nothing is taken out so soon after a start; what was counted meanwhile counts."""
        self.group("a", "b", "c")
        self.clients(60)
        self.clients(60, "b")
        self.assertFalse(self.entry("b").conduct.ejected)
        self.wait(HEALTH.timeout_s)
        self.clients(3, "b")
        self.assertTrue(self.entry("b").conduct.ejected)

    def test_last(self) -> None:
        """Who is ejected comes back when there is nobody else, however they went."""
        for what in ("down", "ordered", "removed", "weight"):
            self.setUp()
            self.group("a", "b")
            self.find_out()
            match what:
                case "down":
                    self.take_down("a")
                case "ordered":
                    self.inventory.set_order(ref("a"), "operator", order(AdminState.DRAIN), self.now)
                case "removed":
                    spec = self.inventory.services["web"].spec
                    blue = spec.groups["blue"]
                    self.apply(replace(spec, groups={"blue": replace(blue, hosts={"b": blue.hosts["b"]})}))
                case "weight":
                    self.report("a", weight=0.0)
                    self.wait(1)
                    self.inventory.recompute(self.now)
                    self.wait(1)
            self.assertEqual(self.rotation(), {"b"}, what)

    def test_down_is_enough(self) -> None:
        """A host that health has taken out is not ejected too."""
        self.group("a", "b", "c", consecutive=3)
        self.wait(HEALTH.timeout_s)
        self.clients(60)
        for _ in range(HEALTH.fall):
            self.inventory.connect_failed(self.entry("b").host, "refused", self.now)
        self.assertIs(self.entry("b").health.state, HostState.DOWN)
        self.assertFalse(self.entry("b").conduct.ejected)

    def test_retry(self) -> None:
        """An operator's retry brings it back at once."""
        self.group("a", "b", "c")
        self.find_out()
        self.inventory.retry(ref("b"), self.now)
        self.assertEqual(self.rotation(), {"a", "b", "c"})

    def test_live_settings(self) -> None:
        """Switched off, the group has its hosts back; switched on, the next failures count."""
        self.group("a", "b", "c")
        self.find_out()
        self.group("a", "b", "c", enabled=False)
        self.wait(1)
        self.assertEqual(self.rotation(), {"a", "b", "c"})
        self.clients(60, "b")
        self.assertFalse(self.entry("b").conduct.ejected)
        self.group("a", "b", "c")
        self.wait(11)
        self.clients(60, "b")
        self.assertTrue(self.entry("b").conduct.ejected)

    def test_slow(self) -> None:
        """Durations of connects are what clients' connects took."""
        self.group("a", "b", "c")
        self.wait(HEALTH.timeout_s)
        for _ in range(300):
            ticket = self.arrive()
            assert isinstance(ticket, Ticket)
            took_s = 1.0 if ticket.host.name == "c" else 0.01
            self.inventory.connect_succeeded(ticket.host, self.now - took_s, self.now)
            ticket.release(Reason.CLIENT_CLOSED, self.now)
        self.wait(11)
        self.assertEqual(self.rotation(), {"a", "b"})
        self.assertIn("connects took 1000 ms", self.entry("c").conduct.why)


NAMES = "abcdefghij"


class EjectingMachine(RuleBasedStateMachine):
    """Whatever happens: never more than the cap, never the last, nobody without a failure of its own, and all return."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.inventory = Inventory(now=self.now, random=random.Random(7).random)
        self.guilty: set[str] = set()
        self.hosts = list(NAMES)
        self.policy = replace(POLICY, samples=1, window_s=1.0, consecutive=2, failure_share=0.1)
        self.apply()

    def apply(self) -> None:
        health = replace(HEALTH, outliers=self.policy)
        self.inventory.apply_service("web", Service(groups={"blue": group(*self.hosts, health=health)}), self.now)

    @rule(share=st.sampled_from([0.0, 0.1, 0.3, 1.0]), enabled=st.booleans())
    def configure(self, share: float, enabled: bool) -> None:
        self.policy = replace(self.policy, max_ejected=share, enabled=enabled)
        self.apply()

    @rule(hosts=st.sets(st.sampled_from(NAMES), min_size=1))
    def have(self, hosts: set[str]) -> None:
        self.hosts = sorted(hosts)
        self.guilty &= hosts
        self.apply()

    @rule(clients=st.integers(1, 60), bad=st.sets(st.sampled_from(NAMES)), how=st.sampled_from(list(Reason)),
          connects=st.booleans())
    def come(self, clients: int, bad: set[str], how: Reason, connects: bool) -> None:
        """Those on *bad* hosts end so, or are not connected; the others end well."""
        admission = self.inventory.services["web"].admission
        for _ in range(clients):
            ticket = admission.arrive(b"\x0a\0\0\1", object(), self.now)
            if not isinstance(ticket, Ticket):
                return
            host = ticket.host
            if host.name in bad and not connects:
                self.guilty.add(host.name)
                admission.leave(ticket, Reason.CONNECT_FAILED, self.now)
                self.inventory.connect_failed(host, "refused", self.now)
                continue
            self.inventory.connect_succeeded(host, self.now, self.now)
            reason = how if host.name in bad else Reason.CLIENT_CLOSED
            if reason in (Reason.HOST_CLOSED, Reason.HOST_RESET):
                self.guilty.add(host.name)
            self.inventory.client_ended(host, reason, 0, 0.0, self.now)
            admission.leave(ticket, reason, self.now)

    @rule(name=st.sampled_from(NAMES), ok=st.booleans(), times=st.integers(1, 3))
    def probe(self, name: str, ok: bool, times: int) -> None:
        entry = self.inventory.hosts.get(ref(name))
        for _ in range(times if entry is not None else 0):
            assert entry is not None
            self.inventory.probe_result(entry, ok, "", 0.0, self.now)

    @rule(name=st.sampled_from(NAMES), state=st.sampled_from([None, AdminState.DRAIN]))
    def order(self, name: str, state: AdminState | None) -> None:
        self.inventory.set_order(ref(name), "operator", None if state is None else order(state), self.now)

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.inventory.tick(self.now)
            self.inventory.clean_up(self.now)

    def ejected(self) -> list[str]:
        return [name.host for name, entry in self.inventory.hosts.items() if entry.conduct.ejected]

    @invariant()
    def never_too_many(self) -> None:
        """As of the last look; a smaller group has its hosts back within a second."""
        self.inventory.clean_up(self.now)
        assert len(self.ejected()) <= max(1, int(self.policy.max_ejected * len(self.hosts) + 1e-9)), self.ejected()
        assert self.policy.enabled or not self.ejected()

    @invariant()
    def never_the_last(self) -> None:
        assert not self.ejected() or self.inventory.services["web"].groups["blue"].pool.available, self.ejected()

    @invariant()
    def never_without_a_failure(self) -> None:
        assert self.guilty.issuperset(self.ejected()), (self.guilty, self.ejected())

    @precondition(lambda self: self.ejected())
    @rule()
    def all_return(self) -> None:
        self.wait(round(self.policy.max_ejection_s))
        assert not self.ejected()


TestEjectingMachine = EjectingMachine.TestCase
TestEjectingMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
