"""Consistent hashing: agreement, shares, and how few clients move."""

from __future__ import annotations

import random
from collections import Counter
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Reason
from director.core.pool import Pool, Ticket
from director.core.schedulers.maglev import TABLE_SIZE, Maglev, lookup_table, point_of
from tests.unit.core.core_pools import address, pool_of, ref, scheduler_of


def owners(weights: dict[str, float], size: int = TABLE_SIZE) -> list[str]:
    """The owner of each slot, by name."""
    shares = sorted(weights.items())
    return [shares[index][0] for index in lookup_table(shares, size)]


def moved(before: list[str], after: list[str]) -> float:
    return sum(one != other for one, other in zip(before, after, strict=True)) / len(before)


class TableTests(SynchronousTestCase):
    def test_shares(self) -> None:
        """Hosts own slots within 3 % of their weights' shares, equal ones within 1 %."""
        equal = Counter(owners({f"h{n}": 2.5 for n in range(100)}))
        for count in equal.values():
            self.assertApproximates(count * 100 / TABLE_SIZE, 1, 0.01)
        weights = {f"h{n}": 0.25 + n % 7 for n in range(60)}
        counts = Counter(owners(weights))
        for name, weight in weights.items():
            share = weight / sum(weights.values())
            self.assertApproximates(counts[name] / (TABLE_SIZE * share), 1, 0.03)

    def test_removal(self) -> None:
        """Removing one of N hosts remaps at most 1/N + 2 % of the clients, up to N of a hundredth of the table."""
        for count in (2, 10, 100, TABLE_SIZE // 100):
            weights = {f"host-{n}": 1.0 for n in range(count)}
            before = owners(weights)
            gone = f"host-{count // 3}"
            del weights[gone]
            after = owners(weights)
            self.assertLessEqual(moved(before, after), 1 / count + 0.02)
            self.assertNotIn(gone, after)

    @settings(max_examples=25)
    @given(st.lists(st.floats(0.2, 5), min_size=2, max_size=100), st.data())
    def test_weighted_removal(self, weights: list[float], data: st.DataObject) -> None:
        """With unequal weights too, what moves beyond the removed host's share stays small."""
        size = 10007
        named = {f"host-{n}": weight for n, weight in enumerate(weights)}
        before = owners(named, size)
        gone = data.draw(st.sampled_from(sorted(named)))
        share = named.pop(gone) / sum(weights)
        self.assertLessEqual(moved(before, owners(named, size)), share + 0.03)

    def test_stable(self) -> None:
        """Points and tables are the same in every process and version of Python: directors of any release agree."""
        self.assertEqual(point_of(b"\xc0\x00\x02\x01"), 0x8AF164C27F03EA7A)
        self.assertEqual("".join(owners({"a": 1, "b": 2, "c": 0.5}, 23)), "aabcbaabbcbabbbbbabbcba")

    def test_extremes(self) -> None:
        """No host, one host, more hosts than slots, and absurd weights all give a full table."""
        self.assertEqual(lookup_table([], 257), [])
        self.assertEqual(set(owners({"a": 0.001}, 257)), {"a"})
        self.assertEqual(len(owners({f"h{n}": 1 for n in range(1000)}, 257)), 257)
        self.assertEqual(set(owners({"a": 1e6, "b": 1e-6}, 257)), {"a"})


def choices(pool: Pool, clients: int) -> list[str]:
    return [pool.pick(address(n), 0.0).host.name for n in range(clients)]


class MaglevTests(SynchronousTestCase):
    def test_agreement(self) -> None:
        """Two directors that learned of the hosts in different order, and see other loads, agree on every client."""
        for kind in ("maglev", "sticky-hash"):
            pools = [Pool(scheduler_of(kind, seed)) for seed in (1, 2)]
            for pool, order in zip(pools, (range(20), reversed(range(20))), strict=True):
                for n in order:
                    pool.put(ref(f"h{n}"), weight=1 + n % 3)
                pool.configured()
            for _ in range(100):
                pools[0].pick(address(5), 0.0)
            pools[1].set_weight(pools[1].hosts["h3"], 0.1)
            for pool in pools:
                pool.set_available(pool.hosts["h4"], False, True)
            self.assertEqual(choices(pools[0], 300), choices(pools[1], 300))

    def test_outage(self) -> None:
        """A host that is out lends its own clients alone, evenly to all others, and gets them back."""
        pool = pool_of("maglev", [1] * 10)
        before = choices(pool, 9000)
        pool.set_available(pool.hosts["h3"], False, True)
        during = choices(pool, 9000)
        self.assertEqual({one for one, other in zip(before, during, strict=True) if one != other}, {"h3"})
        takers = Counter(other for one, other in zip(before, during, strict=True) if one == "h3")
        self.assertEqual(set(takers), {f"h{n}" for n in range(10)} - {"h3"})
        self.assertLess(max(takers.values()), 1.5 * sum(takers.values()) / 9)
        pool.set_available(pool.hosts["h3"], True, True)
        self.assertEqual(choices(pool, 9000), before)

    def test_almost_all_out(self) -> None:
        """When the walk through the table meets nobody, clients still have one host each, and none is tried twice."""
        pool = pool_of("maglev", [1] * 1000)
        up = [pool.hosts[f"h{n}"] for n in (17, 400, 733)]
        for host in pool.hosts.values():
            pool.set_available(host, host in up, True)
        first = choices(pool, 300)
        self.assertEqual(set(first), {host.name for host in up})
        self.assertEqual(choices(pool, 300), first)
        tried = []
        for _ in up:
            tried.append(pool.pick(address(9), 0.0, tried).host)
        self.assertEqual(set(tried), set(up))
        self.assertIsNone(pool.pick(address(9), 0.0, tried))

    def test_configured_weights_only(self) -> None:
        """Effective weights move nobody while above 0; hosts configured at 0 own nothing; configured ones count."""
        pool = pool_of("maglev", [1, 1, 0])
        before = choices(pool, 500)
        pool.set_weight(pool.hosts["h0"], 0.01)
        self.assertEqual(choices(pool, 500), before)
        self.assertEqual(set(before), {"h0", "h1"})
        pool.put(ref("h0"), weight=4)
        pool.configured()
        counts = Counter(choices(pool, 2000))
        self.assertApproximates(counts["h0"] / 2000, 0.8, 0.05)

    def test_same_name_again(self) -> None:
        """A host that was removed and configured again under its name has its clients again."""
        pool = pool_of("maglev", [1] * 5)
        before = choices(pool, 200)
        pool.discard("h2")
        pool.put(ref("h2"))
        pool.configured()
        self.assertEqual(choices(pool, 200), before)

    def test_before_the_batch_is_complete(self) -> None:
        """Hosts that the table does not know yet are found all the same."""
        pool = Pool(scheduler_of("maglev"))
        pool.put(ref("a"))
        self.assertEqual(pool.pick(address(1), 0.0).host.name, "a")

    def test_without_address(self) -> None:
        """Clients without an address are spread at random."""
        pool = pool_of("maglev", [1, 3])
        counts = Counter(pool.pick(None, 0.0).host.name for _ in range(4000))
        self.assertApproximates(counts["h1"] / 4000, 0.75, 5 * (0.75 * 0.25 / 4000) ** 0.5 + 0.01)
        self.assertTrue(pool.explain(None, 0.0).random)

    def test_ipv6(self) -> None:
        """Addresses of any length are spread evenly, near ones too."""
        pool = pool_of("maglev", [1] * 4)
        draw = random.Random(2)
        prefix = draw.randbytes(12)
        counts = Counter(pool.pick(prefix + address(n), 0.0).host.name for n in range(4000))
        for count in counts.values():
            self.assertApproximates(count, 1000, 5 * (4000 * 0.25 * 0.75) ** 0.5 + 10)


    def test_drawn_points(self) -> None:
        """A client without an address comes to a point that is drawn from all there are."""
        draws = [number / 500 for number in range(500)]
        pool = pool_of(Maglev(iter(draws).__next__, 1009), [1] * 4)
        table = owners({f"h{number}": 1.0 for number in range(4)}, 1009)
        self.assertEqual([pool.pick(None, 0.0).host.name for _ in draws], [table[int(draw * 2**64) % 1009] for draw in draws])

    def test_factors(self) -> None:
        """What an operator is shown: the configured weight, the share of the table, and whose client it is."""
        pool = pool_of("maglev", [1, 3, 0])
        shares = {name: pool.scheduler.factors(host, None, 0.0)["table_share"] for name, host in pool.hosts.items()}
        owned = Counter(owners({"h0": 1.0, "h1": 3.0}, 1009))
        self.assertEqual(shares, {"h0": owned["h0"] / 1009, "h1": owned["h1"] / 1009, "h2": 0.0})
        client = address(5)
        first = {name: pool.scheduler.factors(host, client, 0.0)["first_choice"] for name, host in pool.hosts.items()}
        self.assertEqual(first, {name: float(name == pool.pick(client, 0.0).host.name) for name in pool.hosts})

class BoundTests(SynchronousTestCase):
    def pool(self, weights: list[float], bound: float) -> Pool:
        return pool_of(scheduler_of("maglev", parameters={"table_size": 1009, "bound": bound}), weights)

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=1, max_size=8), st.sampled_from([1.05, 1.25, 2.0]),
        st.lists(st.tuples(st.sampled_from(["pick", "pick", "pick", "close", "leave"]), st.integers(0, 50)), max_size=150),
    )
    def test_never_more(self, weights: list[float], bound: float, steps: list[tuple[str, int]]) -> None:
        """No pick gives a host more than its bound, while hosts come and go; and there is always one to be picked."""
        pool = self.pool(weights, bound)
        tickets: list[Ticket] = []
        hosts = list(pool.hosts.values())
        for what, number in steps:
            if what == "pick":
                eligible = [host for host in hosts if host.eligible]
                total, weight = sum(host.in_flight for host in eligible), sum(host.weight for host in eligible)
                ticket = pool.pick(address(number % 3), 0.0)
                self.assertEqual(ticket is None, not eligible)
                if ticket is not None:
                    tickets.append(ticket)
                    most = ceil(bound * (total + 1) * ticket.host.weight / weight - 1e-9)
                    self.assertLessEqual(ticket.host.in_flight, most)
            elif what == "close" and tickets:
                pool.release(tickets.pop(number % len(tickets)), Reason.HOST_CLOSED, 1.0)
            elif what == "leave":
                host = hosts[number % len(hosts)]
                pool.set_available(host, not host.available, True)

    def test_below_the_bound(self) -> None:
        """Clients of hosts below their bound are where they are without one."""
        bounded, free = self.pool([1] * 5, 1.25), self.pool([1] * 5, 0.0)
        for number in range(300):
            tickets = [pool.pick(address(number), 0.0) for pool in (bounded, free)]
            self.assertEqual(*[ticket.host.name for ticket in tickets])
            for ticket in tickets:
                ticket.release(Reason.HOST_CLOSED, 0.1)

    def test_one_client(self) -> None:
        """A single client that opens many connections overflows to others, in order, and is shown why."""
        pool = self.pool([1] * 4, 1.25)
        for _ in range(100):
            pool.pick(address(1), 0.0)
        self.assertLessEqual(max(host.in_flight for host in pool.hosts.values()), 32)
        self.assertEqual({each.factors["most"] for each in pool.explain(address(1), 0.0).hosts}, {32.0})
        pool.hosts["h0"].configured_weight = 3.0
        pool.configured()
        self.assertEqual(pool.explain(address(1), 0.0).hosts[0].factors["most"], 64.0)
