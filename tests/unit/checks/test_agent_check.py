"""Asking one responder."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from cluster.agent_check import MAX_LINE_BYTES
from cluster.model import AgentCheck
from director.checks.agent_check import Asker, NoAnswer
from director.resources.shortages import Shortages


class Transport(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Asking(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.asker = Asker(reactor=self.reactor, shortages=Shortages(monotonic=self.reactor.seconds))

    def ask(self, **settings: Any) -> tuple[Deferred[bytes], Any, Transport]:
        """A question, and the responder's end of it."""
        asked = self.asker.ask(Address("10.0.0.1", 9000), AgentCheck(port=9000, **settings))
        self.assertEqual(self.reactor.tcpClients[-1][:2], ("10.0.0.1", 9000))
        protocol = self.reactor.tcpClients[-1][2].buildProtocol(None)
        transport = Transport()
        protocol.makeConnection(transport)
        return asked, protocol, transport

    def assert_why(self, asked: Deferred[bytes], why: str) -> None:
        self.assertEqual(str(self.failureResultOf(asked, NoAnswer).value), why)

    def test_an_answer(self) -> None:
        """In one piece or byte by byte; the rest is of no interest; the connection is over at once."""
        for pieces in ([b"50%\r\nup\n"], [bytes([byte]) for byte in b"50%\n"]):
            asked, protocol, transport = self.ask(send="hello\n")
            self.assertEqual(transport.value(), b"hello\n")
            for piece in pieces:
                protocol.dataReceived(piece)
            self.assertEqual(self.successResultOf(asked), b"50%")
            self.assertTrue(transport.aborted)
            protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_answer(self) -> None:
        """A line without an end, nothing, too much, nobody: each is told, and none is taken for an answer."""
        asked, protocol, _ = self.ask()
        protocol.dataReceived(b"maxconn:1")
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assert_why(asked, "its line does not end")
        asked, protocol, _ = self.ask()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assert_why(asked, "it closed without an answer")
        asked, protocol, transport = self.ask()
        protocol.dataReceived(b"x" * MAX_LINE_BYTES)
        self.assert_why(asked, "its line is longer than 4096 bytes")
        self.assertTrue(transport.aborted)
        asked = self.asker.ask(Address("10.0.0.1", 9000), AgentCheck(port=9000))
        self.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(Refused()))
        self.assert_why(asked, "refused")

    def test_one_that_is_slow(self) -> None:
        """The whole question has one deadline, and leaves nothing behind."""
        asked, protocol, transport = self.ask(timeout_s=0.5)
        self.reactor.advance(0.3)
        protocol.dataReceived(b"5")
        self.reactor.advance(0.3)
        self.assert_why(asked, "timed out after 0.5 s")
        self.assertTrue(transport.aborted)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_shortage_of_our_own(self) -> None:
        """Is said to be one."""
        asked = self.asker.ask(Address("10.0.0.1", 9000), AgentCheck(port=9000))
        self.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(OSError(24, "Too many open files")))
        self.assertIn("descriptor", str(self.failureResultOf(asked, NoAnswer).value))
