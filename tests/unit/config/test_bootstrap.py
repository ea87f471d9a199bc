"""What a bootstrap refuses, and that it changes nothing then."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import Misuse
from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Service
from cluster.store import MAX_OPERATIONS
from director.config.bootstrap import bootstrap

KEYS = Keys("c")


class BootstrapTests(SynchronousTestCase):
    def test_too_many(self) -> None:
        """More services than a transaction holds are refused with what to do; as many as it holds are all made."""
        clock = Clock()
        store = MemoryStore(clock=clock, wall=clock.seconds)
        self.successResultOf(store.start())
        services = {f"s{number}": Service() for number in range(MAX_OPERATIONS + 1)}
        refused = self.failureResultOf(Deferred.fromCoroutine(bootstrap(store, KEYS, services)), Misuse)
        for said in (f"{MAX_OPERATIONS + 1} services", "directorctl apply", "nothing was changed"):
            self.assertIn(said, str(refused.value))
        self.assertEqual(self.successResultOf(store.list(KEYS.root)).records, ())
        services.popitem()
        self.successResultOf(Deferred.fromCoroutine(bootstrap(store, KEYS, services)))
        self.assertEqual(len(self.successResultOf(store.list(KEYS.services())).records), MAX_OPERATIONS)
