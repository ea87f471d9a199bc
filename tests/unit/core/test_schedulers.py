"""What each scheduler promises: shares, order, and the work it does for a pick."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from itertools import combinations, pairwise, permutations
from math import inf, nan, sqrt
from types import FrameType

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import director.core.pool
from cluster.errors import Misuse
from cluster.model import Reason
from director.core.host import Host
from director.core.pool import Pool
from director.core.schedulers import SCHEDULERS, check_parameters, make_scheduler
from director.core.schedulers.least import turns
from director.core.schedulers.structures import HostArray, LeastTree, ShareTree
from tests.unit.core.core_pools import EVERY_KIND, address, pool_of, ref, scheduler_of

DONE = Reason.CLIENT_CLOSED


def names(pool: Pool, count: int) -> list[str]:
    """The next picks, each closed at once."""
    picked = []
    for number in range(count):
        ticket = pool.pick(address(number), 0.0)
        picked.append(ticket.host.name)
        pool.release(ticket, DONE, 0.0)
    return picked


class RandomTests(SynchronousTestCase):
    DRAWS = 20_000

    def assert_shares(self, drawn: Counter[str], shares: dict[str, float]) -> None:
        """Every count within 5 standard deviations of its binomial mean."""
        total = sum(drawn.values())
        for name, share in shares.items():
            deviation = sqrt(total * share * (1 - share))
            self.assertLessEqual(abs(drawn[name] - total * share), 5 * deviation, f"{name} {drawn} {shares}")
        self.assertEqual(set(drawn), {name for name, share in shares.items() if share})

    def test_random(self) -> None:
        """All hosts are equally likely, whatever their weights."""
        drawn = Counter(names(pool_of("random", [1, 5, 0.1, 2]), self.DRAWS))
        self.assert_shares(drawn, {f"h{n}": 1 / 4 for n in range(4)})

    def test_weighted(self) -> None:
        """Hosts are as likely as their fractional weights say, also after those change."""
        pool = pool_of("weighted", [1, 0.5, 0, 7.25, 3])
        self.assert_shares(
            Counter(names(pool, self.DRAWS)), {"h0": 1 / 11.75, "h1": 0.5 / 11.75, "h3": 7.25 / 11.75, "h4": 3 / 11.75}
        )
        pool.set_weight(pool.hosts["h3"], 0.5)
        pool.set_weight(pool.hosts["h0"], 0)
        self.assert_shares(Counter(names(pool, self.DRAWS)), {"h1": 1 / 8, "h3": 1 / 8, "h4": 6 / 8})

    def test_tried_hosts(self) -> None:
        """Excluded hosts leave the others' shares as they are to each other."""
        for kind, shares in (("random", {"h0": 1 / 2, "h3": 1 / 2}), ("weighted", {"h0": 1 / 5, "h3": 4 / 5})):
            pool = pool_of(kind, [1, 2, 3, 4])
            tried = [pool.hosts["h2"], pool.hosts["h1"], pool.hosts["h2"]]
            drawn = Counter(pool.pick(None, 0.0, tried).host.name for _ in range(self.DRAWS))
            self.assert_shares(drawn, shares)

    def test_samples(self) -> None:
        """Samples hold different hosts, the first as likely as its weight says, each next by the weights of those left."""
        shares, hosts = ShareTree(), [Host(ref(f"h{n}")) for n in range(6)]
        for number, host in enumerate(hosts):
            shares.put(host, number)
        shares.remove(hosts[5])
        draw = random.Random(3).random
        drawn = Counter(
            "".join(host.name for host in shares.sample(2, draw, [hosts[1], hosts[1]])) for _ in range(self.DRAWS)
        )
        weights = {"h2": 2, "h3": 3, "h4": 4}
        self.assert_shares(drawn, {
            one + other: weights[one] / 9 * weights[other] / (9 - weights[one]) for one, other in permutations(weights, 2)
        })
        self.assertEqual(len(shares.sample(9, draw, hosts[2:3])), 3)
        self.assertEqual(shares.total(), 10)

    def test_two_choices(self) -> None:
        """Two choices keep open connections far closer together than one, and never take the worst host."""
        random_pool, pool = pool_of("random", [1] * 20), pool_of("p2c", [1] * 20)
        for each in (random_pool, pool):
            for _ in range(2000):
                each.pick(None, 0.0)
        spread = [max(h.in_flight for h in each.hosts.values()) - 100 for each in (random_pool, pool)]
        self.assertLessEqual(spread[1], 4)
        self.assertGreater(spread[0], 10)
        worst = pool.hosts["h7"]
        for _ in range(50):
            worst_ticket = pool.pick(None, 0.0, [host for host in pool.hosts.values() if host is not worst])
            self.assertIs(worst_ticket.host, worst)
        before = worst.in_flight
        for _ in range(200):
            pool.pick(None, 0.0)
        self.assertEqual(worst.in_flight, before)

    def test_choices_parameter(self) -> None:
        """With as many choices as hosts, and none of them idle, p2c is weighted least connections."""
        weights = [1, 2, 3, 0.5]
        pool = pool_of(make_scheduler("p2c", {"choices": 4}, random=random.Random(1).random), weights)
        other = pool_of("weightedleastconns", weights)
        for each in (pool, other):
            for name in weights:
                each.pick(None, 0.0, [host for host in each.hosts.values() if host.configured_weight != name])
        for _ in range(40):
            self.assertEqual(pool.pick(None, 0.0).host.name, other.pick(None, 0.0).host.name)


    def test_choices_follow_what_was_ordered(self) -> None:
        """What is drawn goes by what was ordered and by the estimate, whole numbers or not, also after a change."""
        pool = pool_of("p2c", [1.0, 1.0, 1.0])
        hosts = list(pool.hosts.values())
        for host, weight, capacity in zip(hosts, (1.2, 0.7, 0.3), (0.8, 1.4, 0.5), strict=True):
            pool.set_weight(host, weight, capacity)
        expected = [1.2, 0.7, 0.6 * 0.5 * (0.5 / 0.75) ** 3]
        self.assertAlmostEqual(pool.scheduler._shares.total(), sum(expected))
        for host, part in zip(hosts, expected, strict=True):
            self.assertAlmostEqual(pool.scheduler.parts(host, 0.0).idle, part)

    def test_choices_foretold(self) -> None:
        """Who is next is known where all hosts are drawn, unless the order of the draw decides between idle ones."""
        for in_flight, foretold in (((1, 2), "h0"), ((3, 2), "h1"), ((0, 1), "h0"), ((1, 0), "h1"), ((0, 0), None),
                                    ((1, 2, 3), None), ((), None), ((7,), "h0")):
            pool = pool_of("p2c", [1.0] * len(in_flight))
            for host, count in zip(pool.hosts.values(), in_flight, strict=True):
                for _ in range(count):
                    pool.pick(None, 0.0, [each for each in pool.hosts.values() if each is not host])
            chosen = pool.explain(None, 0.0).chosen
            self.assertEqual(chosen.name if chosen else None, foretold, in_flight)


class RoundRobinTests(SynchronousTestCase):
    def test_in_turn(self) -> None:
        """Hosts take turns in the order of configuration; one that was away joins at the end."""
        pool = pool_of("roundrobin", [1, 9, 1])
        self.assertEqual(names(pool, 5), ["h0", "h1", "h2", "h0", "h1"])
        pool.set_available(pool.hosts["h2"], False, True)
        self.assertEqual(names(pool, 3), ["h0", "h1", "h0"])
        pool.set_available(pool.hosts["h2"], True, True)
        self.assertEqual(names(pool, 4), ["h1", "h0", "h2", "h1"])


class SmoothRoundRobinTests(SynchronousTestCase):
    @settings(max_examples=40)
    @given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
    def test_exact_cycles(self, weights: list[int]) -> None:
        """From the start, every cycle of sum(weights) picks gives each host exactly its weight."""
        pool = pool_of("weightedroundrobin", weights)
        expected = {f"h{index}": weight for index, weight in enumerate(weights)}
        for _cycle in range(4):
            self.assertEqual(Counter(names(pool, sum(weights))), expected)

    def test_exact_after_many(self) -> None:
        """Cycles stay exact: deadlines are computed from counts, so nothing drifts."""
        pool = pool_of("weightedroundrobin", [1, 3, 7, 7, 100])
        names(pool, 118 * 500)
        self.assertEqual(Counter(names(pool, 118)), {"h0": 1, "h1": 3, "h2": 7, "h3": 7, "h4": 100})

    def test_exact_with_maxima(self) -> None:
        """Hosts that are full for a moment keep their place in the cycle."""
        pool = pool_of("weightedroundrobin", [1, 2, 4])
        for host in pool.hosts.values():
            pool.set_maximum(host, 1)
        for _cycle in range(5):
            self.assertEqual(Counter(names(pool, 7)), {"h0": 1, "h1": 2, "h2": 4})

    def test_smooth(self) -> None:
        """A heavy host's picks are spread, and many light hosts do not come all at once."""
        picked = names(pool_of("weightedroundrobin", [5, 1, 1]), 70)
        self.assertNotIn("h0h0h0h0", "".join(picked))
        picked = names(pool_of("weightedroundrobin", [50] + [1] * 50), 1000)
        runs = [right - left for left, right in pairwise(n for n, name in enumerate(picked) if name == "h0")]
        self.assertLessEqual(max(runs), 4)

    @settings(max_examples=40)
    @given(
        st.lists(st.floats(0.05, 20), min_size=2, max_size=6),
        st.lists(st.tuples(st.integers(0, 5), st.floats(0.05, 20), st.integers(1, 60)), max_size=5),
    )
    def test_fair_while_weights_change(self, weights: list[float], changes: list[tuple[int, float, int]]) -> None:
        """Between changes of weights nobody is ahead of anybody by more than a pick each."""
        pool = pool_of("weightedroundrobin", weights)
        for index, weight, count in [(0, weights[0], 50), *changes]:
            pool.set_weight(pool.hosts[f"h{index % len(weights)}"], weight)
            counts: Counter[str] = Counter()
            for name in names(pool, count):
                counts[name] += 1
                for one, other in combinations(pool.hosts.values(), 2):
                    ahead = counts[one.name] / one.weight - counts[other.name] / other.weight
                    self.assertLessEqual(abs(ahead), (1 / one.weight + 1 / other.weight) * (1 + 1e-9))

    def test_no_back_pay(self) -> None:
        """A host that was away or is new gets its share from now on, not what it missed."""
        pool = pool_of("weightedroundrobin", [1, 1])
        pool.set_available(pool.hosts["h1"], False, True)
        names(pool, 100)
        pool.set_available(pool.hosts["h1"], True, True)
        pool.put(ref("new"))
        pool.configured()
        for _cycle in range(3):
            self.assertEqual(Counter(names(pool, 3)), {"h0": 1, "h1": 1, "new": 1})

    def test_changes_earn_nothing(self) -> None:
        """A host whose weight is set anew before each pick, as in a slow start, still gets its share and no more."""
        pool = pool_of("weightedroundrobin", [1, 1])
        counts: Counter[str] = Counter()
        for number in range(1000):
            pool.set_weight(pool.hosts["h1"], 1 + number % 2 * 1e-6)
            counts[names(pool, 1)[0]] += 1
        self.assertLessEqual(abs(counts["h0"] - 500), 2)

    def test_weight_changed_while_away(self) -> None:
        """A host that returns with another weight is picked by that one."""
        pool = pool_of("weightedroundrobin", [4, 4])
        pool.set_available(pool.hosts["h1"], False, True)
        pool.set_weight(pool.hosts["h1"], 12.0)
        pool.set_available(pool.hosts["h1"], True, True)
        self.assertEqual(Counter(names(pool, 160)), {"h0": 40, "h1": 120})


class LeastConnectionsTests(SynchronousTestCase):
    @settings(max_examples=60)
    @given(st.data(), st.sampled_from(["leastconns", "leastconnsrr", "weightedleastconns"]))
    def test_like_a_scan(self, data: st.DataObject, kind: str) -> None:
        """Exactly the host that looking at all of them would find, ties to the least recently picked; if that one is idle,
        `weightedleastconns` may take another idle one."""
        pool = pool_of(kind, data.draw(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.7]), min_size=1, max_size=9)))
        tickets = []
        for picking in data.draw(st.lists(st.sampled_from([True, True, False]), max_size=60)):
            if picking or not tickets:
                hosts = pool.hosts.values()
                if kind == "weightedleastconns":
                    expected = min(hosts, key=lambda host: ((host.in_flight + 1) / host.weight, host.turn))
                else:
                    expected = min(hosts, key=lambda host: (host.in_flight, host.turn))
                idle = [host for host in hosts if not host.in_flight]
                tickets.append(pool.pick(None, 0.0))
                if kind == "weightedleastconns" and expected in idle:
                    self.assertIn(tickets[-1].host, idle)
                else:
                    self.assertIs(tickets[-1].host, expected)
            else:
                pool.release(tickets.pop(data.draw(st.integers(0, len(tickets) - 1))), DONE, 0.0)

    def test_weights(self) -> None:
        """Open connections settle in proportion to weights, and follow them when they change."""
        pool = pool_of("weightedleastconns", [1, 2, 0.5])
        tickets = [pool.pick(None, 0.0) for _ in range(70)]
        self.assertEqual([host.in_flight for host in pool.hosts.values()], [20, 40, 10])
        pool.set_weight(pool.hosts["h2"], 4)
        tickets += [pool.pick(None, 0.0) for _ in range(70)]
        self.assertEqual([host.in_flight for host in pool.hosts.values()], [20, 40, 80])


class TurnsTests(SynchronousTestCase):
    def test_formula(self) -> None:
        """In proportion to what was ordered and to the estimate; below three quarters by that estimate's fourth power."""
        for ordered, estimate, often in (
            (1.0, 1.0, 1.0), (3.0, 1.0, 3.0), (2.0, 1.5, 3.0), (1.0, 0.75, 0.75), (2.0, 0.75, 1.5), (2.0, 0.375, 2.0 * 0.375 / 8),
            (5.0, 0.6, 5.0 * 0.6 * 0.8**3), (1.0, 0.0, 0.0),
        ):
            self.assertAlmostEqual(turns(ordered, estimate), often)


class TreeTests(SynchronousTestCase):
    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.integers(0, 20), st.one_of(st.none(), st.floats(0.001, 100))), max_size=80))
    def test_like_dictionaries(self, changes: list[tuple[int, float | None]]) -> None:
        """Growing, shrinking and changing trees always know the least key and the total."""
        hosts = [Host(ref(f"h{n}")) for n in range(21)]
        least, shares, model = LeastTree(), ShareTree(), {}
        for number, value in changes:
            host = hosts[number]
            if value is not None:
                least.put(host, value)
                shares.put(host, value)
                model[host] = value
            elif host in model:
                least.remove(host)
                shares.remove(host)
                del model[host]
            self.assertEqual(least.least_key(), min(model.values(), default=float("inf")))
            self.assertAlmostEqual(shares.total(), sum(model.values()))
            self.assertEqual(shares.draw(lambda: 1.0, ()) in model, bool(model))  # as if rounded up to the total
            self.assertEqual(model.get(least.least()), min(model.values(), default=None))
            self.assertIsNone(least.least(model))
            self.assertIsNone(shares.draw(lambda: 0.5, model))

    @given(st.lists(st.integers(0, 12), max_size=40), st.sets(st.integers(0, 12), max_size=4))
    def test_draws(self, toggled: list[int], tried: set[int]) -> None:
        """Each equal part of chance draws another member, or, by weight, as many parts as it weighs; nobody who was tried."""
        hosts = [Host(ref(f"h{n}")) for n in range(13)]
        array, shares, there = HostArray(), ShareTree(), set[int]()
        for number in toggled:
            if number in there:
                array.remove(hosts[number])
                shares.remove(hosts[number])
            else:
                array.add(hosts[number])
                shares.put(hosts[number], number)
            there ^= {number}
        self.assertEqual((len(array), len(shares)), (len(there), len(there)))
        self.assertEqual([host in array for host in hosts], [number in there for number in range(13)])
        left = sorted(there - tried)
        exclude = [hosts[number] for number in tried]
        for each, parts in ((array, dict.fromkeys(left, 1)), (shares, {number: number for number in left if number})):
            whole = sum(parts.values())
            chances = [(part + 0.5) / whole for part in range(whole)]
            drawn = Counter(each.draw(chances.pop, exclude) for _ in range(whole))
            self.assertEqual(drawn, {hosts[number]: count for number, count in parts.items()})
            if not whole:
                self.assertIsNone(each.draw(lambda: 0.5, exclude))
            self.assertIs(each.only(), hosts[min(there)] if len(there) == 1 else None)
        self.assertEqual(shares.total(), sum(there))
        self.assertEqual(set(shares), {hosts[number] for number in there})

    @given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1.0, 2.0]), st.integers(0, 3)), min_size=1, max_size=30),
           st.sets(st.integers(0, 9), max_size=3))
    def test_least(self, puts: list[tuple[int, float, int]], tried: set[int]) -> None:
        """The least key outside those tried, among equals the longest not picked."""
        hosts = [Host(ref(f"h{n}")) for n in range(10)]
        tree, keys = LeastTree(), dict[Host, tuple[float, int]]()
        for number, key, turn in puts:
            hosts[number].turn = turn
            tree.put(hosts[number], key)
            keys[hosts[number]] = key, turn
        for exclude in ([], [hosts[number] for number in tried], hosts):
            left = [host for host in keys if host not in exclude]
            least = tree.least(exclude)
            self.assertEqual(least is None, not left)
            if least is not None:
                self.assertIn(least, left)
                self.assertEqual(keys[least], min(keys[host] for host in left))
        self.assertEqual(tree.least_key(), min(keys.values())[0])

    def test_no_drift(self) -> None:
        """However often fractional weights change, they leave no trace in the sums."""
        shares, hosts = ShareTree(), [Host(ref(f"h{n}")) for n in range(5)]
        draw = random.Random(5).random
        for _ in range(20_000):
            for host in hosts:
                shares.put(host, draw() * 1e6)
        for host in hosts:
            shares.put(host, 0.1)
        self.assertEqual(shares.total(), (0.1 + 0.1) + (0.1 + 0.1) + 0.1)


class RegistryTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Every scheduler is made by its name and by the ancestors' short ones."""
        short = {"rand": "random", "roundr": "roundrobin", "leastc": "leastconns", "leastconnsrr": "leastconns"}
        short |= {"weightr": "weighted", "weightlc": "weightedleastconns"}
        for alias, name in short.items():
            made = [make_scheduler(each, {}, random=random.random) for each in (alias, name)]
            self.assertIs(type(made[0]), type(made[1]))
        self.assertEqual(
            set(SCHEDULERS),
            {"random", "roundrobin", "weighted", "weightedroundrobin", "leastconns", "weightedleastconns", "p2c"}
            | {"maglev", "ewma", "loadaware", "auto"},
        )

    def test_defaults_are_allowed(self) -> None:
        """Every parameter's documented default passes its own check, and is what is used without it."""
        for kind in SCHEDULERS.values():
            defaults = {parameter.name: parameter.default for parameter in kind.parameters}
            self.assertEqual(check_parameters(kind.name, defaults), [])
            made = [vars(make_scheduler(kind.name, each, random=random.random)) for each in ({}, defaults)]
            self.assertEqual(*[{k: v for k, v in each.items() if isinstance(v, int)} for each in made])

    def test_errors(self) -> None:
        """Every error at once, each with what would be right."""
        for name, parameters, expected in [
            ("leastcon", {}, ["unknown scheduler 'leastcon' (did you mean 'leastconns'?)"]),
            ("random", {"seed": 1}, ["scheduler 'random' has no parameter 'seed' (it has none)"]),
            (
                "p2c",
                {"choice": 2, "choices": 1},
                [
                    "scheduler 'p2c' has no parameter 'choice' (did you mean 'choices'?)",
                    "parameter 'choices' of scheduler 'p2c' is 1 (expected: int, at least 2 and at most 64)",
                ],
            ),
        ]:
            self.assertEqual(check_parameters(name, parameters), expected)
            with self.assertRaises(Misuse) as raised:
                make_scheduler(name, parameters, random=random.random)
            self.assertEqual(str(raised.exception), "; ".join(expected))
        self.assertIn("one of: auto, ewma", check_parameters("xyz", {})[0])
        for value in (0.0, 0.05, 600.1, 601, inf, nan, True, "1"):
            [error] = check_parameters("ewma", {"decay_s": value})
            self.assertIn("at least 0.1 and at most 600", error, value)
        for value in (True, 2.0, "2", 65536, 7, 251, 17 * 17, 19 * 19, 655_379, 1_000_003):
            [error] = check_parameters("maglev", {"table_size": value})
            self.assertIn("a prime from 257 to 655373", error, value)
        for value in (257, 655_373):
            self.assertEqual(check_parameters("maglev", {"table_size": value}), [], value)

    def test_bounds_are_allowed(self) -> None:
        """The least and the most that are told are taken themselves."""
        for key, bounds in (("fade_s", (0.1, 60.0)), ("stall_after", (2.0, 1000.0)), ("most_share", (1.1, 1000.0))):
            self.assertEqual([check_parameters("loadaware", {key: value}) for value in bounds], [[], []], key)


class _Reads(Host):
    """A host that counts how often anybody looks at any host."""

    __slots__ = ()
    count = 0

    def __getattribute__(self, name: str) -> object:
        _Reads.count += 1
        return super().__getattribute__(name)

    def __hash__(self) -> int:
        _Reads.count += 1
        return id(self)


def _steps(action: Callable[[], object]) -> int:
    """Bytecodes that *action* takes."""
    steps = 0

    def trace(frame: FrameType, event: str, arg: object) -> object:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return steps


class ScalingTests(SynchronousTestCase):
    SMALL, LARGE = 100, 10_000

    def test_nothing_scans(self) -> None:
        """With a hundred times as many hosts picks, redispatches, weights and releases at most double their work."""
        self.patch(director.core.pool, "Host", _Reads)
        pools = [pool_of("random", [1.5] * count) for count in (self.SMALL, self.LARGE)]
        for kind in EVERY_KIND:
            work = [self._work(pool, kind) for pool in pools]
            small, large = work
            self.assertLess(large[0], 2 * small[0] + 50, f"{kind}: bytecodes {work}")
            self.assertLess(large[1], 2 * small[1] + 10, f"{kind}: looks at hosts {work}")

    def test_few_left(self) -> None:
        """Consistent hashing does not search the table for the last host standing."""
        pools = [pool_of("maglev", [1] * count) for count in (30, 1000)]
        for pool in pools:
            for name in list(pool.hosts)[1:]:
                pool.set_available(pool.hosts[name], False, True)
        small, large = (_steps(lambda pool=pool: [pool.pick(address(n), 0.0) for n in range(50)]) for pool in pools)
        self.assertLess(large, 3 * small)

    def _work(self, pool: Pool, kind: str) -> tuple[int, int]:
        pool.replace_scheduler(scheduler_of(kind))
        first = pool.pick(address(1), 1.0)

        def cycle() -> None:
            for number in range(20):
                ticket = pool.pick(address(number), 1.0)
                another = pool.pick(address(number), 1.0, (ticket.host, first.host))
                pool.set_weight(ticket.host, 2.5 + number)
                pool.release(ticket, DONE, 2.0)
                pool.set_maximum(another.host, 1)
                pool.release(another, DONE, 2.0)

        _Reads.count = 0
        steps = _steps(cycle)
        reads = _Reads.count
        pool.release(first, DONE, 3.0)
        return steps, reads
