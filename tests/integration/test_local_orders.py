"""Orders for one director alone, while a real etcd is away and when it is back."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from twisted.internet.threads import deferToThread

from director.admin.operation import Caller, Role
from tests.etcd_server import EtcdCluster
from tests.integration.kit import DirectorTestCase, service, until

ADA = Caller("ada", Role.FULL)


class LocalOrderTests(DirectorTestCase):
    timeout = 120

    async def start(self, etcd: EtcdCluster | None = None) -> None:
        """A director with the hosts a and b, on etcd when there is one."""
        backend = await self.backend("a")
        data = service({"a": backend.address, "b": backend.address})
        services = {} if etcd is None else data.pop("services")
        data["node"] = {"admin": {"endpoints": [{"listen": "127.0.0.1:0"}]}}
        if etcd is not None:
            data["node"] |= {"store": "etcd:", "etcd": {"endpoints": list(etcd.endpoints)}}
        self.running = await self.director(data)
        for name, spec in services.items():
            await self.running.control.call(ADA, "new_service", {"service": name, "spec": spec})
        endpoint: Any = next(iter(self.running.admin))
        self.url = f"http://{endpoint.address}"

    async def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from director.ctl import main; main()", "--url", self.url, *words]
        done: subprocess.CompletedProcess[str] = await deferToThread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
        )
        return done

    async def ordered(self, *words: str) -> dict[str, Any]:
        """The host after a command that succeeds."""
        done = await self.ctl(*words, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        host: dict[str, Any] = json.loads(done.stdout)
        return host

    def rotation(self) -> set[str]:
        (service,) = self.running.operations.picture().services
        return {host.name for host in service.groups[0].hosts if host.in_rotation}

    async def test_while_etcd_is_away(self) -> None:
        """Without a store a normal order fails and a local one holds, up and down; with the store back it has ended."""
        etcd = EtcdCluster()
        self.addCleanup(etcd.stop)
        await deferToThread(etcd.start)
        await self.start(etcd)
        await self.ordered("drain", "web/main/b")
        etcd.members[0].kill()
        refused = await self.ctl("down", "web/main/a")
        self.assertEqual((refused.returncode, "nothing was changed" in refused.stderr), (1, True), refused.stderr)
        down = await self.ordered("down", "web/main/a", "--local", "--why", "on fire")
        self.assertEqual([(each["by"], each["why"]) for each in down["orders"]], [("local", "on fire")])
        up = await self.ordered("up", "web/main/b", "--local")
        self.assertEqual({each["by"]: each["state"] for each in up["orders"]}, {"operator": "drain", "local": "up"})
        self.assertEqual(self.rotation(), {"b"})
        await deferToThread(etcd.start)
        await until(lambda: self.rotation() == {"a"}, "the store's orders again")
        (service,) = self.running.operations.picture().services
        self.assertEqual([each.by for host in service.groups[0].hosts for each in host.orders], ["operator"])

    async def test_a_normal_order_ends_it(self) -> None:
        """The next order for everybody ends the local one, even an up where no order stood."""
        await self.start()
        await self.ordered("drain", "web/main/a", "--local")
        self.assertEqual(self.rotation(), {"b"})
        raised = await self.ordered("up", "web/main/a")
        self.assertEqual((raised["orders"], self.rotation()), ([], {"a", "b"}))
        await self.ordered("down", "web/main/a", "--local")
        drained = await self.ordered("drain", "web/main/a")
        self.assertEqual([each["by"] for each in drained["orders"]], ["operator"])
