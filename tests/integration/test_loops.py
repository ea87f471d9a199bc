"""A host that turns out to be the director itself."""

from __future__ import annotations

import msgspec

from cluster.model import Host
from director.admin.control import Caller, Role
from director.engine.errors import Wrong
from tests.integration.kit import DirectorTestCase, closed_port, service, until


class LoopTests(DirectorTestCase):
    async def test_noticed(self) -> None:
        """Its checks and connects fail, saying why; its clients are served by the others, and none comes back."""
        port = closed_port()
        site = await self.backend("b")
        director = await self.director(service({"b": site.address}, listen=[f"127.0.0.1:{port}"]))
        spec = director.node.inventory.services["web"].spec
        group = msgspec.structs.replace(
            spec.groups["main"], hosts={**spec.groups["main"].hosts, "a": Host(address=f"127.0.0.1:{port}")},
            scheduler="roundrobin")
        director.node.apply_service("web", msgspec.structs.replace(spec, groups={"main": group}))
        for _ in range(6):
            self.assertEqual(await self.served_by(director), "b")
        entry = next(entry for ref, entry in director.node.inventory.hosts.items() if ref.host == "a")
        await until(lambda: "circle" in entry.health.why, "the reason")
        self.assertEqual(director.node.metrics.service("web").accepted, 6)

    async def test_refused(self) -> None:
        """At run time as by `check`."""
        port = closed_port()
        director = await self.director(service({}, listen=[f"127.0.0.1:{port}"]))
        with self.assertRaises(Wrong):
            await director.control.call(Caller("ada", Role.FULL, "test"), "put_host", {
                "service": "web", "group": "main", "host": "a", "address": f"localhost:{port}"})
