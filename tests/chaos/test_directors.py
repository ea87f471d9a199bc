"""Directors die, freeze, restart and hand over; what clients see."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections import Counter
from typing import Any, ClassVar

from deploy.lab.cluster import ADMIN, AGENTS, TOKEN, WEB
from tests.chaos.kit import TAKEOVER_S, VIP, ChaosTestCase, answered, failed, longest_gap, until


class LeaderTests(ChaosTestCase):
    def test_killed(self) -> None:
        """The leader loses its power: the other has the VIP within the lease and a bit, and clients are served again."""
        leader = self.cluster.await_vip()
        clients = self.cluster.clients(50)
        until(lambda: leader.metric("txdirector_connections_ended_total") > 20, "clients are served")
        leader.kill()
        self.await_takeover(self.other(leader))
        until(lambda: self.other(leader).metric("txdirector_connections_ended_total") > 50, "clients are served again")
        seen = clients.stop()
        self.assertLess(longest_gap(seen), TAKEOVER_S)
        self.assertIsNone(seen[-1]["error"])
        self.never_evicted(self.other(leader))

    def test_frozen(self) -> None:
        """The leader freezes: its kernel drops the VIP by itself, the other takes it; the one that wakes does not lead."""
        leader = self.cluster.await_vip()
        other = self.other(leader)
        clients = self.cluster.clients(50)
        until(lambda: leader.metric("txdirector_connections_ended_total") > 20, "clients are served")
        leader.freeze()
        self.await_takeover(other)
        self.assertFalse(leader.holds_vip(), "the frozen one's kernel still has the VIP")
        leader.thaw()
        until(lambda: leader.status()["leader"] == other.name, f"{leader.name} knows who leads")
        self.assertFalse(leader.holds_vip())
        self.assertTrue(other.holds_vip())
        seen = clients.stop()
        self.assertLess(longest_gap(seen), TAKEOVER_S)

    def test_resigns(self) -> None:
        """The leader is stopped in order: the VIP moves at once, and no client is refused."""
        leader = self.cluster.await_vip()
        clients = self.cluster.clients(100)
        until(lambda: leader.metric("txdirector_connections_ended_total") > 50, "clients are served")
        leader.stop()
        self.await_takeover(self.other(leader))
        until(lambda: self.other(leader).metric("txdirector_connections_ended_total") > 100, "clients are served")
        seen = clients.stop()
        self.assertEqual(failed(seen), [])

    def test_comes_back(self) -> None:
        """A former leader that starts again stands by, and leads when it is its turn."""
        first = self.cluster.await_vip()
        first.kill()
        self.await_takeover(self.other(first))
        first.start()
        self.await_all_up(first)
        self.assertFalse(first.holds_vip())
        self.other(first).kill()
        self.await_takeover(first)

    def test_both_restarted(self) -> None:
        """Both directors lose their power at once and start again: every host is up, none was evicted, one leads."""
        for director in self.cluster.directors:
            director.kill()
        for director in self.cluster.directors:
            director.start()
        self.await_all_up()
        self.cluster.await_vip()
        for director in self.cluster.directors:
            self.never_evicted(director)
        clients = self.cluster.clients(50)
        until(lambda: self.cluster.await_vip().metric("txdirector_connections_ended_total") > 50, "clients are served")
        self.assertEqual(failed(clients.stop()), [])


class OrderTests(ChaosTestCase):
    def test_drain_everywhere(self) -> None:
        """A drain ordered at one director is obeyed by the other within a second, and lifted as fast."""
        one, two = self.cluster.directors
        for state, takes in (("drain", False), ("up", True)):
            one.call("PUT", "services/web/groups/main/hosts/b1/state", {"state": state, "why": "a test"})
            ordered = time.monotonic()
            until(lambda takes=takes: two.hosts()["b1"]["in_rotation"] is takes, f"{two.name} obeys {state}")
            self.assertLess(time.monotonic() - ordered, 1.0)
        order = one.call("GET", "services/web/groups/main/hosts/b1")["orders"]
        self.assertEqual(order, [])

    def test_drain_waits_for_every_director(self) -> None:
        """Who waits for a drain sees the other director's open connections too; when that is out of reach they are unknown,
        not none."""
        one, two = self.cluster.directors

        def elsewhere() -> int | None:
            host = one.call("GET", "services/web/groups/main/hosts/b1")
            count: int | None = host["in_flight_elsewhere"].get(two.name)
            return count

        with self.cluster.client.inside():
            clients = [socket.create_connection((two.machine.address, WEB), 10) for _ in range(8)]
        for each in clients:
            self.addCleanup(each.close)
            each.settimeout(10)
        at_b1 = [each for each in clients if each.recv(16).strip() == b"b1"]
        self.assertTrue(at_b1)
        one.call("PUT", "services/web/groups/main/hosts/b1/state", {"state": "drain", "why": "a test"})
        until(lambda: elsewhere() == len(at_b1), "the other director's are counted")
        for each in at_b1:
            each.close()
        until(lambda: elsewhere() == 0, "they are gone")
        two.freeze()
        until(lambda: elsewhere() is None, "nobody knows")
        two.thaw()
        until(lambda: elsewhere() == 0, "known again")

    def test_configured_everywhere(self) -> None:
        """A weight set at one director counts at the other."""
        one, two = self.cluster.directors
        one.call("PUT", "services/web/groups/main/hosts/b2/weight", {"weight": 7.0})
        until(lambda: two.hosts()["b2"]["configured_weight"] == 7.0, "the weight arrives")


class StickyTests(ChaosTestCase):
    options: ClassVar[dict[str, Any]] = {"service": '[services.web.sticky]\nmode = "hash"\n[services.web.proxy]\naccept_from = ["10.77.0.0/24"]\n'}

    def test_hash_survives_the_leader(self) -> None:
        """10,000 clients keep their host when the leader dies: both directors agree without having talked."""
        leader = self.cluster.await_vip()
        before = self.hosts_of(leader.machine.address)
        self.assertGreater(min(Counter(before).values()), 1_000)
        leader.kill()
        self.await_takeover(self.other(leader))
        after = self.hosts_of(VIP)
        self.assertEqual(sum(one != two for one, two in zip(before, after, strict=True)), 0)

    def hosts_of(self, where: str) -> list[str]:
        """Which backend serves each of 10,000 client addresses, told by PROXY headers."""
        found = []
        with self.cluster.client.inside():
            for number in range(10_000):
                with socket.create_connection((where, WEB), 10) as sock:
                    source = f"192.0.{number >> 8 & 255}.{number & 255}"
                    sock.sendall(f"PROXY TCP4 {source} 10.77.0.100 1024 {WEB}\r\n".encode())
                    found.append(sock.makefile().readline().strip())
        return found


class CredentialTests(ChaosTestCase):
    def test_an_agent_is_no_director(self) -> None:
        """What an agent may say does not let it speak as a director, and a director's hello is no agent's."""
        director = self.cluster.await_vip()
        peers = director.call("GET", "cluster")
        address = next(member["peers"] for member in peers["members"] if member["name"] == director.name)
        agents = f"{director.machine.address}:{AGENTS}"
        for where, hello in (
            (address, {"type": "hello", "version": 1, "agent": "b1", "boot_id": "x", "token": TOKEN, "hosts": []}),
            (address, {"type": "hello", "version": 1, "director": "director9", "boot_id": "x", "proof": TOKEN}),
            (agents, {"type": "hello", "version": 1, "director": "director9", "boot_id": "x"}),
        ):
            self.assertNotIn(b'"welcome"', self.answer(where, hello))
        names = {member["name"] for member in director.call("GET", "cluster")["members"]}
        self.assertEqual(names, {each.name for each in self.cluster.directors})

    def answer(self, where: str, hello: dict[str, object]) -> bytes:
        """Whatever comes until the connection ends, which it must."""
        host, _, port = where.rpartition(":")
        received = b""
        with self.cluster.client.inside(), socket.create_connection((host, int(port)), 10) as sock:
            sock.settimeout(20)
            sock.sendall(json.dumps(hello).encode() + b"\n")
            with contextlib.suppress(ConnectionResetError):
                while data := sock.recv(4096):
                    received += data
        return received

    def test_the_admin_stays_home(self) -> None:
        """The admin on loopback is not reachable from other machines."""
        director = self.cluster.await_vip()
        with self.cluster.client.inside(), self.assertRaises(ConnectionRefusedError):
            socket.create_connection((director.machine.address, ADMIN), 5)


class BackendTests(ChaosTestCase):
    def test_killed(self) -> None:
        """A backend dies: clients are redispatched, no attempt fails but those already on it; both directors see it."""
        clients = self.cluster.clients(50)
        victim = self.cluster.backends[0]
        until(lambda: self.cluster.await_vip().metric("txdirector_connections_ended_total") > 20, "clients are served")
        killed = time.monotonic()
        victim.kill()
        for director in self.cluster.directors:
            until(lambda director=director: director.hosts()["b1"]["state"] == "down", f"{director.name} sees it down")
        lost = [attempt for attempt in failed(clients.stop()) if not attempt["began"] - 0.1 < killed < attempt["began"] + 1]
        self.assertEqual(lost, [])
        victim.start()
        self.await_all_up()

    def test_agent_gone(self) -> None:
        """An agent falls silent while its service answers: the host stays in rotation."""
        victim = self.cluster.backends[0]
        victim.machine.cut(*(each.machine for each in self.cluster.directors), port=AGENTS)
        for director in self.cluster.directors:
            until(lambda director=director: (director.hosts()["b1"]["heartbeat_age_s"] or 0) > 8, "the timeout passes")
            self.assertTrue(director.hosts()["b1"]["in_rotation"])
            self.never_evicted(director)
        seen = self.cluster.clients(50)
        until(lambda: self.cluster.await_vip().metric("txdirector_connections_ended_total") > 50, "clients are served")
        self.assertIn("b1", {attempt["answer"] for attempt in answered(seen.stop())})

    def test_frozen(self) -> None:
        """A backend freezes: its kernel still accepts, but the silent agent makes it suspect; then it is up again."""
        victim = self.cluster.backends[0]
        victim.freeze()
        for director in self.cluster.directors:
            until(lambda director=director: "suspect" in {step["after"] for step in director.hosts()["b1"]["history"]},
                  f"{director.name} has doubts")
        victim.thaw()
        self.await_all_up()
