"""Virtual addresses over directors: evenly, by few moves, and where operators and priorities say."""

from __future__ import annotations

from collections import Counter
from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from director.core.spreading import Place, spread

DIRECTORS = ("d1", "d2", "d3", "d4")


def alike(owners: dict[str, str], *directors: str) -> dict[str, Place]:
    """Every address may be at each of *directors*."""
    return {address: Place(dict.fromkeys(directors, 100), owner) for address, owner in owners.items()}


def moved(places: dict[str, Place], found: dict[str, str]) -> set[str]:
    return {address for address, to in found.items() if places[address].owner not in ("", to)}


@st.composite
def any_places(draw: st.DrawFn) -> dict[str, Place]:
    places = {}
    for number in range(draw(st.integers(0, 6))):
        able = draw(st.dictionaries(st.sampled_from(DIRECTORS[:3]), st.sampled_from((100, 200)), max_size=3))
        places[f"a{number}"] = Place(able, draw(st.sampled_from(("", *DIRECTORS))), draw(st.sampled_from(("", *DIRECTORS))),
                                     draw(st.booleans()))
    return places


def spreads(counts: Counter[str]) -> list[int]:
    """The larger the more uneven."""
    return sorted(counts.values(), reverse=True)


class SpreadingTests(SynchronousTestCase):
    def test_some(self) -> None:
        """By the case."""
        both = alike({"a": "d1", "b": "d1"}, "d1", "d2")
        self.assertEqual(spread(both), {"a": "d2", "b": "d1"})
        self.assertEqual(spread(both, busy=("a",)), {"a": "d1", "b": "d2"}, "what is in use had better stay")
        self.assertEqual(spread(alike({"a": "d1", "b": "d3"}, "d1", "d2")), {"a": "d1", "b": "d2"}, "a director has gone")
        self.assertEqual(spread(alike({"a": "", "b": ""}, "d1", "d2")), {"a": "d1", "b": "d2"})
        self.assertEqual(spread({"a": Place({}, "d1")}), {}, "nobody may have it")

    def test_orders(self) -> None:
        """A pin is kept while its director is able; what was moved stays; priorities come before evenness."""
        able = {"d1": 100, "d2": 100}
        self.assertEqual(spread({"a": Place(able, "d1", pinned="d1"), "b": Place(able, "d1")}), {"a": "d1", "b": "d2"})
        self.assertEqual(spread({"a": Place(able, "d1", pinned="d2"), "b": Place(able, "d1")}), {"a": "d2", "b": "d1"})
        self.assertEqual(spread({"a": Place(able, "d1", pinned="d9"), "b": Place(able, "d2")}), {"a": "d1", "b": "d2"})
        self.assertEqual(spread({name: Place(able, "d1", stays=True) for name in "ab"}), {"a": "d1", "b": "d1"})
        self.assertEqual(spread({"a": Place(able, "d3", stays=True)}), {"a": "d1"}, "to where it was moved it cannot be")
        self.assertEqual(spread({name: Place({"d1": 100, "d2": 200}, "d1") for name in "ab"}), {"a": "d2", "b": "d2"})

    def test_chain(self) -> None:
        """An address that only some may have makes room by another one's move."""
        places = {"a": Place({"d1": 1}, "d1"), "b": Place({"d1": 1, "d2": 1}, "d1"), "c": Place({"d1": 1}, "d1"),
                  "d": Place({"d2": 1, "d3": 1}, "d2")}
        self.assertEqual(spread(places), {"a": "d1", "b": "d2", "c": "d1", "d": "d3"})

    @given(st.dictionaries(st.sampled_from("abcdefghij"), st.sampled_from((*DIRECTORS, "gone", ""))), st.integers(1, 4))
    def test_even(self, owners: dict[str, str], count: int) -> None:
        """Where every address may be everywhere: even within one, by no more moves than that takes."""
        places = alike(owners, *DIRECTORS[:count])
        found = spread(places)
        counts = Counter(dict.fromkeys(DIRECTORS[:count], 0))
        counts.update(found.values())
        self.assertEqual(found.keys(), owners.keys())
        self.assertLessEqual(max(counts.values()) - min(counts.values()), 1)
        had = Counter({name: sum(owner == name for owner in owners.values()) for name in DIRECTORS[:count]})
        least, more = divmod(len(owners), count)
        room = [least + (rank < more) for rank in range(count)]
        keeps = sum(min(has, most) for has, most in zip(sorted(had.values(), reverse=True), room, strict=True))
        gone = sum(owner not in ("", *DIRECTORS[:count]) for owner in owners.values())
        self.assertEqual(len(moved(places, found)), sum(had.values()) - keeps + gone)

    @given(any_places())
    def test_best(self, places: dict[str, Place]) -> None:
        """Whatever is asked: everybody has what they may have, and no other spreading is more even. Done, nothing moves."""
        found = spread(places)
        self.assertEqual(found.keys(), {address for address, place in places.items() if place.able})
        for address, to in found.items():
            self.assertIn(to, places[address].choices())
        others = [Counter(each) for each in product(*(places[address].choices() for address in found))]
        self.assertEqual(spreads(Counter(found.values())), min(map(spreads, others)))
        after = {address: place._replace(owner=found.get(address, "")) for address, place in places.items()
                 if not place.stays}
        if len(after) == len(places):
            self.assertEqual(spread(after), found)
