"""The expected shares are what the schedulers make of them, and looking at them changes no scheduler."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import LoadReport, Reason
from director.core.expected import HEAVY, LIGHT, expected_shares
from director.core.pool import Pool, Ticket
from director.core.schedulers import SCHEDULERS
from director.core.schedulers.base import Parts
from tests.unit.core.core_pools import EVERY_KIND, address, pool_of

PICKS = 4000


def played(pool: Pool, in_flight: int, seed: int = 5) -> tuple[dict[str, float], dict[str, float]]:
    """The shares that hosts get of clients at a constant load, each connection as likely to end next as any other; and those
    expected on the way, on average."""
    draw = random.Random(seed)
    tickets: list[Ticket] = []
    counts, expected = dict.fromkeys(pool.hosts, 0), dict.fromkeys(pool.hosts, 0.0)
    now = 0.0
    for number in range(PICKS + in_flight):
        now += 0.001
        if len(tickets) > in_flight:
            tickets.pop(draw.randrange(len(tickets))).release(Reason.CLIENT_CLOSED, now)
        ticket = pool.pick(address(draw.randrange(2**32)), now)
        assert ticket is not None
        tickets.append(ticket)
        if number >= in_flight:
            counts[ticket.host.name] += 1
            if number % 40 == 0:
                for host, share in pool.shares(now).items():
                    expected[host.name] += share * 40 / PICKS
    return {name: count / PICKS for name, count in counts.items()}, expected


def alike(kind: str, weights: list[float], estimates: list[float]) -> Pool:
    pool = pool_of(kind, weights)
    for host, weight, estimate in zip(pool.hosts.values(), weights, estimates, strict=True):
        pool.set_weight(host, weight * estimate, estimate)
    return pool


class PlayedTests(SynchronousTestCase):
    def off(self, kind: str, weights: list[float], estimates: list[float], in_flight: int) -> float:
        """By how much the worst host's share was misjudged."""
        real, expected = played(alike(kind, weights, estimates), in_flight)
        self.assertAlmostEqual(sum(expected.values()), 1.0)
        return max(abs(real[name] - expected[name]) for name in real)

    def test_idle(self) -> None:
        """While hosts are idle, shares are as expected for whatever weights."""
        for kind in EVERY_KIND:
            if kind != "ewma":  # its latencies are made here by chance
                for estimates in ([1.0] * 4, [0.35, 1.0, 1.0, 2.0]):
                    self.assertLess(self.off(kind, [1.0, 1.0, 1.0, 4.0], estimates, 0), 0.035, (kind, estimates))

    def test_busy(self) -> None:
        """So they are while all have many connections."""
        for kind in set(EVERY_KIND) - {"ewma"}:
            for estimates in ([1.0] * 4, [0.35, 1.0, 1.0, 2.0]):
                self.assertLess(self.off(kind, [1.0, 1.0, 1.0, 4.0], estimates, 160), 0.035, (kind, estimates))

    def test_between(self) -> None:
        """Between, whole connections tell: shares are about right."""
        for kind in ("weightedleastconns", "loadaware", "p2c"):
            for in_flight in (4, 8, 16):
                self.assertLess(self.off(kind, [1.0] * 4, [0.9, 1.0, 1.1, 1.0], in_flight), 0.15, (kind, in_flight))
                self.assertLess(self.off(kind, [1.0, 1.0, 1.0, 4.0], [1.0] * 4, in_flight), 0.2, (kind, in_flight))

    def test_slow_host(self) -> None:
        """By recent slowness and by latency: a host that is four times slower gets less than a third of another's share."""
        for kind in ("loadaware", "ewma"):
            pool = pool_of(kind, [1.0] * 3)
            hosts = list(pool.hosts.values())
            for _ in range(60):
                for host, seconds in zip(hosts, (0.01, 0.01, 0.08), strict=True):
                    pool.turned(host, 10, 10 * seconds, 1.0)
            tickets = [pool.pick(None, 1.1, [other for other in hosts if other is not host]) for host in hosts * 8]
            self.assertTrue(all(tickets))
            shares = pool.explain(None, 1.2).hosts
            self.assertLess(shares[2].share, shares[0].share / 3, kind)


class SumTests(SynchronousTestCase):
    def test_none(self) -> None:
        """Nobody, and those of whom none has a part."""
        self.assertEqual(expected_shares({}, 3), {})
        self.assertEqual(expected_shares({"a": Parts(0.0, 0.0), "b": Parts(0.0, 0.0)}, 3), {"a": 0.5, "b": 0.5})
        for parts in ({"a": Parts(0.0, 1.0), "b": Parts(0.0, 3.0)}, {"a": Parts(1.0, 0.0), "b": Parts(3.0, 0.0)}):
            self.assertEqual(expected_shares(parts, 3), {"a": 0.5, "b": 0.5})

    def test_load(self) -> None:
        """From turns to scores as connections per host grow."""
        parts = {"a": Parts(1.0, 1.0), "b": Parts(0.0, 1.0)}
        self.assertEqual((LIGHT, HEAVY), (2.0, 5.0))
        middle = (LIGHT + HEAVY) / 2
        self.assertEqual([expected_shares(parts, round(2 * each))["b"] for each in (0.0, LIGHT, middle, HEAVY, 100.0)],
                         [0.0, 0.0, 0.25, 0.5, 0.5])

    def test_who_takes_none(self) -> None:
        """A host that takes no connections now has no share."""
        for kind in EVERY_KIND:
            pool = pool_of(kind, [1.0, 1.0, 1.0])
            pool.set_available(pool.hosts["h1"], False, False)
            shares = {each.host.name: each.share for each in pool.explain(None, 0.0).hosts}
            self.assertEqual(shares["h1"], 0.0)
            self.assertAlmostEqual(shares["h0"] + shares["h2"], 1.0)


class RuleTests(SynchronousTestCase):
    def test_light_load(self) -> None:
        """The rule that decides is told: turns while the best is idle, then the least score."""
        pool = pool_of("loadaware", [1.0, 1.0, 1.0])
        self.assertEqual(pool.explain(None, 0.0).rule, "sees the host with the least score idle, so the 3 idle hosts take turns by weight")
        pool.pick(None, 0.0)
        pool.pick(None, 0.0)
        self.assertEqual(pool.explain(None, 0.0).rule, "takes the host with the least score, the only idle one")
        pool.pick(None, 0.0)
        self.assertEqual(pool.explain(None, 0.0).rule, "takes the host with the least score")

    def test_table(self) -> None:
        """A sticky table that remembers decides; if its host is out, that is told beside the scheduler's rule."""
        pool = pool_of("sticky-table", [1.0, 1.0])
        ticket = pool.pick(address(1), 0.0)
        assert ticket is not None
        self.assertIn(f"the sticky table remembers {ticket.host.name} for another", pool.explain(address(1), 1.0).rule)
        self.assertIn("fewest open connections", pool.explain(address(2), 1.0).rule)
        pool.set_available(ticket.host, False, False)
        self.assertIn(f"remembers {ticket.host.name}, which takes no connections now", pool.explain(address(1), 1.0).rule)

    def test_maglev(self) -> None:
        """By the client's address; and where its own host is out, that it goes on to another."""
        for kind in ("maglev", "sticky-hash"):
            pool = pool_of(kind, [1.0, 1.0])
            chosen = pool.explain(address(1), 0.0).chosen
            assert chosen is not None
            self.assertIn(f"the client's address belongs to, {chosen.name}", pool.explain(address(1), 0.0).rule)
            pool.set_available(chosen, False, False)
            self.assertIn(f"belongs to {chosen.name}, which takes no connections now", pool.explain(address(1), 0.0).rule)
        self.assertIn("no address", pool_of("maglev", [1.0, 1.0]).explain(None, 0.0).rule)

    def test_every_kind(self) -> None:
        """Each has one, with nobody there, too."""
        for kind in EVERY_KIND:
            for weights in ([], [1.0]):
                for client in (None, address(1)):
                    self.assertTrue(pool_of(kind, weights).explain(client, 0.0).rule, kind)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pick", "pick", "pick", "close", "close", "report", "turn", "weigh", "leave", "wait"]),
        st.integers(0, 9), st.floats(0, 1),
    ),
    max_size=80,
)


class DryTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from([*SCHEDULERS, "sticky-hash", "sticky-table"]), STEPS)
    def test_same_picks(self, kind: str, steps: list[tuple[str, int, float]]) -> None:
        """Two pools that the same happens to pick alike, though one is asked before each step what it would do."""
        left, right = (pool_of(kind, [0.5, 1.0, 2.0, 3.7]) for _ in range(2))
        tickets: list[tuple[Ticket, Ticket]] = []
        now = 0.0
        for what, number, value in steps:
            for client in (None, address(number)):
                left.explain(client, now + value / 7)
            name = f"h{number % 4}"
            match what:
                case "pick":
                    pair = [pool.pick(address(number), now) for pool in (left, right)]
                    self.assertEqual(*(ticket and ticket.host.name for ticket in pair))
                    if pair[0] is not None and pair[1] is not None:
                        tickets.append((pair[0], pair[1]))
                case "close" if tickets:
                    for ticket in tickets.pop(number % len(tickets)):
                        ticket.release(Reason.HOST_CLOSED, now)
                case _:
                    for pool in (left, right):
                        host = pool.hosts[name]
                        if what == "report":
                            pool.reported(host, LoadReport(utilisation=value, in_flight=float(number)), now)
                        elif what == "turn":
                            pool.turned(host, number, value, now)
                        elif what == "weigh":
                            pool.set_weight(host, 0.1 + value)
                        elif what == "leave":
                            pool.set_available(host, not host.available, True)
            now += value / 10 if what == "wait" else 0.001
