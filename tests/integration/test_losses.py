"""Servers and agents in processes that are killed or frozen, while clients come: who is taken out, when, and who is not."""

from __future__ import annotations

from typing import Any

from cluster.model import HostRef, HostState
from director.core.entries import HostEntry
from director.service import DirectorService
from tests.integration.kit import BackendSite, service, until
from tests.integration.machines import Machine, MachinesTestCase

HOSTS = 16
#: Long beside the stutter of a busy machine, short beside the tests.
HEALTH = {"suspect_after_s": 0.6, "timeout_s": 1.0}
AGENTS = {"node": {"agents": {"listen": ["127.0.0.1:0"], "interval_s": 0.1}}}


def downs(entry: HostEntry) -> list[str]:
    return [f"{step.at:.3f}: {step.why}" for step in entry.health.history if step.after is HostState.DOWN]


class LossTestCase(MachinesTestCase):
    timeout = 120

    def entries(self, director: DirectorService) -> dict[str, HostEntry]:
        return {ref.host: entry for ref, entry in director.node.inventory.hosts.items()}

    async def heard(self, director: DirectorService) -> None:
        """Every agent speaks, and nothing is spared any more because the director has just begun."""
        node = director.node
        await until(lambda: all(entry.report is not None for entry in node.inventory.hosts.values()), "every agent is heard")
        await until(lambda: not node.inventory.in_grace(node.monotonic()), "the grace is over")


class SilenceTests(LossTestCase):
    """Each agent apart from its server."""

    async def test_all_agents_for_ten_timeouts(self) -> None:
        """All agents fall silent while their hosts serve, probed or not: no client is lost and no host evicted, the mode shows
        in status and metrics, and ends by itself when they speak again."""
        director, agents = await self.watched()
        clients = self.ask(director, 2)
        isolated = lambda: director.operations.picture().isolated  # noqa: E731
        self.assertFalse(isolated())
        for agent in agents.values():
            agent.freeze()
        await until(isolated, "the mode begins")
        self.assertEqual(self.gauge(director), 1.0)
        began, lasts_s = director.node.monotonic(), 10 * HEALTH["timeout_s"]
        asked = len(clients.seen)
        await until(lambda: director.node.monotonic() - began > lasts_s, "ten timeouts")
        self.assertTrue(isolated())
        for agent in agents.values():
            agent.thaw()
        await until(lambda: not isolated(), "the mode ends")
        self.assertEqual(self.gauge(director), 0.0)
        entries = self.entries(director)
        await until(lambda: {entry.health.state for entry in entries.values()} == {HostState.UP}, "all are up")
        self.assertGreater(len(clients.seen) - asked, 100)
        self.assertEqual(clients.failed, 0)
        self.assertEqual({name: found for name, entry in entries.items() if (found := downs(entry))}, {})

    async def watched(self) -> tuple[DirectorService, dict[str, Machine]]:
        """Half of the hosts are probed, the others are not and have no clients either: nothing but their agents speaks for
        them."""
        sites: list[BackendSite] = [await self.backend(f"h{number}") for number in range(HOSTS)]
        agents = self.machines(HOSTS)
        half = HOSTS // 2
        data = service({site.name: site.address for site in sites[:half]}, group={"health": HEALTH})
        data["services"]["idle"] = {"groups": {"main": {
            "hosts": {site.name: site.address for site in sites[half:]}, "health": {**HEALTH, "probe": {"kind": "none"}}}}}
        director = await self.director(data | AGENTS)
        for ref in director.node.inventory.hosts:
            agents[ref.host].reports_to(director.agents.ports[0].address, str(ref))
        await self.heard(director)
        return director, agents

    def gauge(self, director: DirectorService) -> float | None:
        return director.registry.get_sample_value("txdirector_isolated")


class KillTests(LossTestCase):
    """Sixteen servers, each with its agent."""

    async def served(self, *, agents: bool = True, **group: Any) -> tuple[DirectorService, dict[str, Machine]]:
        machines = self.machines(HOSTS)
        hosts = {name: f"127.0.0.1:{machine.port()}" for name, machine in machines.items()}
        director = await self.director(service(hosts, group={"health": HEALTH, **group}) | AGENTS)
        for name, machine in machines.items() if agents else ():
            machine.reports_to(director.agents.ports[0].address, str(HostRef("web", "main", name)))
        if agents:
            await self.heard(director)
        await until(lambda: not director.node.inventory.in_grace(director.node.monotonic()), "the grace is over")
        return director, machines

    async def test_one_of_sixteen_under_load(self) -> None:
        """Killed while clients come: it is out at the first connect that it refuses, which another host serves."""
        # nothing but clients and the agent's connection tells: probes are far away, and so is the timeout
        health = {"suspect_after_s": 3.0, "timeout_s": 4.0, "interval_s": 300.0, "suspect_interval_s": 300.0}
        director, machines = await self.served(health=health, scheduler="roundrobin")
        victim = self.entries(director)["h3"]
        clients = self.ask(director, 1)
        await until(lambda: any(attempt.host == "h3" for attempt in clients.seen), "it has clients")
        killed = director.node.monotonic()
        machines["h3"].kill()
        await until(lambda: victim.health.state is HostState.DOWN, "it is out")
        self.assertLess(victim.health.since - killed, 3.0)
        asked = len(clients.seen)
        await until(lambda: len(clients.seen) > asked + 2 * HOSTS, "the others serve")
        self.assertLessEqual(clients.failed, 1)  # who was with it just then
        self.assertEqual(victim.connect_failures, 1 + clients.failed, downs(victim))
        self.assertEqual([name for name, entry in self.entries(director).items() if downs(entry)], ["h3"])

    async def test_one_of_sixteen_at_rest(self) -> None:
        """Killed while nobody asks: it is out within a timeout and a second."""
        director, machines = await self.served()
        victim = self.entries(director)["h3"]
        killed = director.node.monotonic()
        machines["h3"].kill()
        await until(lambda: victim.health.state is HostState.DOWN, "it is out")
        self.assertLess(victim.health.since - killed, HEALTH["timeout_s"] + 1.0)

    async def test_one_of_sixteen_without_probes(self) -> None:
        """The same, where only its agent says that it lives."""
        director, machines = await self.served(health={**HEALTH, "probe": {"kind": "none"}})
        victim = self.entries(director)["h3"]
        killed = director.node.monotonic()
        machines["h3"].kill()
        await until(lambda: victim.health.state is HostState.DOWN, "it is out")
        self.assertLess(victim.health.since - killed, HEALTH["timeout_s"] + 1.0)

    async def test_half_of_sixteen(self) -> None:
        """Eight are killed at once while clients come: those are out, and of the clients that come from then on at least 99.9 %
        are served by the others; who was with them just then is lost, as with any relay."""
        await self.half_of_sixteen(agents=True)

    async def test_half_of_sixteen_without_agents(self) -> None:
        """The same, where nothing but clients and probes tells that they died."""
        await self.half_of_sixteen(agents=False)

    async def half_of_sixteen(self, *, agents: bool) -> None:
        director, machines = await self.served(agents=agents)
        clients = self.ask(director, 4)
        await until(lambda: len(clients.seen) > 200, "clients are served")
        victims = [f"h{number}" for number in range(HOSTS // 2)]
        for name in victims:
            machines[name].kill()
        for name in victims:
            machines[name].died()
        killed, asked = director.node.monotonic(), len(clients.seen)
        entries = self.entries(director)
        await until(lambda: all(entries[name].health.state is HostState.DOWN for name in victims), "they are out")
        await until(lambda: len(clients.seen) > asked + 2000, "the others serve")
        self.assertEqual({name for name, entry in entries.items() if downs(entry)}, set(victims))
        since = [attempt for attempt in clients.seen if attempt.began > killed]
        failed = [attempt.began - killed for attempt in since if not attempt.host]
        self.assertLessEqual(len(failed), len(since) / 1000, failed)
        self.assertTrue({attempt.host for attempt in since[len(since) // 2:]} <= machines.keys() - set(victims))
