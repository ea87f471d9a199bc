"""The summary for inspection, on a store in memory and a fake clock."""

from __future__ import annotations

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Group, Host, Member, Service
from director.core.inventory import Inventory
from director.ha.membership import TTL_S, Membership
from director.ha.summarising import Summarising


class SummaryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.keys = Keys("test")
        self.store = MemoryStore(clock=self.clock, wall=self.clock.seconds)
        self.successResultOf(self.store.start())
        self.inventory = Inventory(now=0.0, random=lambda: 0.5)
        web = Service(groups={"main": Group(hosts={"a": Host(address="127.0.0.1:1")})})
        self.inventory.apply_service("web", web, 0.0)
        member = Member(name="one", boot_id="b", version="1", started=0.0)
        self.membership = Membership(self.store, self.keys, member, reactor=self.clock)

    def begin(self, every_s: float) -> Summarising:
        summarising = Summarising(self.store, self.keys, self.inventory, self.membership, director="one", every_s=every_s,
                                  reactor=self.clock, wall=self.clock.seconds)
        summarising.startService()
        self.membership.startService()
        self.clock.advance(0.1)
        return summarising

    def read(self) -> dict[str, object] | None:
        record = self.successResultOf(self.store.get(self.keys.load("one")))
        return json.loads(record.value) if record is not None else None

    def test_now_and_then(self) -> None:
        """A summary is written with the membership, anew at every interval, and is gone with the membership."""
        summarising = self.begin(60.0)
        first = self.read()
        assert first is not None
        self.assertEqual(first["services"], {"web": {"connections": 0, "queued": 0}})
        self.assertEqual(first["hosts"]["web/main/a"]["open"], 0)
        for _ in range(61):
            self.clock.advance(1.0)
        self.assertGreaterEqual(self.read()["at"], first["at"] + 60)
        summarising.stopService()
        self.membership.stopService()
        self.clock.advance(TTL_S)
        self.assertIsNone(self.read())

    def test_off(self) -> None:
        """With 0 there is none."""
        self.begin(0.0)
        self.assertIsNone(self.read())
