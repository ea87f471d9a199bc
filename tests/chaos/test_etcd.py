"""etcd loses members, quorum, history or everything; what directors and clients see."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from deploy.lab.cluster import NotYet
from tests.chaos.kit import ChaosTestCase, all_up, failed, longest_gap, until

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "etcdctl.md"
#: The issue's: long enough for every lease, timeout and probe to have its turn.
AWAY_S = 30.0


class MembersTests(ChaosTestCase):
    etcd = 3

    def test_leader_killed(self) -> None:
        """etcd's own leader dies: clients of the directors' own addresses notice nothing, hosts neither."""
        holder = self.cluster.await_vip()
        direct = [self.cluster.clients(25, where=each.machine.address) for each in self.cluster.directors]
        self.cluster.etcd_leader().kill()
        until(lambda: any(each.healthy() for each in self.alive()), "etcd has another leader")
        self.cluster.await_vip()
        holder.call("PUT", "services/web/groups/main/hosts/b1/weight", {"weight": 2.0}, timeout_s=20)
        for clients in direct:
            self.assertEqual(failed(clients.stop()), [])
        for director in self.cluster.directors:
            self.never_evicted(director)

    def test_one_member_less(self) -> None:
        """A member that follows dies: nothing happens, not even to the VIP."""
        holder = self.cluster.await_vip()
        clients = self.cluster.clients(50)
        leader = self.cluster.etcd_leader()
        next(each for each in self.cluster.etcd if each is not leader).kill()
        until(lambda: holder.metric("txdirector_connections_ended_total") > 200, "clients are served")
        self.assertIs(self.cluster.await_vip(), holder)
        self.assertEqual(failed(clients.stop()), [])

    def test_quorum_lost(self) -> None:
        """Half a minute without quorum: both directors serve on at their own addresses, nobody is evicted, changes are
        refused in words; then the VIP comes back by itself."""
        victims = self.cluster.etcd[:2]
        direct = [self.cluster.clients(25, where=each.machine.address) for each in self.cluster.directors]
        for member in victims:
            member.kill()
        began = time.monotonic()
        for director in self.cluster.directors:
            until(lambda director=director: not director.status()["store_available"], f"{director.name} says so")
            with self.assertRaises(OSError) as refused:
                director.call("PUT", "services/web/groups/main/hosts/b1/weight", {"weight": 2.0}, timeout_s=20)
            self.assertIn("503", str(refused.exception))
        until(lambda: not any(each.holds_vip() for each in self.cluster.directors), "the VIP is released")
        until(lambda: time.monotonic() - began > AWAY_S, "half a minute", AWAY_S + 5)
        for director in self.cluster.directors:
            self.assertTrue(all_up(director, 4))
        for member in victims:
            member.start()
        self.cluster.await_vip()
        for director in self.cluster.directors:
            until(lambda director=director: director.status()["store_available"], f"{director.name} is back")
            self.never_evicted(director)
        for clients in direct:
            seen = clients.stop()
            self.assertEqual(failed(seen), [])
            self.assertGreater(len(seen), 25 * AWAY_S * 0.8)

    def alive(self) -> list[object]:
        return [each for each in self.cluster.etcd if each.process is not None and each.process.poll() is None]


class OneMemberTests(ChaosTestCase):
    def test_compacted(self) -> None:
        """etcd restarts with its history compacted past what directors have seen: they start over, and miss nothing."""
        (etcd,) = self.cluster.etcd
        one, two = self.cluster.directors
        two.machine.cut(etcd.machine)
        one.call("PUT", "services/web/groups/main/hosts/b3/weight", {"weight": 3.0}, timeout_s=20)
        etcd.post("/v3/kv/compaction", {"revision": str(etcd.revision()), "physical": True})
        etcd.kill()
        etcd.start()
        until(etcd.healthy, "etcd is back")
        two.machine.heal(etcd.machine)
        until(lambda: two.hosts()["b3"]["configured_weight"] == 3.0, "the other director catches up")
        for director in self.cluster.directors:
            self.never_evicted(director)

    def test_drain_survives_etcd(self) -> None:
        """An order stands when etcd comes back from a restart."""
        (etcd,) = self.cluster.etcd
        one, two = self.cluster.directors
        one.call("PUT", "services/web/groups/main/hosts/b4/state", {"state": "drain", "why": "a test"})
        until(lambda: not two.hosts()["b4"]["in_rotation"], "the order arrives")
        etcd.kill()
        until(lambda: not two.status()["store_available"], "etcd is away")
        etcd.start()
        until(lambda: two.status()["store_available"], "etcd is back")
        self.assertFalse(two.hosts()["b4"]["in_rotation"])
        self.assertFalse(one.hosts()["b4"]["in_rotation"])

    def test_cold_start(self) -> None:
        """A director that starts without etcd serves what it last knew, and says so everywhere; etcd's return ends that."""
        (etcd,) = self.cluster.etcd
        one, _ = self.cluster.directors
        snapshot = self.cluster.directory / f"{one.name}.snapshot"
        until(snapshot.exists, "the snapshot is written")
        etcd.kill()
        one.kill()
        one.start()
        self.await_all_up(one)
        status = one.status()
        self.assertTrue(status["cold_start"])
        self.assertFalse(status["store_available"])
        self.assertEqual(one.metric("txdirector_cold_start"), 1)
        self.assertIn("snapshot", one.log)
        clients = self.cluster.clients(50, where=one.machine.address)
        until(lambda: one.metric("txdirector_connections_ended_total") > 50, "clients are served")
        self.assertEqual(failed(clients.stop()), [])
        etcd.start()
        until(lambda: not one.status()["cold_start"], "the director follows etcd again")
        self.cluster.await_vip()

    def test_no_snapshot_no_service(self) -> None:
        """A director that starts without etcd and without a snapshot waits: "not synced" is never "nothing configured"."""
        (etcd,) = self.cluster.etcd
        one, _ = self.cluster.directors
        snapshot = self.cluster.directory / f"{one.name}.snapshot"
        until(snapshot.exists, "the snapshot is written")
        etcd.kill()
        one.kill()
        snapshot.unlink()
        one.start()
        with self.assertRaises(NotYet):
            until(lambda: one.status()["services"], "services out of nothing", 5.0)
        etcd.start()
        self.await_all_up(one)

    def test_a_minute_of_heartbeats_writes_nothing(self) -> None:
        """At steady state no heartbeat reaches etcd: its revision stands still."""
        (etcd,) = self.cluster.etcd
        director = self.cluster.await_vip()
        before, reports = etcd.revision(), director.metric("txdirector_agent_reports_total")
        until(lambda: director.metric("txdirector_agent_reports_total") >= reports + 4 * 60, "a minute of reports", 120.0)
        self.assertLessEqual(etcd.revision() - before, 2 * len(self.cluster.directors), "more than the summaries")

    def test_local_order(self) -> None:
        """While etcd is away an operator can still order this director, and only this one; the order ends with the outage."""
        (etcd,) = self.cluster.etcd
        one, two = self.cluster.directors
        etcd.kill()
        until(lambda: not one.status()["store_available"], "etcd is away")
        one.call("PUT", "services/web/groups/main/hosts/b1/state", {"state": "drain", "why": "a test", "local": True})
        until(lambda: not one.hosts()["b1"]["in_rotation"], "the order is obeyed")
        self.assertTrue(two.hosts()["b1"]["in_rotation"])
        etcd.start()
        until(lambda: one.hosts()["b1"]["in_rotation"], "the order is dropped")

    def test_vip_survives_a_short_restart(self) -> None:
        """etcd restarts in order: the VIP is back within seconds, and clients of the directors' own addresses see nothing."""
        (etcd,) = self.cluster.etcd
        holder = self.cluster.await_vip()
        vip, direct = self.cluster.clients(50), self.cluster.clients(50, where=holder.machine.address)
        etcd.stop()
        etcd.start()
        until(lambda: all(each.status()["store_available"] for each in self.cluster.directors), "etcd is back")
        self.cluster.await_vip()
        served = holder.metric("txdirector_connections_ended_total")
        until(lambda: holder.metric("txdirector_connections_ended_total") > served + 100, "clients are served")
        self.assertEqual(failed(direct.stop()), [])
        self.assertLess(longest_gap(vip.stop()), 15.0)


class InspectionTests(ChaosTestCase):
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"node": "summary_s = 1.0"})

    def test_etcdctl(self) -> None:
        """Every command of docs/operations/etcdctl.md prints what it says."""
        director = self.cluster.await_vip()
        director.call("PUT", "services/web/groups/main/hosts/b1/state", {"state": "drain", "why": "new disks"})
        self.cluster.backends[1].kill()
        until(lambda: director.hosts()["b2"]["state"] == "down", "b2 is seen down")
        for command in re.findall(r"^etcdctl (.+)$", PAGE.read_text(), flags=re.M):
            if command.startswith("watch"):
                continue
            words = WORDS.get(command.split("/lab/")[1].split()[0], ())
            until(lambda command=command, words=words: self.prints(command, words), f"{words} in etcdctl {command}")

    def prints(self, command: str, words: Sequence[str]) -> bool:
        found = self.etcdctl(*command.split())
        return bool(found) and all(word in found for word in words)

    def etcdctl(self, *words: str) -> str:
        (etcd,) = self.cluster.etcd
        done = etcd.machine.start("etcdctl", *words, stdout=subprocess.PIPE, env={
            "ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": "127.0.0.1:2379", "PATH": "/usr/bin:/bin"})
        return done.communicate(timeout=20)[0].decode()


#: What the commands must show, by what they ask for.
WORDS = {
    "directors/": ("director1", "director2"), "leader": ("director",), "vips/": ("10.77.0.100", "owner"),
    "services/web": ("b1", "b4"), "admin/": ("drain", "new disks"), "observed/": ("b2", "down"), "load/": ("utilisation",),
    "--keys-only": ("leader", "services/web"),
}
