"""Two virtual addresses, each with an owner of its own, over two directors: who has which when one dies, comes back, is
asked to give one up, stops. Never two who answer for one, watched packet by packet."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bench.watching import Watchers, build, doubled_ms
from deploy.lab.cluster import WEB, Cluster, Director, all_up, until
from deploy.lab.side import INTERFACE, NETWORK, SIDE_VIP, with_side
from tests.chaos.kit import require_namespaces

SECOND_VIP = f"{NETWORK}.101"
BOTH = (SIDE_VIP, SECOND_VIP)
#: Any promise, and what a busy machine takes for it: nothing here depends on being fast.
TAKEOVER_S = 15.0
#: Of clients, both addresses together, while what is ordered moves these; a soak, on a machine that does nothing else, has 500.
PER_S = float(os.environ.get("UNNOTICED_PER_S", "100"))


class SpreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        require_namespaces()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.cluster = Cluster(Path(directory.name), etcd=1, backends=1, node='takeover = "promises"\ntakeover_s = 2.0')
        self.addCleanup(self.cluster.close)
        self.addCleanup(self._keep_tails)
        self.side = with_side(self.cluster)
        self.cluster._vip = False  # it is on the other side
        for director in self.cluster.directors:
            one = f'addresses = ["{SIDE_VIP}/24"]'
            config = director.config.read_text()
            assert one in config
            director.config.write_text(
                config.replace(one, f'addresses = ["{SIDE_VIP}/24", "{SECOND_VIP}/24"]\nspread = true'))
        self.watched = [self.cluster.lab.machine(f"watcher{n}") for n in range(4)]
        for machine in (*self.watched, self.cluster.client):
            self.side.plug(machine)
        self.cluster.start()

    def _keep_tails(self) -> None:
        """For the report of a failure (``conftest.py``)."""
        self.tails = {each.name: "\n".join(each.log.splitlines()[-60:]) for each in self.cluster.directors if each.process}

    def watch(self, program: Path, address: str) -> Watchers:
        client, observer = self.watched[:2] if address == SIDE_VIP else self.watched[2:]
        macs = {self.side.mac(each.machine): each for each in self.cluster.directors}
        return Watchers(program, address, WEB, [client],
                        [(observer, f"{NETWORK}.{observer.address.rpartition('.')[2]}")], INTERFACE, macs)

    def has(self, director: Director) -> list[str]:
        there = self.side.addresses(director.machine)
        return [each for each in BOTH if each in there]

    def await_spread(self) -> None:
        until(lambda: all(len(self.has(each)) == 1 for each in self.cluster.directors), "one each", 30.0)

    def await_all_at(self, director: Director) -> None:
        until(lambda: self.has(director) == list(BOTH), f"{director.name} has both", TAKEOVER_S)
        for address in BOTH:
            until(lambda address=address: self.open(address), f"{address} is served").close()

    def open(self, address: str) -> Any:
        """A connection that is served; None when it is not."""
        with self.cluster.client.inside():
            sock = socket.socket()
            sock.settimeout(1.5)
            with contextlib.suppress(OSError):
                sock.connect((address, WEB))
                if sock.recv(64):
                    return sock
        sock.close()
        return None

    def restart(self, director: Director) -> None:
        director.start()
        until(lambda: all_up(director, 1), f"{director.name} is well")

    def test_spread(self) -> None:
        """One each. One is killed: the other has both. It comes back while both are in use: nothing moves but by order. That is
        ordered back, and nothing is in use: one comes by itself. The other one stops: no client finds its address deaf."""
        first, second = self.cluster.directors
        self.await_spread()
        program = build(self.cluster.directory)
        watchers = [self.watch(program, address) for address in BOTH]
        first.kill()
        self.await_all_at(second)
        held = [self.open(address) for address in BOTH]
        self.addCleanup(lambda: [each.close() for each in held if each is not None])
        self.assertNotIn(None, held)
        self.restart(first)
        until(lambda: all(each["able"] == ["director1", "director2"] for each in second.call("GET", "vips")), "it may have them")
        time.sleep(5.0)  # for longer than anything would wait that moves by itself
        self.assertEqual(self.has(second), list(BOTH))
        moved = first.call("POST", f"vips/{SECOND_VIP}/move", {"director": "director1"}, timeout_s=15.0)
        self.assertEqual(moved["owner"], "director1")
        until(lambda: (self.has(first), self.has(second)) == ([SECOND_VIP], [SIDE_VIP]), "one each")
        time.sleep(0.3)
        for watching in watchers:
            seen = watching.stop()
            self.assertTrue(seen.answers)
            self.assertEqual(doubled_ms(seen.answers), 0, "milliseconds with two owners")
        for sock in held:
            sock.close()
        first.call("POST", f"vips/{SECOND_VIP}/move", {"director": "director2"}, timeout_s=15.0)  # where it stays
        until(lambda: (self.has(first), self.has(second)) == ([SIDE_VIP], [SECOND_VIP]), "one comes by itself")
        self.assertIn(f"{SIDE_VIP} was moved to director1", second.log)
        asking = [self.cluster.clients(20.0, address) for address in BOTH]
        time.sleep(0.5)
        second.signal(signal.SIGTERM)
        self.await_all_at(first)
        time.sleep(0.5)
        for clients in asking:
            seen = clients.stop()
            self.assertGreater(len(seen), 10)
            self.assertEqual([each for each in seen if each["error"] is not None], [])
        second.stop()

    def test_unnoticed(self) -> None:
        """An upgrade in place, by which addresses go to the other one;
        a rebalance; an orderly stop; a rebalance again when it is back. No client fails, but who stays connected."""
        first, second = self.cluster.directors
        self.await_spread()
        asking = [self.cluster.clients(PER_S / len(BOTH), address) for address in BOTH]
        began = time.monotonic()
        time.sleep(1.0)
        pid = int(second.call("POST", "process/upgrade", {}, timeout_s=90.0)["pid"])
        self.addCleanup(self._kill, pid)
        self.await_all_at(first)
        self.rebalance(first)
        held = self.open(self.has(first)[0])
        self.assertIsNotNone(held)
        first.signal(signal.SIGTERM)
        self.await_all_at(second)
        until(lambda: first.process.poll() is not None, "it does not wait for who cannot reach it any more", 60.0)
        held.close()
        self.restart(first)
        self.rebalance(second)
        time.sleep(1.0)
        seen = [each for clients in asking for each in clients.stop()]
        per_s = len(seen) / (time.monotonic() - began)
        failed = [each for each in seen if each["error"] is not None]
        self.assertEqual(failed[:5], [], f"{len(failed)} of {len(seen)} failed")
        slow = sum(each["took"] > 0.9 for each in seen)
        print(f"{len(seen)} clients, {per_s:.0f} a second, none failed; {slow} came after another SYN")

    def rebalance(self, asked: Director) -> None:
        until(lambda: all(each["able"] == ["director1", "director2"] for each in asked.call("GET", "vips")), "both may have them")
        asked.call("POST", "vips/rebalance", {}, timeout_s=30.0)
        self.await_spread()

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
