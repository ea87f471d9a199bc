"""What the parts of a cluster's director tell each other."""

from __future__ import annotations

from ipaddress import ip_interface
from types import SimpleNamespace
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Configuration, Group, Health, Host, Leader, Service
from cluster.model import Node as NodeConfiguration
from cluster.store import Put
from director.engine.sync import Sync
from director.ha.clustering import HAND_OVER_S, Clustering
from director.ha.leading import Known
from director.reports.attendance import Attendance
from tests.unit.engine.virtual_director import VirtualDirector

KEYS = Keys("c")
HEALTH = Health()
HERE = ip_interface("10.0.0.100/24")


class ClusteringTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.director = VirtualDirector()
        self.addCleanup(self.director.close)
        node, clock = self.director.node, self.director.clock
        node.apply_service("web", Service(groups={"blue": Group(hosts={"a": Host(address="10.0.0.1:80")})}))
        self.store = MemoryStore(clock=clock, wall=clock.seconds)
        self.successResultOf(self.store.start())
        attendance = Attendance(node, self.store, KEYS, self.director.metrics)
        sync = Sync(self.store, KEYS, node, lambda name, user: None)
        self.clustering = Clustering(Configuration(node=NodeConfiguration(name="d1")), self.store, KEYS, sync, node,
                                     attendance, reactor=clock)


class LeaderTests(ClusteringTestCase):
    def lead(self, name: str, since: float) -> None:
        leader = Leader(name=name, boot_id="1", since=since)
        lease = self.successResultOf(self.store.lease(1e6))
        committed = self.store.commit([Put(KEYS.leader(), msgspec.json.encode(leader), lease.id)])
        self.director.run()
        self.successResultOf(committed)

    def test_change_of_leader_gives_grace(self) -> None:
        """Nothing is evicted for one heartbeat timeout after another director was found to lead; told once for each."""
        inventory = self.director.node.inventory
        self.lead("d2", 1.0)
        self.clustering.leading.startService()
        self.director.run(HEALTH.timeout_s)
        self.assertFalse(inventory.in_grace(self.director.now))
        self.lead("d3", 2.0)
        self.assertTrue(inventory.in_grace(self.director.now))
        self.director.run(HEALTH.timeout_s)
        self.assertFalse(inventory.in_grace(self.director.now))
        self.lead("d3", 2.0)
        self.assertFalse(inventory.in_grace(self.director.now))


class PartsTests(ClusteringTestCase):
    def test_no_part_twice(self) -> None:
        """Each part that hears of leases, members and hosts hears of them once: none is there that was built and left."""
        told = [*self.director.node.on_host, *self.clustering.membership.on_lease, *self.clustering.membership.on_members,
                *self.clustering.leading.on_known, *self.clustering.leading.on_gained, *self.clustering.leading.on_lost]
        self.assertEqual(self.clustering.membership.on_lease, [self.clustering.observing._leased])
        methods = [(type(each.__self__), each.__name__) for each in told if hasattr(each, "__self__")]
        self.assertEqual(sorted(map(str, methods)), sorted(map(str, set(methods))))


class OwnStateTests(SynchronousTestCase):
    """What is told of this director is what it does, not what the store remembers of it."""

    def setUp(self) -> None:
        self.director = VirtualDirector()
        self.addCleanup(self.director.close)
        node, self.clock = self.director.node, self.director.clock
        self.store = MemoryStore(clock=self.clock, wall=self.clock.seconds)
        self.successResultOf(self.store.start())
        self.clustering = Clustering(
            Configuration(node=NodeConfiguration(name="d1")), self.store, KEYS, Sync(self.store, KEYS, node, lambda *_: None),
            node, Attendance(node, self.store, KEYS, self.director.metrics), reactor=self.clock)

    def test_leader(self) -> None:
        """A record that names this director counts only while it leads; another's is told as the store has it."""
        for name, told in (("d1", None), ("d2", "d2")):
            self.clustering.leading.known = Known(Leader(name=name, boot_id="1", since=0.0), 7)
            self.assertEqual(self.clustering.leader, told)

    def test_virtual_addresses(self) -> None:
        """An address that the store says is ours and that we gave up is nobody's for all we know; one that we hold is
        ours, whoever the store names."""
        self.assertEqual([self.clustering.vip_owner(each) for each in ("d1", "d2")], [None, "d2"])
        self.clustering.vips._custody.held = True
        self.assertEqual([self.clustering.vip_owner(each) for each in ("d1", "d2")], ["d1", "d1"])


class GivingWayTests(SynchronousTestCase):
    def giving_way(self, *on: Any, fails: bool = False) -> tuple[list[Any], Clock, Deferred[None]]:
        """By promises, with those addresses; what is done, in order."""
        done: list[Any] = []
        clock = Clock()

        async def give_way() -> None:
            done.append("given")
            if fails:
                raise OSError("no")

        clustering: Any = SimpleNamespace(
            vips=SimpleNamespace(on=on), spreading=None, reigning=SimpleNamespace(give_way=give_way), _reactor=clock,
            _balancer=SimpleNamespace(listeners=SimpleNamespace(turn_away=done.append)))
        return done, clock, Deferred.fromCoroutine(Clustering.give_way(clustering))

    def test_turned_away_first(self) -> None:
        """Clients of the addresses have time to finish; the next process, which has the same sockets, turns nobody away."""
        done, clock, over = self.giving_way(HERE)
        self.assertEqual(done, [[HERE.ip]])
        clock.advance(HAND_OVER_S)
        self.successResultOf(over)
        self.assertEqual(done, [[HERE.ip], "given", []])

    def test_none_here(self) -> None:
        done, _, over = self.giving_way()
        self.successResultOf(over)
        self.assertEqual(done, ["given"])

    def test_failed(self) -> None:
        done, clock, over = self.giving_way(HERE, fails=True)
        clock.advance(HAND_OVER_S)
        self.failureResultOf(over, OSError)
        self.assertEqual(done, [[HERE.ip], "given", []])
