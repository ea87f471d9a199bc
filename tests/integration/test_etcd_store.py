"""What only a real etcd can do to its store: die, freeze, lose its quorum, forget, and ask who is there."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cluster.errors import StoreUnavailable
from cluster.etcd import Access, EtcdStore, watching
from cluster.etcd.store import PAGE_RECORDS
from cluster.store import Changes, Delete, Event, Put, Record, Resync
from tests.etcd_server import EtcdCluster, Member
from tests.integration.pki import Authority

#: A condition that does not hold by then never will.
DEADLINE_S = 30.0
ROOT = "/test/"


class Picture:
    """What a watch has told, and how often it began anew."""

    def __init__(self, store: EtcdStore, prefix: str = ROOT) -> None:
        self.resyncs = 0
        self.changes: list[Changes] = []
        self.records: dict[str, Record] = {}
        self.watch = store.watch(prefix, self.deliver)

    def deliver(self, event: Event) -> None:
        if isinstance(event, Resync):
            self.resyncs += 1
            self.records = {record.key: record for record in event.listing.records}
        else:
            self.changes.append(event)
            self.records.update((record.key, record) for record in event.written)
            for key in event.deleted:
                del self.records[key]


class EtcdTestCase(TestCase):
    """One cluster for each test, as few members as it needs."""

    timeout = 120

    def cluster(self, members: int = 1, **how: object) -> EtcdCluster:
        cluster = EtcdCluster(members, **how)
        self.addCleanup(cluster.stop)
        return cluster.start()

    def store(self, *endpoints: str, **how: str) -> EtcdStore:
        store = EtcdStore(Access(endpoints, **how), reactor=reactor)
        self.addCleanup(lambda: store.stop())
        return store

    async def started(self, *endpoints: str, **how: str) -> EtcdStore:
        store = self.store(*endpoints, **how)
        await store.start()
        return store

    async def until(self, holds: Callable[[], object], what: str) -> None:
        began = time.monotonic()
        while not holds():
            self.assertLess(time.monotonic() - began, DEADLINE_S, f"waited too long: {what}")
            await deferLater(reactor, 0.01)

    async def put(self, store: EtcdStore, name: str, value: bytes = b"v") -> int:
        return (await store.commit([Put(ROOT + name, value)])).revision

    async def until_written(self, store: EtcdStore, name: str) -> None:
        """Write as soon as etcd lets us."""
        began = time.monotonic()
        while True:
            try:
                await self.put(store, name)
                return
            except StoreUnavailable:
                self.assertLess(time.monotonic() - began, DEADLINE_S, "etcd did not come back")
                await deferLater(reactor, 0.05)

    async def unavailable(self, call: Callable[[], Deferred]) -> StoreUnavailable:
        return await self.assertFailure(call(), StoreUnavailable)


class AbsenceTests(EtcdTestCase):
    async def test_start_when_etcd_comes(self) -> None:
        """A start without etcd fails, says why, and may be tried again."""
        cluster = self.cluster()
        [member] = cluster.members
        member.kill()
        store = self.store(member.endpoint)
        reason = await self.unavailable(store.start)
        self.assertIn(member.endpoint, str(reason))
        self.assertFalse(store.available)
        cluster.start()
        await store.start()
        self.assertTrue(store.available)

    async def test_restart(self) -> None:
        """While etcd is away nothing is answered and nobody hears anything; then watches begin anew and go on."""
        cluster = self.cluster()
        [member] = cluster.members
        store = await self.started(member.endpoint)
        await self.put(store, "a")
        picture = Picture(store)
        await self.until(lambda: picture.resyncs == 1, "the first answer")
        member.kill()
        await self.until(lambda: not store.available, "the loss to be noticed")
        for call in (lambda: store.get(ROOT), lambda: store.list(ROOT), lambda: self.commit(store),
                     lambda: store.history(ROOT), lambda: store.lease(5)):
            await self.unavailable(call)
        self.assertEqual((picture.resyncs, list(picture.records)), (1, [ROOT + "a"]))
        cluster.start()
        await self.until(lambda: picture.resyncs == 2 and store.available, "the watch to begin anew")
        await self.put(store, "b")
        await self.until(lambda: ROOT + "b" in picture.records, "a change after it")

    def commit(self, store: EtcdStore) -> Deferred:
        return store.commit([Put(ROOT + "lost", b"")])

    async def test_compaction_past_our_revision(self) -> None:
        """What was compacted away while we were cut off is made up for by everything anew, deletions included."""
        cluster = self.cluster()
        [member] = cluster.members
        store = await self.started(member.endpoint)
        for name in ("kept", "gone"):
            await self.put(store, name)
        picture = Picture(store)
        await self.until(lambda: picture.resyncs == 1, "the first answer")
        member.kill()
        await self.until(lambda: not store.available, "the loss to be noticed")
        cluster.start()
        cluster.etcdctl("del", ROOT + "gone")
        cluster.etcdctl("put", ROOT + "new", "v")
        cluster.compact()
        await self.until(lambda: picture.records.keys() == {ROOT + "kept", ROOT + "new"}, "the picture to be true")

    async def test_compaction_under_a_slow_watch(self) -> None:
        """A watch whose revision is compacted before it was established begins anew by itself."""
        cluster = self.cluster()
        store = await self.started(*cluster.endpoints)
        old = await self.put(store, "a")
        for _ in range(3):
            last = await self.put(store, "a", b"new")
        cluster.compact(last)
        original = store._watching._listing

        async def stale(prefix: str) -> object:
            """The listing as it was before: as if all that happened between it and the watch."""
            store._watching._listing = original
            return (await original(prefix))._replace(revision=old)

        store._watching._listing = stale
        picture = Picture(store)
        await self.until(lambda: picture.resyncs == 2, "the watch to begin anew")
        await self.put(store, "b")
        await self.until(lambda: ROOT + "b" in picture.records, "a change after it")
        self.assertTrue(store.available)

    async def test_lost_events(self) -> None:
        """Events that a watch never heard are made up for within the interval of comparisons; without any, nothing is told
        anew."""
        self.patch(watching, "COMPARE_S", 0.2)
        self.patch(watching, "SETTLE_S", 0.2)
        store = await self.started(*self.cluster().endpoints)
        await self.put(store, "gone")
        await self.put(store, "old")
        picture, other = Picture(store), Picture(store)
        await self.until(lambda: picture.resyncs == other.resyncs == 1, "the first answers")
        heard, dropped = picture.watch.heard, []
        picture.watch.heard = dropped.append
        await store.commit([Put(ROOT + "old", b"changed"), Put(ROOT + "new", b"v"), Delete(ROOT + "gone")])
        await self.until(lambda: dropped, "the event that is dropped")
        picture.watch.heard = heard
        await self.until(lambda: picture.resyncs == 2, "everything anew")
        self.assertEqual({key: record.value for key, record in picture.records.items()},
                         {ROOT + "old": b"changed", ROOT + "new": b"v"})
        self.assertEqual((store._watching.lost, other.resyncs), (1, 1))
        await self.put(store, "later")
        await self.until(lambda: ROOT + "later" in picture.records, "what follows")
        self.assertEqual(picture.resyncs, 2)

    async def test_quorum_lost(self) -> None:
        """A member that lost its leader answers nothing and its watches say nothing; with a leader all goes on."""
        cluster = self.cluster(3)
        survivor, *others = cluster.members
        store = await self.started(survivor.endpoint)
        await self.put(store, "a")
        picture = Picture(store)
        await self.until(lambda: picture.resyncs == 1, "the first answer")
        for member in others:
            member.kill()
        await self.unavailable(lambda: self.commit(store))
        await self.until(lambda: not store.available, "the loss to be noticed")
        await self.unavailable(lambda: store.list(ROOT))
        self.assertEqual(list(picture.records), [ROOT + "a"])
        cluster.start()
        await self.until_written(store, "b")
        await self.until(lambda: picture.resyncs > 1 and ROOT + "b" in picture.records, "the watch to go on")


class EndpointTests(EtcdTestCase):
    def using(self, cluster: EtcdCluster, store: EtcdStore) -> Member:
        """The member that *store* is connected to."""
        endpoint = store._caller._connection.endpoint
        return next(member for member in cluster.members if member.endpoint == endpoint)

    async def no_threads_beside(self, before: set[threading.Thread]) -> None:
        """Ours end with the store's stop, gRPC's own a moment later."""
        await self.until(lambda: not set(threading.enumerate()) - before, "gRPC's thread to end")

    async def test_next_endpoint(self) -> None:
        """When the endpoint in use dies or freezes another takes over: the lease lives on, watches miss nothing."""
        cluster = self.cluster(3)
        store = await self.started(*cluster.endpoints)
        lease = await store.lease(5)
        lost = []
        lease.lost.addCallback(lost.append)
        await store.commit([Put(ROOT + "me", b"", lease.id)])
        picture = Picture(store)
        for n, strike in enumerate((Member.kill, Member.freeze)):
            used = self.using(cluster, store)
            strike(used)
            await self.until_written(store, f"after{n}")
            self.assertIsNot(self.using(cluster, store), used)
            await self.until(lambda n=n: ROOT + f"after{n}" in picture.records, "the watch to go on")
            if used.process is not None:
                used.thaw()
            cluster.start()
        self.assertEqual(lost, [])
        self.assertIn(ROOT + "me", picture.records)
        self.assertGreater(lease.remaining_s(), 0)

    async def test_frozen(self) -> None:
        """A frozen etcd costs the lease, never an answer; the store stops all the same and leaves no thread."""
        before = set(threading.enumerate())
        cluster = self.cluster()
        [member] = cluster.members
        store = await self.started(member.endpoint)
        lease = await store.lease(2)
        picture = Picture(store)
        await self.until(lambda: picture.resyncs == 1, "the first answer")
        member.freeze()
        await self.unavailable(lambda: store.get(ROOT))
        await lease.lost
        self.assertEqual(lease.remaining_s(), 0.0)
        waiting = store.get(ROOT)
        stopped = store.stop()
        await self.unavailable(lambda: waiting)
        await stopped
        await self.no_threads_beside(before)
        member.thaw()

    async def test_stop_leaves_nothing(self) -> None:
        """A store that stops in good times takes its leased records and its threads with it."""
        before = set(threading.enumerate())
        cluster = self.cluster()
        store = await self.started(*cluster.endpoints)
        lease = await store.lease(600)
        await store.commit([Put(ROOT + "me", b"", lease.id)])
        Picture(store)
        await store.stop()
        await self.no_threads_beside(before)
        self.assertEqual(cluster.etcdctl("get", "--prefix", ROOT), "")


class ReadingTests(EtcdTestCase):
    async def test_pages(self) -> None:
        """A listing of many pages is of one revision, whatever is written meanwhile."""
        cluster = self.cluster()
        store = await self.started(*cluster.endpoints)
        names = [f"{n:05}" for n in range(2 * PAGE_RECORDS + 7)]
        for at in range(0, len(names), 100):
            last = (await store.commit([Put(ROOT + name, b"1") for name in names[at:at + 100]])).revision
        listing = store.list(ROOT)
        for name in names[:30]:
            await self.put(store, name, b"2")
        await self.put(store, "new")
        read = await listing
        self.assertEqual([record.key for record in read.records], [ROOT + name for name in names])
        self.assertTrue(all(record.mod_revision <= read.revision for record in read.records))
        self.assertGreaterEqual(read.revision, last)

    async def test_history_ends_at_the_compaction(self) -> None:
        """History holds every change since etcd was compacted, what came and went included, and no more."""
        cluster = self.cluster()
        store = await self.started(*cluster.endpoints)
        for n in range(5):
            await self.put(store, "a", b"%d" % n)
        cluster.compact()
        revisions = [await self.put(store, "a", b"5")]
        revisions += [await self.put(store, "passing")]
        revisions += [(await store.commit([Delete(ROOT + "passing")])).revision]
        await store.commit([Put("/elsewhere", b"")])
        history = await store.history(ROOT)
        self.assertEqual([(change.key, change.value, change.revision) for change in history],
                         [(ROOT + "passing", None, revisions[2]), (ROOT + "passing", b"v", revisions[1]),
                          (ROOT + "a", b"5", revisions[0])])

    async def test_long_history(self) -> None:
        """More changes than etcd replays in one answer all come, in order."""
        cluster = self.cluster()
        store = await self.started(*cluster.endpoints)
        commits = [self.put(store, "a", b"%d" % n) for n in range(2500)]
        for commit in commits:
            await commit
        history = await store.history(ROOT, limit=2400)
        self.assertEqual([change.value for change in history], [b"%d" % n for n in range(2499, 99, -1)])


class AuthenticationTests(EtcdTestCase):
    def authority(self) -> tuple[str, str, str]:
        folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        authority = Authority(folder)
        certificate, key = authority.issue("127.0.0.1")
        return authority.path, certificate, key

    async def test_tls(self) -> None:
        """With the authority and a certificate of it etcd can be used; without either it cannot."""
        ca, certificate, key = files = self.authority()
        cluster = self.cluster(tls=files)
        store = await self.started(*cluster.endpoints, ca=ca, certificate=certificate, key=key)
        picture = Picture(store)
        await self.put(store, "a")
        await self.until(lambda: ROOT + "a" in picture.records, "the watch")
        other, *_ = self.authority()
        for how in ({}, {"ca": other, "certificate": certificate, "key": key}, {"ca": ca}, {"ca": "/nonexistent"}):
            await self.unavailable(self.store(*cluster.endpoints, **how).start)

    async def test_password(self) -> None:
        """A password lets us in over plaintext, a wrong one does not; roles can forbid, which is no emptiness."""
        cluster = self.cluster()
        cluster.enable_auth("director", "secret")
        await self.password_rules(cluster)

    async def test_password_over_tls(self) -> None:
        """The same over TLS."""
        ca, certificate, key = files = self.authority()
        cluster = self.cluster(tls=files)
        cluster.use("--cacert", ca, "--cert", certificate, "--key", key)
        cluster.enable_auth("director", "secret")
        await self.password_rules(cluster, ca=ca, certificate=certificate, key=key)

    async def password_rules(self, cluster: EtcdCluster, **tls: str) -> None:
        store = await self.started(*cluster.endpoints, user="director", password="secret", **tls)
        await self.put(store, "a")
        picture = Picture(store)
        await self.until(lambda: picture.records, "the watch")
        for user, password in (("director", "wrong"), ("nobody", "secret")):
            wrong = self.store(*cluster.endpoints, user=user, password=password, **tls)
            self.assertIn("authentication failed", str(await self.unavailable(wrong.start)))
        cluster.etcdctl("user", "add", "guest:guest")
        guest = await self.started(*cluster.endpoints, user="guest", password="guest", **tls)
        self.assertIn("permission denied", str(await self.unavailable(lambda: guest.get(ROOT + "a"))))

    async def test_token_ends(self) -> None:
        """A token that etcd no longer takes is replaced within the call, commits included; watches go on."""
        cluster = self.cluster()
        cluster.enable_auth("director", "secret")
        store = await self.started(*cluster.endpoints, user="director", password="secret")
        picture = Picture(store)
        await self.until(lambda: picture.resyncs == 1, "the first answer")
        for n, forget in enumerate((self.new_password, self.new_role)):
            forget(cluster)
            await self.put(store, f"{n}")
            await self.until(lambda n=n: ROOT + f"{n}" in picture.records, "the watch to go on")
            forget(cluster)
            later = Picture(store)  # its watch is created on a stream with the former token
            await self.until(lambda later=later, n=n: ROOT + f"{n}" in later.records, "a new watch")
            await self.put(store, f"{n}x")
            await self.until(lambda later=later, n=n: ROOT + f"{n}x" in later.records, "a change for it")
        self.assertTrue(store.available)

    def new_password(self, cluster: EtcdCluster) -> None:
        """Ends the user's tokens."""
        cluster.etcdctl("user", "passwd", "--interactive=false", "director", said="secret\n")

    def new_role(self, cluster: EtcdCluster) -> None:
        """Makes every token one of an old revision of the roles."""
        cluster.etcdctl("role", "add", f"role{time.monotonic_ns()}")

    async def test_without_authentication(self) -> None:
        """A user who is configured where nobody is asked does no harm."""
        cluster = self.cluster()
        store = await self.started(*cluster.endpoints, user="director", password="secret")
        await self.put(store, "a")
