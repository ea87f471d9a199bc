"""Clients stay on their host: by hash, and by a bounded table that forgets."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Reason, Sticky
from director.core.pool import Pool
from director.core.schedulers import Scheduler, make_scheduler, with_sticky
from tests.unit.core.core_pools import address, pool_of, ref

DONE = Reason.CLIENT_CLOSED


def sticky(
    mode: str = "table", name: str = "roundrobin", *, previous: Scheduler | None = None, **more: float
) -> Scheduler:
    inner = make_scheduler(name, {}, random=random.Random(1).random)
    return with_sticky(inner, Sticky(mode=mode, **more), previous=previous)


class TableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = pool_of(sticky(ttl_s=10, max_entries=3), [1, 1, 1])

    def go(self, client: int, now: float = 0.0) -> str:
        """Where *client* is sent at *now*."""
        ticket = self.pool.pick(address(client), now)
        self.pool.release(ticket, DONE, now)
        return ticket.host.name

    def test_stays(self) -> None:
        """A client comes back to the host that the scheduler chose first; others are scheduled as ever."""
        self.assertEqual([self.go(n) for n in (1, 1, 2, 1, 3, 2)], ["h0", "h0", "h1", "h0", "h2", "h1"])
        self.assertEqual(self.pool.scheduler.entries, 3)

    def test_scheduler_sees_returning_clients(self) -> None:
        """Connections of remembered clients count for the scheduler inside."""
        self.pool.replace_scheduler(sticky(name="leastconns"))
        held = [self.pool.pick(address(1), 0.0) for _ in range(5)]
        self.assertEqual({ticket.host.name for ticket in held}, {"h0"})
        for n in range(2, 6):
            held.append(self.pool.pick(address(n), 0.0))
        self.assertEqual([host.in_flight for host in self.pool.hosts.values()], [5, 2, 2])

    def test_ttl(self) -> None:
        """The time runs from the last connection's begin, and ends on the dot."""
        self.go(1, now=0.0)
        self.go(1, now=9.0)
        self.assertEqual(self.go(1, now=18.9), "h0")
        self.go(2, now=20.0)
        self.assertEqual(self.go(1, now=28.9), "h2")

    def test_cleanup(self) -> None:
        """Cleaning up forgets exactly those whose time is over."""
        for client, now in ((1, 0.0), (2, 1.0), (3, 2.0), (1, 5.0)):
            self.go(client, now)
        self.assertEqual(self.pool.scheduler.cleanup(10.9), 0)
        self.assertEqual(self.pool.scheduler.cleanup(11.0), 1)
        self.assertEqual(self.pool.scheduler.cleanup(14.9), 1)
        self.assertEqual(self.pool.scheduler.entries, 1)
        self.assertEqual(self.go(1, 14.9), "h0")

    def test_cap(self) -> None:
        """A full table forgets the client that was unseen longest."""
        for client in (1, 2, 3, 1, 4):
            self.go(client)
        self.assertEqual(self.pool.scheduler.entries, 3)
        remembered = [
            client
            for client in (1, 2, 3, 4)
            if any(each.factors["remembered"] for each in self.pool.explain(address(client), 0.0).hosts)
        ]
        self.assertEqual(remembered, [1, 3, 4])

    def test_failover(self) -> None:
        """When its host is out the client moves, and stays where its session lives now after the host's return."""
        self.assertEqual(self.go(1), "h0")
        self.pool.set_available(self.pool.hosts["h0"], False, True)
        moved = self.go(1)
        self.assertNotEqual(moved, "h0")
        self.pool.set_available(self.pool.hosts["h0"], True, True)
        self.assertEqual([self.go(1) for _ in range(4)], [moved] * 4)

    def test_host_returns_unseen(self) -> None:
        """A client that did not come while its host was out, or configured anew by its name, is still its client."""
        self.go(1)
        self.pool.set_available(self.pool.hosts["h0"], False, True)
        self.go(2)
        self.pool.discard("h0")
        self.pool.put(ref("h0"))
        self.pool.configured()
        self.assertEqual(self.go(1), "h0")

    def test_redispatch(self) -> None:
        """A host that was already tried for the client is not its host any more."""
        first = self.pool.pick(address(1), 0.0)
        second = self.pool.pick(address(1), 0.0, (first.host,))
        self.assertIsNot(second.host, first.host)
        self.assertEqual(self.go(1), second.host.name)

    def test_without_address(self) -> None:
        """Clients without an address are scheduled and not remembered."""
        names = [self.pool.pick(None, 0.0).host.name for _ in range(3)]
        self.assertEqual((names, self.pool.scheduler.entries), (["h0", "h1", "h2"], 0))

    def test_inherits(self) -> None:
        """Another scheduler inside, or other limits, keep what the table remembers, as far as it fits."""
        homes = {client: self.go(client, now=float(client)) for client in (1, 2, 3)}
        self.pool.replace_scheduler(sticky(name="random", previous=self.pool.scheduler, max_entries=2))
        self.assertEqual(self.pool.scheduler.entries, 2)
        self.assertEqual(
            {client: self.go(client, 4.0) for client in (2, 3)}, {client: homes[client] for client in (2, 3)}
        )

    def test_explains(self) -> None:
        """The explanation names the remembered host and when it will be forgotten."""
        self.go(1, now=2.0)
        self.go(2, now=2.0)
        explanation = self.pool.explain(address(1), 5.0)
        self.assertEqual(explanation.chosen.name, "h0")
        self.assertEqual(explanation.hosts[0].factors["forgotten_in_s"], 7.0)
        self.assertEqual([each.factors["remembered"] for each in explanation.hosts], [1.0, 0.0, 0.0])


class HashTests(SynchronousTestCase):
    def test_returns(self) -> None:
        """By hash a client moves while its host is out, always to the same other one, and comes back."""
        pool = pool_of(sticky("hash"), [1] * 8)
        home = pool.pick(address(1), 0.0).host
        pool.set_available(home, False, True)
        away = {pool.pick(address(1), 0.0).host.name for _ in range(5)}
        self.assertEqual(len(away), 1)
        pool.set_available(home, True, True)
        self.assertIs(pool.pick(address(1), 0.0).host, home)

    def test_remembers_nothing(self) -> None:
        """Agreement needs no memory: nothing grows with clients."""
        pool = pool_of(sticky("hash"), [1] * 3)
        for n in range(50):
            pool.pick(address(n), 0.0)
        self.assertEqual((pool.scheduler.entries, pool.scheduler.cleanup(1e9)), (0, 0))

    def test_without_address(self) -> None:
        """Clients without an address are scheduled by the scheduler inside, which knows of all connections."""
        pool = pool_of(sticky("hash", "leastconns"), [1, 1])
        home = pool.pick(address(1), 0.0).host
        self.assertIsNot(pool.pick(None, 0.0).host, home)


class WithoutStickinessTests(SynchronousTestCase):
    def test_nothing_remembered(self) -> None:
        """Plain schedulers have no entries to clean up."""
        pool: Pool = pool_of("leastconns", [1])
        pool.pick(address(1), 0.0)
        self.assertEqual((pool.scheduler.entries, pool.scheduler.cleanup(1e9)), (0, 0))


class SharingTests(SynchronousTestCase):
    """Two directors whose tables tell each other; clients that move from one to the other stay on their host."""

    def setUp(self) -> None:
        self.pools = [pool_of(sticky(ttl_s=10, max_entries=3), [1, 1, 1]) for _ in range(2)]
        self.tables = [pool.scheduler for pool in self.pools]
        for table in self.tables:
            table.share()

    def go(self, director: int, client: int, now: float) -> str:
        ticket = self.pools[director].pick(address(client), now)
        self.pools[director].release(ticket, DONE, now)
        return ticket.host.name

    def tell(self, now: float, most: int = 10) -> int:
        """The first tells the second what is new; how much that was."""
        entries = self.tables[0].changes(most, now)
        self.tables[1].learn(entries, now)
        return len(entries)

    def test_follows_its_host(self) -> None:
        """A client known to one director is sent to the same host by the other."""
        hosts = [self.go(0, client, 0.0) for client in (1, 2, 3)]
        self.assertEqual(self.tell(0.5), 3)
        self.assertEqual([self.go(1, client, 1.0) for client in (3, 1, 2)], [hosts[2], hosts[0], hosts[1]])

    def test_told_once_and_again_in_time(self) -> None:
        """What was told is not told again until a good part of its time has passed; what was learned is not passed on."""
        self.go(0, 1, 0.0)
        self.assertEqual(self.tell(0.0), 1)
        self.go(0, 1, 2.0)
        self.assertEqual(self.tell(2.0), 0)
        self.go(0, 1, 3.0)
        self.assertEqual(self.tell(3.0), 1)
        self.assertEqual(self.tables[1].changes(10, 3.0), [])
        self.assertEqual(self.tables[1].factors(self.pools[1].hosts["h0"], address(1), 5.0)["forgotten_in_s"], 8.0)

    def test_told_late(self) -> None:
        """What was seen some time before it is told has only the rest of its time."""
        self.go(0, 1, 2.0)
        self.assertEqual(self.tables[0].changes(10, 6.0), [(address(1), "h0", 6.0)])

    def test_moved(self) -> None:
        """A client that went to another host is told of at once, and the later sight of it counts."""
        self.go(0, 1, 0.0)
        self.tell(0.0)
        self.pools[0].set_available(self.pools[0].hosts["h0"], False, False)
        moved = self.go(0, 1, 1.0)
        self.assertNotEqual(moved, "h0")
        self.assertEqual(self.tell(1.0), 1)
        self.assertEqual(self.go(1, 1, 1.5), moved)
        self.tables[0].learn([(address(1), "h0", 1.0)], 1.5)
        self.assertEqual(self.go(0, 1, 1.5), moved, "old news")
        self.tables[0].learn([(address(1), "h0", 10.0)], 1.5)
        self.assertEqual(self.go(0, 1, 1.6), moved, "seen in the same moment, each keeps its own")

    def test_bounded(self) -> None:
        """Batches are as large as asked; what is learned keeps to the table's size and time."""
        for client in (1, 2, 3):
            self.go(0, client, 0.0)
        self.assertEqual([self.tell(0.0, most=2), self.tell(0.0, most=2), self.tell(0.0, most=2)], [2, 1, 0])
        self.tables[1].learn([(address(client), "h1", 1e9) for client in range(10, 20)], 0.0)
        self.assertEqual(self.tables[1].entries, 3)
        self.assertEqual(self.tables[1].cleanup(10.0), 3)

    def test_everything(self) -> None:
        """A director that has just come is told all, with the end of each."""
        for client in (1, 2):
            self.go(0, client, float(client))
        self.assertEqual(self.tables[0].everything(), [(address(1), "h0", 11.0), (address(2), "h1", 12.0)])

    def test_unasked(self) -> None:
        """Without other directors nothing is noted."""
        alone = pool_of(sticky(ttl_s=10, max_entries=3), [1])
        alone.pick(address(1), 0.0)
        self.assertEqual(alone.scheduler.changes(10, 0.0), [])
        alone.scheduler.share()
        self.assertEqual(alone.scheduler.changes(10, 0.0), [(address(1), "h0", 10.0)], "once it is asked for, all")
