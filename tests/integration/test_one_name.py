"""Two directors whose files have one name, on one real etcd."""

from __future__ import annotations

from twisted.internet.threads import deferToThread

from director.admin.operation import Caller, Role
from director.service import DirectorService, StartError
from tests.etcd_server import EtcdCluster
from tests.integration.kit import DirectorTestCase, service, until

ADA = Caller("ada", Role.FULL, "192.0.2.9")


class OneNameTests(DirectorTestCase):
    timeout = 120

    async def test_second_refused(self) -> None:
        """The second is refused before it serves anybody: the first stays a member, leads, and has all of the maximum. A
        record that somebody deletes is there again; and once the first has ended in order, the name is free at once."""
        etcd = EtcdCluster()
        self.addCleanup(etcd.stop)
        await deferToThread(etcd.start)
        node = {"node": {"name": "one", "store": "etcd:", "etcd": {"endpoints": list(etcd.endpoints)}}}
        first = await self.director(node)
        backend = await self.backend("a")
        spec = service({"a": backend.address}, group={"health": {"probe": {"kind": "none"}}})["services"]["web"]
        await first.control.call(ADA, "new_service", {"service": "web", "spec": {**spec, "limits": {"max_connections": 20}}})
        await until(lambda: first.node.inventory.services["web"].share == 20, "the maximum")
        with self.assertRaisesRegex(StartError, "has the name 'one'"):
            await self.director(node)
        self.assertEqual(set(first.clustering.membership.members), {"one"})
        etcd.etcdctl("del", first.keys.director("one"))
        await until(lambda: self.registered(etcd, first), "the record to be written again")
        await first.stopService()
        second = await self.director(node)
        await until(lambda: second.clustering.leading.leads, "the second to lead")

    def registered(self, etcd: EtcdCluster, director: DirectorService) -> bool:
        return director.clustering.boot_id in etcd.etcdctl("get", director.keys.director("one"))
