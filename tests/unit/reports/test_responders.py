"""Polling responders: a whole director in virtual time, whose responders say what a test tells them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from cluster.model import AdminState, AgentCheck, HostRef, LoadReport, Order, Service
from director.checks.agent_check import NoAnswer
from director.config.files import checked
from director.core.entries import HostEntry
from director.reports.responders import WHO, Responders
from tests.unit.engine.virtual_director import VirtualDirector

A, B = HostRef("web", "main", "a"), HostRef("web", "main", "b")
CHECK = {"port": 9000, "interval_s": 1.0}


class Script:
    """Says *lines*, by address; no answer where there is none."""

    def __init__(self) -> None:
        self.lines: dict[str, bytes | str] = {}
        self.asked: list[str] = []
        self.hold: list[Deferred[bytes]] | None = None  #: where answers wait

    def ask(self, address: Address, spec: AgentCheck, sources: tuple[str, ...] = ()) -> Deferred[bytes]:
        self.asked.append(str(address))
        if self.hold is not None:
            self.hold.append(Deferred())
            return self.hold[-1]
        line = self.lines.get(address.host, "refused")
        return succeed(line) if isinstance(line, bytes) else fail(NoAnswer(line))


class Polling(SynchronousTestCase):
    def setUp(self) -> None:
        self.director = VirtualDirector()
        self.responders = Responders(self.director.node, reactor=self.director.clock, random=lambda: 0.5)
        self.script = Script()
        self.responders._asker = self.script  # type: ignore[assignment]
        self.apply(agent_check=CHECK)
        self.responders.startService()
        self.addCleanup(lambda: self.responders.stopService() if self.responders.running else None)
        self.pass_time(5.0)  # the start's grace

    def apply(self, hosts: dict[str, Any] | None = None, **health: Any) -> None:
        hosts = hosts or {"a": {"address": "10.0.0.1:80", "max_connections": 50}, "b": {"address": "10.0.0.2:80"}}
        spec: Service = checked({"services": {"web": {"listen": ["127.0.0.1:0"], "groups": {"main": {
            "hosts": hosts, "health": {"slow_start_s": 0.0, **health}}}}}}).services["web"]
        self.director.node.inventory.apply_service("web", spec, self.director.now)
        self.director.node.settle()
        for entry in self.director.node.inventory.hosts.values():
            if entry.target is None:
                self.director.node._targets.add(entry)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.director.clock.advance(0.1)

    def entry(self, ref: HostRef = A) -> HostEntry:
        return self.director.node.inventory.hosts[ref]

    def say(self, line: bytes | str, seconds: float = 2.5) -> HostEntry:
        self.script.lines["10.0.0.1"] = line
        self.pass_time(seconds)
        return self.entry()

    def test_weight_and_maximum(self) -> None:
        """The factor and the lower maximum hold until something else is said; another host is not touched."""
        host = self.say(b"50% maxconn:7").host
        self.assertEqual((host.weight, host.max_connections), (0.5, 7))
        self.say(b"300% maxconn:900")
        self.assertEqual((host.weight, host.max_connections), (1.0, 50))
        self.say(b"0%")
        self.assertEqual((host.weight, host.eligible), (0.0, False))
        self.assertEqual((self.entry(B).host.weight, self.entry(B).orders), (1.0, {}))
        self.assertEqual(set(self.script.asked), {"10.0.0.1:9000", "10.0.0.2:9000"})

    def test_states(self) -> None:
        """Each word orders as an agent would, and takes back only what the responder ordered."""
        for line, state in ((b"drain", AdminState.DRAIN), (b"ready", AdminState.UP), (b"maint", AdminState.DOWN),
                            (b"up", AdminState.DOWN), (b"ready", AdminState.UP), (b"fail #disk", AdminState.DOWN),
                            (b"ready", AdminState.DOWN), (b"stopped", AdminState.DOWN), (b"up", AdminState.UP)):
            self.assertIs(self.say(line).admin, state, line)
            self.assertEqual(self.entry().host.eligible, state is AdminState.UP)
        self.say(b"fail #disk")
        order = self.entry().orders["agent"]
        self.assertEqual((order.who, order.why), (WHO, "its responder says fail: disk"))
        self.say(b"fail #net")
        self.assertEqual(self.entry().orders["agent"].why, "its responder says fail: net")

    def test_up_overrides_nobody(self) -> None:
        """Neither a failed check nor an operator's order."""
        self.director.world.unreachable.add("10.0.0.1:80")
        self.say(b"up ready 100%", 20)
        self.assertFalse(self.entry().host.eligible)
        self.assertTrue(self.entry().verdict.down)
        self.director.world.heal("10.0.0.1:80")
        self.pass_time(90)
        self.assertTrue(self.entry().host.eligible)
        self.director.node.set_order(A, "operator", Order(state=AdminState.DRAIN, who="op", at=0.0))
        self.assertIs(self.say(b"up ready").admin, AdminState.DRAIN)

    def test_silence_changes_nothing_and_is_shown(self) -> None:
        """A responder that cannot be reached leaves everything as it was; so does garbage, which is told."""
        self.say(b"40% drain")
        for line, problem, answers in (("refused", "refused", False), (b"HTTP/1.1 400 x", "unknown: HTTP/1.1 400 x", True)):
            entry = self.say(line, 30)
            self.assertEqual((entry.host.weight, entry.admin), (0.4, AdminState.DRAIN))
            assert entry.responder is not None
            self.assertEqual((entry.responder.problem, entry.responder.answers), (problem, answers))
            self.assertFalse(entry.verdict.down)
        self.say(b"\x1b[2J\xff")
        assert entry.responder is not None
        self.assertIn("\\xff", entry.responder.said)

    def test_an_agent_of_its_own_speaks_for_the_host(self) -> None:
        """While it reports, here or to another director, the responder is not asked, and contradicts nothing."""
        self.say(b"40% drain")
        attendance = self.director.attendance
        attendance.agent_connected(A, "agent", "boot", "10.0.0.1")
        self.script.asked.clear()
        for _ in range(50):
            attendance.reported(A, LoadReport(weight=0.9))
            self.pass_time(0.1)
        self.assertEqual((self.entry().host.weight, self.entry().admin), (0.9, AdminState.UP))
        self.assertNotIn("10.0.0.1:9000", self.script.asked)
        attendance.agent_lost(A, "reset")
        for _ in range(20):
            attendance.relayed(A, LoadReport(weight=0.8), 0.1)
            self.pass_time(0.5)
        self.assertEqual((self.entry().host.weight, self.entry().admin), (0.8, AdminState.UP))
        self.pass_time(10)
        self.assertEqual((self.entry().host.weight, self.entry().admin), (0.4, AdminState.DRAIN))

    def test_another_agents_order_stays(self) -> None:
        """An agent that said goodbye has drained its host: that the responder says nothing of it does not end that."""
        attendance = self.director.attendance
        attendance.agent_connected(A, "agent", "boot", "10.0.0.1")
        attendance.agent_leaving(A, 30.0)
        attendance.agent_lost(A, "left")
        self.assertIs(self.say(b"75%", 20).admin, AdminState.DRAIN)

    def test_settings_that_end(self) -> None:
        """What was said ends when it is asked no more, and when the host is another."""
        self.say(b"40% drain maxconn:7")
        self.apply()
        self.pass_time(2)
        entry = self.entry()
        self.assertEqual((entry.host.weight, entry.admin, entry.host.max_connections), (1.0, AdminState.UP, 50))
        self.assertIsNone(entry.responder)
        self.apply(agent_check=CHECK)
        self.assertIs(self.say(b"down").admin, AdminState.DOWN)
        self.apply({"a": {"address": "10.0.0.7:80"}}, agent_check=CHECK)
        self.pass_time(3)
        self.assertIs(self.entry().admin, AdminState.UP)
        self.director.node.inventory.apply_service("web", None, self.director.now)
        self.script.asked.clear()
        self.pass_time(5)
        self.assertEqual(self.script.asked, [])

    def test_one_question_at_a_time(self) -> None:
        """A slow responder is asked again when it is done; one that a stop finds under way is let go."""
        self.pass_time(2)
        self.script.hold = []
        self.script.asked.clear()
        self.pass_time(10)
        self.assertEqual(sorted(self.script.asked), ["10.0.0.1:9000", "10.0.0.2:9000"])
        self.responders.stopService()
        self.assertTrue(all(each.called for each in self.script.hold))
        self.pass_time(10)
        self.assertEqual(len(self.script.asked), 2)
