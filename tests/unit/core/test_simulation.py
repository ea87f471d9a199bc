"""What agents can do to a pool, in a small seeded simulation (`bench.schedulers`) of the real inventory and schedulers."""

from __future__ import annotations

from dataclasses import replace
from unittest import TestCase

from bench.schedulers.scenarios import Hosts, Reports, Scenario
from bench.schedulers.simulation import Outcome, Simulation

HOSTS = 8
STEADY = Scenario("steady", (Hosts(HOSTS),), 0.6, mean_s=0.040, warm_s=10.0, run_s=20.0)
#: Half of them four times slower.
UNLIKE = replace(STEADY, hosts=(Hosts(2), Hosts(2, speed=1 / 4)), mean_s=0.020)


def outcome(scenario: Scenario, scheduler: str = "auto", **reports: object) -> Outcome:
    return Simulation(replace(scenario, reports=Reports(**reports)), scheduler, seed=1).run()  # type: ignore[arg-type]


class AgentsTests(TestCase):
    def test_restarting_agents(self) -> None:
        """Agents that restart at random move no host's share of any five seconds by more than a fifth."""
        found = outcome(STEADY, restarts_per_s=0.5)
        self.assertGreaterEqual(len(found.seconds), 3)
        for picks in found.seconds[:4]:
            total = sum(picks.values())
            for index in range(HOSTS):
                self.assertLess(abs(picks[f"h{index}"] / total * HOSTS - 1), 0.2, f"{picks}")

    def test_a_liar(self) -> None:
        """An agent that claims its host to be idle, or ten times as fast too, costs at most a tenth of p99."""
        honest = outcome(STEADY).quantile_s(0.99)
        for liar in ("idle", "giant"):
            self.assertLess(outcome(STEADY, liar=liar).quantile_s(0.99), 1.1 * honest, liar)

    def test_silence(self) -> None:
        """When all agents fall silent every client is still served, and hosts that are slow still get less."""
        found = outcome(UNLIKE, until_s=12.0)
        self.assertEqual(found.failed + found.timeouts, 0)
        self.assertLess(found.picks["h3"], 0.1 * sum(found.picks.values()))

    def test_unlike_hosts(self) -> None:
        """Where half of the hosts are four times slower, p99 is far below that of least connections."""
        self.assertLess(outcome(UNLIKE).quantile_s(0.99), 0.65 * outcome(UNLIKE, "leastconns").quantile_s(0.99))

    def test_light_load(self) -> None:
        """At 3 % of load each of four hosts alike has a fifth to three tenths of the connections."""
        found = outcome(Scenario("light", (Hosts(4),), 0.03, mean_s=0.040, warm_s=30.0, run_s=90.0))
        total = sum(found.picks.values())
        for index in range(4):
            self.assertTrue(0.2 < found.picks[f"h{index}"] / total < 0.3, f"{found.picks}")
