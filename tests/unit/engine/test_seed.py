"""`director.engine.sync.seed`: the file's services into an embedded store, and what is said when that costs something."""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Group, Host, Service
from cluster.store import Put
from director.engine.sync import seed

KEYS = Keys("default")


def web(weight: float = 1.0, scheduler: str = "rr") -> Service:
    hosts = {"a": Host(address="10.0.0.1:80", weight=weight)}
    return Service(groups={"main": Group(scheduler=scheduler, hosts=hosts)})


class SeedTests(SynchronousTestCase):
    def setUp(self) -> None:
        clock = Clock()
        self.clock = clock
        self.store = MemoryStore(clock=clock, wall=clock.seconds)
        self.successResultOf(self.store.start())
        self.said: list[str] = []
        globalLogPublisher.addObserver(self.hear)
        self.addCleanup(globalLogPublisher.removeObserver, self.hear)
        self.start(web())

    def hear(self, event: LogEvent) -> None:
        self.said.append(formatEvent(event))

    def start(self, spec: Service) -> None:
        seeded = Deferred.fromCoroutine(seed(self.store, KEYS, {"web": spec}))
        self.clock.pump([0.01] * 10)
        self.successResultOf(seeded)

    def admin_sets(self, spec: Service) -> None:
        self.store.commit([Put(KEYS.service("web"), msgspec.json.encode(spec))])
        self.clock.pump([0.01] * 10)

    def stored(self) -> Service:
        got = Deferred.fromCoroutine(self._stored())
        self.clock.pump([0.01] * 10)
        return self.successResultOf(got)

    async def _stored(self) -> Service:
        record = await self.store.get(KEYS.service("web"))
        assert record is not None
        return msgspec.json.decode(record.value, type=Service)

    def test_kept(self) -> None:
        """While the file stays the same, what the admin changed stands."""
        self.admin_sets(web(weight=5.0))
        self.start(web())
        self.assertEqual(self.stored(), web(weight=5.0))
        self.assertEqual(self.said, [])

    def test_lost(self) -> None:
        """A file that changed replaces it, and the start says what is gone."""
        self.admin_sets(web(weight=5.0))
        self.start(web(scheduler="random"))
        self.assertEqual(self.stored(), web(scheduler="random"))
        [said] = self.said
        self.assertIn("changes made by the admin are gone: services.web.groups.main.hosts.a.weight", said)

    def test_nothing_lost(self) -> None:
        """Nothing is said where the admin changed nothing, or the file says by now what the admin did."""
        self.start(web(scheduler="random"))
        self.admin_sets(web(weight=5.0))
        self.start(web(weight=5.0))
        self.assertEqual(self.said, [])
