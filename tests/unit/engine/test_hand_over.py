"""Turning clients away before an address moves: how long those that are here have."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.memory import MemoryStore
from director.engine.node import HANDSHAKE_S
from director.traffic.frontend import Frontend
from tests.unit.ha.observer import Director


class TurnAwayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        store = MemoryStore(clock=self.clock, wall=lambda: 0.0)
        self.node = Director("d1", store, self.clock, hosts=1, monotonic=self.clock.seconds).node
        self.frontend: Frontend = self.node.frontends["web"]

    def test_handshakes(self) -> None:
        """Though nobody is here, whom the kernel has answered and nobody has accepted is waited for."""
        turned = Deferred.fromCoroutine(self.node.turn_away(0.4))
        self.clock.pump([0.01] * round((HANDSHAKE_S - 0.02) / 0.01))
        self.assertNoResult(turned)
        self.clock.pump([0.01] * 4)
        self.successResultOf(turned)

    def test_connections(self) -> None:
        """Who is here has the whole time, and no more."""
        self.frontend.open = 1
        turned = Deferred.fromCoroutine(self.node.turn_away(0.4))
        self.clock.pump([0.01] * 38)
        self.assertNoResult(turned)
        self.clock.pump([0.01] * 10)
        self.successResultOf(turned)
