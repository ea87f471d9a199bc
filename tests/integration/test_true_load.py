"""A director that comes to a running cluster, and one that is restarted while clients come: how soon it knows what its peer knows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from cluster.model import HostRef, Member
from cluster.model import Peers as Config
from director.ha.exchange import Exchange
from director.ha.peers import Peers
from director.service import DirectorService
from tests.integration.kit import closed_port, reactor, service, until
from tests.integration.machines import Machine, MachinesTestCase

#: Of each host: how busy it is, and what it gets done a second.
FIGURES = {"h0": (0.5, 100.0), "h1": (0.5, 100.0), "h2": (0.5, 25.0), "h3": (0.9, 90.0)}
#: Of issue G: from the moment a director listens.
KNOWN_S = 2.0


class Sides(MachinesTestCase):
    """Two directors with a link, and hosts in processes, whose agents report to both or to the first only."""

    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        self.found = {name: Machine(name, *figures) for name, figures in FIGURES.items()}
        for machine in self.found.values():
            self.addCleanup(machine.close)
        hosts = {name: f"127.0.0.1:{machine.port()}" for name, machine in self.found.items()}
        self.data = service(hosts, group={"scheduler": "loadaware"})
        self.agents = {name: f"127.0.0.1:{closed_port()}" for name in ("d1", "d2")}
        self.secret = Path(self.mktemp())
        self.secret.write_text("a secret of these tests only")
        self.secret.chmod(0o600)
        self.links: dict[str, Peers] = {}

    async def side(self, name: str) -> DirectorService:
        """A director that listens from now on, linked with whoever else does."""
        node = {"agents": {"listen": [self.agents[name]], "interval_s": 0.1}}
        director = await self.director({**self.data, "node": node})
        link = Peers(Config(listen="127.0.0.1:0", secret_file=str(self.secret)), cluster="c", director=name,
                     boot_id=f"{name}-{time.monotonic_ns()}", reactor=reactor)
        Exchange(link, director.node, director.attendance, store_answers=lambda: True)
        link.startService()
        self.addCleanup(lambda: link.stopService() if link.running else None)
        self.links[name] = link
        self.tell()
        return director

    def tell(self) -> None:
        members = {name: Member(name=name, boot_id="b", version="1", started=0.0, peers=str(link.address))
                   for name, link in self.links.items()}
        for link in self.links.values():
            link.set_members(members)

    def report(self, *directors: str) -> None:
        for name, machine in self.found.items():
            for director in directors:
                machine.reports_to(self.agents[director], str(HostRef("web", "main", name)))

    def load(self, director: DirectorService) -> dict[str, Any]:
        """What it knows of each host: its load, and its weight."""
        found = {}
        for ref, entry in director.node.inventory.hosts.items():
            report = entry.report
            found[ref.host] = report and (report.utilisation, report.rate, report.completions, round(entry.host.weight, 2))
        return found

    async def settled(self, *directors: DirectorService) -> dict[str, Any]:
        """What the first knows once the slow host has found its weight."""
        for director in directors:
            await until(lambda director=director: None not in self.load(director).values(), "every agent is heard")
            await until(lambda director=director: self.load(director)["h2"][-1] < 0.5, "weights follow")
        return self.load(directors[0])

    async def knows(self, director: DirectorService, expected: dict[str, Any], since: float) -> None:
        while self.load(director) != expected:
            self.assertLess(time.monotonic() - since, KNOWN_S, f"{self.load(director)} instead of {expected}")
            await deferLater(reactor, 0.02)


class JoiningTests(Sides):
    async def test_agents_reach_it(self) -> None:
        """Agents that are told of it find it, and it weighs the hosts as its peer does."""
        one = await self.side("d1")
        self.report("d1", "d2")
        expected = await self.settled(one)
        two = await self.side("d2")
        await self.knows(two, expected, time.monotonic())

    async def test_its_peer_tells_it(self) -> None:
        """Where agents do not reach it, or have not yet, its peer does."""
        one = await self.side("d1")
        self.report("d1")
        expected = await self.settled(one)
        two = await self.side("d2")
        await self.knows(two, expected, time.monotonic())


class RestartTests(Sides):
    async def test_under_load(self) -> None:
        """While clients come to it and to the other."""
        one, two = await self.side("d1"), await self.side("d2")
        self.report("d1", "d2")
        expected = await self.settled(one, two)
        here, there = self.ask(one, 2), self.ask(two, 2)
        await until(lambda: len(here.seen) > 50 and len(there.seen) > 50, "clients are served")
        there.over()
        await self.links["d2"].stopService()
        await two.stopService()
        self.assertTrue(there.seen)
        two = await self.side("d2")
        began = time.monotonic()
        again = self.ask(two, 2)
        await self.knows(two, expected, began)
        asked = len(again.seen)
        await until(lambda: len(again.seen) > asked + 50, "clients are served")
        self.assertEqual(self.load(two), expected)
        self.assertEqual(here.failed + again.failed, 0)
