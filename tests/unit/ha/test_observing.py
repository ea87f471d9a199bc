"""Directors on one store that tell each other what they see of hosts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import StoreUnavailable
from cluster.memory import MemoryStore
from cluster.model import HostState, Observed
from cluster.store import Committed, Compare, Delete, Operation, Put
from cluster.table import Transaction
from director.ha import observing
from director.ha.observing import INTERVAL_S, RETRY_S
from tests.unit.ha.observer import HEALTH, KEYS, Director, ref


class CountingStore(MemoryStore):
    """A store that remembers transactions about observations, and can't write while *away*."""

    away = False

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock, wall=lambda: 0.0)
        self.commits: list[tuple[float, Sequence[Operation]]] = []
        self._time = clock.seconds

    def commit(self, operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
        if any("/observed/" in operation.key for operation in operations):
            self.commits.append((self._time(), operations))
        return super().commit(operations, when=when)

    async def _persist(self, transactions: Sequence[Transaction]) -> None:
        if self.away:
            raise StoreUnavailable("away")


class ObservingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100.0)
        self.store = CountingStore(self.clock)
        self.successResultOf(self.store.start())

    def pass_time(self, seconds: float = 0.0) -> None:
        """In small steps, so that leases are renewed."""
        self.clock.pump([0.0] * 8 + [0.05] * round(seconds / 0.05))

    def director(self, name: str, hosts: int = 10) -> Director:
        director = Director(name, self.store, self.clock, hosts=hosts, monotonic=self.clock.seconds)
        director.start()
        self.pass_time(0.1)
        return director

    def stored(self) -> dict[str, Observed]:
        """By director and host."""
        records = self.successResultOf(self.store.list(KEYS.observations())).records
        return {record.key.removeprefix(KEYS.observations()).replace("/web/blue", ""): msgspec.json.decode(
            record.value, type=Observed) for record in records}


class WritingTests(ObservingTestCase):
    def test_down_and_up_again(self) -> None:
        """A host that is not up is written under the membership's lease, at once; back up, it is deleted."""
        director = self.director("d1")
        director.fail("h1")
        self.pass_time()
        [(key, record)] = self.stored().items()
        self.assertEqual(key, "d1/h1")
        self.assertEqual((record.state, record.boot_id, record.blind), (HostState.DOWN, "d1-1", False))
        self.assertEqual(record.since, 1000 + self.clock.seconds())
        self.assertIn("refused", record.why)
        [stored] = self.successResultOf(self.store.list(KEYS.observations())).records
        assert director.membership.lease is not None
        self.assertEqual(stored.lease, director.membership.lease.id)
        director.hear("h1")
        director.hear("h1")
        self.pass_time(2 * INTERVAL_S)
        self.assertEqual(self.stored(), {})

    def test_clients_news(self) -> None:
        """What clients find out is acted upon without any other input: written, and tried again after the back-off."""
        director = self.director("d1")
        inventory = director.node.inventory
        for _ in range(HEALTH.fall):
            inventory.connect_failed(inventory.hosts[ref("h1")].host, "refused", self.clock.seconds())
        self.pass_time()
        self.assertEqual({key: each.state for key, each in self.stored().items()}, {"d1/h1": HostState.DOWN})
        self.pass_time(HEALTH.interval_s + 2 * INTERVAL_S)
        self.assertEqual({key: each.state for key, each in self.stored().items()}, {"d1/h1": HostState.SUSPECT})

    def test_nothing_at_steady_state(self) -> None:
        """Heartbeats over a minute, a host being down throughout, write nothing."""
        director = self.director("d1")
        director.fail("h1")
        self.pass_time(1.0)
        before = len(self.store.commits)
        for _ in range(60):
            director.hear(*(f"h{number}" for number in range(2, 10)))
            self.pass_time(1.0)
        self.assertEqual(len(self.store.commits), before)

    def test_many_at_once(self) -> None:
        """Hundreds of hosts are written 128 at a time, with a pause between the transactions."""
        director = self.director("d1", hosts=300)
        director.fail(*(f"h{number}" for number in range(300)))
        self.pass_time(1.0)
        self.assertEqual([len(operations) for _, operations in self.store.commits], [128, 128, 44])
        times = [at for at, _ in self.store.commits]
        self.assertTrue(all(later - earlier >= INTERVAL_S for earlier, later in pairwise(times)), times)
        self.assertEqual(len(self.stored()), 300)

    def test_to_and_fro(self) -> None:
        """A change that is undone before its turn is not written."""
        director = self.director("d1")
        director.fail("h1")
        self.pass_time()
        director.fail("h2")
        director.hear("h2")
        director.hear("h2")
        self.pass_time(2 * INTERVAL_S)
        self.assertEqual(len(self.store.commits), 1)

    def test_flapping_all_day(self) -> None:
        """Hosts that go up and down for long are written at a bounded rate, and in the end as they are."""
        self.patch(observing, "BURST_RECORDS", 20)
        self.patch(observing, "RECORDS_PER_S", 2.0)
        director = self.director("d1")
        hosts = [f"h{number}" for number in range(10)]
        for _ in range(60):
            director.fail(*hosts)
            self.pass_time(0.5)
            director.hear(*hosts)
            director.hear(*hosts)
            self.pass_time(0.5)
        written = sum(len(operations) for _, operations in self.store.commits)
        self.assertLessEqual(written, 20 + 60 * 2 + 2 * len(hosts))
        self.assertGreater(written, 100)
        director.fail("h1")
        self.pass_time(30.0)
        self.assertEqual([key for key in self.stored() if key == "d1/h1"], ["d1/h1"])

    def test_removed_host(self) -> None:
        """A host that is configured no more loses its record."""
        director = self.director("d1")
        director.fail("h1")
        self.pass_time(INTERVAL_S)
        director.node.apply_service("web", None)
        self.pass_time(INTERVAL_S)
        self.assertEqual(self.stored(), {})

    def test_new_lease(self) -> None:
        """Everything is written again under a new lease."""
        director = self.director("d1")
        director.fail("h1", "h2")
        self.pass_time(INTERVAL_S)
        former = director.membership.lease
        assert former is not None
        self.clock.advance(20.0)  # the process stood still
        self.pass_time(2.0)
        self.assertNotIn(director.membership.lease, (None, former))
        self.assertEqual(set(self.stored()), {"d1/h1", "d1/h2"})

    def test_leftovers(self) -> None:
        """What a former process of this director left is replaced or deleted, not waited for."""
        left = msgspec.json.encode(Observed(state=HostState.DOWN, since=1.0, why="old", boot_id="d1-0"))
        self.successResultOf(self.store.commit([Put(KEYS.observed("d1", ref("h1")), left)]))
        self.successResultOf(self.store.commit([Put(KEYS.observed("d1", ref("gone")), left)]))
        self.director("d1")
        self.assertEqual(self.stored(), {})

    def test_store_away(self) -> None:
        """What could not be written is written when the store is back, as it is then."""
        director = self.director("d1")
        self.store.away = True
        director.fail("h1", "h2")
        self.pass_time(3.0)
        director.hear("h2")
        director.hear("h2")
        self.assertLess(len(self.store.commits), 5)
        self.store.away = False
        self.pass_time(2 * RETRY_S)
        self.assertEqual(set(self.stored()), {"d1/h1"})

    def test_stopped(self) -> None:
        """A service that has stopped writes no more."""
        director = self.director("d1")
        director.observing.stopService()
        director.fail("h1")
        self.pass_time(1.0)
        self.assertEqual(self.store.commits, [])


class ReadingTests(ObservingTestCase):
    def test_the_others_word(self) -> None:
        """A host that one director lost is out on another that has never seen it, and in again with the first."""
        first, second = self.director("d1"), self.director("d2")
        first.fail("h1")
        self.pass_time(INTERVAL_S)
        self.assertEqual((first.out(), second.out()), ({"h1"}, {"h1"}))
        first.hear("h1")
        first.hear("h1")
        self.pass_time(INTERVAL_S)
        self.assertEqual((first.out(), second.out()), (set(), set()))

    def test_own_eyes(self) -> None:
        """A director that hears the host keeps it, and each is told that they disagree."""
        first, second = self.director("d1"), self.director("d2")
        second.hear("h1")
        first.fail("h1")
        self.pass_time(INTERVAL_S)
        self.assertEqual((first.out(), second.out()), ({"h1"}, set()))
        for each in (first, second):
            [found] = each.observing.disagreements()
            self.assertEqual(found, (ref("h1"), {"d1": "down"}))

    def test_blind_third(self) -> None:
        """A director that has seen nothing says so when another sees the host down, and only then; so a fourth is not
        misled by its silence."""
        first, second, third = (self.director(name) for name in ("d1", "d2", "d3"))
        self.assertEqual(self.stored(), {})
        first.fail("h1")
        self.pass_time(INTERVAL_S)
        self.assertEqual({key: each.blind for key, each in self.stored().items()},
                         {"d1/h1": False, "d2/h1": True, "d3/h1": True})
        self.assertEqual((second.out(), third.out(), first.observing.disagreements()), ({"h1"}, {"h1"}, ()))
        first.hear("h1")
        first.hear("h1")
        self.pass_time(2 * INTERVAL_S)
        self.assertEqual(self.stored(), {})

    def test_sight_is_lost(self) -> None:
        """When what a director saw is too old to count, it follows the other without further news."""
        first, second = self.director("d1"), self.director("d2")
        second.hear("h1")
        second.leave("h1")
        first.fail("h1")
        self.pass_time(HEALTH.timeout_s - 1.0)
        self.assertEqual(second.out(), set())
        self.pass_time(1.5)
        self.assertEqual(second.out(), {"h1"})
        self.assertTrue(self.stored()["d2/h1"].blind)

    def test_silence_here(self) -> None:
        """A host whose agent one director hears no more stays in there while the other hears it."""
        first, second = self.director("d1"), self.director("d2")
        for each in (first, second):
            each.hear(*(f"h{number}" for number in range(10)))
        for _ in range(8):
            self.pass_time(1.0)
            first.hear(*(f"h{number}" for number in range(10)))
            second.hear(*(f"h{number}" for number in range(1, 10)))
        self.assertIs(second.node.inventory.hosts[ref("h0")].health.state, HostState.DOWN)
        self.assertEqual(self.stored()["d2/h0"].state, HostState.DOWN)
        self.assertEqual((first.out(), second.out()), (set(), set()))
        second.node.inventory.connect_succeeded(second.node.inventory.hosts[ref("h0")].host, self.clock.seconds(),
                                                 self.clock.seconds())
        second.node.settle()
        self.pass_time(INTERVAL_S)
        self.assertEqual(self.stored()["d2/h0"].state, HostState.SUSPECT)

    def test_death(self) -> None:
        """A dead director's opinions end with its lease."""
        first, second = self.director("d1"), self.director("d2")
        first.fail("h1")
        self.pass_time(INTERVAL_S)
        first.observing.stopService()
        stopped = first.membership.stopService()
        assert stopped is not None
        self.pass_time(INTERVAL_S)
        self.assertEqual((second.out(), set(self.stored())), (set(), set()))

    def test_unreadable(self) -> None:
        """A record that cannot be read counts for nothing, and is reported."""
        director = self.director("d1")
        self.successResultOf(self.store.commit([Put(KEYS.observed("d2", ref("h1")), b"{")]))
        self.pass_time(INTERVAL_S)
        self.assertEqual(director.out(), set())
        self.successResultOf(self.store.commit([Delete(KEYS.observed("d2", ref("h1")))]))
        self.pass_time(INTERVAL_S)
        self.assertEqual(director.observing.records, {})
