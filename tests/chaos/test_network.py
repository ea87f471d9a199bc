"""Cables between any two are pulled; what directors and clients see."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, ClassVar

from deploy.lab.cluster import AGENTS, BACKEND
from tests.chaos.kit import ChaosTestCase, all_up, failed, until


class PartitionTests(ChaosTestCase):
    def test_leader_from_etcd(self) -> None:
        """The leader loses only etcd: the other leads, and the first serves on at its own address."""
        leader = self.cluster.await_vip()
        other = self.other(leader)
        direct = self.cluster.clients(25, where=leader.machine.address)
        leader.machine.cut(*(each.machine for each in self.cluster.etcd))
        self.await_takeover(other)
        until(lambda: not leader.holds_vip(), "the first one's address is gone")
        until(lambda: not leader.status()["store_available"], "it says that etcd is away")
        self.assertTrue(all_up(leader, 4))
        leader.machine.heal(*(each.machine for each in self.cluster.etcd))
        until(lambda: leader.status()["store_available"], "it is back")
        until(lambda: leader.status()["leader"] == other.name, "and follows")
        self.assertEqual(failed(direct.stop()), [])

    def test_director_from_backends(self) -> None:
        """A director loses its way to every backend: its own view rules its own traffic, the other's stays as it was."""
        one, two = self.cluster.directors
        direct = self.cluster.clients(25, where=two.machine.address)
        one.machine.cut(*(each.machine for each in self.cluster.backends))
        until(lambda: one.status()["isolated"] or all(host["state"] != "up" for host in one.hosts().values()),
              "it notices")
        self.assertTrue(all_up(two, 4))
        one.machine.heal(*(each.machine for each in self.cluster.backends))
        self.await_all_up(one)
        until(lambda: not one.status()["isolated"], "the mode ends by itself")
        self.assertEqual(failed(direct.stop()), [])
        self.never_evicted(two)

    def test_between_the_directors(self) -> None:
        """The directors lose only each other: one leads as before, both serve, nobody is evicted."""
        leader = self.cluster.await_vip()
        other = self.other(leader)
        clients = [self.cluster.clients(25), self.cluster.clients(25, where=other.machine.address)]
        leader.machine.cut(other.machine)
        until(lambda: other.status()["peers"] and not any(peer["connected"] for peer in other.status()["peers"]),
              "they lose each other")
        served = other.metric("txdirector_connections_ended_total")
        until(lambda: other.metric("txdirector_connections_ended_total") > served + 100, "clients are served")
        self.assertIs(self.cluster.await_vip(), leader)
        leader.machine.heal(other.machine)
        until(lambda: any(peer["connected"] for peer in other.status()["peers"]), "they find each other")
        for each in clients:
            self.assertEqual(failed(each.stop()), [])
        for director in self.cluster.directors:
            self.never_evicted(director)

    def test_one_backend_from_one_director(self) -> None:
        """One backend is out of one director's reach: that director avoids it, the other does not."""
        one, two = self.cluster.directors
        victim = self.cluster.backends[0]
        victim.machine.cut(one.machine)
        until(lambda: one.hosts()["b1"]["state"] == "down", "the cut-off director sees it down")
        self.assertEqual(two.hosts()["b1"]["state"], "up")
        until(lambda: two.call("GET", "cluster")["disagreements"], "the disagreement shows")
        victim.machine.heal(one.machine)
        self.await_all_up(one)


class AgentTests(ChaosTestCase):
    def test_reaches_one_director_only(self) -> None:
        """An agent reaches only one director: the other has its load all the same, by way of the peer link."""
        one, two = self.cluster.directors
        until(lambda: two.hosts()["b1"]["agent_connected"], "the agent is there")
        self.cluster.backends[0].machine.cut(two.machine, port=AGENTS)
        until(lambda: (two.hosts()["b1"]["heartbeat_age_s"] or 0) > 3, "the agent is cut off")
        for _ in range(5):
            before = two.hosts()["b1"]["report"]
            until(lambda before=before: two.hosts()["b1"]["report"] != before, "a report by way of the other director")
        self.assertLess(two.hosts()["b1"]["report_age_s"], 3.0)
        self.never_evicted(two)
        self.assertTrue(two.hosts()["b1"]["in_rotation"])
        self.assertTrue(one.hosts()["b1"]["agent_connected"])

    def test_probe_port_only(self) -> None:
        """The service's port is closed to a director while the agent talks: connects fail, so the host leaves its rotation."""
        one, _ = self.cluster.directors
        one.machine.cut(self.cluster.backends[0].machine, port=BACKEND)
        until(lambda: one.hosts()["b1"]["state"] == "down", "probes decide")
        self.assertTrue(one.hosts()["b1"]["agent_connected"])
        one.machine.heal(self.cluster.backends[0].machine, port=BACKEND)
        self.await_all_up(one)


class ReconnectTests(ChaosTestCase):
    AGENTS = 1_000
    options: ClassVar[dict[str, Any]] = {"service": "", "backends": 1}

    def test_a_thousand_agents_come_back(self) -> None:
        """A director restarts, a thousand agents reconnect: nothing is evicted, and every heartbeat is heard again."""
        one, two = self.cluster.directors
        hosts = {f"h{number}": {"address": f"{self.cluster.backends[0].machine.address}:{BACKEND}"}
                 for number in range(self.AGENTS)}
        one.call("PUT", "services/many", {"spec": {"groups": {"main": {
            "hosts": hosts, "health": {"probe": {"kind": "none"}}}}}}, timeout_s=30)
        machine = self.cluster.backends[0].machine
        directors = ",".join(f"{each.machine.address}:{AGENTS}" for each in self.cluster.directors)
        swarm = machine.start(sys.executable, "-m", "deploy.lab.agents", directors, "many/main", str(self.AGENTS),
                              stdout=subprocess.PIPE)
        for director in (one, two):
            until(lambda director=director: self.heard(director) == self.AGENTS, f"{director.name} hears every agent", 60.0)
        one.kill()
        one.start()
        until(lambda: self.heard(one) == self.AGENTS, "all are heard again", 60.0)
        for director in (one, two):
            self.never_evicted(director)
            self.assertEqual({host["state"] for name, host in director.hosts().items() if name in hosts}, {"up"})
        machine.stop(swarm)

    def heard(self, director: object) -> int:
        return sum(host["agent_connected"] for name, host in director.hosts().items() if name.startswith("h"))
