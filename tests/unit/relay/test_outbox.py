"""What the Python relay has to tell."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from director.relay.outbox import Outbox


class OutboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.outbox = Outbox(self.clock)
        self.told: list[object] = []

    def test_order(self) -> None:
        """Everything is told in order, what a callback puts in at last; one that raises keeps nothing from the others."""
        self.outbox.append((self.told.append, (1,)))
        self.outbox.append((lambda: self.outbox.append((self.told.append, (3,))), ()))
        self.outbox.append((lambda: 1 / 0, ()))
        self.outbox.append((self.told.append, (2,)))
        self.outbox.deliver()
        self.assertEqual(self.told, [1, 2, 3])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_soon(self) -> None:
        """In a turn of the reactor's own, and one turn is enough for all that is asked of it meanwhile."""
        self.outbox.append((self.told.append, (1,)))
        self.outbox.deliver_soon()
        self.outbox.deliver_soon()
        self.assertEqual((self.told, len(self.clock.getDelayedCalls())), ([], 1))
        self.clock.advance(0)
        self.assertEqual(self.told, [1])
        self.outbox.append((self.told.append, (2,)))
        self.outbox.deliver_soon()
        self.clock.advance(0)
        self.assertEqual(self.told, [1, 2])

    def test_stop(self) -> None:
        """A stop tells what is left, and leaves no call behind."""
        self.outbox.append((self.told.append, (1,)))
        self.outbox.deliver_soon()
        self.outbox.stop()
        self.assertEqual((self.told, self.clock.getDelayedCalls()), ([1], []))
