"""What every store keeps, run against each of them.

`StoreContract` assumes nothing that only an embedded store gives: keys lie under a prefix of the test's own, revisions
start anywhere, events come later, and everything is waited for with a deadline. A new implementation is one more class.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from cluster.errors import Misuse, StoreUnavailable
from cluster.etcd import Access, EtcdStore
from cluster.file import FileStore
from cluster.memory import MemoryStore
from cluster.store import (
    MAX_OPERATIONS,
    MAX_VALUE_BYTES,
    Changes,
    Compare,
    Delete,
    Event,
    Lease,
    Put,
    Record,
    Resync,
    Store,
)
from tests.etcd_server import EtcdCluster

#: no condition here takes long, even over a network
DEADLINE_S = 20.0
TTL_S = 5.0


class Watcher:
    """Keeps what a watch delivers, and the picture that follows from it."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.events: list[Event] = []
        self.picture: dict[str, Record] = {}
        self.revision = 0
        self.watch = store.watch(prefix, self.deliver)

    def deliver(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Resync):
            self.picture = {record.key: record for record in event.listing.records}
            self.revision = event.listing.revision
        else:
            assert event.revision > self.revision, "events come in order, each once"
            self.revision = event.revision
            self.picture.update((record.key, record) for record in event.written)
            for key in event.deleted:
                del self.picture[key]

    @property
    def changes(self) -> list[Changes]:
        return [event for event in self.events if isinstance(event, Changes)]


class StoreContract:
    """Mixed into a TestCase that says how to make a store, how to let time pass and how to lose a lease."""

    store: Store
    prefix: str

    def make_store(self) -> Store:
        raise NotImplementedError

    def turn(self) -> Deferred[None]:
        """Let whatever is under way go on for a moment."""
        raise NotImplementedError

    def lose(self, lease: Lease) -> Deferred[None]:
        """Take *lease* away behind the holder's back."""
        raise NotImplementedError

    async def setUp(self) -> None:
        self.prefix = f"/test/{uuid.uuid4().hex}/"
        self.store = self.make_store()
        await self.store.start()
        self.addCleanup(lambda: self.store.stop())

    def key(self, name: str) -> str:
        return self.prefix + name

    async def put(self, name: str, value: bytes = b"v", lease: Lease | None = None) -> int:
        outcome = await self.store.commit([Put(self.key(name), value, lease.id if lease else None)])
        self.assertTrue(outcome.succeeded)
        return outcome.revision

    async def value(self, name: str) -> bytes | None:
        record = await self.store.get(self.key(name))
        return record.value if record else None

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = reactor.seconds() + DEADLINE_S
        while not condition():
            self.assertLess(reactor.seconds(), deadline, "waited too long")
            await self.turn()

    async def until_absent(self, name: str) -> None:
        deadline = reactor.seconds() + DEADLINE_S
        while await self.store.get(self.key(name)) is not None:
            self.assertLess(reactor.seconds(), deadline, "waited too long")
            await self.turn()

    async def watching(self, prefix: str) -> Watcher:
        """A watcher that has had its first event."""
        watcher = Watcher(self.store, prefix)
        self.assertEqual(watcher.events, [], "delivered from within watch()")
        await self.until(lambda: watcher.events)
        return watcher

    async def settled(self, *watchers: Watcher) -> None:
        """Return once every watcher has heard of all that was committed: of a last key under its prefix."""
        revision = await self.put("zz-settled", uuid.uuid4().bytes)
        await self.until(lambda: all(watcher.revision >= revision for watcher in watchers))

    async def refused(self, kind: type[Exception], call: Callable[[], Deferred]) -> None:
        await self.assertFailure(maybeDeferred(call), kind)

    # --- records and revisions ---

    async def test_put_and_get(self) -> None:
        """A record knows its key, value and both revisions; bytes of any kind come back as they went in."""
        for value in (b"", b"text", "ünïcode\n\0".encode(), bytes(range(256))):
            first = await self.put("a", value)
            record = await self.store.get(self.key("a"))
            self.assertEqual((record.key, record.value, record.mod_revision, record.lease),
                             (self.key("a"), value, first, None))
        second = await self.put("a", b"again")
        again = await self.store.get(self.key("a"))
        self.assertEqual((again.create_revision, again.mod_revision), (record.create_revision, second))
        self.assertGreater(second, first)

    async def test_absent(self) -> None:
        """What was never written, or was deleted, is None."""
        self.assertIsNone(await self.store.get(self.key("a")))
        await self.put("a")
        await self.store.commit([Delete(self.key("a"))])
        self.assertIsNone(await self.store.get(self.key("a")))

    async def test_created_anew_after_deletion(self) -> None:
        """A record written after its deletion is a new one."""
        await self.put("a")
        await self.store.commit([Delete(self.key("a"))])
        revision = await self.put("a")
        record = await self.store.get(self.key("a"))
        self.assertEqual((record.create_revision, record.mod_revision), (revision, revision))

    async def test_list_is_sorted_and_isolated(self) -> None:
        """A listing holds all under the prefix and nothing beside it, by key."""
        for name in ("b/2", "b/10", "b", "b2/1", "a/1", "b/1"):
            await self.put(name)
        revision = await self.put("c")
        listing = await self.store.list(self.key("b/"))
        self.assertEqual([record.key for record in listing.records], [self.key(f"b/{n}") for n in ("1", "10", "2")])
        self.assertGreaterEqual(listing.revision, revision)
        self.assertEqual((await self.store.list(self.key("nothing/"))).records, ())

    async def test_large_value(self) -> None:
        """A value of the largest size is stored whole."""
        value = bytes(range(256)) * (MAX_VALUE_BYTES // 256)
        await self.put("a", value)
        self.assertEqual(await self.value("a"), value)

    # --- transactions ---

    async def test_compare_and_swap(self) -> None:
        """Of two writers that read the same revision, one succeeds."""
        revision = await self.put("a", b"0")
        outcomes = [await self.store.commit([Put(self.key("a"), value)], when=[Compare(self.key("a"), revision)])
                    for value in (b"1", b"2")]
        self.assertEqual([outcome.succeeded for outcome in outcomes], [True, False])
        self.assertEqual(await self.value("a"), b"1")
        self.assertGreaterEqual(outcomes[1].revision, outcomes[0].revision)

    async def test_concurrent_swaps(self) -> None:
        """Of many at once, exactly one succeeds."""
        revision = await self.put("a", b"0")
        commits = [self.store.commit([Put(self.key("a"), b"%d" % n)], when=[Compare(self.key("a"), revision)])
                   for n in range(20)]
        outcomes = [await commit for commit in commits]
        winners = [n for n, outcome in enumerate(outcomes) if outcome.succeeded]
        self.assertEqual(len(winners), 1)
        self.assertEqual(await self.value("a"), b"%d" % winners[0])

    async def test_create_if_absent(self) -> None:
        """Revision 0 means "does not exist", by either comparison."""
        for created in (False, True):
            name = f"a{created}"
            outcomes = [await self.store.commit([Put(self.key(name), value)],
                                                when=[Compare(self.key(name), 0, created)])
                        for value in (b"1", b"2")]
            self.assertEqual([outcome.succeeded for outcome in outcomes], [True, False])
            self.assertEqual(await self.value(name), b"1")

    async def test_fencing(self) -> None:
        """A creating revision holds while its record lives on, whoever rewrites it, and for no later record."""
        term = await self.put("leader", b"me")
        await self.put("leader", b"me, still")

        async def write() -> bool:
            fence = Compare(self.key("leader"), term, created=True)
            return (await self.store.commit([Put(self.key("a"), b"")], when=[fence])).succeeded

        self.assertTrue(await write())
        await self.store.commit([Delete(self.key("leader"))])
        self.assertFalse(await write())
        await self.put("leader", b"another")
        self.assertFalse(await write())

    async def test_all_or_nothing(self) -> None:
        """One comparison that fails prevents every operation; all that hold allow them, at one revision."""
        revision = await self.put("a", b"old")
        await self.put("gone")
        operations = [Put(self.key("a"), b"new"), Put(self.key("b"), b"new"), Delete(self.key("gone"))]
        holds, fails = Compare(self.key("a"), revision), Compare(self.key("b"), revision)
        outcome = await self.store.commit(operations, when=[holds, fails])
        self.assertFalse(outcome.succeeded)
        self.assertEqual([await self.value(name) for name in ("a", "b", "gone")], [b"old", None, b"v"])
        outcome = await self.store.commit(operations, when=[holds, Compare(self.key("b"), 0)])
        self.assertTrue(outcome.succeeded)
        self.assertEqual([await self.value(name) for name in ("a", "b", "gone")], [b"new", b"new", None])
        revisions = {record.mod_revision for record in (await self.store.list(self.prefix)).records}
        self.assertEqual(revisions, {outcome.revision})

    async def test_delete_absent(self) -> None:
        """Deleting what is not there succeeds, and no watcher hears of it."""
        watcher = await self.watching(self.prefix)
        self.assertTrue((await self.store.commit([Delete(self.key("a"))])).succeeded)
        await self.settled(watcher)
        self.assertEqual(len(watcher.changes), 1)

    async def test_only_comparing(self) -> None:
        """A transaction without operations answers whether its comparisons hold."""
        revision = await self.put("a")
        for asked, answer in ((revision, True), (revision + 1, False), (0, False)):
            outcome = await self.store.commit([], when=[Compare(self.key("a"), asked)])
            self.assertEqual(outcome.succeeded, answer)

    async def test_as_many_operations_as_allowed(self) -> None:
        """A transaction of the largest count happens whole."""
        operations = [Put(self.key(f"{n:04}"), b"") for n in range(MAX_OPERATIONS)]
        await self.store.commit(operations, when=[Compare(operation.key, 0) for operation in operations])
        self.assertEqual(len((await self.store.list(self.prefix)).records), MAX_OPERATIONS)

    async def test_misuse(self) -> None:
        """Wrong calls fail and change nothing."""
        lease = await self.store.lease(TTL_S)
        await lease.revoke()
        a, b = self.key("a"), self.key("b")
        for operations in (
            [Put(b, b""), Put(a, b"x" * (MAX_VALUE_BYTES + 1))],
            [Put(f"{a}{n}", b"x" * MAX_VALUE_BYTES) for n in range(2)],
            [Put(a, b"1"), Put(a, b"2")],
            [Put(a, b"1"), Delete(a)],
            [Put(f"{a}{n}", b"") for n in range(MAX_OPERATIONS + 1)],
            [Put("", b"")],
            [Put(a + "\0", b"")],
            [Put(a + "x" * 2000, b"")],
            [Put(b, b""), Put(a, b"", lease.id)],
            [Put(b, b""), Put(a, b"", 2 ** 62 + 12345)],
        ):
            await self.refused(Misuse, lambda operations=operations: self.store.commit(operations))
        await self.refused(Misuse, lambda: self.store.lease(0))
        self.assertEqual((await self.store.list(self.prefix)).records, ())

    # --- watching ---

    async def test_watch(self) -> None:
        """First everything that is there, then each change once, in order."""
        await self.put("a", b"1")
        watcher = await self.watching(self.prefix)
        [resync] = watcher.events
        self.assertIsInstance(resync, Resync)
        self.assertEqual([record.value for record in resync.listing.records], [b"1"])
        revisions = [await self.put("a", b"%d" % n) for n in range(2, 12)]
        await self.settled(watcher)
        self.assertEqual([change.revision for change in watcher.changes][:-1], revisions)
        self.assertEqual([change.written[0].value for change in watcher.changes][:-1],
                         [b"%d" % n for n in range(2, 12)])

    async def test_watch_of_nothing(self) -> None:
        """An empty prefix is news too: an empty Resync."""
        watcher = await self.watching(self.prefix)
        self.assertEqual(watcher.events[0].listing.records, ())

    async def test_transaction_is_one_event(self) -> None:
        """All of a transaction under the prefix comes in one event, and nothing of what lies beside it."""
        await self.put("in/gone")
        watcher = await self.watching(self.key("in/"))
        outcome = await self.store.commit([Put(self.key("in/a"), b"1"), Put(self.key("out/a"), b"2"),
                                           Put(self.key("in/b"), b"3"), Delete(self.key("in/gone")),
                                           Delete(self.key("in/absent"))])
        await self.put("out/b")
        last = await self.put("in/z")
        await self.until(lambda: watcher.revision >= last)
        one, two = watcher.changes
        self.assertEqual({(record.key, record.value) for record in one.written},
                         {(self.key("in/a"), b"1"), (self.key("in/b"), b"3")})
        self.assertEqual((one.deleted, one.revision), ((self.key("in/gone"),), outcome.revision))
        self.assertEqual({record.mod_revision for record in one.written}, {outcome.revision})
        self.assertEqual(two.revision, last)

    async def test_watch_stops(self) -> None:
        """A stopped watch delivers nothing more, not even what was under way; others go on."""
        stopped, other = await self.watching(self.prefix), await self.watching(self.prefix)
        await self.put("a")
        seen = len(stopped.events)
        stopped.watch.stop()
        stopped.watch.stop()
        await self.settled(other)
        self.assertEqual(len(stopped.events), seen)

    async def test_many_watchers_see_the_same(self) -> None:
        """Watchers that start at different times end with one picture: the store's."""
        watchers = []
        for n in range(30):
            if n % 5 == 0:
                watchers.append(Watcher(self.store, self.prefix))
            commits = [self.store.commit([Put(self.key(f"{n % 7}"), b"%d" % n), Delete(self.key(f"{(n + 3) % 7}"))]),
                       self.store.commit([Put(self.key("x"), b"%d" % n)])]
            for commit in commits:
                await commit
        await self.settled(*watchers)
        listing = await self.store.list(self.prefix)
        for watcher in watchers:
            self.assertEqual(tuple(sorted(watcher.picture.values())), listing.records)

    async def test_watcher_commits(self) -> None:
        """A watcher may commit from within its event; it hears of that by a later one."""
        watcher = await self.watching(self.prefix)
        inside = []

        def react(event: Event) -> None:
            inside.append("in")
            if isinstance(event, Changes) and event.written[0].key == self.key("a"):
                inside.append(self.store.commit([Put(self.key("b"), b"")]))
            inside.append("out")

        watch = self.store.watch(self.prefix, react)
        self.assertEqual(inside, [], "delivered from within watch()")
        await self.until(lambda: inside)  # or "a" may come by its first event
        await self.put("a")
        await self.until(lambda: self.key("b") in watcher.picture)
        await self.settled(watcher)
        watch.stop()
        nested = [item for item in inside if isinstance(item, str)]
        self.assertEqual(nested, ["in", "out"] * (len(nested) // 2))

    async def test_raising_watcher(self) -> None:
        """A watcher that raises is logged, hears on, and harms no other."""
        heard = []

        def broken(event: Event) -> None:
            heard.append(event)
            raise ValueError("this watcher is broken")

        watch = self.store.watch(self.prefix, broken)
        watcher = await self.watching(self.prefix)
        await self.put("a")
        await self.settled(watcher)
        await self.until(lambda: len(heard) == 3)
        self.assertEqual(len(watcher.changes), 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 3)
        watch.stop()

    # --- leases ---

    async def test_revoked_lease(self) -> None:
        """Revoking deletes the lease's records in one transaction, and nothing else; nothing was lost."""
        lease = await self.store.lease(TTL_S)
        lost = []
        lease.lost.addCallback(lost.append)
        watcher = await self.watching(self.prefix)
        for name in ("a", "b"):
            await self.put(name, lease=lease)
        await self.put("mine")
        self.assertEqual((await self.store.get(self.key("a"))).lease, lease.id)
        await lease.revoke()
        await lease.revoke()
        self.assertEqual([record.key for record in (await self.store.list(self.prefix)).records], [self.key("mine")])
        await self.settled(watcher)
        self.assertEqual(sorted(watcher.changes[-2].deleted), [self.key("a"), self.key("b")])
        self.assertEqual((lost, lease.remaining_s()), ([], 0.0))

    async def test_lost_lease(self) -> None:
        """A lease that ran out says so, promises nothing more, and its records go."""
        lease, other = await self.store.lease(TTL_S), await self.store.lease(100 * TTL_S)
        lost = []
        lease.lost.addCallback(lost.append)
        watcher = await self.watching(self.prefix)
        await self.put("a", lease=lease)
        await self.put("b", lease=other)
        await self.lose(lease)
        await self.until(lambda: lost)
        self.assertEqual(lease.remaining_s(), 0.0)
        await self.until_absent("a")
        await self.until(lambda: watcher.picture.keys() == {self.key("b")})
        self.assertGreater(other.remaining_s(), 0.0)
        await self.refused(Misuse, lambda: self.store.commit([Put(self.key("c"), b"", lease.id)]))
        await lease.revoke()

    async def test_remaining(self) -> None:
        """A lease promises no more than its time to live, and something while it is renewed."""
        lease = await self.store.lease(TTL_S)
        self.assertTrue(0 < lease.remaining_s() <= TTL_S)
        for _ in range(5):
            await self.turn()
        self.assertTrue(0 < lease.remaining_s() <= TTL_S)

    async def test_rewriting_changes_the_lease(self) -> None:
        """A record belongs to the lease of its last write, or to none."""
        one, two = await self.store.lease(TTL_S), await self.store.lease(TTL_S)
        await self.put("to none", lease=one)
        await self.put("to none")
        await self.put("to two", lease=one)
        await self.put("to two", lease=two)
        await one.revoke()
        self.assertEqual((await self.value("to none"), await self.value("to two")), (b"v", b"v"))
        await two.revoke()
        self.assertEqual((await self.value("to none"), await self.value("to two")), (b"v", None))

    async def test_leases_differ(self) -> None:
        """Each lease has an id of its own."""
        leases = [await self.store.lease(TTL_S) for _ in range(5)]
        self.assertEqual(len({lease.id for lease in leases}), 5)

    # --- history ---

    async def test_history(self) -> None:
        """The newest changes first, deletions among them, of this prefix only and no more than asked for."""
        first = await self.put("a/1", b"1")
        await self.put("b/1")
        second = await self.put("a/1", b"2")
        third = (await self.store.commit([Delete(self.key("a/1"))])).revision
        history = await self.store.history(self.key("a/"))
        self.assertEqual([(change.key, change.value, change.revision) for change in history],
                         [(self.key("a/1"), None, third), (self.key("a/1"), b"2", second),
                          (self.key("a/1"), b"1", first)])
        self.assertEqual(await self.store.history(self.key("a/"), limit=2), history[:2])
        self.assertEqual(await self.store.history(self.key("c/")), ())

    # --- life ---

    async def test_unavailable_after_stop(self) -> None:
        """A stopped store answers nothing, not even "nothing there", and delivers nothing."""
        watcher = await self.watching(self.prefix)
        await self.put("a")
        lease = await self.store.lease(TTL_S)
        lost = []
        lease.lost.addCallback(lost.append)
        stopped = self.store.stop()
        seen = len(watcher.events)
        await stopped
        await self._refuses(self.store)
        for _ in range(5):
            await self.turn()
        self.assertEqual((len(watcher.events), lost, lease.remaining_s()), (seen, [], 0.0))
        await self.store.stop()

    async def test_unavailable_before_start(self) -> None:
        """So is one that was not started."""
        await self.store.stop()
        self.store = self.make_store()
        await self._refuses(self.store)

    async def _refuses(self, store: Store) -> None:
        for call in (lambda: store.get("/a"), lambda: store.list("/"), lambda: store.commit([Delete("/a")]),
                     lambda: store.lease(TTL_S), lambda: store.history("/"), lambda: store.watch("/", print)):
            await self.refused(StoreUnavailable, call)


class MemoryStoreTests(StoreContract, TestCase):
    """In memory; time is a Clock's."""

    def make_store(self) -> Store:
        self.clock = Clock()
        return MemoryStore(clock=self.clock, wall=lambda: 1e9)

    async def turn(self) -> None:
        self.clock.advance(0.01)
        await deferLater(reactor, 0)

    async def lose(self, lease: Lease) -> None:
        """The process stood still for longer than the lease lives."""
        self.clock.advance(TTL_S + 1)


class FileStoreTests(MemoryStoreTests):
    """In a file, written by the caller's thread."""

    def make_store(self) -> Store:
        self.clock = Clock()
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        return FileStore(f"{directory}/store", clock=self.clock, wall=lambda: 1e9, threads=self.threads)

    def threads(self, work: Callable[[], object]) -> Deferred[object]:
        return maybeDeferred(work)


class ThreadedFileStoreTests(FileStoreTests):
    """In a file, written by the reactor's threads, so that commits meet writes under way."""

    def threads(self, work: Callable[[], object]) -> Deferred[object]:
        return deferToThread(work)


class EtcdStoreTests(StoreContract, TestCase):
    """In a real etcd of one member."""

    cluster: EtcdCluster

    @classmethod
    def setUpClass(cls) -> None:
        cls.cluster = EtcdCluster().start()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.cluster.stop()

    def make_store(self) -> Store:
        return EtcdStore(Access(self.cluster.endpoints), reactor=reactor)

    def turn(self) -> Deferred[None]:
        return deferLater(reactor, 0.01)

    async def lose(self, lease: Lease) -> None:
        """Somebody else revokes it; a renewal finds out."""
        self.cluster.etcdctl("lease", "revoke", f"{lease.id:x}")
