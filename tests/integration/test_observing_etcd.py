"""Two directors that observe, on real etcd."""

from __future__ import annotations

import json

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater

from tests.integration.test_etcd_store import EtcdTestCase
from tests.unit.director.observer import KEYS, Director, ref


class ObservingTests(EtcdTestCase):
    async def director(self, name: str, *endpoints: str) -> Director:
        """Each with a connection of its own."""
        director = Director(name, await self.started(*endpoints), reactor)
        self.addCleanup(director.node.cut)
        self.addCleanup(lambda: maybeDeferred(director.membership.stopService))
        self.addCleanup(director.observing.stopService)
        director.start()
        await self.until(lambda: director.membership.lease is not None, f"{name} to join")
        return director

    async def test_shared(self) -> None:
        """What one director sees rules where the other has seen nothing, is readable with etcdctl, ends with its
        membership, costs nothing at steady state, and is there again after etcd was away."""
        cluster = self.cluster()
        [member] = cluster.members
        first = await self.director("d1", member.endpoint)
        second = await self.director("d2", member.endpoint)
        await self.until(lambda: set(first.membership.members) == set(second.membership.members) == {"d1", "d2"},
                         "both to know each other")
        first.fail("h1")
        await self.until(lambda: second.out() == {"h1"}, "the other to follow")
        await self.until(lambda: "d2" in first.observing.records.get(ref("h1"), {}), "the other to say that it is blind")
        told = json.loads(cluster.etcdctl("get", "--print-value-only", KEYS.observed("d1", ref("h1"))))
        self.assertEqual((told["state"], told["boot_id"]), ("down", "d1-1"))
        self.assertIn("refused", told["why"])

        before = cluster.revision()
        for _ in range(20):
            first.hear("h2", "h3")
            second.hear("h2", "h3")
            await deferLater(reactor, 0.05)
        self.assertEqual(cluster.revision(), before, "heartbeats were written")
        for each in (first, second):
            each.leave("h2", "h3")

        second.hear("h1")
        self.assertEqual(second.out(), set(), "its own eyes first")
        await self.until(first.observing.disagreements, "the disagreement to be known")
        second.leave("h1")

        member.kill()
        await self.until(lambda: not first.store.available, "the loss to be noticed")
        first.fail("h4")
        cluster.start()
        await self.until(lambda: "h4" in second.out(), "what happened meanwhile to be told")

        await maybeDeferred(first.membership.stopService)
        await self.until(lambda: second.out() == set(), "its opinions to end with its membership")
        self.assertEqual(cluster.etcdctl("get", "--prefix", KEYS.observations("d1")), "")
