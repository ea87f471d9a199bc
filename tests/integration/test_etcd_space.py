"""etcd without room, and with a history that only grows: said, with the remedy, and over when it is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from cluster.errors import StoreFull
from cluster.etcd import EtcdStore, room
from cluster.keys import Keys
from cluster.store import Delete, Put
from director.ha.leading import Leading
from tests.etcd_server import EtcdCluster
from tests.integration.test_etcd_store import ROOT, EtcdTestCase

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "etcd-space.md"
QUOTA_BYTES = 2_000_000


class SpaceTests(EtcdTestCase):
    def setUp(self) -> None:
        self.patch(room, "LOOK_S", 0.2)
        self.patch(room, "LOOK_AGAIN_S", 0.2)

    def remedy(self, cluster: EtcdCluster) -> None:
        """As the page says."""
        [commands] = re.findall(r"```sh\n(revision=.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        subprocess.run(["sh", "-ec", commands], check=True, capture_output=True, timeout=60,
                       env={"PATH": "/usr/bin:/bin", "ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": ",".join(cluster.endpoints)})

    async def fill(self, store: EtcdStore) -> StoreFull:
        while True:
            try:
                await store.commit([Put(ROOT + "big", b"x" * 100_000)])
            except StoreFull as error:
                return error

    async def test_full(self) -> None:
        """A write that finds no room says how to make it, and so does the store until it is made; one that only looks
        notices too. What is there can be read meanwhile."""
        cluster = self.cluster(arguments=[f"--quota-backend-bytes={QUOTA_BYTES}"])
        store, other = await self.started(*cluster.endpoints), await self.started(*cluster.endpoints)
        self.assertEqual((store.room.writable, store.room.problems), (True, ()))
        refused = await self.fill(store)
        for step in ("etcdctl compact", "etcdctl defrag", "etcdctl alarm disarm"):
            self.assertIn(step, str(refused))
            self.assertIn(step, "".join(store.room.problems))
        self.assertTrue(store.available)
        await self.until(lambda: not other.room.writable, "the other store to notice")
        await self.assertFailure(store.lease(5.0), StoreFull)
        self.assertIsNotNone(await store.get(ROOT + "big"))
        await self.until(lambda: store.room.size_bytes > QUOTA_BYTES / 2, "the size to be known")
        self.remedy(cluster)
        await self.until(lambda: store.room.writable and other.room.writable, "room")
        await self.put(store, "a")
        self.assertEqual(store.room.problems, ())

    async def test_nobody_leads(self) -> None:
        """Who cannot campaign for want of room says so now and then, not with each attempt, and leads once there is room."""
        cluster = self.cluster(arguments=[f"--quota-backend-bytes={QUOTA_BYTES}"])
        store = await self.started(*cluster.endpoints)
        await self.fill(store)
        lines: list[str] = []
        leading = Leading(store, Keys("c"), director="d1", boot_id="1", reactor=reactor)
        self.patch(leading, "log", Lines(lines))
        attempts: list[float] = []
        lease = store.lease

        def counted(ttl_s: float) -> Deferred:
            attempts.append(ttl_s)
            return lease(ttl_s)

        self.patch(store, "lease", counted)
        leading.startService()
        self.addCleanup(leading.stopService)
        await self.until(lambda: len(attempts) > 8, "attempts")
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("etcdctl alarm disarm", lines[0])
        self.remedy(cluster)
        await self.until(lambda: leading.leads, "it to lead")

    async def test_counted(self) -> None:
        """What a store has written is counted: transactions, and the bytes that etcd keeps of them."""
        store = await self.started(*self.cluster().endpoints)
        self.assertEqual((store.writes, store.written_bytes), (0, 0))
        await store.commit([Put(ROOT + "a", b"x" * 100), Put(ROOT + "b", b"y" * 10)])
        await store.commit([Delete(ROOT + "a")])
        self.assertEqual((store.writes, store.written_bytes), (2, 2 * len(ROOT + "a") + 110))

    async def test_history_grows(self) -> None:
        """A history that is never compacted is told, and no longer once it is; one that is compacted never is."""
        self.patch(room, "UNCOMPACTED_S", 0.5)
        self.patch(room, "UNCOMPACTED_REVISIONS", 5)
        cluster = self.cluster()
        store = await self.started(*cluster.endpoints)
        for n in range(8):
            await self.put(store, f"{n}")
        await self.until(lambda: store.room.grows, "it to be noticed")
        self.assertIn("--auto-compaction-retention", "".join(store.room.problems))
        cluster.compact()
        await self.until(lambda: not store.room.grows, "the compaction to be noticed")

    async def test_long_history(self) -> None:
        """More history than a sound etcd keeps is told at the start."""
        self.patch(room, "MOST_REVISIONS", 5)
        cluster = self.cluster()
        store = await self.started(*cluster.endpoints)
        for n in range(8):
            await self.put(store, f"{n}")
        self.assertFalse(store.room.grows)
        later = await self.started(*cluster.endpoints)
        await self.until(lambda: later.room.grows, "it to be noticed")
        cluster.compact()
        await self.until(lambda: not later.room.grows, "the compaction to be noticed")


class Lines:
    """A log that keeps its lines."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def info(self, form: str, **values: object) -> None:
        self.lines.append(form.format(**values))

    warn = failure = info
