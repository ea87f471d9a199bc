"""A large service is changed again and again while clients come and go."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThread

from cluster.model import HostRef
from director.ctl.client import Client as Api
from tests.integration.kit import DirectorTestCase, until

HOSTS = 1000
#: Of these each change removes and adds this many, and weighs as many others anew.
STEP = 50
CHANGES = 6
#: Clients at any time, each for one exchange.
CLIENTS = 8
#: Exchanges between two changes at least, so that each change meets clients.
BETWEEN = 40


class LoadTests(DirectorTestCase):
    async def test_a_thousand_hosts_change_under_load(self) -> None:
        """Every client of a service of 1,000 hosts is answered while the service is put again and again; open
        connections stay, those to removed hosts too; hosts that do not differ are the very same as before."""
        self.backends = [await self.backend(f"b{number}") for number in range(3)]
        self.answered = 0
        self.failed: list[str] = []
        self.over = False
        self.running = await self.director({
            "node": {"admin": {"endpoints": [{"listen": "127.0.0.1:0"}]}},
            "services": {"web": self.spec(0)},
        })
        endpoint: Any = next(iter(self.running.admin))
        api = Api(f"http://{endpoint.address}")
        inventory = self.running.node.inventory
        old = [await self.client(self.running) for _ in range(HOSTS // 10)]
        await until(lambda: all(client.received for client in old), "banners")
        load = [Deferred.fromCoroutine(self.come_and_go()) for _ in range(CLIENTS)]
        for number in range(1, CHANGES + 1):
            before = dict(inventory.hosts)
            await self.more_answers()
            await deferToThread(api.put, "services", "web", spec=self.spec(number))
            same = before.keys() & inventory.hosts.keys()
            self.assertEqual(len(inventory.hosts), HOSTS)
            self.assertEqual(len(same), HOSTS - STEP)
            self.assertTrue(all(inventory.hosts[ref] is before[ref] for ref in same))
            heaviest = HostRef("web", "main", f"h{number * STEP}")
            self.assertEqual(inventory.hosts[heaviest].spec.weight, 2.0)
        self.over = True
        await DeferredList(load)
        self.assertEqual(self.failed, [])
        for client in old:
            client.send(b"still here")
        await until(lambda: all(client.received.endswith(b"STILL HERE") for client in old), "every old connection")
        self.assertEqual(inventory.services["web"].admission.connections, len(old))

    def spec(self, number: int) -> dict[str, Any]:
        """The *number*-th version: hosts *number* x `STEP` to that plus 1,000, the first `STEP` of them heavier."""
        first = number * STEP
        hosts = {
            f"h{host}": {"address": self.backends[host % 3].address, "weight": 2.0 if host < first + STEP else 1.0}
            for host in range(first, first + HOSTS)
        }
        # a thousand probes every two seconds would be the larger part of the load
        return {"listen": ["127.0.0.1:0"], "groups": {"main": {
            "hosts": hosts, "scheduler": "roundrobin", "health": {"probe": {"kind": "none"}},
        }}}

    async def more_answers(self) -> None:
        enough = self.answered + BETWEEN
        await until(lambda: self.answered >= enough or self.failed, "clients between two changes")

    async def come_and_go(self) -> None:
        while not self.over and not self.failed:
            try:
                client = await self.client(self.running)
            except Exception as error:
                self.failed.append(f"could not connect: {error}")
                return
            client.send(b"hello")
            await until(lambda client=client: client.received.endswith(b"HELLO") or client.lost, "an answer")
            if not client.received.endswith(b"HELLO"):
                self.failed.append(f"{client.received!r} and {client.lost}")
            client.close()
            await until(lambda client=client: client.lost, "the close")
            self.clients.remove(client)
            self.answered += 1
