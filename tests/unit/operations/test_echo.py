"""`director.operations.echo`, and the order that waits for it, with a node and a store in virtual time."""

from __future__ import annotations

from typing import Literal

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.memory import MemoryStore
from cluster.model import AdminState, HostRef, LoadReport
from cluster.store import Put
from director.engine.errors import NotFound
from director.operations.echo import ECHO_S
from tests.unit.engine.test_swapping import KEYS, Director, service

APP = HostRef("web", "blue", "h0")


class EchoTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.store = MemoryStore(clock=self.clock, wall=self.clock.seconds)
        self.successResultOf(self.store.start())
        self.store.commit([Put(KEYS.service("web"), service("10.0.0.1:80"))])
        self.director = Director(self.store, self.clock)
        self.director.node.wall = self.clock.seconds
        self.addCleanup(self.director.stop)
        self.pass_s(0.1)
        entry = self.director.node.inventory.hosts[APP]
        self.entry = entry
        self.director.attendance.agent_connected(APP, "agent1", "boot1", "127.0.0.1:9")

    def pass_s(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds * 100))

    def reports(self, state: Literal["ready", "drain"]) -> None:
        self.director.attendance.reported(APP, LoadReport(state=state))

    def order(self, state: AdminState) -> Deferred[None]:
        ordered = self.director.operations.order(APP, state, who="ada", why="")
        self.pass_s(0.1)
        return ordered


class OrderTests(EchoTestCase):
    def test_up_waits_for_the_echo(self) -> None:
        """`up` is answered once the agent, which said the drain back, has said that it is over."""
        self.successResultOf(self.order(AdminState.DRAIN))
        self.reports("drain")
        up = self.order(AdminState.UP)
        self.assertNoResult(up)
        self.reports("ready")
        self.pass_s(0.1)
        self.successResultOf(up)
        self.assertEqual(self.entry.orders, {})

    def test_not_for_ever(self) -> None:
        """An agent that goes on draining keeps the answer for a second."""
        self.successResultOf(self.order(AdminState.DRAIN))
        self.reports("drain")
        up = self.order(AdminState.UP)
        self.pass_s(ECHO_S)
        self.successResultOf(up)
        self.assertEqual(list(self.entry.orders), ["agent"])

    def test_not_for_agents_of_their_own_mind(self) -> None:
        """An agent that ordered before the operator did, or that leaves, is not waited for."""
        self.reports("drain")
        self.pass_s(0.1)
        self.successResultOf(self.order(AdminState.DRAIN))
        self.successResultOf(self.order(AdminState.UP))
        self.reports("ready")
        self.successResultOf(self.order(AdminState.DRAIN))
        self.director.attendance.agent_leaving(APP, 10.0)
        self.successResultOf(self.order(AdminState.UP))


class NobodyTests(EchoTestCase):
    def test_approve(self) -> None:
        """There is nothing to approve of a host that is unknown, nor of one that is configured."""
        for ref in (APP, HostRef("web", "blue", "nobody"), HostRef("nothing", "blue", "h0")):
            approved = self.director.operations.approve(ref, who="ada")
            self.pass_s(0.1)
            self.failureResultOf(approved, NotFound)

    def test_history(self) -> None:
        """The past of a host that never was is no empty one."""
        asked = self.director.operations.history(HostRef("web", "blue", "nobody"), 10)
        self.pass_s(0.1)
        self.failureResultOf(asked, NotFound)
        asked = self.director.operations.history(APP, 10)
        self.pass_s(0.1)
        self.successResultOf(asked)
