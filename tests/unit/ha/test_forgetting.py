"""Registrations without an agent end, and no others."""

from __future__ import annotations

import msgspec

from cluster.model import Group, Host, HostRef, Registered, Registration, Service
from director.core.merge import Verdict
from director.ha.forgetting import LOOK_S, Forgetting
from tests.unit.engine import test_swapping as kit
from tests.unit.engine.test_sync import HEALTH, KEYS

REF = kit.REGISTERED
FORGET_S = 600.0


class ForgettingTests(kit.SwappingTestCase):
    leads = True

    def setUp(self) -> None:
        super().setUp()
        self.claimed: set[HostRef] = set()
        self.node = self.directors[0].node
        self.forgetting = Forgetting(
            self.node, self.directors[0].swapping, KEYS, leads=lambda: self.leads, claimed=lambda: self.claimed,
            reactor=self.clock,
        )
        self.forgetting.startService()
        self.addCleanup(lambda: self.forgetting.stopService())
        self.register()

    def register(self, *, approved: bool = True, forget_s: float = FORGET_S, boot: str = "b") -> None:
        policy = Registration(mode="auto", forget_s=forget_s)
        group = Group(hosts={"a": Host(address="10.0.0.1:80")}, health=HEALTH, registration=policy)
        registered = Registered(host=Host(address="10.0.1.1:80"), agent="a", boot_id=boot, at=1.0, approved=approved)
        self.put(KEYS.service("web"), msgspec.json.encode(Service(groups={"blue": group})))
        self.put(KEYS.registered(REF), msgspec.json.encode(registered))
        self.pass_time()

    def wait(self, seconds: float) -> None:
        """With the host out of use all the while."""
        for _ in range(round(seconds / LOOK_S)):
            entry = self.node.inventory.hosts.get(REF)
            if entry is not None:
                entry.verdict = Verdict(down=self.down)
            self.clock.advance(LOOK_S)
            self.pass_time()

    down = True

    def there(self) -> bool:
        return self.stored(KEYS.registered(REF)) is not None

    def test_without_an_agent_it_ends(self) -> None:
        """After the group's time; one that waits for an approval, too."""
        for approved in (True, False):
            self.register(approved=approved)
            self.wait(FORGET_S - LOOK_S)
            self.assertTrue(self.there())
            self.wait(3 * LOOK_S)
            self.assertFalse(self.there())

    def test_with_an_agent_it_stays(self) -> None:
        """And one that comes back begins anew."""
        self.claimed = {REF}
        self.wait(2 * FORGET_S)
        self.claimed = set()
        self.wait(FORGET_S - LOOK_S)
        self.claimed = {REF}
        self.wait(LOOK_S)
        self.claimed = set()
        self.wait(FORGET_S - LOOK_S)
        self.assertTrue(self.there())

    def test_a_host_that_serves_stays(self) -> None:
        """Agents may fail together; their hosts need not."""
        self.down = False
        self.wait(2 * FORGET_S)
        self.assertTrue(self.there())

    def test_who_does_not_lead_removes_nothing(self) -> None:
        """And counts from when it does; nor does one that is told never to."""
        self.leads = False
        self.wait(2 * FORGET_S)
        self.leads = True
        self.wait(FORGET_S - LOOK_S)
        self.assertTrue(self.there())
        self.register(forget_s=0.0)
        self.wait(2 * FORGET_S)
        self.assertTrue(self.there())

    def test_one_that_came_back_meanwhile_stays(self) -> None:
        """The record in the store is compared: another director has heard the agent."""
        before = self.node.inventory.registrations()[REF]
        self.put(KEYS.registered(REF), msgspec.json.encode(msgspec.structs.replace(before, boot_id="b2")))
        self.forgetting._forget(REF, before)
        self.pass_time()
        self.assertTrue(self.there())
