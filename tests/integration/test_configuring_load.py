"""A large service is changed again and again while clients come and go."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Any

import tomli_w
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
        api = Api(await self.begin())
        for number in range(1, CHANGES + 1):
            before = dict(self.running.node.inventory.hosts)
            await self.more_answers()
            await deferToThread(api.put, "services", "web", spec=self.spec(number))
            self.check_changed(before, number)
        await self.nobody_noticed()

    async def test_apply_under_load(self) -> None:
        """So is every client while ``directorctl apply`` makes the service a changed file's, and hosts that do not differ
        stay; a service that does not differ is not written."""
        url = await self.begin()
        for number in range(1, CHANGES // 2 + 1):
            before = dict(self.running.node.inventory.hosts)
            revision = (await self.running.operations.stored())["other"].revision
            await self.more_answers()
            with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
                file.write(tomli_w.dumps({"services": {"web": self.spec(number), "other": {}}}))
                file.flush()
                command = [sys.executable, "-c", "from director.ctl import main; main()", "--url", url, "apply", "--yes", file.name]
                done = await deferToThread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            # the heading, hosts that went, came and changed their weight, and the result
            self.assertEqual(len(done.stdout.splitlines()), 1 + 3 * STEP + 1)
            self.check_changed(before, number)
            self.assertEqual((await self.running.operations.stored())["other"].revision, revision)
        await self.nobody_noticed()

    async def begin(self) -> str:
        """A director with the service, old connections, and clients that come and go; answers its admin's URL."""
        self.backends = [await self.backend(f"b{number}") for number in range(3)]
        self.answered = 0
        self.failed: list[str] = []
        self.over = False
        self.running = await self.director({
            "node": {"admin": {"endpoints": [{"listen": "127.0.0.1:0"}]}},
            "services": {"web": self.spec(0), "other": {}},
        })
        endpoint: Any = next(iter(self.running.admin))
        self.old = [await self.client(self.running) for _ in range(HOSTS // 10)]
        await until(lambda: all(client.received for client in self.old), "banners")
        self.load = [Deferred.fromCoroutine(self.come_and_go()) for _ in range(CLIENTS)]
        return f"http://{endpoint.address}"

    def check_changed(self, before: dict[HostRef, Any], number: int) -> None:
        """The *number*-th version is in force, and nothing that it did not change was touched."""
        hosts = self.running.node.inventory.hosts
        same = before.keys() & hosts.keys()
        self.assertEqual(len(hosts), HOSTS)
        self.assertEqual(len(same), HOSTS - STEP)
        self.assertTrue(all(hosts[ref] is before[ref] for ref in same))
        self.assertEqual(hosts[HostRef("web", "main", f"h{number * STEP}")].spec.weight, 2.0)

    async def nobody_noticed(self) -> None:
        self.over = True
        await DeferredList(self.load)
        self.assertEqual(self.failed, [])
        for client in self.old:
            client.send(b"still here")
        await until(lambda: all(client.received.endswith(b"STILL HERE") for client in self.old), "every old connection")
        self.assertEqual(self.running.node.inventory.services["web"].admission.connections, len(self.old))

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
