"""A host that closes every client at once, beside others that serve, with real sockets and each relay."""

from __future__ import annotations

from twisted.internet.protocol import Factory, Protocol

from cluster.model import HostRef
from director.relay.choice import native_missing
from tests.integration.kit import DirectorTestCase, reactor, service, until

#: Enough that those which find the host out are few among them.
CLIENTS = 120


class Closes(Protocol):
    """Takes clients, and does nothing for them."""

    def connectionMade(self) -> None:
        self.factory.taken += 1  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]


class Sinkhole(Factory[Closes]):
    protocol = Closes
    noisy = False
    taken = 0


class SinkholeTests(DirectorTestCase):
    async def test_python(self) -> None:
        """Its probe passes all the time, its first clients give it away, and no other is lost by it."""
        await self.sinkhole("python")

    async def test_native(self) -> None:
        """The same."""
        if native_missing():
            self.skipTest(native_missing())
        await self.sinkhole("native")

    async def sinkhole(self, relay: str) -> None:
        sinkhole = Sinkhole()
        port = reactor.listenTCP(0, sinkhole, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        hosts = {name: (await self.backend(name)).address for name in "abc"}
        hosts["hole"] = f"127.0.0.1:{port.getHost().port}"
        health = {"suspect_after_s": 0.1, "timeout_s": 0.2}  # which is the grace, too
        director = await self.director(service(hosts, relay=relay, group={"health": health, "scheduler": "roundrobin"}))
        inventory = director.node.inventory
        await until(lambda: not inventory.in_grace(director.node.monotonic()))
        served = [await self.served_by(director) for _ in range(CLIENTS)]
        entry = inventory.hosts[HostRef("web", "main", "hole")]
        self.assertTrue(entry.conduct.ejected)
        self.assertLessEqual(served.count(""), 10)
        self.assertEqual(served.count(""), sinkhole.taken)
        self.assertNotIn("", served[-CLIENTS // 2:])
        self.assertTrue(entry.health.last_check is not None and entry.health.last_check.ok)
        labels = {"service": "web", "group": "main", "host": "hole"}
        self.assertEqual(director.registry.get_sample_value("txdirector_host_ejected", labels), 1.0)
        self.assertEqual(director.registry.get_sample_value("txdirector_host_ejections_total", labels), 1.0)
        (candidate,) = [each for each in director.operations.explain("web", "192.0.2.1").candidates if each.host == "hole"]
        self.assertIn("of its last", candidate.why_not)
