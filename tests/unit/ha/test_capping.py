"""The leader shares maxima out, directors keep to them, on one store."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Caps, Group, Host, Limits, Member
from cluster.model import Service as Spec
from cluster.peer_wire import Alive
from cluster.store import Delete, Event, Resync
from director.core.inventory import Inventory
from director.ha.capping import FORGET_S, LOOK_S, Capping
from director.ha.leading import Leading

KEYS = Keys("c")
WEB = Spec(limits=Limits(max_connections=10), groups={"main": Group(hosts={"a": Host(address="127.0.0.1:1")})})


class Links:
    """The part of `director.ha.peers.Peers` that capping uses."""

    def __init__(self) -> None:
        self.on_left: list[Any] = []
        self.on_joined: list[Any] = []


class Side:
    """One director, which mirrors the store's caps."""

    def __init__(self, name: str, world: CappingTests) -> None:
        self.name = name
        self.world = world
        self.links = Links()
        self.inventory = Inventory(now=0.0, random=lambda: 0.5, director=name)
        self.inventory.apply_service("web", WEB, 0.0)
        self.leading = Leading(world.store, KEYS, director=name, boot_id="b", reactor=world.clock,
                               boottime=world.clock.seconds, wall=lambda: 0.0)
        self.capping = Capping(
            self.inventory, self.leading, world.store, KEYS, balances=True, members=lambda: world.members,
            alive=self.alive, peers=self.links, reactor=world.clock, monotonic=world.clock.seconds,  # type: ignore[arg-type]
        )
        self.heard: dict[str, Alive] = {}
        world.store.watch(KEYS.all_caps(), self.deliver)
        self.tickets: list[Any] = []

    def alive(self) -> dict[str, Alive]:
        return self.heard

    def deliver(self, event: Event) -> None:
        records = event.listing.records if isinstance(event, Resync) else event.written
        for record in records:
            self.inventory.set_caps(KEYS.parse(record.key).service, msgspec.json.decode(record.value, type=Caps),  # type: ignore[union-attr]
                                    self.world.clock.seconds())
        for key in () if isinstance(event, Resync) else event.deleted:
            self.inventory.set_caps(KEYS.parse(key).service, None, self.world.clock.seconds())  # type: ignore[union-attr]

    @property
    def maximum(self) -> float:
        return self.inventory.services["web"].admission.maximum

    def come(self, clients: int) -> int:
        """Clients arrive; how many are open then."""
        admission = self.inventory.services["web"].admission
        for _ in range(clients):
            answer = admission.arrive(None, object(), 0.0)
            if hasattr(answer, "host"):
                self.tickets.append(answer)
        return admission.connections


class CappingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock, wall=lambda: 0.0)
        self.successResultOf(self.store.start())
        self.members = {name: Member(name=name, boot_id="b", version="1", started=0.0) for name in ("d1", "d2")}
        self.one, self.two = Side("d1", self), Side("d2", self)
        for side in (self.one, self.two):
            side.capping.startService()
        self.one.leading.startService()

    def pass_time(self, seconds: float) -> None:
        """Directors tell each other what they have at every step."""
        for _ in range(round(seconds / 0.1)):
            for side, other in ((self.one, self.two), (self.two, self.one)):
                if other.name in side.heard or other.name in self.members:
                    side.heard[other.name] = Alive(caps=other.capping.own())
            self.clock.pump([0.0, 0.0, 0.1])

    def test_shared_out(self) -> None:
        """Nobody is let in before the leader has shared the maximum out; then each keeps to its part."""
        self.assertEqual((self.one.maximum, self.one.come(3)), (0, 0))
        self.pass_time(1.0)
        self.assertEqual((self.one.come(9), self.two.come(9)), (5, 5))
        self.assertEqual(self.one.inventory.services["web"].share, 5)

    def test_follows_the_demand(self) -> None:
        """A director that fills its part gets what the other does not use, and all together keep to the maximum."""
        self.pass_time(1.0)
        self.one.come(9)
        self.two.come(1)
        for _ in range(10):
            self.pass_time(LOOK_S)
            self.one.come(9)
            self.assertLessEqual(self.one.maximum + self.two.maximum, 10)
        self.assertGreater(len(self.one.tickets), 5)

    def test_dead_director(self) -> None:
        """The part of a director whose process ended goes to the others; of one that just vanished it does not, for
        long."""
        self.pass_time(1.0)
        del self.members["d2"]
        self.one.heard.clear()
        self.two.capping.stopService()
        self.pass_time(5.0)
        self.assertEqual(self.one.maximum, 5)
        for told in self.one.links.on_left:
            told("d2", True)
        self.pass_time(1.0)
        self.assertEqual(self.one.maximum, 10)

    def test_forgotten(self) -> None:
        """A director that left without a trace is taken for dead in the end."""
        self.pass_time(1.0)
        del self.members["d2"]
        self.one.heard.clear()
        self.pass_time(FORGET_S - 1.0)
        self.assertEqual(self.one.maximum, 5)
        self.pass_time(2.0)
        self.assertEqual(self.one.maximum, 10)

    def test_linked_though_the_store_forgot_it(self) -> None:
        """A director that cannot reach the store but is linked keeps its part."""
        self.pass_time(1.0)
        self.two.come(9)
        del self.members["d2"]
        for _ in range(20):
            self.one.heard["d2"] = Alive(store=False, caps=self.two.capping.own())
            self.one.come(9)
            self.clock.pump([0.0, 0.0, 0.1])
            self.assertLessEqual(len(self.one.tickets), 5)

    def test_cleaned_up(self) -> None:
        """When the service has no maximum any more, or is gone, its record goes, and everybody lets in as before."""
        self.pass_time(1.0)
        for spec in (msgspec.structs.replace(WEB, limits=Limits()), None):
            for side in (self.one, self.two):
                side.inventory.apply_service("web", spec, self.clock.seconds())
            self.pass_time(1.0)
            self.assertIsNone(self.successResultOf(self.store.get(KEYS.caps("web"))))
            if spec is not None:
                self.assertEqual(self.one.come(30), 30)
                self.one.inventory.apply_service("web", WEB, self.clock.seconds())
                self.pass_time(1.0)
                self.assertIsNotNone(self.successResultOf(self.store.get(KEYS.caps("web"))))

    def test_only_the_leader_writes(self) -> None:
        """Without a leader nothing is written; the last shares stand."""
        self.pass_time(1.0)
        stopped = self.one.leading.stopService()
        self.successResultOf(stopped)
        self.successResultOf(self.store.commit([Delete(KEYS.caps("web"))]))
        self.pass_time(2.0)
        self.assertIsNone(self.successResultOf(self.store.get(KEYS.caps("web"))))
