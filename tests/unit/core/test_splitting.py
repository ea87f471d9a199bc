"""Shares of clients: as large as they should be, stable, and moved no more than needed; and pools as one."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Reason
from director.core.host import Host
from director.core.pool import Ticket
from director.core.splitting import _STEP, Shares, Split
from tests.unit.core.core_pools import address, pool_of, split_of

CLIENTS = 3000
NAMES = ("blue", "green", "grey", "red")
WEIGHTS = st.sampled_from([0.0, 1e-9, 0.5, 1.0, 5.0, 95.0, 1e6])
SPLITS = st.dictionaries(st.sampled_from(NAMES), WEIGHTS, min_size=1).filter(lambda split: sum(split.values()) > 0)


def bound(part: float) -> float:
    """Six standard deviations of a binomial share of `CLIENTS`: by chance it is exceeded once in 500 million."""
    return 6 * math.sqrt(max(part * (1 - part), 1 / CLIENTS) / CLIENTS)


def sides(weights: Mapping[str, float], seed: int = 0) -> list[str]:
    shares = Shares(weights)
    return [shares.of_address(address(seed + number)) for number in range(CLIENTS)]


class SharesTests(SynchronousTestCase):
    @given(SPLITS, st.integers(0, 2**31))
    @settings(max_examples=40, deadline=None)
    def test_shares(self, weights: dict[str, float], seed: int) -> None:
        """By address each group has its share, but for chance; one without a share has nobody."""
        counts = Counter(sides(weights, seed))
        for name, part in Shares(weights).parts.items():
            self.assertLessEqual(abs(counts[name] / CLIENTS - part), bound(part), (name, part))
            if not part:
                self.assertEqual(counts[name], 0)

    @given(SPLITS, st.integers(0, 2**70), st.integers(1, CLIENTS), st.integers(1, 30))
    @settings(max_examples=60, deadline=None)
    def test_turns(self, weights: dict[str, float], first: int, number: int, step: int) -> None:
        """Of any turns in a row each group has its share but for a few; of every second, third… too, but for chance."""
        shares = Shares(weights)
        counts = Counter(shares.of_turn(first + each) for each in range(number))
        apart = Counter(shares.of_turn(first + each * step) for each in range(CLIENTS))
        for name, part in shares.parts.items():
            self.assertLessEqual(abs(counts[name] - part * number), 4, (name, part))
            self.assertLessEqual(abs(apart[name] / CLIENTS - part), bound(part), (name, part))

    def test_last_turn(self) -> None:
        """A turn whose place rounds up to 1 is the last group's that has a share."""
        turn = (2**64 - 1) * pow(_STEP, -1, 2**64) % 2**64
        self.assertEqual(Shares({"blue": 1, "green": 1, "red": 0}).of_turn(turn), "green")

    def test_last_turn_of_three(self) -> None:
        """The same where the parts' own rounding leaves something over."""
        turn = (2**64 - 1) * pow(_STEP, -1, 2**64) % 2**64
        self.assertEqual(Shares({"blue": 1, "green": 1, "grey": 1, "red": 0}).of_turn(turn), "grey")

    @given(SPLITS, st.binary(min_size=4, max_size=16), st.sampled_from([0.01, 3.0]), st.randoms(use_true_random=False))
    def test_stable(self, weights: dict[str, float], client: bytes, factor: float, shuffle: random.Random) -> None:
        """The order of the groups and the unit of the shares do not matter."""
        items = [(name, weight * factor) for name, weight in weights.items()]
        shuffle.shuffle(items)
        self.assertEqual(Shares(dict(items)).of_address(client), Shares(weights).of_address(client))

    def test_same_in_every_release(self) -> None:
        """Directors of different releases put a client on the same side."""
        found = [number for number in range(200) if Shares({"blue": 95, "green": 5}).of_address(address(number)) == "green"]
        self.assertEqual(found, [0, 1, 31, 58, 77, 89, 92, 107, 114, 124, 128, 152])

    @given(SPLITS, SPLITS)
    @settings(max_examples=60, deadline=None)
    def test_moves(self, before: dict[str, float], after: dict[str, float]) -> None:
        """Nobody moves but to a group whose share has grown beside that of the group it leaves."""
        for old, new in set(zip(sides(before), sides(after), strict=True)):
            if old != new:
                self.assertGreater(after[new] * before[old], before.get(new, 0.0) * after.get(old, 0.0))

    @given(st.integers(0, 100), st.integers(0, 100))
    @settings(max_examples=30, deadline=None)
    def test_moves_of_two(self, before: int, after: int) -> None:
        """Of two groups just as many move as the share has grown by."""
        moved = [each for each in zip(sides({"blue": 100 - before, "green": before}),
                                      sides({"blue": 100 - after, "green": after}), strict=True) if each[0] != each[1]]
        self.assertLessEqual(len(set(moved)), 1)
        grown = abs(after - before) / 100
        self.assertLessEqual(abs(len(moved) / CLIENTS - grown), bound(grown))


class SplitTests(SynchronousTestCase):
    """Blue is enabled and green the canary, of two hosts each."""

    def setUp(self) -> None:
        self.strayed: Counter[str] = Counter()
        self.turn = 0
        self.use("leastconns")

    def use(self, kind: str, weights: Mapping[str, float] | None = None, *, by_address: bool = True) -> None:
        self.pools = {name: pool_of(kind, [1, 1], group=name) for name in ("blue", "green")}
        self.resplit(weights or {"blue": 1, "green": 1}, by_address=by_address)

    def resplit(self, weights: Mapping[str, float], *, by_address: bool = True) -> None:
        self.split: Split = split_of(self.pools, weights, by_address=by_address, strayed=self.strayed)

    def client_of(self, group: str, which: int = 0) -> bytes:
        found = [address(number) for number in range(200) if self.split.shares.of_address(address(number)) == group]
        return found[which]

    def limit(self, group: str, maximum: int, *, up: bool = True) -> None:
        for host in self.pools[group].hosts.values():
            self.pools[group].set_maximum(host, maximum)
            self.pools[group].set_available(host, up, up)

    def pick(self, client: bytes | None, now: float = 0.0, tried: Collection[Host] = ()) -> Ticket | None:
        self.turn += 1
        return self.split.pick(client, self.turn, now, tried)

    def group(self, ticket: Ticket | None) -> str | None:
        return ticket.host.ref.group if ticket is not None else None

    def test_by_address(self) -> None:
        """A sticky service's client is on its side, each time."""
        for _ in range(3):
            for name in ("blue", "green"):
                self.assertEqual(self.group(self.pick(self.client_of(name))), name)
        self.assertEqual((self.pools["blue"].in_flight, self.pools["green"].in_flight), (3, 3))

    def test_in_turn(self) -> None:
        """Clients of a service that is not sticky, and those without an address, go in turn."""
        for by_address, client in ((False, address(1)), (True, None)):
            self.use("leastconns", {"blue": 3, "green": 1}, by_address=by_address)
            counts = Counter(self.group(self.pick(client)) for _ in range(2000))
            self.assertEqual(sum(counts.values()), 2000)
            self.assertLessEqual(abs(counts["green"] - 500), 4)

    def test_canary_away(self) -> None:
        """The clients of a group without hosts, or of a full one, come to the enabled group, and are counted."""
        client = self.client_of("green")
        self.limit("green", 1)
        places = [self.group(self.pick(client)) for _ in range(4)]
        self.assertEqual(places, ["green", "green", "blue", "blue"])
        self.limit("green", 0, up=False)
        self.assertEqual(self.group(self.pick(client)), "blue")
        self.assertEqual(self.strayed, {"green": 3})
        self.assertEqual((self.split.serving("green"), self.split.serving("blue")), ("blue", "blue"))

    def test_enabled_full(self) -> None:
        """A canary gets no more than its share while the enabled group is only full."""
        self.limit("blue", 1)
        picked = [self.group(self.pick(self.client_of("blue", which))) for which in range(3)]
        self.assertEqual(picked, ["blue", "blue", None])
        self.assertEqual(self.group(self.pick(self.client_of("green"))), "green")
        self.assertIsNone(self.split.serving("blue"))
        self.limit("green", 1)
        self.assertEqual([self.group(self.pick(self.client_of("green"))) for _ in range(2)], ["green", None])
        self.assertEqual((self.strayed, self.split.eligible, self.split.available), ({}, 0, 4))

    def test_enabled_away(self) -> None:
        """Nobody is refused while any group has a host."""
        self.limit("blue", 0, up=False)
        self.assertEqual(self.group(self.pick(self.client_of("blue"))), "green")
        self.assertEqual(self.strayed, {"blue": 1})
        self.limit("green", 0, up=False)
        self.assertIsNone(self.pick(self.client_of("blue")))
        self.assertEqual((self.split.available, self.split.eligible), (0, 0))

    def test_redispatch(self) -> None:
        """A client whose tries fail stays in its group while that has a host; then any other has it, the enabled first."""
        for own, other in (("blue", "green"), ("green", "blue")):
            tried = []
            for _ in range(4):
                ticket = self.pick(self.client_of(own), 0.0, tried)
                assert ticket is not None
                tried.append(ticket.host)
                ticket.release(Reason.CONNECT_FAILED, 0.0)
            self.assertEqual([host.ref.group for host in tried], [own, own, other, other])
            self.assertEqual(len(set(tried)), 4)
            self.assertIsNone(self.pick(self.client_of(own), 0.0, tried))

    def test_redispatch_in_turn(self) -> None:
        """A client whose turn decided stays in its group as well."""
        for _ in range(20):
            first = self.pick(None)
            assert first is not None
            self.assertEqual(self.group(self.pick(None, 0.0, [first.host])), first.host.ref.group)

    def test_group_left_the_split(self) -> None:
        """Who was tried in a group that has no part in the split any more has a side like anybody else."""
        old = pool_of("leastconns", [1], group="grey").hosts["h0"]
        self.assertEqual(self.group(self.pick(self.client_of("green"), 0.0, [old])), "green")

    def test_table(self) -> None:
        """What a sticky table remembers goes before the shares, the newest before older; to the end of its time."""
        self.use("sticky-table")
        client = self.client_of("green")
        host = self.pick(client).host
        self.resplit({"blue": 1, "green": 0})
        self.assertEqual(self.pick(client, 10.0).host, host)
        self.assertEqual(self.group(self.pick(address(77), 10.0)), "blue")
        self.limit("green", 0, up=False)
        self.assertEqual(self.group(self.pick(client, 20.0)), "blue")
        self.limit("green", 0)
        self.assertEqual((self.group(self.pick(client, 30.0)), self.split.certain(client, 30.0)),
                         ("blue", ("blue", "remembered")))
        self.resplit({"blue": 1, "green": 1})
        self.assertEqual(self.split.certain(client, 30.0 + 1800.0), ("green", "by its address"))

    def test_down_host(self) -> None:
        """A table's client whose host is down stays in its group, on another host."""
        self.use("sticky-table")
        client = self.client_of("green")
        host = self.pick(client).host
        self.resplit({"blue": 1, "green": 0})
        self.pools["green"].set_available(host, False, True)
        again = self.pick(client)
        self.assertEqual((self.group(again), again.host is host), ("green", False))
