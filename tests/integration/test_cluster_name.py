"""A director whose cluster's name is mistyped, on one real etcd with those it was to join."""

from __future__ import annotations

from twisted.internet.threads import deferToThread

from cluster.keys import ROOT
from director.admin.operation import Caller, Role
from director.service import DirectorService
from tests.etcd_server import EtcdCluster
from tests.integration.kit import DirectorTestCase, service, until

ADA = Caller("ada", Role.FULL, "192.0.2.9")


class ClusterNameTests(DirectorTestCase):
    timeout = 120

    async def test_mistyped(self) -> None:
        """It says which clusters there are, and names no owner of virtual addresses; both end with its first service. Names
        that begin alike are all found."""
        etcd = EtcdCluster()
        self.addCleanup(etcd.stop)
        await deferToThread(etcd.start)
        for name in ("main-2", "main.x", "other"):
            await deferToThread(etcd.etcdctl, "put", f"{ROOT}{name}/x/y", "{}")

        async def member(name: str, cluster: str) -> DirectorService:
            return await self.director({"node": {
                "name": name, "store": "etcd:", "vips": {"interface": "none0", "addresses": ["192.0.2.99/32"]},
                "etcd": {"endpoints": list(etcd.endpoints), "cluster": cluster},
            }})

        lost = await member("one", "mian")
        await until(lambda: lost.operations.picture().problems, "a hint")
        [hint] = lost.operations.picture().problems
        for said in ("'mian' has no service", "main-2, main.x, other", "node.etcd.cluster"):
            self.assertIn(said, hint)
        self.assertEqual(lost.operations.cluster().problems, (hint,))
        await until(lambda: lost.clustering.leading.leads, "it to lead the cluster of its own")
        self.assertEqual((lost.clustering.vips.held, lost.clustering.vips_held), (False, ()))
        self.assertEqual(await deferToThread(etcd.etcdctl, "get", "--prefix", lost.keys.vips()), "")
        backend = await self.backend("a")
        spec = service({"a": backend.address}, group={"health": {"probe": {"kind": "none"}}})["services"]["web"]
        await lost.control.call(ADA, "new_service", {"service": "web", "spec": spec})
        self.assertEqual(lost.operations.picture().problems, ())
