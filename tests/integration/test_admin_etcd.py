"""Two directors on one real etcd are administered through either of them."""

from __future__ import annotations

from typing import Any

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
        await until(lambda: self.second.node.listening("web"), "the other to listen")
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
        await until(lambda: not self.first.node.listening("web"), "the other to stop listening")

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
        await until(lambda: not self.first.operations.snapshot().store_available, "the loss to be noticed")
        with self.assertRaises(StoreUnavailable):
            await self.do(self.first, "weight", **MAIN, host="a", weight=2)
        self.assertEqual(recorded(self.first), expected)
        await deferToThread(etcd.start)
        await until(lambda: self.first.operations.snapshot().store_available, "etcd to be back")
        await self.do(self.first, "weight", **MAIN, host="a", weight=3)
        await until(lambda: recorded(self.second)[:1] == [("d1", "weight", "ok")], "the audit to go on")
