"""Who is eligible, what tickets count, and what the pool says about it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import Misuse
from cluster.model import Reason
from director.core.host import Host
from tests.unit.core.core_pools import EVERY_KIND, address, pool_of, ref, scheduler_of

DONE = Reason.CLIENT_CLOSED


class TurnTests(SynchronousTestCase):
    def test_never_picked(self) -> None:
        """Hosts that were never picked come first, in the order in which they joined, however many there are."""
        pool = pool_of("leastconns", [1] * 300)
        for host in pool.hosts.values():
            self.assertEqual(host.last_turn, 0)
            ticket = pool.pick(None, 0.0)
            assert ticket is not None
            self.assertIs(ticket.host, host)
            ticket.release(DONE, 0.0)


class HostTests(SynchronousTestCase):
    def test_new(self) -> None:
        """A host of which nothing else is said: weight 1, no maximum, a primary, in rotation, and nobody has been given to it."""
        host = Host(ref("h0"))
        self.assertEqual((host.weight, host.configured_weight, host.capacity, host.max_connections, host.backup, host.in_flight, host.picks),
                         (1.0, 1.0, 1.0, 0, False, 0, 0))
        self.assertEqual((host.available, host.admissible, host.last_turn), (True, True, 0))


class TierTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = pool_of("leastconns", [1, 1])
        self.pool.put(ref("spare"), backup=True)
        self.pool.configured()
        self.h0, self.h1, self.spare = self.pool.hosts.values()

    def picks(self, count: int) -> set[str]:
        tickets = [self.pool.pick(None, 0.0) for _ in range(count)]
        return {ticket.host.name for ticket in tickets if ticket is not None}

    def test_backups_wait(self) -> None:
        """Backups take nothing while a primary is available."""
        self.assertEqual(self.picks(6), {"h0", "h1"})
        self.assertEqual(self.pool.why_not(self.spare), "backup")
        self.assertFalse(self.pool.backups_in_use)

    def test_backups_step_in(self) -> None:
        """Without an available primary the backups take all, and give back when one returns."""
        self.pool.set_available(self.h0, False, True)
        self.pool.set_weight(self.h1, 0.0)
        self.assertTrue(self.pool.backups_in_use)
        self.assertEqual(self.picks(3), {"spare"})
        self.assertEqual(self.pool.why_not(self.h0), "unavailable")
        self.assertEqual(self.pool.why_not(self.h1), "weight 0")
        self.pool.set_available(self.h0, True, True)
        self.assertEqual(self.picks(3), {"h0"})
        self.assertFalse(self.pool.backups_in_use)

    def test_fullness_brings_no_backup(self) -> None:
        """Primaries at their maxima refuse; a licence's limit is not circumvented by backups."""
        for host in (self.h0, self.h1):
            self.pool.set_maximum(host, 1)
        self.assertEqual(self.picks(5), {"h0", "h1"})
        self.assertEqual((self.pool.available, self.pool.eligible), (2, 0))
        self.assertEqual(self.pool.why_not(self.h0), "full (1 of 1)")
        self.assertFalse(self.pool.backups_in_use)

    def test_fail_open(self) -> None:
        """When all are bad, fail-open tries every host that nobody ordered out, and shows; refusing is the default."""
        for host in (self.h0, self.spare):
            self.pool.set_available(host, False, True)
        self.pool.set_available(self.h1, False, False)
        self.assertEqual((self.picks(3), self.pool.failing_open, self.pool.available), (set(), False, 0))
        self.pool.set_fail_open(True)
        self.assertEqual((self.picks(3), self.pool.failing_open, self.pool.available), ({"h0", "spare"}, True, 2))
        self.assertEqual(self.pool.why_not(self.h0), "")
        self.assertEqual(self.pool.why_not(self.h1), "unavailable")
        self.pool.set_available(self.h1, True, True)
        self.assertEqual((self.picks(3), self.pool.failing_open), ({"h1"}, False))

    def test_becoming_a_backup(self) -> None:
        """The backup flag can change while connections are open."""
        self.pool.put(ref("h0"), backup=True)
        self.assertEqual(self.picks(3), {"h1"})


class TicketTests(SynchronousTestCase):
    def test_released_once(self) -> None:
        """A second release, or one by another pool, raises and changes nothing."""
        pool = pool_of("roundrobin", [1])
        ticket = pool.pick(None, 1.0)
        with self.assertRaises(Misuse):
            pool_of("roundrobin", [1]).release(ticket, DONE, 2.0)
        self.assertEqual(ticket.host.in_flight, 1)
        pool.release(ticket, DONE, 2.0)
        with self.assertRaises(Misuse):
            pool.release(ticket, DONE, 3.0)
        self.assertEqual((ticket.host.in_flight, pool.in_flight), (0, 0))

    def test_outlives_its_host(self) -> None:
        """Tickets of a removed host count down that host, never its successor of the same name."""
        for kind in EVERY_KIND:
            pool = pool_of(kind, [1])
            ticket = pool.pick(address(1), 1.0)
            pool.discard("h0")
            pool.configured()
            self.assertIsNone(pool.pick(address(1), 2.0))
            self.assertEqual(pool.why_not(ticket.host), "removed")
            successor = pool.put(ref("h0"))
            pool.configured()
            second = pool.pick(address(1), 3.0)
            self.assertIs(second.host, successor)
            pool.release(ticket, DONE, 4.0)
            self.assertEqual((ticket.host.in_flight, successor.in_flight, pool.in_flight), (0, 1, 1))
            self.assertFalse(ticket.host.eligible)

    def test_scheduler_replaced(self) -> None:
        """Another scheduler takes over hosts, counts and open tickets."""
        pool = pool_of("random", [1, 1, 1])
        tickets = [pool.pick(address(n), 0.0) for n in range(20)]
        for kind in EVERY_KIND:
            pool.replace_scheduler(scheduler_of(kind))
            pool.release(tickets.pop(), DONE, 1.0)
            tickets.append(pool.pick(address(1), 1.0))
            self.assertIsNotNone(tickets[-1], kind)
        self.assertEqual(pool.in_flight, 20)
        self.assertEqual(sum(host.in_flight for host in pool.hosts.values()), 20)


class ConfigurationTests(SynchronousTestCase):
    def test_factor_stays(self) -> None:
        """A changed configured weight keeps the load factor in force; an unchanged one changes nothing."""
        pool = pool_of("weighted", [2])
        host = pool.hosts["h0"]
        pool.set_weight(host, 1.0)
        pool.put(ref("h0"), weight=2)
        self.assertEqual(host.weight, 1.0)
        pool.put(ref("h0"), weight=6)
        self.assertEqual((host.configured_weight, host.weight), (6, 3.0))
        pool.put(ref("h0"), weight=0)
        self.assertFalse(host.eligible)
        pool.put(ref("h0"), weight=5)
        self.assertEqual((host.weight, host.eligible), (5, True))

    def test_maximum_of_the_agent_stays(self) -> None:
        """An unchanged configured maximum leaves an effective one alone that is lower."""
        pool = pool_of("leastconns", [1])
        host = pool.hosts["h0"]
        pool.put(ref("h0"), max_connections=9)
        pool.set_maximum(host, 3)
        pool.put(ref("h0"), max_connections=9)
        self.assertEqual(host.max_connections, 3)
        pool.put(ref("h0"), max_connections=8)
        self.assertEqual(host.max_connections, 8)

    def test_absurd_weights(self) -> None:
        """A negative or endless weight, or none at all, is a misuse that changes nothing."""
        pool = pool_of("weighted", [1])
        for weight in (-1.0, float("inf"), float("nan")):
            with self.assertRaises(Misuse):
                pool.set_weight(pool.hosts["h0"], weight)
            with self.assertRaises(Misuse):
                pool.put(ref("other"), weight=weight)
        self.assertEqual((pool.hosts["h0"].weight, list(pool.hosts)), (1, ["h0"]))


class ExplainTests(SynchronousTestCase):
    def test_preview_is_the_pick(self) -> None:
        """What is explained is what happens next, and explaining changes nothing."""
        for kind in EVERY_KIND:
            pool = pool_of(kind, [1, 2, 3])
            for number in range(30):
                client = address(number % 7)
                first, again = pool.explain(client, 0.0), pool.explain(client, 0.0)
                self.assertEqual(first, again)
                ticket = pool.pick(client, 0.0)
                if not first.random:
                    self.assertIs(first.chosen, ticket.host, kind)

    def test_drawn(self) -> None:
        """A choice by lot says so; one among a single host is none."""
        for kind in ("random", "weighted", "p2c"):
            pool = pool_of(kind, [1, 1, 1])
            self.assertEqual(pool.explain(address(1), 0.0)[:2], (None, True))
            for name in ("h0", "h1"):
                pool.set_available(pool.hosts[name], False, False)
            self.assertEqual(pool.explain(address(1), 0.0)[:2], (pool.hosts["h2"], False))
        self.assertEqual(pool_of("random", []).explain(None, 0.0)[:3], (None, False, ()))

    def test_factors(self) -> None:
        """Every host comes with its numbers, also one that takes nothing."""
        for kind in EVERY_KIND:
            pool = pool_of(kind, [1, 2, 3])
            pool.set_weight(pool.hosts["h1"], 0)
            for considered in pool.explain(address(1), 0.0).hosts:
                self.assertTrue(considered.factors, kind)
                self.assertEqual(considered.eligible, considered.why_not == "")
