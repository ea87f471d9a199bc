"""A service's maximum, shared among directors: never exceeded, and where it is wanted."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import Caps, CapShare
from director.core.caps import View, _settled, next_caps, share_of, split

NAMES = ("d1", "d2", "d3")


def grants(caps: Caps | None) -> dict[str, int]:
    assert caps is not None
    return {name: share.grant for name, share in caps.shares.items()}


def settled(*parts: int, number: int = 1) -> Caps:
    """A record that everybody keeps to."""
    return Caps(number=number, maximum=sum(parts),
                shares={name: CapShare(grant=n, ceiling=n) for name, n in zip(NAMES, parts, strict=False)})


class SplitTests(SynchronousTestCase):
    def test_parts(self) -> None:
        """Small wishes are met, the rest is shared equally, remainders by name."""
        for total, wanted, parts in (
            (100, {"a": 0, "b": 0}, {"a": 50, "b": 50}),
            (100, {"a": 10, "b": 90}, {"a": 10, "b": 90}),
            (100, {"a": 10, "b": 200}, {"a": 10, "b": 90}),
            (100, {"a": 10, "b": 50}, {"a": 30, "b": 70}),
            (100, {"a": 500, "b": 200}, {"a": 50, "b": 50}),
            (7, {"a": 9, "b": 9, "c": 9}, {"a": 2, "b": 2, "c": 3}),
            (1, {"a": 0, "b": 0}, {"a": 1, "b": 0}),
            (5, {}, {}),
        ):
            self.assertEqual(split(total, wanted), parts)

    @given(st.integers(0, 1000), st.dictionaries(st.sampled_from("abcde"), st.integers(0, 1000), min_size=1))
    def test_sum(self, total: int, wanted: dict[str, int]) -> None:
        """The parts are the whole; who gets less than it wants, gets no less than anybody who got an equal part."""
        parts = split(total, wanted)
        self.assertEqual(sum(parts.values()), total)
        for name, part in parts.items():
            self.assertGreaterEqual(part, min(wanted[name], total // len(wanted)))


class PlanTests(SynchronousTestCase):
    def test_first(self) -> None:
        """Without a record the living get equal parts."""
        caps = next_caps(100, None, {"d1": View(live=True), "d2": View(live=True)})
        self.assertEqual(caps, settled(50, 50))

    def test_calm(self) -> None:
        """While nobody is pressed nothing is written, whatever the load."""
        views = {"d1": View(True, number=1, open=40, wanted=40), "d2": View(True, number=1, open=3, wanted=3)}
        self.assertIsNone(next_caps(100, settled(50, 50), views))

    def test_moved_in_two_steps(self) -> None:
        """What one has to spare goes to who is pressed: taken first, given once the other says that it knows."""
        views = {"d1": View(True, number=1, open=50, wanted=80), "d2": View(True, number=1, open=10, wanted=10)}
        first = next_caps(100, settled(50, 50), views)
        self.assertEqual(grants(first), {"d1": 50, "d2": 15})
        self.assertEqual(first.shares["d2"].ceiling, 50)
        self.assertIsNone(next_caps(100, first, views), "it has not said")
        views["d2"] = View(True, number=2, open=12, wanted=12)
        second = next_caps(100, first, views)
        self.assertEqual(grants(second), {"d1": 84, "d2": 16})
        self.assertEqual(second.shares["d2"].ceiling, 16)

    def test_open_connections_count(self) -> None:
        """Connections beyond a lowered grant stay open, and are not given to others before they end."""
        caps = Caps(number=2, maximum=100, shares={"d1": CapShare(grant=50, ceiling=50), "d2": CapShare(grant=20, ceiling=50)})
        views = {"d1": View(True, number=2, open=50, wanted=90), "d2": View(True, number=2, open=40, wanted=40)}
        after = next_caps(100, caps, views)
        self.assertEqual(sum(share.ceiling for share in after.shares.values()), 100)
        self.assertLessEqual(grants(after)["d1"], 60)

    def test_newcomer(self) -> None:
        """A director that comes is granted its part as soon as the others have given it up."""
        views = {"d1": View(True, number=1, open=0), "d2": View(True)}
        first = next_caps(100, settled(100), views)
        self.assertEqual(grants(first), {"d1": 50, "d2": 0})
        views["d1"] = View(True, number=2)
        self.assertEqual(grants(next_caps(100, first, views)), {"d1": 50, "d2": 50})

    def test_dead_and_silent(self) -> None:
        """What a director had is the others' once it is certainly gone; while it may live, cut off, it is nobody's."""
        caps = settled(50, 50)
        silent = {"d1": View(True, number=1, open=50, wanted=90), "d2": View(live=False)}
        self.assertIsNone(next_caps(100, caps, silent))
        self.assertIsNone(next_caps(100, caps, {"d1": silent["d1"]}), "of whom nothing is known, is silent")
        gone = {**silent, "d2": View(live=False, gone=True)}
        self.assertEqual(grants(next_caps(100, caps, gone)), {"d1": 100})

    def test_maximum_changes(self) -> None:
        """A lowered maximum is obeyed by all at once; a raised one is shared."""
        views = {name: View(True, number=1, open=50, wanted=50) for name in NAMES[:2]}
        lower = next_caps(60, settled(50, 50), views)
        self.assertEqual(grants(lower), {"d1": 30, "d2": 30})
        self.assertEqual(lower.shares["d1"].ceiling, 50)
        for wanted in (50, 3):  # whether anybody is pressed or not
            views = {name: View(True, number=1, open=wanted, wanted=wanted) for name in NAMES[:2]}
            self.assertEqual(grants(next_caps(200, settled(50, 50), views)), {"d1": 100, "d2": 100})

    def test_fewer_than_directors(self) -> None:
        """A maximum of one is somebody's."""
        self.assertEqual(grants(next_caps(1, None, {name: View(True) for name in NAMES})), {"d1": 1, "d2": 0, "d3": 0})

    def test_pressed(self) -> None:
        """Grants move once nine tenths of one are wanted, and for a twentieth of the maximum at least, but for one always."""
        for parts, wanted, moved in (
            ((50, 50), (44, 10), None), ((50, 50), (45, 10), {"d1": 50, "d2": 32}),
            ((50, 50), (200, 46), None), ((50, 50), (200, 45), {"d1": 50, "d2": 45}),
            ((5, 5), (9, 4), {"d1": 5, "d2": 4}), ((5, 5), (9, 5), None), ((15, 15), (29, 13), {"d1": 15, "d2": 13}),
            ((15, 15), (29, 14), None), ((30, 70), (27, 40), {"d1": 30, "d2": 56}), ((30, 70), (26, 40), None),
        ):
            views = {name: View(True, number=1, open=0, wanted=each) for name, each in zip(NAMES, wanted, strict=False)}
            caps = settled(*parts)
            # what was taken is given in the next step: here nobody has said yet that it knows
            after = next_caps(sum(parts), caps, {name: view._replace(number=0) for name, view in views.items()})
            self.assertEqual(None if after is None else grants(after), moved, (parts, wanted))
            if after is not None:
                self.assertEqual({name: share.ceiling for name, share in after.shares.items()}, dict(zip(NAMES, parts, strict=False)))

    def test_ceilings(self) -> None:
        """A ceiling comes down to the grant or to what is open, for who lives and says that it keeps to this record or a later one."""
        for view, ceiling in (
            (View(True, number=2, open=3), 20), (View(True, number=2, open=20), 20), (View(True, number=2, open=31), 31),
            (View(True, number=3, open=31), 31), (View(True, number=2, open=90), 50), (View(True, number=1, open=3), 50),
            (View(False, number=2, open=3), 50),
        ):
            self.assertEqual(_settled(CapShare(grant=20, ceiling=50), view, 2), CapShare(grant=20, ceiling=ceiling), view)

    def test_least_first(self) -> None:
        """What is free goes to who has least; in the order of names where they have alike."""
        caps = Caps(number=1, maximum=90, shares={"d1": CapShare(grant=30, ceiling=30), "d2": CapShare(grant=10, ceiling=10),
                                                  "d3": CapShare(grant=20, ceiling=45)})
        views = {"d1": View(True, number=1, wanted=30), "d2": View(True, number=1, wanted=30), "d3": View(True, number=1, open=45, wanted=30)}
        self.assertEqual(grants(next_caps(90, caps, views)), {"d1": 30, "d2": 15, "d3": 30})
        caps = Caps(number=1, maximum=90, shares={name: CapShare(grant=10, ceiling=10) for name in NAMES[:2]})
        views = {name: View(True, number=1, wanted=90) for name in NAMES[:2]} | {"d3": View(False)}
        self.assertEqual(grants(next_caps(90, caps, views)), {"d1": 45, "d2": 45})

    def test_share(self) -> None:
        """Without a grant nobody is let in; a maximum that was just lowered counts at once."""
        self.assertEqual([share_of(None, "d1", 10), share_of(settled(5, 5), "d9", 10), share_of(settled(5, 5), "d1", 10),
                          share_of(settled(5, 5), "d1", 3)], [0, 0, 5, 3])


class Director:
    """Lets clients in under the record that it knows; hears of records late."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.open = 0
        self.waiting = 0
        self.knows: Caps | None = None
        self.said: View | None = None  # what the leader heard last

    def arrive(self, maximum: int) -> None:
        if self.open < share_of(self.knows, self.name, maximum):
            self.open += 1
        else:
            self.waiting = min(self.waiting + 1, 5)


class ClusterTests(SynchronousTestCase):
    @given(st.integers(0, 2**32))
    def test_never_exceeded(self, seed: int) -> None:
        """Directors that hear of records late, say what they have late, are cut off, die and come back; leaders that
        know only the record: the open connections together never exceed the maximum."""
        random = Random(seed)
        maximum = random.choice((1, 5, 40))
        directors = {name: Director(name) for name in NAMES}
        record: Caps | None = None
        for _ in range(400):
            director = directors[random.choice(NAMES)]
            match random.randrange(8):
                case 0 | 1 if director.alive:
                    director.arrive(maximum)
                case 2 if director.open:
                    director.open -= 1
                    director.waiting = 0
                case 3 if director.alive:
                    director.knows = record
                case 4 if director.alive:  # it says what it has, and the leader hears that some time later
                    number = 0 if director.knows is None else director.knows.number
                    director.said = View(True, number=number, open=director.open, wanted=director.open + director.waiting)
                case 5 if random.random() < 0.2:  # it dies, and is known to be dead, or starts anew and knows nothing
                    director.alive = not director.alive
                    director.open, director.knows, director.said = 0, None, None
                case 6 if random.random() < 0.2:  # another leader, which has heard nobody yet
                    for each in directors.values():
                        each.said = None
                case 7:
                    views = {
                        each.name: View(live=False, gone=True) if not each.alive
                        else each.said or View(live=random.random() < 0.8) for each in directors.values()
                    }
                    record = next_caps(maximum, record, views) or record
            if record is not None:
                ceilings = sum(share.ceiling for share in record.shares.values())
                assert ceilings <= maximum, (ceilings, record)
                for each in directors.values():
                    share = record.shares.get(each.name)
                    assert each.open <= (share.ceiling if share is not None else 0), (each.name, each.open, record)
            assert sum(each.open for each in directors.values()) <= maximum
