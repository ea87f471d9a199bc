"""What the agent says to HAProxy."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from agent.agent_check import CLOSE_S, MAX_CONNECTIONS, MAX_DISCARDED_BYTES, RETRACT_S, Responder, Words
from agent.config import AgentCheck
from cluster.agent_check import compose
from cluster.errors import ConfigError
from cluster.model import LoadReport


def words(**settings: Any) -> Words:
    return Words(0.0, **({"weight": True, "least_percent": 5, "smooth_s": 0.0} | settings))


class Saying(SynchronousTestCase):
    def test_headroom(self) -> None:
        """What is left of the utilisation; never nothing; unknown says nothing; the application's factor counts too."""
        for report, percent in (
            (LoadReport(utilisation=0.25), 75), (LoadReport(utilisation=0.0), 100), (LoadReport(utilisation=1.0), 5),
            (LoadReport(), None), (LoadReport(utilisation=0.5, weight=0.5), 25), (LoadReport(weight=0.5), 50),
            (LoadReport(utilisation=0.5, weight=0.0), 0),
        ):
            self.assertEqual(words().say(report, 100.0).percent, percent, report)

    def test_without_headroom(self) -> None:
        """Only what the application states."""
        self.assertIsNone(words(weight=False).say(LoadReport(utilisation=0.5), 1.0).percent)
        self.assertEqual(words(weight=False).say(LoadReport(utilisation=0.5, weight=0.3), 1.0).percent, 30)

    def test_smoothed(self) -> None:
        """A jump is followed in the time constant, however often it is asked."""
        for step_s in (0.1, 1.0):
            saying = words(smooth_s=5.0)
            saying.say(LoadReport(utilisation=0.0), 0.0)
            for step in range(1, round(5 / step_s) + 1):
                answer = saying.say(LoadReport(utilisation=1.0), step * step_s)
            self.assertEqual(answer.percent, 37)

    def test_states(self) -> None:
        """``ready`` only to take back this agent's own drain; ``up`` always."""
        saying = words(weight=False)

        def said(report: LoadReport, now: float) -> bytes:
            return compose(saying.say(report, now))

        self.assertEqual(said(LoadReport(), RETRACT_S - 1), b"ready up\n")
        self.assertEqual(said(LoadReport(), RETRACT_S), b"up\n")
        self.assertEqual(said(LoadReport(state="drain"), 500), b"drain up\n")
        self.assertEqual(said(LoadReport(), 500 + RETRACT_S - 1), b"ready up\n")
        self.assertEqual(said(LoadReport(), 500 + RETRACT_S), b"up\n")
        self.assertEqual(said(LoadReport(state="down", max_connections=7), 600), b"maxconn:7 down\n")
        self.assertEqual(said(LoadReport(), 600), b"up\n")

    def test_maximum(self) -> None:
        """None and 0 are no maximum: HAProxy keeps its own."""
        self.assertEqual([words().say(LoadReport(max_connections=most), 0.0).max_connections for most in (None, 0, 9)],
                         [None, None, 9])


class Transport(StringTransport):
    ended = aborted = False

    def loseWriteConnection(self) -> None:
        self.ended = True

    def abortConnection(self) -> None:
        self.aborted = True


class Answering(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.responder = Responder(AgentCheck(listen="127.0.0.1:0"), lambda: LoadReport(utilisation=0.5),
                                   reactor=self.clock, monotonic=self.clock.seconds)
        self.addCleanup(self.responder.stopService)

    def ask(self) -> tuple[Any, Transport]:
        protocol = self.responder._factory.buildProtocol(None)
        transport = Transport()
        if protocol is not None:
            protocol.makeConnection(transport)
        return protocol, transport

    def test_one_who_asks(self) -> None:
        """Is answered at once, may say something, and closes; then nothing is left of it."""
        protocol, transport = self.ask()
        self.assertEqual((transport.value(), transport.ended), (b"50% ready up\n", True))
        protocol.dataReceived(b"hello\n")
        protocol.connectionLost()
        self.clock.advance(CLOSE_S + 1)
        self.assertFalse(transport.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_who_stays_or_talks(self) -> None:
        """Is cut off."""
        for stay in (True, False):
            protocol, transport = self.ask()
            if stay:
                self.clock.advance(CLOSE_S)
            else:
                protocol.dataReceived(bytes(MAX_DISCARDED_BYTES + 1))
            self.assertTrue(transport.aborted)
            protocol.connectionLost()

    def test_many(self) -> None:
        """More than are reasonable are refused, until some have gone."""
        asking = [self.ask()[0] for _ in range(MAX_CONNECTIONS)]
        self.assertIsNone(self.ask()[0])
        asking[0].connectionLost()
        self.assertIsNotNone(self.ask()[0])

    def test_a_port_in_use(self) -> None:
        """Is a mistake of the configuration."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            config = AgentCheck(listen=f"127.0.0.1:{other.getsockname()[1]}")
            with self.assertRaises(ConfigError) as raised:
                Responder(config, LoadReport, reactor=self.clock, monotonic=self.clock.seconds)
        self.assertIn("in use", str(raised.exception))
