"""Directors that only manage, or only balance."""

from __future__ import annotations

from tests.integration.kit import DirectorTestCase, service, until


class RoleTests(DirectorTestCase):
    async def test_manage_only(self) -> None:
        """A managing director has no listeners, and probes."""
        backend = await self.backend("a")
        director = await self.director({"node": {"roles": ["manage"]}} | service({"a": backend.address}))
        self.assertEqual(director.node.listeners.addresses("web"), ())
        (host,) = director.operations.picture().services[0].groups[0].hosts
        await until(lambda: director.operations.picture().services[0].groups[0].hosts[0].check.ok, "a probe")
        self.assertTrue(host.in_rotation)

    async def test_balance_only(self) -> None:
        """A balancing director serves clients and probes nobody; what its own clients find out still counts."""
        backend = await self.backend("a")
        director = await self.director({"node": {"roles": ["balance"]}} | service({"a": backend.address}))
        self.assertEqual(await self.served_by(director), "a")
        (host,) = director.operations.picture().services[0].groups[0].hosts
        self.assertEqual((host.check.at, host.check.next_at), (None, None))
        await backend.stop()
        for _ in range(3):
            client = await self.client(director)
            await until(lambda client=client: client.lost, "the end")
        (host,) = director.operations.picture().services[0].groups[0].hosts
        self.assertGreaterEqual(host.connect_failures, 1)
