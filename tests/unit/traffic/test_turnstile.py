"""A service's limits of who comes how often, in virtual time."""

from __future__ import annotations

from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Group, Health, Host, Limits, Probe, Reason, Service
from director.traffic.connection import Connection
from director.traffic.turnstile import SAY_S
from tests.unit.engine.virtual_director import VirtualDirector

#: 192.0.2.1 and its neighbours, as numbers.
CLIENT = 0xC0000201


class TurnstileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.director = VirtualDirector()
        self.addCleanup(self.director.close)

    def limit(self, *, maximum: int = 0, **limits: Any) -> None:
        host = Host(address="10.0.0.1:80", max_connections=maximum)
        self.director.node.apply_service("web", Service(
            groups={"blue": Group(hosts={"a": host}, health=Health(probe=Probe(kind="none")))}, limits=Limits(**limits)))

    def arrive(self, number: int = 1, client: int = CLIENT) -> list[Connection]:
        return [self.director.arrive("web", client) for _ in range(number)]

    def ended(self, *reasons: Reason) -> tuple[int, ...]:
        return tuple(self.director.metrics.service("web").ended[reason] for reason in reasons)

    def test_refused_before_anything_is_spent(self) -> None:
        """No host is picked, no connect begun; what a network has open counts until it ends, queued ones too."""
        self.limit(maximum=1, max_connections_per_client=2, queue=9)
        first, queued, refused = self.arrive(3)
        self.assertEqual(self.ended(Reason.CLIENT_FULL), (1,))
        self.assertEqual((len(self.director.relay.pending), first.ticket is not None, queued.ticket, refused.ticket), (1, True, None, None))
        self.director.relay.turn()
        self.director.relay.close(first.handle, Reason.CLIENT_CLOSED)
        self.assertIsNotNone(queued.ticket)
        self.assertEqual(len(self.arrive(2)), 2)
        self.assertEqual(self.ended(Reason.CLIENT_FULL), (2,))

    def test_rates(self) -> None:
        self.limit(new_per_client_per_s=2.0, new_per_s=3.0)
        self.arrive(3)
        self.arrive(2, CLIENT + 1)
        self.assertEqual(self.ended(Reason.CLIENT_RATE, Reason.SERVICE_RATE), (1, 1))
        self.director.run(1.0)
        self.arrive(2)
        self.assertEqual(self.ended(Reason.CLIENT_RATE, Reason.SERVICE_RATE), (1, 1))

    def test_limits_that_come_go_and_change(self) -> None:
        """Clients who are there when limits come are counted, and their ends; without limits nothing is."""
        self.limit()
        there = self.arrive(3)
        self.director.relay.turn()
        self.limit(max_connections_per_client=3)
        self.arrive(1)
        self.director.relay.close(there[0].handle, Reason.CLIENT_CLOSED)
        self.arrive(2)
        self.assertEqual(self.ended(Reason.CLIENT_FULL), (2,))
        self.limit(max_connections_per_client=3, client_ipv4_prefix=24)
        self.arrive(1, CLIENT + 1)
        self.assertEqual(self.ended(Reason.CLIENT_FULL), (3,))
        self.limit()
        self.arrive(5)
        self.director.relay.turn()
        for connection in list(self.director.clients):
            self.director.relay.close(connection.handle, Reason.CLIENT_CLOSED)
        self.limit(max_connections_per_client=1)
        self.arrive(2)
        self.assertEqual(self.ended(Reason.CLIENT_FULL), (4,))

    def test_shown(self) -> None:
        """How many networks are remembered, while limits need that."""
        collect = self.director.metrics.registry.get_sample_value
        self.limit()
        self.assertIsNone(collect("txdirector_client_networks", {"service": "web"}))
        self.limit(max_connections_per_client=9)
        self.arrive(2)
        self.arrive(2, CLIENT + 1)
        self.assertEqual(collect("txdirector_client_networks", {"service": "web"}), 2)
        self.limit()
        self.assertIsNone(collect("txdirector_client_networks", {"service": "web"}))

    def test_told_seldom(self) -> None:
        """A line for each kind of refusal, and then one in `SAY_S` that counts the others; the network is named."""
        told: list[str] = []

        def observer(event: Any) -> None:
            if "is refused" in str(event.get("log_format")):
                told.append(f"{event['network']}: {event['why']}{event['more']}")

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.limit(max_connections_per_client=1, client_ipv4_prefix=24, new_per_client_per_s=5.5)
        self.arrive(51)
        self.assertEqual(told, ["192.0.2.0/24: it has 1 connections, as many as one may have"])
        self.director.run(SAY_S)
        self.arrive(2)
        self.assertEqual(told[1:], ["192.0.2.0/24: it has 1 connections, as many as one may have (49 more since the last such line)"])
