"""The embedded stores beyond the contract: time, bounds, groups, and what a disk can do."""

from __future__ import annotations

import itertools
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster import file, memory
from cluster.errors import StoreUnavailable
from cluster.file import FileStore, salvage
from cluster.memory import MemoryStore
from cluster.store import Changes, Compare, Delete, Event, Lease, Operation, Put, Resync, StoreDamaged
from cluster.table import Table, Transaction


def now(deferred: Deferred[Any]) -> Any:
    """The result of a Deferred that has fired already; raises its failure."""
    results: list[Any] = []
    failures: list[BaseException] = []
    deferred.addCallbacks(results.append, lambda failure: failures.append(failure.value))
    if failures:
        raise failures[0]
    assert results, "not fired yet"
    return results[0]


class Later:
    """A thread that runs what it was given only when told."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], object], Deferred[object]]] = []

    def __call__(self, work: Callable[[], object]) -> Deferred[object]:
        deferred: Deferred[object] = Deferred()
        self.waiting.append((work, deferred))
        return deferred

    def run(self) -> None:
        work, deferred = self.waiting.pop(0)
        maybeDeferred(work).chainDeferred(deferred)


class TableTests(SynchronousTestCase):

    def test_history_is_bounded_by_count(self) -> None:
        """Only the newest changes are remembered, whole transactions at a time."""
        clock = Clock()
        store = MemoryStore(clock=clock, wall=clock.seconds, history_limit=5)
        now(store.start())
        for n in range(10):
            clock.advance(1)
            now(store.commit([Put("/a", b"%d" % n), Put("/b", b"")]))
        history = now(store.history("/"))
        self.assertEqual([(change.revision, change.at) for change in history], [(10, 10.0)] * 2 + [(9, 9.0)] * 2)

    def test_history_is_bounded_by_size(self) -> None:
        """Large values push out older ones; a change larger than the bound is not remembered at all."""
        table = Table(history_bytes=100)
        for revision, size in enumerate((40, 40, 40, 200), 1):
            table.apply(Transaction(revision, 0.0, deleted=("x" * size,)))
            self.assertLessEqual(sum(past.size_bytes for past in table.past), 100)
        self.assertEqual(table.past, ())


class LeaseTests(SynchronousTestCase):

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock, wall=lambda: 0.0)
        now(self.store.start())
        self.lease: Lease = now(self.store.lease(3.0))
        now(self.store.commit([Put("/a", b"", self.lease.id)]))

    def test_renewed_as_long_as_the_process_lives(self) -> None:
        """What is left is counted from the last renewal, a third of the time to live apart."""
        left = []
        for _ in range(40):
            self.clock.advance(0.25)
            left.append(self.lease.remaining_s())
        self.assertEqual((min(left), max(left)), (2.25, 3.0))
        self.assertIsNotNone(now(self.store.get("/a")))

    def test_process_stood_still(self) -> None:
        """A process that slept through the whole time has lost the lease, at the first look already."""
        self.clock.advance(1.0)
        lost: list[None] = []
        self.lease.lost.addCallback(lost.append)
        self.clock.rightNow += 3.0
        self.assertEqual((self.lease.remaining_s(), lost), (0.0, []))
        self.clock.advance(0)
        self.assertEqual(lost, [None])
        self.assertIsNone(now(self.store.get("/a")))

    def test_nothing_stays_behind(self) -> None:
        """Revoked leases and a stopped store leave no timer."""
        now(self.lease.revoke())
        self.store.watch("/", lambda event: None)
        now(self.store.lease(3.0))
        now(self.store.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FileCase(SynchronousTestCase):

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = f"{self.directory}/store"
        self.clock = Clock()

    def make(self, threads: Callable[..., Deferred[object]] = maybeDeferred, history_limit: int = 1000) -> FileStore:
        return FileStore(self.path, clock=self.clock, wall=lambda: 1_800_000_000.0, threads=threads,
                         history_limit=history_limit)

    def started(self, history_limit: int = 1000) -> FileStore:
        store = self.make(history_limit=history_limit)
        now(store.start())
        self.addCleanup(store.stop)
        return store

    def files(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def values(self, store: MemoryStore) -> dict[str, bytes]:
        return {record.key: record.value for record in now(store.list("")).records}

    def on_disk(self) -> dict[str, bytes]:
        """What a process that started now would find."""
        copy = f"{self.directory}/copy"
        shutil.copy(self.path, copy)
        store = FileStore(copy, clock=Clock(), wall=lambda: 0.0, threads=maybeDeferred)
        now(store.start())
        found = self.values(store)
        now(store.stop())
        for name in self.files():
            if name.startswith("copy"):
                os.unlink(f"{self.directory}/{name}")
        return found


class FileTests(FileCase):

    def test_survives_a_restart(self) -> None:
        """Records with their revisions and history come back; revisions go on; leased records do not come back."""
        store = self.make()
        now(store.start())
        lease = now(store.lease(3.0))
        now(store.commit([Put("/a", b"1")]))
        now(store.commit([Put("/a", b"2"), Put("/leased", b"", lease.id)]))
        record, history = now(store.get("/a")), now(store.history(""))
        store._file.close()  # killed: nothing is revoked or written any more
        again = self.started()
        self.assertEqual(now(again.get("/a")), record)
        self.assertEqual(now(again.history("")), history)
        self.assertEqual(self.values(again), {"/a": b"2"})
        self.assertIsNone(again.recovered)
        self.assertEqual(now(again.commit([Put("/leased", b"")], when=[Compare("/leased", 0)])), (True, 3))
        now(again.stop())
        self.assertEqual(self.values(self.started()), {"/a": b"2", "/leased": b""})

    def test_only_its_owner_may_read_it(self) -> None:
        """Password hashes lie in it."""
        self.started()
        self.assertEqual({os.stat(f"{self.directory}/{name}").st_mode & 0o777 for name in self.files()}, {0o600})

    def test_one_process(self) -> None:
        """A second store on the file is refused, and told who holds it; after stop it may."""
        store = self.started()
        error = self.assertRaises(StoreUnavailable, now, self.make().start())
        self.assertIn(f"in use by process {os.getpid()}", str(error))
        now(store.stop())
        self.started()

    def test_no_directory(self) -> None:
        """A place that cannot be written is named."""
        store = FileStore(f"{self.directory}/no/store", clock=self.clock, wall=lambda: 0.0, threads=maybeDeferred)
        self.assertIn("No such file or directory", str(self.assertRaises(StoreUnavailable, now, store.start())))

    def test_compacted(self) -> None:
        """The file is written anew when most of it is past, and holds the same then."""
        self.patch(file, "REWRITE_BYTES", 2000)
        store = self.started(history_limit=20)
        sizes = []
        for n in range(200):
            now(store.commit([Put(f"/{n % 3}", b"%d" % n * 10)]))
            sizes.append(os.path.getsize(self.path))
        self.assertTrue(any(after < before for before, after in itertools.pairwise(sizes)))
        self.assertEqual(self.on_disk(), self.values(store))
        history = now(store.history("", limit=1000))
        self.assertEqual(len(history), 20)
        now(store.stop())
        self.assertEqual(now(self.started(history_limit=20).history("", limit=1000)), history)
        self.assertEqual(self.files(), ["store", "store.lock"])

    def test_link_is_followed(self) -> None:
        """Where the path is a link, its target is replaced and the link stays."""
        os.symlink(f"{self.directory}/real", self.path)
        store = self.started()
        now(store.commit([Put("/a", b"")]))
        self.assertTrue(os.path.islink(self.path))
        self.assertEqual(self.files(), ["real", "real.lock", "store"])


class GroupTests(FileCase):

    def test_commits_under_way_become_one_group(self) -> None:
        """What arrives during a write waits for it and is written at once; outcomes and events keep the order."""
        later = Later()
        store = self.make(later)
        store.start()
        later.run()
        events: list[Event] = []
        store.watch("/", events.append)
        outcomes: list[int] = []
        for n in range(1000):
            outcome = store.commit([Put(f"/{n}", b"")])
            outcome.addCallback(lambda committed: outcomes.append(committed.revision))
        self.assertEqual((len(later.waiting), outcomes, now(store.get("/0"))), (1, [], None))
        later.run()
        self.assertEqual((outcomes, len(later.waiting)), ([1], 1))
        later.run()
        self.assertEqual((outcomes, later.waiting), (list(range(1, 1001)), []))
        self.clock.advance(0)
        self.assertIsInstance(events[0], Resync)
        self.assertEqual([event.revision for event in events[1:] if isinstance(event, Changes)], outcomes)
        self.assertEqual(len(self.on_disk()), 1000)
        self.stopped(store, later)

    def test_decided_in_order_though_not_written_yet(self) -> None:
        """A comparison sees what was committed before it, written or not."""
        later = Later()
        store = self.make(later)
        store.start()
        later.run()
        outcomes = [store.commit([Put("/a", b"%d" % n)], when=[Compare("/a", n)]) for n in (0, 1, 1, 2)]
        later.run()
        later.run()
        self.assertEqual([now(outcome).succeeded for outcome in outcomes], [True, True, False, True])
        self.stopped(store, later)

    def test_stop_writes_what_waits(self) -> None:
        """Commits accepted before stop are written before it ends; leased records go."""
        later = Later()
        store = self.make(later)
        store.start()
        later.run()
        lease = now(store.lease(3.0))
        outcomes = [store.commit([Put(f"/{n}", b"", lease.id if n == 0 else None)]) for n in range(3)]
        self.stopped(store, later)
        self.assertEqual([now(outcome).revision for outcome in outcomes], [1, 2, 3])
        self.assertEqual(self.on_disk(), {"/1": b"", "/2": b""})

    def test_stopped_while_starting(self) -> None:
        """A store stopped before it was open lets go of its file."""
        later = Later()
        store = self.make(later)
        starting = store.start()
        now(store.stop())
        later.run()
        later.run()
        self.assertRaises(StoreUnavailable, now, starting)
        self.started()

    def test_lease_ends_while_its_record_is_being_written(self) -> None:
        """A leased record under way when its lease is revoked does not stay."""
        later = Later()
        store = self.make(later)
        store.start()
        later.run()
        lease = now(store.lease(3.0))
        store.commit([Put("/a", b"", lease.id)])
        lease.revoke()
        later.run()
        self.assertEqual(self.values(store), {"/a": b""})
        later.run()
        self.assertEqual(self.values(store), {})
        self.stopped(store, later)

    def test_writer_fails_otherwise(self) -> None:
        """Even a failure nobody thought of reaches who waits, as StoreUnavailable, and the next commit works."""
        store = self.started()
        self.patch(os, "fdatasync", lambda fd: 1 / 0)
        self.assertRaises(StoreUnavailable, now, store.commit([Put("/a", b"")]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.patch(os, "fdatasync", os.fsync)
        now(store.commit([Put("/b", b"")]))
        self.assertEqual((self.values(store), self.on_disk()), ({"/b": b""},) * 2)

    def test_too_many_waiting(self) -> None:
        """The queue is bounded: beyond it commits are refused at once, and what waited is not harmed."""
        self.patch(memory, "MAX_WAITING", 3)
        later = Later()
        store = self.make(later)
        store.start()
        later.run()
        outcomes = [store.commit([Put(f"/{n}", b"")]) for n in range(5)]
        self.assertRaises(StoreUnavailable, now, outcomes[4])
        self.stopped(store, later)
        self.assertEqual([now(outcome).revision for outcome in outcomes[:4]], [1, 2, 3, 4])

    def stopped(self, store: FileStore, later: Later) -> None:
        stopping = store.stop()
        while later.waiting:
            later.run()
        now(stopping)


class DiskTests(FileCase):
    """Failures are the kernel's own where it can be made to fail: a limit on the size of files."""

    def limit(self, size: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size if size else hard, hard))

    def failing(self, store: FileStore, operations: list[Operation], size: int) -> None:
        """Commit while no file may grow beyond *size*; it must fail and change nothing."""
        before, events = self.values(store), []
        watch = store.watch("", events.append)
        self.limit(size)
        try:
            outcome = store.commit(operations)
        finally:
            self.limit(0)
        self.assertRaises(StoreUnavailable, now, outcome)
        self.clock.advance(0)
        watch.stop()
        self.assertEqual((self.values(store), self.on_disk(), len(events)), (before, before, 1))

    def test_disk_full(self) -> None:
        """However much of a commit still fitted, it fails wholly, and works again once there is room."""
        store = self.started()
        now(store.commit([Put("/a", b"1")]))
        for room in (0, 1, 30, 200):
            self.failing(store, [Put("/a", b"2" * 300)], os.path.getsize(self.path) + room)
            revision = now(store.get("/a")).mod_revision
            now(store.commit([Put("/a", b"%d" % room)], when=[Compare("/a", revision)]))
            self.assertEqual(self.on_disk(), self.values(store))
        now(store.stop())
        self.assertEqual(self.values(self.started()), {"/a": b"200"})

    def test_no_room_to_compact(self) -> None:
        """A compaction that fails is put off; commits go on."""
        self.patch(file, "REWRITE_BYTES", 1000)
        store = self.started(history_limit=3)
        rename = os.rename
        self.patch(os, "rename", self.broken)
        for n in range(50):
            now(store.commit([Put("/a", b"%d" % n * 20)]))
        self.assertEqual((self.on_disk(), self.files()), (self.values(store), ["store", "store.lock"]))
        self.patch(os, "rename", rename)
        size = os.path.getsize(self.path)
        for _ in range(20):
            now(store.commit([Put("/a", b"x" * 100)]))
        self.assertLess(os.path.getsize(self.path), size)
        self.assertEqual(self.on_disk(), self.values(store))

    def test_sync_fails(self) -> None:
        """When even taking back fails nobody knows what lies in the file: it is replaced before the next commit."""
        store = self.started()
        now(store.commit([Put("/a", b"1")]))
        fdatasync, ftruncate = os.fdatasync, os.ftruncate
        self.patch(os, "fdatasync", self.broken)
        self.patch(os, "ftruncate", self.broken)
        self.assertRaises(StoreUnavailable, now, store.commit([Put("/a", b"2")]))
        self.assertEqual(self.values(store), {"/a": b"1"})
        self.patch(os, "fdatasync", fdatasync)
        self.patch(os, "ftruncate", ftruncate)
        now(store.commit([Put("/b", b"3")]))
        self.assertEqual((self.values(store), self.on_disk()), ({"/a": b"1", "/b": b"3"},) * 2)

    def test_directory_sync_fails(self) -> None:
        """A file replaced by a rename that may not last is replaced again before anything is appended."""
        self.patch(file, "REWRITE_BYTES", 100)
        store = self.started()
        now(store.commit([Put("/a", b"1" * 400)]))
        sync = file._sync_directory
        self.patch(file, "_sync_directory", self.broken)
        self.assertRaises(StoreUnavailable, now, store.commit([Put("/a", b"2")]))
        self.assertRaises(StoreUnavailable, now, store.commit([Put("/a", b"2")]))
        self.patch(file, "_sync_directory", sync)
        now(store.commit([Put("/b", b"3")]))
        self.assertEqual((self.values(store), self.on_disk()), ({"/a": b"1" * 400, "/b": b"3"},) * 2)

    def test_lease_ends_while_the_disk_is_full(self) -> None:
        """The lease is lost in time; its records go as soon as the store can write."""
        store = self.started()
        lease = now(store.lease(3.0))
        now(store.commit([Put("/a", b"", lease.id)]))
        self.limit(1)
        try:
            self.clock.advance(4)
        finally:
            self.limit(0)
        now(lease.lost)
        self.assertEqual(self.values(store), {"/a": b""})
        self.clock.advance(memory.RETRY_DELETION_S)
        self.assertEqual(self.values(store), {})

    @staticmethod
    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")


class RecoveryTests(FileCase):

    def setUp(self) -> None:
        super().setUp()
        store = self.started()
        for n in range(3):
            now(store.commit([Put(f"/{n}", b"%d" % n)]))
        now(store.stop())
        with open(self.path, "rb") as stream:
            self.content = stream.read()

    def write(self, data: bytes) -> None:
        with open(self.path, "wb") as stream:
            stream.write(data)

    def test_torn_tail(self) -> None:
        """A commit torn off by a crash is kept aside and reported; what was acknowledged is all there."""
        self.write(self.content[:-10])
        store = self.started()
        assert store.recovered is not None
        self.assertEqual(self.values(store), {"/0": b"0", "/1": b"1"})
        kept = store.recovered.kept_aside
        self.assertEqual(kept, f"{self.path}.damaged-20270115T080000Z")
        with open(kept, "rb") as stream:
            tail = stream.read()
        self.assertEqual(self.content[store.recovered.offset:-10], tail)
        self.assertEqual(store.recovered.size_bytes, len(tail))
        now(store.commit([Put("/2", b"again")]))
        now(store.stop())
        again = self.started()
        self.assertEqual((self.values(again)["/2"], again.recovered), (b"again", None))

    def test_torn_twice_in_a_second(self) -> None:
        """What was kept aside is never overwritten."""
        for _ in range(3):
            self.write(self.content[:-10])
            now(self.started().stop())
        stamp = "store.damaged-20270115T080000Z"
        self.assertEqual(self.files(), ["store", stamp, f"{stamp}-1", f"{stamp}-2", "store.lock"])

    def test_damage(self) -> None:
        """A damaged file is refused with its name and place, as often as one tries, and nothing is changed."""
        offset = self.content.index(b"\n") + 1
        damaged = self.content[:offset + 20] + b"?" + self.content[offset + 21:]
        for data, place in ((damaged, offset), (b"", 0), (b"hello\n" * 3, 0)):
            self.write(data)
            for _ in range(2):
                error = self.assertRaises(StoreDamaged, now, self.make().start())
                self.assertEqual((error.path, error.offset), (self.path, place))
                self.assertIn(f"{self.path}: damaged at byte {place}", str(error))
            with open(self.path, "rb") as stream:
                self.assertEqual(stream.read(), data)
            self.assertEqual(self.files(), ["store", "store.lock"])

    def test_salvage(self) -> None:
        """Salvage writes what is readable into a new file, says what is not, and leaves the damaged one as it is."""
        offset = self.content.index(b"\n") + 1
        damaged = self.content[:offset + 20] + b"?" + self.content[offset + 21:]
        self.write(damaged)
        into = f"{self.path}.salvaged"
        done = salvage(self.path, into, at=0.0)
        self.assertEqual((done.into, done.keys, done.revision), (into, ("/1", "/2"), 3))
        self.assertEqual([damage.offset for damage in done.damages], [offset])
        with open(self.path, "rb") as stream:
            self.assertEqual(stream.read(), damaged)
        self.assertRaises(StoreUnavailable, salvage, self.path, into, at=0.0)
        self.assertRaises(StoreUnavailable, salvage, self.path, self.path, at=0.0)
        os.rename(into, self.path)
        self.assertEqual(self.values(self.started()), {"/1": b"1", "/2": b"2"})

    def test_salvage_of_the_undamaged(self) -> None:
        """There is nothing to do, and nothing is done; a torn tail is no damage."""
        for data in (self.content, self.content[:-10]):
            self.write(data)
            done = salvage(self.path, f"{self.path}.salvaged", at=0.0)
            self.assertEqual((done.into, done.damages), (None, ()))
            self.assertEqual(self.files(), ["store", "store.lock"])

    def test_salvage_refuses(self) -> None:
        """No file, a file in use, or nothing readable: nothing is changed."""
        into = f"{self.path}.salvaged"
        self.assertRaises(StoreUnavailable, salvage, f"{self.directory}/none", into, at=0.0)
        store = self.started()
        self.assertRaises(StoreUnavailable, salvage, self.path, into, at=0.0)
        now(store.stop())
        for data in (b"", b"garbage\n"):
            self.write(data)
            self.assertRaises(StoreDamaged, salvage, self.path, into, at=0.0)
            self.assertEqual(os.path.getsize(self.path), len(data))
        self.assertEqual(self.files(), ["store", "store.lock"])

    def test_message(self) -> None:
        """The page that the message of a damaged file names exists, and so does the command."""
        self.write(b"garbage\n")
        said = str(self.assertRaises(StoreDamaged, now, self.make().start()))
        [page] = re.findall(r"docs/[a-z/-]+\.md", said)
        text = (Path(__file__).parents[3] / page).read_text("utf-8")
        for place in (said, text):
            self.assertIn("director salvage", place)


keys = st.sampled_from([f"/{group}/{name}" for group in "ab" for name in "xyz"])


class StoreMachine(RuleBasedStateMachine):
    """A store against a dict, with watchers that come and go, and leases that end."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = self.make()
        now(self.store.start())
        self.reset()

    def make(self) -> MemoryStore:
        return MemoryStore(clock=self.clock, wall=self.clock.seconds)

    def reset(self) -> None:
        self.model: dict[str, tuple[bytes, int, int, int | None]] = getattr(self, "model", {})
        self.revision: int = getattr(self, "revision", 0)
        self.pictures: list[tuple[str, dict[str, bytes]]] = []
        self.granted: list[Lease] = []  # by this process

    @rule(operations=st.lists(st.tuples(keys, st.none() | st.binary(max_size=3)), max_size=3,
                              unique_by=lambda operation: operation[0]),
          when=st.lists(st.tuples(keys, st.booleans(), st.sampled_from([True, True, False])), max_size=2))
    def commit(self, operations: list[tuple[str, bytes | None]], when: list[tuple[str, bool, bool]],
               lease: Lease | None = None) -> None:
        compares, expected = [], True
        for key, created, right in when:
            _, create, mod, _ = self.model.get(key, (b"", 0, 0, None))
            compares.append(Compare(key, (create if created else mod) + (0 if right else 1), created))
            expected = expected and right
        number = lease.id if lease else None
        outcome = now(self.store.commit([Delete(key) if value is None else Put(key, value, number)
                                         for key, value in operations], when=compares))
        assert outcome.succeeded == expected
        if expected:
            if any(value is not None or key in self.model for key, value in operations):
                self.revision += 1
            for key, value in operations:
                if value is None:
                    self.model.pop(key, None)
                else:
                    created_at = self.model[key][1] if key in self.model else self.revision
                    self.model[key] = (value, created_at, self.revision, number)
        assert outcome.revision == self.revision

    @rule(target=leases)
    def grant(self) -> Lease:
        lease: Lease = now(self.store.lease(3.0))
        self.granted.append(lease)
        return lease

    @rule(lease=leases, key=keys)
    def put_leased(self, lease: Lease, key: str) -> None:
        if lease in self.granted and lease.remaining_s():
            self.commit([(key, b"leased")], [], lease)

    @rule(lease=consumes(leases))
    def revoke(self, lease: Lease) -> None:
        if lease in self.granted:
            live = lease.remaining_s() > 0
            now(lease.revoke())
            self.ended({lease.id} if live else set())

    @rule()
    def stand_still(self) -> None:
        """Every lease is lost."""
        self.clock.advance(10.0)
        for number in sorted({lease for *_, lease in self.model.values() if lease is not None}):
            self.ended({number})

    def ended(self, numbers: set[int]) -> None:
        kept = {key: record for key, record in self.model.items() if record[3] not in numbers}
        self.revision += len(kept) < len(self.model)
        self.model = kept

    @rule(prefix=st.sampled_from(["", "/a/", "/b/"]))
    def watch(self, prefix: str) -> None:
        picture: dict[str, bytes] = {}

        def deliver(event: Event) -> None:
            if isinstance(event, Resync):
                assert not picture
                picture.update((record.key, record.value) for record in event.listing.records)
            else:
                picture.update((record.key, record.value) for record in event.written)
                for key in event.deleted:
                    del picture[key]

        self.store.watch(prefix, deliver)
        self.pictures.append((prefix, picture))

    @rule()
    def turn(self) -> None:
        self.clock.advance(0)
        for prefix, picture in self.pictures:
            assert picture == {key: value for key, (value, *_) in self.model.items() if key.startswith(prefix)}

    @invariant()
    def the_same(self) -> None:
        for prefix in ("", "/b/"):
            listing = now(self.store.list(prefix))
            assert [tuple(record) for record in listing.records] == [
                (key, *record) for key, record in sorted(self.model.items()) if key.startswith(prefix)]
            assert listing.revision == self.revision

    def teardown(self) -> None:
        now(self.store.stop())
        assert not self.clock.getDelayedCalls()


class FileMachine(StoreMachine):
    """The same, with restarts and compactions."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp()
        super().__init__()

    def make(self) -> FileStore:
        return FileStore(f"{self.directory}/store", clock=self.clock, wall=self.clock.seconds, threads=maybeDeferred)

    @rule()
    def compact(self) -> None:
        self.store._file._rewrite_at = 0  # type: ignore[attr-defined]

    @rule(killed=st.booleans())
    def restart(self, killed: bool) -> None:
        if killed:
            self.store._file.close()  # type: ignore[attr-defined]
            self.clock = Clock()
            self.model = {key: record for key, record in self.model.items() if record[3] is None}
        else:
            for number in sorted({lease for *_, lease in self.model.values() if lease is not None}):
                self.ended({number})
            now(self.store.stop())
        self.store = self.make()
        now(self.store.start())
        self.reset()

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory)


StoreMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
FileMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=30)


class MemoryStoreMachineTests(StoreMachine.TestCase):  # type: ignore[misc,valid-type,name-defined]
    pass


class FileStoreMachineTests(FileMachine.TestCase):  # type: ignore[misc,valid-type,name-defined]
    pass
