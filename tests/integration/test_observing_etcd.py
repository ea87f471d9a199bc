"""Two directors that observe, on real etcd."""

from __future__ import annotations

import json

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from director.admin.operation import Caller, Role
from director.core.snapshot import HostPicture
from director.service import DirectorService
from tests.etcd_server import EtcdCluster
from tests.integration.kit import DirectorTestCase, closed_port, service, until
from tests.integration.test_etcd_store import EtcdTestCase
from tests.unit.ha.observer import KEYS, Director, ref


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


class WholeDirectorTests(DirectorTestCase):
    timeout = 120

    async def test_clients_of_one_teach_the_other(self) -> None:
        """What one director's clients found out about a host keeps the other's clients from it."""
        etcd = EtcdCluster()
        self.addCleanup(etcd.stop)
        await deferToThread(etcd.start)
        first, second = [
            await self.director({"node": {"name": name, "store": "etcd:", "etcd": {"endpoints": list(etcd.endpoints)}}})
            for name in ("d1", "d2")
        ]
        await until(lambda: all(len(each.operations.cluster().members) == 2 for each in (first, second)), "both to live")
        hosts = {name: (await self.backend(name)).address for name in "ac"} | {"b": f"127.0.0.1:{closed_port()}"}
        health = {"probe": {"kind": "none"}, "timeout_s": 0.5, "suspect_after_s": 0.2, "down_interval_s": 60.0,
                  "interval_s": 60.0}
        spec = service(hosts, group={"scheduler": "roundrobin", "health": health})["services"]["web"]
        await first.control.call(Caller("ada", Role.FULL), "new_service", {"service": "web", "spec": spec})
        await until(lambda: second.node.listeners.addresses("web"), "the other to serve")
        while self.sees_b(first).in_rotation:
            self.assertIn(await self.served_by(first), {"a", "c"})
        await until(lambda: not self.sees_b(second).in_rotation, "the other to follow")
        told = self.sees_b(second)
        self.assertEqual((told.state.value, [each.director for each in told.seen_by_others]), ("up", ["d1"]))
        self.assertIn("down as d1 sees it", told.why_not)
        self.assertIn(f"b: {told.why_not}", second.operations.explain("web", "10.0.0.1").steps)
        self.assertEqual({await self.served_by(second) for _ in range(4)}, {"a", "c"})
        self.assertEqual(second.operations.cluster().disagreements, ())
        self.assertEqual(self.sees_b(second).connect_failures, 0, "it was spared the tries")

    def sees_b(self, director: DirectorService) -> HostPicture:
        host = director.operations.picture().host("web", "main", "b")
        assert host is not None
        return host
