"""Who has to go when too many wait."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.core.crowd import Crowd


class CrowdTests(SynchronousTestCase):
    def come(self, crowd: Crowd[str], *names: str) -> list[str | None]:
        """By their networks, the first letter; who has to go for each."""
        gone = []
        for name in names:
            crowd.join(name, name[:1].encode())
            gone.append(crowd.too_many(name))
            if gone[-1] is not None:
                crowd.leave(gone[-1])
        return gone

    def test_one_network(self) -> None:
        """Its oldest."""
        crowd: Crowd[str] = Crowd(3)
        self.assertEqual(self.come(crowd, "a1", "a2", "a3", "a4", "a5"), [None, None, None, "a1", "a2"])
        self.assertEqual(list(crowd), ["a3", "a4", "a5"])

    def test_those_who_crowd_go(self) -> None:
        """Whoever comes, the network with most gives way; a slow client of another, though older, stays."""
        crowd: Crowd[str] = Crowd(6)
        self.come(crowd, "b1", "a1", "a2", "a3", "a4", "a5")
        self.assertEqual(self.come(crowd, "a6", "a7", "c1", "b2"), ["a1", "a2", "a3", "a4"])

    def test_above_its_share(self) -> None:
        """A newcomer whose network has more than its share of the room costs that network, even where another has more."""
        crowd: Crowd[str] = Crowd(8)
        self.assertEqual(self.come(crowd, "a1", "a2", "a3", "a4", "a5", "b1", "b2", "c1", "b3")[-1], "b1")

    def test_many_networks(self) -> None:
        """Where none has much, the oldest of all."""
        crowd: Crowd[str] = Crowd(3)
        self.assertEqual(self.come(crowd, "a1", "b1", "c1", "d1", "e1"), [None, None, None, "a1", "b1"])

    def test_leaving(self) -> None:
        """Makes room, and twice is as once."""
        crowd: Crowd[str] = Crowd(2)
        self.come(crowd, "a1", "b1")
        for _ in range(2):
            crowd.leave("a1")
        self.assertEqual((self.come(crowd, "c1"), list(crowd), len(crowd)), ([None], ["b1", "c1"], 2))

    @given(st.lists(st.sampled_from("aaaaabcd"), max_size=60), st.integers(1, 9))
    def test_properties(self, networks: list[str], most: int) -> None:
        """Never too many, never the newcomer while its network has others or another has more, and never one of a network with less
        than another by more than one."""
        crowd: Crowd[str] = Crowd(most)
        for number, network in enumerate(networks):
            before = Counter(name[0] for name in crowd)
            name = f"{network}{number}"
            [gone] = self.come(crowd, name)
            self.assertLessEqual(len(crowd), most)
            self.assertEqual(gone is not None, before.total() == most)
            if gone is not None and most / len(before | Counter(network)) >= 2:
                now = before + Counter(network)
                self.assertGreaterEqual(now[gone[0]], min(max(now.values()), most / len(now)))
