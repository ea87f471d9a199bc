"""The listener for agents: connections, time-outs and refusals, without sockets."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster import wire
from cluster.errors import ConfigError, Misuse
from cluster.model import TLS, AgentListeners, HostRef, Identity
from director.ports.twisted_ports import Ports
from director.reports.agents import (
    HANDSHAKE_TIMEOUT_S,
    SILENCE_TIMEOUT_S,
    AgentListener,
)
from director.reports.listening import ACCEPT_BURST
from director.reports.turns import BURST
from tests.unit.reports.agent_sink import RecordingSink

APP1 = "web/blue/app1"
REF = HostRef.parse(APP1)
TOKEN = Identity(hosts=("web/*/*",), token_sha256=hashlib.sha256(b"secret").hexdigest())


class Transport(StringTransport):
    """A string transport that can be cut, and tells how it ended."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer


class Peer:
    """The agent's end of a connection, by hand."""

    def __init__(self, listener: AgentListener, host: str = "127.0.0.1") -> None:
        self.wire = wire.Conversation(wire.Role.AGENT)
        protocol = listener.admit()
        assert protocol is not None
        self.protocol = protocol
        self.transport = Transport(peerAddress=IPv4Address("TCP", host, 40000))
        self.protocol.makeConnection(self.transport)

    def send(self, message: wire.Message) -> None:
        self.protocol.dataReceived(self.wire.send(message))

    def heard(self) -> list[wire.Message]:
        self.wire.receive_data(self.transport.value())
        self.transport.clear()
        return list(iter(self.wire.next_message, None))

    def lose(self, reason: Exception) -> None:
        self.protocol.connectionLost(Failure(reason))


def hello(boot: str = "b1", token: str | None = None, agent: str = "app1", host: str = APP1) -> wire.Hello:
    return wire.Hello(version=1, agent=agent, boot_id=boot, token=token, hosts=[wire.HostClaim(host=host)])


class ListenerCase(SynchronousTestCase):
    config = AgentListeners(listen=("127.0.0.1:7946",), advertise=("10.0.0.1:7946",), interval_s=2.0)

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.sink = RecordingSink(APP1)
        self.listener = AgentListener(self.config, self.sink, reactor=self.reactor, name="d1",
                                      monotonic=self.reactor.seconds, wall=lambda: 1e9)

    def joined(self, **kind: Any) -> Peer:
        peer = Peer(self.listener)
        peer.send(hello(**kind))
        peer.heard()
        self.sink.take()
        return peer


class Handshake(ListenerCase):
    def test_welcome(self) -> None:
        """The answer to a hello has our name, the directors and the interval, and says which hosts do not count."""
        peer = Peer(self.listener)
        peer.send(hello(host="web/blue/none"))
        self.assertEqual(peer.heard(), [wire.Welcome(
            version=1, director="d1", directors=["10.0.0.1:7946"], interval_s=2.0,
            refused={"web/blue/none": "no such host is configured, or it is not approved yet"},
        )])

    def test_no_hello_in_time(self) -> None:
        """Who says nothing is cut, and counted."""
        peer = Peer(self.listener)
        self.reactor.advance(HANDSHAKE_TIMEOUT_S)
        self.assertTrue(peer.transport.aborted)
        self.assertEqual(self.sink.rejects, ["handshake_timeout"])

    def test_reports_sent_with_the_hello_count(self) -> None:
        """One segment may hold both."""
        peer = Peer(self.listener)
        peer.protocol.dataReceived(wire.encode(hello()) + wire.encode(wire.Report(seq=1)))
        self.assertEqual([event[0] for event in self.sink.take()], ["connected", "reported"])


class Flooded(ListenerCase):
    config = AgentListeners(listen=("127.0.0.1:7946",), handshakes_per_s=10.0, identities={"web": TOKEN})

    def flood(self, count: int, host: str = "10.0.0.9") -> list[Peer]:
        return [Peer(self.listener, host) for _ in range(count)]

    def said(self, peer: Peer, after_s: float) -> list[str]:
        """What a peer hears that says hello now."""
        self.reactor.advance(after_s)
        if peer.transport.producerState == "producing":  # else its bytes wait in the kernel
            peer.send(hello(token="secret"))
        return [type(message).__name__ for message in peer.heard()]

    def test_an_honest_agent_does_not_wait_for_a_flood(self) -> None:
        """Of another address it is next, or next but one; of one from which an agent spoke before, at once, flood or not."""
        self.flood(int(BURST) + 15)
        honest = Peer(self.listener, "10.0.0.1")
        self.assertEqual(self.said(honest, 0.0), [])
        self.assertEqual(self.said(honest, 0.25), ["Welcome"])
        again = Peer(self.listener, "10.0.0.1")
        self.assertEqual(self.said(again, 0.0), ["Welcome"])

    def test_a_flood_is_bounded(self) -> None:
        """What finds no place is cut and counted; what waits takes its turns, and is not cut off for its waiting."""
        peers = self.flood(int(BURST) + 500)
        cut = [peer for peer in peers if peer.transport.aborted]
        self.assertEqual((len(cut), set(self.sink.rejects)), (480, {"no_turn"}))
        self.assertEqual(len(self.listener._turns), 20)
        for peer in cut:
            peer.lose(ConnectionLost())
        last = next(peer for peer in reversed(peers) if not peer.transport.aborted)
        self.reactor.pump([0.1] * 25)
        self.assertEqual(self.said(last, 0.0), ["Welcome"])

    def test_who_leaves_while_waiting_is_forgotten(self) -> None:
        """A stop does not wait for turns."""
        peers = self.flood(int(BURST) + 3)
        peers[-1].lose(ConnectionLost())
        self.assertEqual(len(self.listener._turns), 2)
        stopped = self.listener.stopService()
        for peer in peers[:-1]:
            peer.lose(ConnectionDone())
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class Identified(ListenerCase):
    config = AgentListeners(listen=("127.0.0.1:7946",), identities={"web": TOKEN})

    def test_unauthenticated(self) -> None:
        """A wrong token is told so and closed; nothing is known of it."""
        peer = Peer(self.listener)
        peer.send(hello(token="wrong"))
        (answer,) = peer.heard()
        assert isinstance(answer, wire.Refused)
        self.assertEqual((answer.reason, self.sink.events, self.sink.rejects),
                         ("unauthenticated", [], ["unauthenticated"]))
        self.assertGreater(answer.retry_after_s, 1)
        self.assertTrue(peer.transport.disconnecting)
        self.assertEqual(self.listener.connections(), ())

    def test_a_refusal_is_told_to_the_operator(self) -> None:
        """Who, from where and why."""
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        Peer(self.listener).send(hello(token="wrong"))
        warned = [formatEvent(event) for event in logged if event["log_level"].name == "warn"]
        self.assertEqual(warned, ["agent app1 at 127.0.0.1:40000 refused: unauthenticated"])

    def test_a_newer_boot_replaces(self) -> None:
        """The connection of the older one is closed with the reason; the host never is without an agent."""
        old = self.joined(token="secret")
        new = Peer(self.listener)
        new.send(hello(token="secret", boot="b2"))
        self.assertEqual(self.sink.take(), [("connected", APP1, "app1", "b2")])
        self.assertEqual(old.heard(), [wire.Refused(reason="replaced")])
        old.lose(ConnectionDone())
        self.assertEqual(self.sink.take(), [])
        self.assertEqual([each.boot_id for each in self.listener.connections()], ["b2"])


class Talking(ListenerCase):
    def test_garbage_is_counted_and_cut(self) -> None:
        """No garbage raises, is logged as an error, or changes anything but the loss of its connection."""
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        for data, reason in (
            (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
            (b"\x16\x03\x01\x00\xa5\n", "malformed"),
            (b'{"type":"report","seq":1}\n', "unexpected"),
            (b"x" * (wire.MAX_LINE_BYTES + 1), "oversized"),
            (json.dumps({"type": "new"}).encode() * 1 + b"\n" + b'{"type":"new"}\n' * wire.MAX_UNKNOWN, "unknown_type"),
        ):
            self.sink.rejects.clear()
            peer = Peer(self.listener)
            peer.protocol.dataReceived(data)
            self.assertEqual((self.sink.rejects, peer.transport.aborted), ([reason], True), data[:20])
            peer.protocol.dataReceived(wire.encode(hello()))
            peer.lose(ConnectionLost())
        self.assertEqual(self.sink.events, [])
        self.assertEqual([event for event in logged if event["log_level"].name in ("warn", "error", "critical")], [])

    def test_garbage_after_the_hello_loses_the_agent(self) -> None:
        """The node learns at once."""
        peer = self.joined()
        peer.protocol.dataReceived(b"rubbish\n")
        self.assertEqual([event[:2] for event in self.sink.take()], [("lost", APP1)])

    def test_silence_is_cut_and_reports_are_not(self) -> None:
        """A connection lives as long as something comes."""
        peer = self.joined()
        for seq in (1, 2, 3):
            self.reactor.advance(SILENCE_TIMEOUT_S * 0.9)
            peer.send(wire.Report(seq=seq))
        self.assertFalse(peer.transport.aborted)
        for _ in range(2):
            self.reactor.advance(SILENCE_TIMEOUT_S)
        self.assertTrue(peer.transport.aborted)
        self.assertEqual(self.sink.rejects, ["silent"])

    def test_an_agent_that_does_not_read_is_cut(self) -> None:
        """What it does not take would pile up here."""
        peer = self.joined()
        peer.transport.producer.pauseProducing()
        self.assertTrue(peer.transport.aborted)
        self.assertEqual(self.sink.rejects, ["stalled"])

    def test_loss_and_farewell(self) -> None:
        """A break tells so; after ``leaving`` it is the end that was announced."""
        for farewell, why in ((False, "the connection broke"), (True, "left")):
            peer = self.joined()
            if farewell:
                peer.send(wire.Leaving(deadline_s=3.0))
            peer.lose(ConnectionLost())
            self.assertEqual(self.sink.take()[-1], ("lost", APP1, why))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class Node(ListenerCase):
    def test_orders(self) -> None:
        """An order reaches the agent that speaks for the host, about that host alone; without one it is told so."""
        order = wire.Instruction(order="drain", deadline_s=5.0)
        self.assertFalse(self.listener.order(REF, order))
        peer = self.joined()
        self.assertTrue(self.listener.order(REF, order))
        self.assertEqual(peer.heard(), [wire.Instruction(order="drain", hosts=[APP1], deadline_s=5.0)])

    def test_announcements(self) -> None:
        """Every agent learns of new directors and leaders; newcomers too."""
        peer = self.joined()
        self.listener.announce(directors=["10.0.0.1:7946", "10.0.0.2:7946"], leader="d2")
        late = Peer(self.listener)
        late.send(hello(agent="other"))
        for each in (peer, late):
            (welcome,) = each.heard()
            assert isinstance(welcome, wire.Welcome)
            self.assertEqual((len(welcome.directors), welcome.leader), (2, "d2"))
        self.assertRaises(Misuse, self.listener.announce, directors=["a:1"] * 65, leader=None)

    def test_connections(self) -> None:
        """An operator sees who is connected, since when, and for whom it speaks."""
        peer = self.joined()
        peer.send(wire.Report(seq=7))
        self.reactor.advance(1.5)
        (seen,) = self.listener.connections()
        self.assertEqual((seen.agent, seen.boot_id, seen.address, seen.since, seen.heard_s, seen.seq, seen.hosts),
                         ("app1", "b1", "127.0.0.1:40000", 1e9, 1.5, 7, (APP1,)))

    def test_stop_closes_every_connection(self) -> None:
        """The service has stopped when the last descriptor is free."""
        self.listener.startService()
        peer = self.joined()
        stopped = self.listener.stopService()
        self.assertTrue(peer.transport.disconnecting)
        self.assertNoResult(stopped)
        peer.lose(ConnectionDone())
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class Listening(ListenerCase):
    def listen(self, **fields: Any) -> AgentListener:
        return AgentListener(AgentListeners(**fields), self.sink, reactor=self.reactor, name="d1",
                             monotonic=self.reactor.seconds, wall=self.reactor.seconds)

    def test_one_service_for_each_address(self) -> None:
        """They are visible in the tree."""
        listener = self.listen(listen=("127.0.0.1:1", "[::1]:2", "unix:/run/x.sock"))
        self.assertEqual([port.name for port in listener.ports], ["127.0.0.1:1", "[::1]:2", "unix:/run/x.sock"])

    def assert_config_error(self, *parts: str, **fields: Any) -> None:
        with self.assertRaises(ConfigError) as raised:
            self.listen(**fields)
        for part in parts:
            self.assertIn(part, str(raised.exception))

    def test_beyond_this_machine(self) -> None:
        """Plaintext and anonymity stay on this machine, unless plaintext is asked for."""
        self.assert_config_error("has no TLS", "no identities", listen=("0.0.0.0:1",))
        self.assert_config_error("no identities", listen=("0.0.0.0:1",), insecure=True)
        self.listen(listen=("0.0.0.0:1",), insecure=True, identities={"x": TOKEN})

    def test_bad_addresses_and_files(self) -> None:
        """They are named, all of them."""
        self.assert_config_error("node.agents.listen[0]", "node.agents.listen[1]", listen=("x", "y"))
        self.assert_config_error("node.agents.tls.certificate", "node.agents.tls.key", "node.agents.tls.client_ca",
                                 listen=("127.0.0.1:1",),
                                 tls=TLS(certificate="/none", key="/none", client_ca="/none"))

    def test_a_storm_is_slowed_down(self) -> None:
        """Beyond the rate accepting pauses, and goes on by itself; nobody is refused."""
        listener = self.listen(listen=("127.0.0.1:1",), handshakes_per_s=1.0)
        paused: list[bool] = []

        class Bound(Ports):
            def __init__(self) -> None: ...

            def pauseProducing(self) -> None:
                paused.append(True)

            def resumeProducing(self) -> None:
                paused.append(False)

            def stopListening(self) -> Deferred[Any]:
                return succeed(None)

        (port,) = listener.ports
        port._ports = Bound()
        factory = port.factory()
        accepted = [factory.buildProtocol(None) for _ in range(int(ACCEPT_BURST) + 5)]
        self.assertNotIn(None, accepted)
        self.assertEqual(paused, [True])
        self.reactor.advance(0.7)
        self.assertEqual(paused, [True, False])
        port.stopService()
