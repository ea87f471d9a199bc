"""``takeover = "promises"``: what moves, what does not, and never two who answer, watched packet by packet from two machines."""

from __future__ import annotations

import base64
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench.watching import Seen, Watchers, build, doubled_ms, owners, served_again_s
from deploy.lab.cluster import WEB, Cluster, Director, all_up, until
from deploy.lab.side import INTERFACE, NETWORK, SIDE_VIP, with_side
from tests.chaos.kit import require_namespaces

#: Of the owner, each restarted after it; a soak does more.
KILLS = int(os.environ.get("TAKEOVERS", "2"))
#: All of etcd, for longer than any promise; a soak does more.
AWAY_S = float(os.environ.get("ETCD_AWAY_S", "7"))
#: Any promise, and what a busy machine takes for it: nothing here depends on being fast.
TAKEOVER_S = 10.0
#: Longer than any promise or wait.
STILL_S = 2.5


class PromisesTestCase(SynchronousTestCase):
    """Two directors with a clients' side, one etcd member, one backend. At the end of every test no two may have answered."""

    directors = 2
    #: Patient, so that no move comes of a machine that is busy.
    node = 'takeover = "promises"\ntakeover_s = 2.0'

    def setUp(self) -> None:
        require_namespaces()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cluster = Cluster(Path(directory.name), etcd=1, directors=self.directors, backends=1, node=self.node)
        self.addCleanup(self.cluster.close)
        self.addCleanup(self._keep_tails)
        self.side = with_side(self.cluster)
        self.cluster._vip = False  # it is on the other side
        self.cluster.start()
        watched = [self.cluster.lab.machine(f"watcher{n}") for n in range(4)]
        for machine in (*watched, self.cluster.client):
            self.side.plug(machine)
        self.macs = {self.side.mac(each.machine): each for each in self.cluster.directors}
        self.owner()
        until(lambda: len(self.electors()) == self.directors, "everybody may follow")
        clients, observers = watched[:2], watched[2:]
        self.watching = Watchers(build(Path(directory.name)), SIDE_VIP, WEB, clients,
                                 [(each, f"{NETWORK}.{each.address.rpartition('.')[2]}") for each in observers], INTERFACE,
                                 self.macs)

    def _keep_tails(self) -> None:
        """For the report of a failure (``conftest.py``)."""
        self.tails = {each.name: "\n".join(each.log.splitlines()[-30:]) for each in self.cluster.directors if each.process}

    # --- words for tests

    def electors(self) -> list[str]:
        found: list[str] = self.cluster.directors[0].call("GET", "cluster")["electors"]
        return found

    def owner(self) -> Director:
        def one() -> list[Director]:
            return [each for each in self.cluster.directors if each.process and each.process.poll() is None
                    and each.status()["leads"] and self.side.holds(each.machine)]

        found: list[Director] = until(one, "an owner", 20.0)
        return found[0]

    def other(self, director: Director) -> Director:
        return next(each for each in self.cluster.directors if each is not director)

    def await_owner(self, *among: Director) -> Director:
        found: list[Director] = until(lambda: [each for each in among if self.side.holds(each.machine) and each.status()["leads"]],
                                      "another owner", TAKEOVER_S)
        return found[0]

    def restart(self, director: Director) -> None:
        director.start()
        until(lambda: all_up(director, 1), f"{director.name} is well")
        until(lambda: all(peer["connected"] for peer in director.status()["peers"]), f"{director.name} is linked")

    def stop_watching(self) -> Seen:
        time.sleep(0.3)
        seen = self.watching.stop()
        self.assertTrue(seen.answers)
        self.assertEqual(doubled_ms(seen.answers), 0, "milliseconds with two owners")
        return seen


class KilledTests(PromisesTestCase):
    node = 'takeover = "promises"'

    def test_killed(self) -> None:
        """By SIGKILL, again and again: the other one answers after the promise; whoever comes back may follow in turn."""
        moments = []
        for _ in range(KILLS):
            owner = self.owner()
            moments.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            owner.kill()
            self.await_owner(self.other(owner))
            time.sleep(0.3)
            moments.append(time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            self.restart(owner)
        seen = self.stop_watching()
        took = [served_again_s(seen, *moments[n : n + 2])[0] for n in range(0, len(moments), 2)]
        print("served again after", ", ".join(f"{each:.3f} s" for each in sorted(took)))
        self.assertLess(max(took), TAKEOVER_S)

class MovingTests(PromisesTestCase):
    def test_frozen_stopped_upgraded(self) -> None:
        """By SIGSTOP: its kernel is silent when the other one answers, and after SIGCONT it answers for nothing. Then orders."""
        owner = self.owner()
        owner.freeze()
        heir = self.await_owner(self.other(owner))
        time.sleep(0.5)
        owner.thaw()
        until(lambda: not owner.status()["leads"] and not self.side.holds(owner.machine), "it knows")
        self.assertIs(self.owner(), heir)
        owner, heir = heir, owner  # one that stops hands over; one that is upgraded, too, and its new process may follow
        owner.signal(signal.SIGTERM)
        self.await_owner(heir)
        owner.stop()
        self.restart(owner)
        heir.call("POST", "process/upgrade", {}, timeout_s=60.0)
        self.await_owner(owner)
        until(lambda: all(peer["connected"] for peer in owner.status()["peers"]), "linked with the new process")
        owner.kill()
        self.await_owner(heir)
        self.stop_watching()


class StayingTests(PromisesTestCase):
    #: A process that stands still for four seconds costs a move, and busy machines have made that of two.
    node = 'takeover = "promises"\ntakeover_s = 6.0'

    def test_nothing_moves(self) -> None:
        """While all is well nothing is written; the way between the two is cut, and healed; all of etcd is away, and back; the
        record is deleted by hand, and the owner writes it anew. One answers throughout, and no client waits."""
        (etcd,) = self.cluster.etcd
        owner = self.owner()
        other = self.other(owner)
        clients = self.cluster.clients(20, SIDE_VIP)
        began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        written = etcd.revision()
        time.sleep(1.0)
        self.assertEqual(etcd.revision(), written)
        owner.machine.cut(other.machine)
        until(lambda: etcd.revision() > written + 5, "the owner beats in etcd")
        time.sleep(STILL_S)
        owner.machine.heal(other.machine)
        until(lambda: all(peer["connected"] for peer in owner.status()["peers"]), "linked again")
        until(lambda: self.quiet_for(0.5), "no more beats in etcd")
        etcd.kill()
        until(lambda: not owner.status()["store_available"], "etcd is away")
        time.sleep(AWAY_S)
        etcd.start()
        until(lambda: owner.status()["store_available"], "etcd is back")
        before = owner.call("GET", "cluster")["term"]
        etcd.post("/v3/kv/deleterange", {"key": _b64("/txdirector/lab/leader"), "range_end": _b64("/txdirector/lab/leader0")})
        until(lambda: owner.call("GET", "cluster")["term"] > before, "a new term")
        ended = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        seen = self.stop_watching()
        self.assertEqual([self.macs[mac] for mac in owners(seen.answers)], [owner])
        self.assertLess(served_again_s(seen, began, ended)[1], 1.0)
        served = clients.stop()
        self.assertEqual([each for each in served if each["error"] is not None], [])
        print(f"etcd was away for {AWAY_S:g} s: nothing moved, {len(served)} clients, none failed")

    def quiet_for(self, seconds: float) -> bool:
        (etcd,) = self.cluster.etcd
        before = etcd.revision()
        time.sleep(seconds)
        return etcd.revision() == before


def _b64(text: str) -> Any:
    return base64.b64encode(text.encode()).decode()
