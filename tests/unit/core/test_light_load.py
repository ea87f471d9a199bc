"""At light load, shares of equally loaded hosts follow their weights, by every scheduler that uses weights."""

from __future__ import annotations

import random
from collections import Counter, deque

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Reason
from director.core.pool import Pool, Ticket
from tests.unit.core.core_pools import address, pool_of

DONE = Reason.CLIENT_CLOSED
EXACT = ("weightedroundrobin", "weightedleastconns", "auto")
DRAWN = ("weighted", "p2c")
LATE = ("loadaware", "ewma")  # as often within some picks; what they know of durations may change an order


def one_by_one(pool: Pool, count: int) -> Counter[str]:
    """How often each host is picked when each connection ends before the next begins."""
    picked: Counter[str] = Counter()
    for number in range(count):
        ticket = pool.pick(address(number), float(number))
        assert ticket is not None
        picked[ticket.host.name] += 1
        pool.release(ticket, DONE, number + 0.5)
    return picked


class OneByOneTests(SynchronousTestCase):
    def test_weights(self) -> None:
        """Of 100 requests one after the other, weights 1 and 3 give 25 and 75."""
        for kind in EXACT:
            self.assertEqual(one_by_one(pool_of(kind, [1, 3]), 100), {"h0": 25, "h1": 75}, kind)
        for kind in DRAWN:
            self.assertLess(abs(one_by_one(pool_of(kind, [1, 3]), 4000)["h0"] - 1000), 140, kind)  # 5 deviations

    def test_weights_beside_others(self) -> None:
        """So they do beside what else a scheduler knows, as long as that is the same of all."""
        for kind in LATE:
            self.assertLess(abs(one_by_one(pool_of(kind, [1, 3]), 400)["h0"] - 100), 5, kind)

    def test_known_slow(self) -> None:
        """A host that is known to be slow is hardly ever picked while fast ones are idle; one with an ordered weight is."""
        for kind in ("weightedleastconns", "loadaware", "ewma", "p2c"):
            pool = pool_of(kind, [1] * 4)
            pool.set_weight(pool.hosts["h0"], 0.25, 0.25)
            pool.set_weight(pool.hosts["h1"], 0.25)
            picked = one_by_one(pool, 1000)
            self.assertLess(picked["h0"], 20, kind)
            self.assertTrue(70 < picked["h1"] < 160, f"{kind} {picked}")

    def test_many(self) -> None:
        """Weights count in full among many hosts too, where a few drawn ones hold the heavy one but seldom."""
        for kind in (*EXACT, *DRAWN):
            self.assertLess(abs(one_by_one(pool_of(kind, [9] + [1] * 9), 4000)["h0"] - 2000), 160, kind)

    @settings(max_examples=40)
    @given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.sampled_from(EXACT))
    def test_exact(self, weights: list[int], kind: str) -> None:
        """Each cycle of sum(weights) gives each host its weight."""
        pool = pool_of(kind, weights)
        expected = {f"h{index}": weight for index, weight in enumerate(weights)}
        for _cycle in range(2):
            self.assertEqual(one_by_one(pool, sum(weights)), expected)


class NoiseTests(SynchronousTestCase):
    HOSTS, LOAD, CORES, SERVICE_S, REQUESTS = 4, 0.03, 4, 0.04, 4000
    PERSISTENCE_S = 30.0  #: as long as capacities are smoothed

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 2**32), st.sampled_from([*EXACT, *DRAWN, *LATE]))
    def test_noise_in_weights(self, seed: int, kind: str) -> None:
        """Weights that differ by up to 20 % from each other, by noise, keep each of 4 alike hosts within 20 to 30 %."""
        draw = random.Random(seed)
        pool = pool_of(kind, [1] * self.HOSTS, seed=seed)
        rate = self.LOAD * self.HOSTS * self.CORES / self.SERVICE_S
        open_now: deque[tuple[float, Ticket]] = deque()
        picked: Counter[str] = Counter()
        now, told = 0.0, -self.PERSISTENCE_S
        for _number in range(self.REQUESTS):
            now += draw.expovariate(rate)
            if now > told + self.PERSISTENCE_S:
                told = now
                for host in pool.hosts.values():
                    pool.set_weight(host, noise := draw.uniform(0.8, 1.2), noise)
            while open_now and open_now[0][0] <= now:
                ended, ticket = open_now.popleft()
                pool.release(ticket, DONE, ended)
            ticket = pool.pick(None, now)
            assert ticket is not None
            picked[ticket.host.name] += 1
            open_now.append((now + self.SERVICE_S, ticket))
        for name in pool.hosts:
            self.assertGreaterEqual(picked[name], 0.2 * self.REQUESTS, f"{kind} {picked}")
            self.assertLessEqual(picked[name], 0.3 * self.REQUESTS, f"{kind} {picked}")

    def test_constant_noise(self) -> None:
        """The same with weights that stay wrong for long."""
        for kind in (*EXACT, *DRAWN):
            pool = pool_of(kind, [1] * 4)
            for host, weight in zip(pool.hosts.values(), (0.8, 0.93, 1.07, 1.2), strict=True):
                pool.set_weight(host, weight, weight)
            picked = one_by_one(pool, 4000)
            self.assertTrue(all(700 <= count <= 1300 for count in picked.values()), f"{kind} {picked}")
