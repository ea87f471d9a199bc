"""``directorctl`` as an operator types it, against a whole director."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from twisted.internet.threads import deferToThread

from cluster.model import AdminState, HostRef, Order
from tests.integration.kit import DirectorTestCase, service


class DirectorctlTests(DirectorTestCase):
    async def start(self) -> None:
        backend = await self.backend("a")
        data = service({"a": backend.address, "b": backend.address}, group={"scheduler": "leastconns"})
        data["node"] = {"admin": {"endpoints": [{"listen": "127.0.0.1:0"}]}}
        self.running = await self.director(data)
        endpoint: Any = next(iter(self.running.admin))
        self.url = f"http://{endpoint.address}"

    async def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from director.ctl import main; main()", "--url", self.url, *words]
        done: subprocess.CompletedProcess[str] = await deferToThread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
        )
        return done

    async def test_looking(self) -> None:
        """status, hosts, top and explain print what is there, as tables and as JSON."""
        await self.start()
        status = await self.ctl("status")
        self.assertEqual((status.returncode, status.stderr), (0, ""))
        self.assertIn("web", status.stdout)
        self.assertIn("2/2", status.stdout)
        hosts = json.loads((await self.ctl("hosts", "--json")).stdout)
        self.assertEqual([host["name"] for host in hosts], ["a", "b"])
        self.assertIn("web/main/b", (await self.ctl("top", "--once")).stdout)
        explained = await self.ctl("explain", "192.0.2.7", "web")
        self.assertIn("192.0.2.7 would get a", explained.stdout)
        self.assertIn("share 50 % of the group's new connections at the present load", explained.stdout)
        told = json.loads((await self.ctl("explain", "192.0.2.7", "web", "--json")).stdout)
        self.assertIn(told["rule"], told["steps"][-1])
        self.assertEqual([host["share"] for host in hosts], [0.5, 0.5])

    async def test_steering(self) -> None:
        """drain, up, down and weight act at once and show the host afterwards."""
        await self.start()
        drained = await self.ctl("drain", "web/main/a", "--why", "kernel update", "--wait")
        self.assertEqual(drained.returncode, 0, drained.stderr)
        self.assertIn("kernel update", drained.stdout)
        self.assertIn("(drain)", drained.stdout)
        raised = json.loads((await self.ctl("up", "web/main/a", "--json")).stdout)
        self.assertEqual((raised["admin"], raised["in_rotation"]), ("up", True))
        self.assertIn("(down)", (await self.ctl("down", "web/main/b")).stdout)
        weighed = json.loads((await self.ctl("weight", "web/main/a", "2.5", "--json")).stdout)
        self.assertEqual(weighed["configured_weight"], 2.5)
        self.assertTrue(json.loads((await self.ctl("retry", "web/main/a", "--json")).stdout)["check"]["ok"])

    async def test_up_that_does_not_bring_it_back(self) -> None:
        """up says whose order holds the host all the same: the agent's is not the operator's to lift."""
        await self.start()
        order = Order(state=AdminState.DRAIN, who="app1", why="backup", at=0.0)
        self.running.node.set_order(HostRef("web", "main", "a"), "agent", order)
        raised = await self.ctl("up", "web/main/a")
        self.assertEqual(raised.returncode, 0, raised.stderr)
        self.assertEqual(raised.stderr, "directorctl: web/main/a stays in drain by order of its agent, app1: backup\n")
        self.assertEqual((await self.ctl("up", "web/main/b")).stderr, "")

    async def test_wait_that_runs_out(self) -> None:
        """A drain whose connections stay open until the timeout exits 1 and says how many."""
        await self.start()
        first, second = await self.client(self.running), await self.client(self.running)
        waited = await self.ctl("drain", "web/main/a", "--wait", "--timeout", "0.5")
        self.assertEqual(waited.returncode, 1)
        self.assertIn("1 connections are still open", waited.stderr)
        first.close()
        second.close()

    async def test_exit_codes(self) -> None:
        """2 for wrong usage, 3 when nobody answers, 5 for what is not there; one line each."""
        await self.start()
        wrong = await self.ctl("drain", "a")
        missing = await self.ctl("explain", "192.0.2.7", "nosuch")
        ghost = await self.ctl("down", "web/main/ghost")
        self.url = "http://127.0.0.1:1"
        nobody = await self.ctl("status")
        codes = [each.returncode for each in (wrong, missing, ghost, nobody)]
        self.assertEqual(codes, [2, 5, 5, 3])
        self.assertEqual(missing.stderr, "directorctl: no service is called 'nosuch'\n")
