"""The summary for inspection, on a store in memory and a fake clock."""

from __future__ import annotations

import json
from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Group, Host, Member, Service
from cluster.store import Committed, Put
from director.core.inventory import Inventory
from director.ha.membership import TTL_S, Membership
from director.ha.summarising import BYTES_PER_S, Summarising


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
        self.inventory.apply_service("other", Service(), self.clock.seconds())
        for _ in range(61):
            self.clock.advance(1.0)
        self.assertGreaterEqual(self.read()["at"], first["at"] + 60)
        summarising.stopService()
        self.membership.stopService()
        self.clock.advance(TTL_S)
        self.assertIsNone(self.read())

    def test_membership_before(self) -> None:
        """A name that was claimed before anything started has its summary all the same."""
        claimed = Deferred.fromCoroutine(self.membership.claim())
        self.clock.advance(0.1)
        self.successResultOf(claimed)
        self.membership.startService()
        summarising = Summarising(self.store, self.keys, self.inventory, self.membership, director="one", every_s=60.0,
                                  reactor=self.clock, wall=self.clock.seconds)
        summarising.startService()
        self.clock.advance(0.1)
        self.assertIsNotNone(self.read())
        summarising.stopService()

    def revision(self) -> int:
        return self.successResultOf(self.store.list(self.keys.load("one"))).records[0].mod_revision

    def test_nothing_new(self) -> None:
        """A summary that says what the last one said is not written, but for a new lease."""
        self.begin(60.0)
        first = self.revision()
        self.clock.pump([1.0] * 200)
        self.assertEqual(self.revision(), first)
        self.successResultOf(self.membership.lease.revoke())
        self.membership._lost(None)
        self.clock.pump([1.0] * 61)
        self.assertIsNotNone(self.read())

    def test_bounded(self) -> None:
        """However many hosts there are and however they change, what is written a day is bounded; the busiest are in it."""
        hosts = {f"host{n}": Host(address=f"127.0.0.1:{n + 1}") for n in range(1_000)}
        self.inventory.apply_service("web", Service(groups={"main": Group(hosts=hosts)}), 0.0)
        busy = next(entry for ref, entry in self.inventory.hosts.items() if ref.host == "host999")
        busy.host.in_flight = 1
        written: list[int] = []
        commit = self.store.commit

        def counted(operations: Sequence[Put], **more: object) -> Deferred[Committed]:
            written.extend(len(each.value) for each in operations if each.key == self.keys.load("one"))
            return commit(operations, **more)

        self.store.commit = counted
        self.begin(60.0)
        for minute in range(120):
            busy.host.in_flight = minute + 1
            self.clock.pump([10.0] * 6)
        self.assertLess(sum(written), 2 * 3600 * BYTES_PER_S + max(written))
        self.assertGreater(len(written), 10)
        said = self.read()
        self.assertIn("web/main/host999", said["hosts"])
        self.assertEqual(len(said["hosts"]) + said["hosts_left_out"], 1_000)

    def test_off(self) -> None:
        """With 0 there is none."""
        self.begin(0.0)
        self.assertIsNone(self.read())
