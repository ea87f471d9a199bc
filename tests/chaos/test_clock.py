"""The time of day is set, or runs fast, on directors and backends of a running cluster."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.kit import ChaosTestCase, Director, all_up, failed, until
from tests.faketime import FAST, RIGHT, STEPS, TimeOfDay, require_faketime

#: Longer than every lease here (2 s), than the membership's is renewed and than heartbeats take to be missed.
WATCH_S = 2.5
#: A host's failure: two probes a second apart, a refused connection before; and much for a busy machine.
NOTICED_S = 5.0


class ClockTests(ChaosTestCase):
    def setUp(self) -> None:
        require_faketime()
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.clocks = [TimeOfDay(Path(folder.name) / f"clock{number}") for number in range(2)]
        super().setUp()

    def start_cluster(self) -> None:
        self.addCleanup(self._forget)
        one, two = self.clocks
        for director, clock in zip(self.cluster.directors, self.clocks, strict=True):
            director.env = clock.environment
        for number, each in enumerate(self.cluster.backends):
            each.env = (one if number % 2 else two).environment
        super().start_cluster()

    def _forget(self) -> None:
        """When the cluster has ended."""
        for each in (*self.cluster.directors, *self.cluster.backends):
            for process in each.machine.processes:
                TimeOfDay.forget(process.pid)

    def test_wrong(self) -> None:
        """Everywhere, or at the leader only: it keeps its lease and the VIP, both directors their memberships, hosts are
        heard, no client is refused; and a host that dies is noticed in the usual time."""
        holder = self.cluster.await_vip()
        clients = self.cluster.clients(50)
        for what in (*STEPS, FAST):
            for clock in self.clocks:
                clock.set(what)
            self.nothing_happens(holder, what)
        self.clocks[self.cluster.directors.index(holder)].set(RIGHT)
        self.nothing_happens(holder, "the other's only")
        self.assertEqual(failed(clients.stop()), [])
        self.clocks[0].set("-3600")
        self.clocks[1].set("-7200")
        killed = time.monotonic()
        self.cluster.backends[0].kill()
        for director in self.cluster.directors:
            until(lambda director=director: director.hosts()["b1"]["state"] == "down", f"{director.name} notices")
        self.assertLess(time.monotonic() - killed, NOTICED_S)

    def nothing_happens(self, holder: Director, what: str) -> None:
        """For as long as it takes."""
        began = time.monotonic()
        while time.monotonic() - began < WATCH_S:
            self.assertTrue(holder.holds_vip(), what)
            for director in self.cluster.directors:
                self.assertTrue(all_up(director, len(self.cluster.backends)), what)
                self.assertEqual(director.status()["leader"], holder.name, what)
                self.assertTrue(all(each["heartbeat_age_s"] < 2.5 for each in director.hosts().values()), what)
                self.never_evicted(director)
        cluster = holder.call("GET", "cluster")
        self.assertEqual(len(cluster["members"]), 2, what)
        self.assertEqual(holder.log.count("lapse"), 0, what)
