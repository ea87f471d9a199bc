"""Two directors on one real etcd are administered through either of them."""

from __future__ import annotations

from typing import Any
from xmlrpc.client import dumps

import msgspec
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from cluster.errors import StoreUnavailable
from director.admin.auth import verify
from director.admin.operation import Caller, Role
from director.engine.errors import Stale
from director.service import DirectorService
from tests.etcd_server import EtcdCluster
from tests.integration.kit import DirectorTestCase, service, until

ADA = Caller("ada", Role.FULL, "192.0.2.9")
MAIN = {"service": "web", "group": "main"}


class TwoDirectorsTests(DirectorTestCase):
    timeout = 120

    async def start(self) -> EtcdCluster:
        """Both serve the service ``web``, which one of them was told of."""
        etcd = EtcdCluster()
        self.addCleanup(etcd.stop)
        await deferToThread(etcd.start)
        self.first, self.second = [
            await self.director({"node": {"name": name, "store": "etcd:", "etcd": {"endpoints": list(etcd.endpoints)}}})
            for name in ("d1", "d2")
        ]
        backend = await self.backend("a")
        spec = service({"a": backend.address}, group={"health": {"probe": {"kind": "none"}}})["services"]["web"]
        await self.do(self.first, "new_service", service="web", spec=spec)
        await until(lambda: self.second.node.listeners.addresses("web"), "the other to listen")
        return etcd

    async def do(self, director: DirectorService, name: str, **arguments: object) -> Any:
        return await director.control.call(ADA, name, arguments)

    async def test_changes(self) -> None:
        """What one is told the other does; changes at once through both are all kept; a change made for what the other
        has replaced meanwhile is refused."""
        await self.start()
        self.assertEqual(await self.served_by(self.second), "a")
        seen = await self.do(self.first, "spec", service="web")
        await gatherResults([
            director.control.call(ADA, "put_host", {**MAIN, "host": f"{name}{number}", "address": "127.0.0.1:9"})
            for number in range(5) for name, director in (("x", self.first), ("y", self.second))
        ])
        spec = (await self.do(self.second, "spec", service="web")).spec
        self.assertEqual(len(spec.groups["main"].hosts), 11)
        with self.assertRaises(Stale):
            await self.do(self.first, "put_service", service="web", spec={}, revision=seen.revision)
        await self.do(self.second, "del_service", service="web")
        await until(lambda: not self.first.node.listeners.addresses("web"), "the other to stop listening")

    async def test_strange_records(self) -> None:
        """Keys and values that are no UTF-8, numbers beyond every bound and a leader without a lease are named in the status
        of both, in JSON and XML-RPC alike; history, cluster and changes go on, and so do newcomers."""
        etcd = await self.start()
        root, garbage = self.first.keys.root, "\udcff\udcfe"
        kinds = ("services", "registered", "admin", "observed", "load", "directors", "vips", "caps", "users", "audit", "")
        for kind in kinds:
            for name in (garbage, f"x{garbage}/y", "x"):
                await deferToThread(etcd.etcdctl, "put", f"{root}{kind}/{name}", garbage)
        order = '{"state":"drain","who":"x","at":1e300,"why":""}'
        await deferToThread(etcd.etcdctl, "put", f"{root}admin/web/main/a/operator", order)
        await deferToThread(etcd.etcdctl, "put", f"{root}leader", garbage)
        for director in (self.first, self.second):
            for operation in ("status", "cluster"):
                def named(director: DirectorService = director, operation: str = operation) -> bool:
                    found = director.operations.picture() if operation == "status" else director.operations.cluster()
                    text = msgspec.json.encode(found.store_problems).decode()
                    return all(f"{root}{kind}/" in text for kind in kinds if kind not in ("load", "vips", ""))

                await until(named, "all to be named")
            past = await self.do(director, "history", limit=1000)
            dumps((msgspec.to_builtins(past),), allow_none=True)
            msgspec.json.encode(past)
            await self.do(director, "audit", limit=100)
        await until(lambda: self.first.clustering.leading.leads or self.second.clustering.leading.leads, "somebody to lead")
        await self.do(self.first, "put_host", **MAIN, host="b", address="127.0.0.1:9")
        await until(lambda: self.second.operations.picture().host("web", "main", "b"), "a change to go on")

    async def test_users(self) -> None:
        """A user made at one signs in at the other, with the password of then, until one of them deletes them."""
        await self.start()
        await self.do(self.first, "put_user", user="ada", password="analytical", role="full")
        await self.do(self.first, "put_user", user="bob", password="looking on", role="readonly")
        await until(lambda: "bob" in self.second.users.users, "the other to know")
        self.assertTrue(verify(self.second.users.users["bob"].password, b"looking on"))
        await self.do(self.second, "del_user", user="bob")
        await until(lambda: "bob" not in self.first.users.users, "the other to forget")

    async def test_audit_while_etcd_is_away(self) -> None:
        """Each shows what was done at either, the newest first. With etcd away a change fails as such, looking goes on,
        and afterwards changes and their entries are written again."""
        etcd = await self.start()
        await self.do(self.second, "put_host", **MAIN, host="b", address="127.0.0.1:9")

        def recorded(director: DirectorService) -> list[tuple[str, str, str]]:
            return [(each.director, each.operation, each.outcome) for each in director.audit.newest(10)]

        expected = [("d2", "put_host", "ok"), ("d1", "new_service", "ok")]
        for director in (self.first, self.second):
            await until(lambda director=director: recorded(director) == expected, "the audit")  # type: ignore[misc]
        etcd.members[0].kill()
        await until(lambda: not self.first.operations.picture().store_available, "the loss to be noticed")
        with self.assertRaises(StoreUnavailable):
            await self.do(self.first, "weight", **MAIN, host="a", weight=2)
        self.assertEqual(recorded(self.first), expected)
        await deferToThread(etcd.start)
        await until(lambda: self.first.operations.picture().store_available, "etcd to be back")
        await self.do(self.first, "weight", **MAIN, host="a", weight=3)
        await until(lambda: recorded(self.second)[:1] == [("d1", "weight", "ok")], "the audit to go on")

    async def test_cluster_while_etcd_is_away(self) -> None:
        """The leader says at once that what it knows of the others is last known, and does not say of itself that it leads
        once it does not; both are over when etcd is back."""
        etcd = await self.start()
        await until(lambda: self.first.operations.cluster().leads or self.second.operations.cluster().leads, "a leader")
        leader = self.first if self.first.operations.cluster().leads else self.second
        await until(lambda: leader.operations.cluster().leader == leader.clustering.member.name, "the store's word of it")
        self.assertFalse(leader.operations.cluster().last_known)
        etcd.members[0].kill()
        await until(lambda: leader.operations.cluster().last_known, "what is known to be marked")
        await until(lambda: not leader.operations.cluster().leads, "the lead to be given up")
        self.assertIsNone(leader.operations.cluster().leader)
        await deferToThread(etcd.start)
        await until(lambda: not leader.operations.cluster().last_known, "etcd to be back")
