"""A service that splits its clients: with real servers, clients of many addresses, and operators who change it meanwhile."""

from __future__ import annotations

import math
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Any

from twisted.internet.threads import deferToThread

from director.admin.control import Caller, Role
from director.engine.errors import Conflict, Wrong
from director.service import DirectorService
from tests.integration.ctl_kit import CtlTestCase
from tests.integration.kit import until

ADA = Caller("ada", Role.FULL, "127.0.0.1")
SPLIT = {"blue": 95, "green": 5}
CLIENTS = 2000
#: Six standard deviations of 5 % of 2,000.
BOUND = 6 * math.sqrt(CLIENTS * 0.05 * 0.95)


def group_of(director: DirectorService, number: int | None = None) -> str:
    """The group that a new client gets, from an address of its own where it has a *number*. To be called in a thread."""
    host, port = director.node.listeners.addresses("web")[0].rsplit(":", 1)
    source = None if number is None else (f"127.1.{number // 200}.{number % 200 + 1}", 0)
    with socket.create_connection((host, int(port)), timeout=10, source_address=source) as client:
        banner = client.makefile("rb").readline()
    return banner.decode().strip()[:-1]  # without the host's number


def groups_of(director: DirectorService, numbers: Iterable[int | None]) -> list[str]:
    return [group_of(director, number) for number in numbers]


class CanaryTests(CtlTestCase):
    timeout = 120

    async def start_web(self, **more: Any) -> DirectorService:
        self.sites = {name: await self.backend(name) for name in ("blue1", "blue2", "green1")}
        return await self.start(self.web(**more))

    def web(self, **more: Any) -> dict[str, Any]:
        groups = {
            "blue": {"hosts": {name: self.sites[name].address for name in ("blue1", "blue2")}},
            "green": {"hosts": {"green1": self.sites["green1"].address}},
        }
        return {"services": {"web": {"listen": ["127.0.0.1:0"], "groups": groups, **more}}}

    def strayed(self, group: str) -> float | None:
        return self.running.registry.get_sample_value("txdirector_group_strayed_clients_total",
                                                      {"service": "web", "group": group})

    async def test_shares(self) -> None:
        """Of 2,000 clients of one address, without stickiness, green has its twentieth, but for 4."""
        director = await self.start_web(split=SPLIT)
        counts = Counter(await deferToThread(groups_of, director, [None] * CLIENTS))
        self.assertEqual(sum(counts.values()), CLIENTS)
        self.assertLessEqual(abs(counts["green"] - CLIENTS * 0.05), 4, counts)

    async def test_same_side_everywhere(self) -> None:
        """Of 2,000 addresses, with stickiness, too; each is on the same side at another director, and as explain says;
        when the share grows, only towards green does anybody move."""
        director = await self.start_web(split=SPLIT, sticky={"mode": "hash"})
        sides = await deferToThread(groups_of, director, range(CLIENTS))
        self.assertLess(abs(sides.count("green") - CLIENTS * 0.05), BOUND)
        another = await self.director(self.web(split={"green": 0.05, "blue": 0.95}, sticky={"mode": "table"}))
        self.assertEqual(await deferToThread(groups_of, another, range(400)), sides[:400])
        green = sides.index("green")
        told = await self.ok("explain", f"127.1.{green // 200}.{green % 200 + 1}", "web")
        self.assertIn("clients are split: blue 95 %, green 5 %", told)
        self.assertIn("this client belongs to green, by its address", told)
        await self.ok("split", "web", "blue=80", "green=20")
        after = await deferToThread(groups_of, director, range(400))
        self.assertEqual({pair for pair in zip(sides[:400], after, strict=True) if pair[0] != pair[1]}, {("blue", "green")})

    async def test_live(self) -> None:
        """Shares change, and the split ends, while clients come and go: none is refused, and open ones stay."""
        director = await self.start_web(split={"blue": 1, "green": 1})
        await until(lambda: len(self.running.node.inventory.hosts) == 3)
        open_ones = [await self.client(director) for _ in range(12)]
        await until(lambda: all(client.received for client in open_ones), "banners")
        coming = deferToThread(groups_of, director, [None] * 1500)
        for words in (("split", "web", "blue=5", "green=95"), ("split", "web", "blue=0", "green=1"), ("split", "web", "--off"),
                      ("split", "web", "blue=1", "green=1"), ("group", "enable", "web/green")):
            await self.ok(*words)
        self.assertLessEqual(set(await coming), {"blue", "green"})
        self.assertEqual(set(await deferToThread(groups_of, director, [None] * 20)), {"green"})
        for client in open_ones:
            client.send(b"still here")
        await until(lambda: all(client.received.endswith(b"STILL HERE") for client in open_ones), "open connections")
        self.assertEqual({client.received.split(b"\n")[0][:-1] for client in open_ones}, {b"blue", b"green"})
        self.assertEqual([self.ended(director, reason) for reason in ("no_host", "hosts_full", "connect_failed")], [0, 0, 0])

    async def test_canary_away(self) -> None:
        """The clients of a canary that is drained, or refuses, are served by the enabled group, counted and told."""
        director = await self.start_web(split={"blue": 0, "green": 1})
        self.assertEqual(set(await deferToThread(groups_of, director, [None] * 5)), {"green"})
        self.assertEqual(self.strayed("green"), 0)
        await self.sites["green1"].stop()
        self.assertEqual(set(await deferToThread(groups_of, director, [None] * 5)), {"blue"})
        await until(lambda: not self.running.node.inventory.services["web"].groups["green"].pool.available, "green is down")
        self.assertEqual(await deferToThread(group_of, director), "blue")
        self.assertEqual(self.strayed("green"), 6)
        self.assertIn("group green has no host available: group blue takes its clients",
                      await self.ok("explain", "192.0.2.1", "web"))
        self.assertIn("green HAS NO HOST: its clients are sent to others", await self.ok("status"))

    async def test_turns_explained(self) -> None:
        """Where groups take turns, explain shows the hosts of each."""
        await self.start_web(split={"blue": 3, "green": 1})
        told = await self.ok("explain", "192.0.2.1", "web")
        for words in ("would get a host drawn by chance", "clients are split: blue 75 %, green 25 %",
                      "the service is not sticky: the groups take turns, by their shares", "blue/blue1", "green/green1"):
            self.assertIn(words, told)

    async def test_rules(self) -> None:
        """What would leave a split without sense is refused, each time with what to do; ``enable`` ends it."""
        await self.start_web()
        call = self.running.control.call
        for shares, message in (
            ({"green": 1}, "the enabled group, 'blue', has no share"),
            ({"blue": 0, "green": 0}, "nobody has a share above 0"),
        ):
            with self.assertRaisesRegex(Wrong, message):
                await call(ADA, "split_service", {"service": "web", "shares": shares})
        done = await self.ctl("split", "web", "blue=1", "gren=1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("services.web.split.gren: there is no group 'gren' (did you mean green?)", done.stderr)
        told = await self.ok("split", "web", "blue=19", "green=1")
        self.assertIn("new clients of web: blue 95 %, green 5 %, revision", told)
        for name in ("del_group", "del_all_hosts"):
            with self.assertRaisesRegex(Conflict, "'green' has a part in the split"):
                await call(ADA, name, {"service": "web", "group": "green"})
        self.assertIn("blue 95 %, green 5 %", await self.ok("status"))
        await self.ok("group", "enable", "web/green")
        await self.ok("group", "del", "web/blue", "--yes")

    async def test_apply(self) -> None:
        """A file's split is compared and set as every other key."""
        await self.start_web()
        exported = await self.ok("export")
        await self.ok("split", "web", "blue=95", "green=5")
        self.assertIn("split", await self.ok("export"))
        done = await self.ctl("diff", self.write(exported))
        self.assertEqual(done.returncode, 6, done.stderr)
        self.assertIn("split", done.stdout)
        split = await self.ok("export")
        await self.ok("apply", self.write(exported), "--yes")
        self.assertEqual(self.running.node.inventory.services["web"].spec.split, {})
        await self.ok("apply", self.write(split), "--yes")
        self.assertEqual(self.running.node.inventory.services["web"].spec.split, {"blue": 95.0, "green": 5.0})
