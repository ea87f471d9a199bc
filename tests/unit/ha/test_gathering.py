"""Many machines on one link: what they say in a turn is one message, and each hears its own."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.peer_wire import MAX_SAID, Addresses, Bye, OwnerBeat
from director.ha.gathering import Gathering

A, B = "10.0.0.100", "2001:db8::100"
BEAT = OwnerBeat(term=1, incarnation="1234567812345678", sent=1, counts_ns=1)


class Peers:
    names = ("d2", "d3")

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.hearers: dict[type, Any] = {}
        self.on_left: list[Any] = []
        self.knocks: list[tuple[str, Deferred[bool]]] = []

    def hear(self, kind: type, tell: Any) -> None:
        self.hearers[kind] = tell

    def send(self, peer: str, message: Any, *, droppable: bool = False) -> bool:
        self.sent.append((peer, message))
        return True

    def knock(self, peer: str) -> Deferred[bool]:
        self.knocks.append((peer, Deferred()))
        return self.knocks[-1][1]


class GatheringTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.peers = Peers()
        self.gathering = Gathering(self.peers, reactor=self.clock)  # type: ignore[arg-type]
        self.links = {address: self.gathering.link(address) for address in (A, B)}

    def test_one_message(self) -> None:
        """For each director, in the order in which it was said; nothing for one that is not linked."""
        for address in (A, B):
            for peer in ("d2", "d3", "d4"):
                self.assertEqual(self.links[address].send(peer, BEAT, droppable=True), peer != "d4")
        self.links[A].send("d2", Bye())
        self.assertEqual(self.peers.sent, [])
        self.clock.advance(0)
        self.assertEqual(self.peers.sent, [("d2", Addresses(said=[(A, BEAT), (B, BEAT), (A, Bye())])),
                                           ("d3", Addresses(said=[(A, BEAT), (B, BEAT)]))])
        self.clock.advance(1)
        self.assertEqual(len(self.peers.sent), 2)

    def test_many(self) -> None:
        """More than a message holds are several."""
        for _ in range(2 * MAX_SAID + 1):
            self.links[A].send("d2", BEAT)
        self.clock.advance(0)
        self.assertEqual([len(message.said) for _, message in self.peers.sent], [MAX_SAID, MAX_SAID, 1])

    def test_heard(self) -> None:
        """Each its own; what is of no address here is nobody's; one that fails costs no other. What is answered goes at once."""
        heard: list[Any] = []

        def failing(peer: str, said: OwnerBeat) -> None:
            raise ValueError

        def answers(peer: str, said: OwnerBeat) -> None:
            heard.append((peer, said))
            self.links[B].send(peer, Bye())

        self.links[A].hear(OwnerBeat, failing)
        self.links[B].hear(OwnerBeat, answers)
        self.peers.hearers[Addresses]("d2", Addresses(said=[(A, BEAT), ("10.9.9.9", BEAT), (B, BEAT), (B, Bye())]))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(heard, [("d2", BEAT)])
        self.assertEqual(self.peers.sent, [("d2", Addresses(said=[(B, Bye())]))])
        self.clock.advance(1)
        self.assertEqual(len(self.peers.sent), 1)

    def test_knock(self) -> None:
        """Once for all who ask meanwhile; an error is everybody's."""
        first, second = (link.knock("d2") for link in self.links.values())
        other = self.links[A].knock("d3")
        self.assertEqual([peer for peer, _ in self.peers.knocks], ["d2", "d3"])
        self.peers.knocks[0][1].callback(True)
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), (True, True))
        self.peers.knocks[1][1].errback(ValueError())
        self.failureResultOf(other, ValueError)
        self.links[A].knock("d2")
        self.assertEqual(len(self.peers.knocks), 3)

    def test_left(self) -> None:
        """A link that ends is everybody's news."""
        told: list[Any] = []
        for address, link in self.links.items():
            link.on_left.append(lambda peer, by_peer, address=address: told.append((address, peer, by_peer)))
        for left in self.peers.on_left:
            left("d2", True)
        self.assertEqual(told, [(A, "d2", True), (B, "d2", True)])
