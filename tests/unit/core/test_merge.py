"""The merge of what several directors see: its rules as a table, and what must hold for any inputs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.model import HostRef, HostState, Observed
from director.core.merge import Disagreement, Verdict, disagreements, is_cut_off, merge
from director.core.others import Others
from director.core.transitions import Evidence

REACHED, FAILED, SILENT, NONE = Evidence.REACHED, Evidence.FAILED, Evidence.SILENT, Evidence.NONE
WEB = HostRef("web", "blue", "a")


def record(state: HostState, why: str = "refused", *, blind: bool = False) -> Observed:
    return Observed(state=state, since=1000.0, why=why, boot_id="b1", blind=blind)


DOWN, SUSPECT = record(HostState.DOWN), record(HostState.SUSPECT)
BLIND, BLIND_SUSPECT = record(HostState.UP, blind=True), record(HostState.SUSPECT, blind=True)

RECORDS = st.sampled_from([None, DOWN, SUSPECT, BLIND, BLIND_SUSPECT])
NAMES = st.sampled_from(["d1", "d2", "d3", "d4"])
OTHERS = st.dictionaries(NAMES, RECORDS)


class MergeTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Evidence of mine first, then the others' unanimous "down", then what silence left."""
        for evidence, others, cut_off, down, mine in (
            (REACHED, {"b": DOWN, "c": DOWN}, "", False, True),
            (FAILED, {"b": None, "c": None}, "", True, True),
            (NONE, {}, "", False, True),
            (NONE, {"b": DOWN}, "", True, False),
            (NONE, {"b": DOWN, "c": DOWN}, "", True, False),
            (NONE, {"b": DOWN, "c": None}, "", False, False),
            (NONE, {"b": DOWN, "c": SUSPECT}, "", False, False),
            (NONE, {"b": DOWN, "c": BLIND}, "", True, False),
            (NONE, {"b": DOWN, "c": BLIND_SUSPECT}, "", True, False),
            (NONE, {"b": BLIND}, "", False, True),
            (NONE, {"b": DOWN}, "b", False, True),
            (NONE, {"b": DOWN, "c": DOWN}, "b", True, False),
            (SILENT, {}, "", True, True),
            (SILENT, {"b": BLIND}, "", True, True),
            (SILENT, {"b": DOWN}, "", True, False),
            (SILENT, {"b": DOWN}, "b", True, True),
            (SILENT, {"b": None}, "", False, False),
            (SILENT, {"b": SUSPECT}, "b", False, False),
        ):
            verdict = merge(evidence, others, cut_off)
            self.assertEqual(verdict[:2], (down, mine), (evidence, others, cut_off))

    def test_words(self) -> None:
        """Where others decide against this director's machine, the verdict says who and why."""
        others = {"d2": record(HostState.DOWN, "timed out"), "d1": record(HostState.DOWN, "refused"), "d3": BLIND}
        self.assertEqual(merge(NONE, others), Verdict(True, False, "down as d1, d2 sees it: refused"))
        self.assertEqual(merge(SILENT, {"d1": None}), Verdict(False, False, "silent here, but d1 sees it up"))
        self.assertEqual(merge(NONE, {"d1": None}), Verdict(False, False, ""))

    def test_many_words(self) -> None:
        """Of many directors two are named."""
        others = dict.fromkeys(["d4", "d2", "d1", "d3"], DOWN)
        self.assertIn("d1, d2 and 2 more", merge(NONE, others).why)

    @given(others=OTHERS, cut_off=st.sets(NAMES), order=st.randoms(use_true_random=False))
    def test_order(self, others: dict[str, Observed | None], cut_off: set[str], order: object) -> None:
        """The answer depends on what is known, not on the order in which it became known."""
        shuffled = list(others.items())
        order.shuffle(shuffled)  # type: ignore[attr-defined]
        for evidence in Evidence:
            self.assertEqual(merge(evidence, others, cut_off), merge(evidence, dict(shuffled), cut_off))

    @given(others=OTHERS, cut_off=st.sets(NAMES))
    def test_mine_first(self, others: dict[str, Observed | None], cut_off: set[str]) -> None:
        """Evidence of mine decides whatever others say."""
        self.assertEqual(merge(REACHED, others, cut_off), Verdict(False))
        self.assertEqual(merge(FAILED, others, cut_off), Verdict(True))

    @given(others=OTHERS, witness=st.sampled_from([None, SUSPECT]), cut_off=st.sets(NAMES))
    def test_one_witness(self, others: dict[str, Observed | None], witness: Observed | None, cut_off: set[str]) -> None:
        """A host that one director sees not down is in rotation on all that know nothing better."""
        for evidence in (NONE, SILENT):
            self.assertFalse(merge(evidence, {**others, "witness": witness}, cut_off).down)

    @given(others=OTHERS, cut_off=st.sets(NAMES))
    def test_the_blind_do_not_count(self, others: dict[str, Observed | None], cut_off: set[str]) -> None:
        """A blind director changes no verdict."""
        for evidence in Evidence:
            for blind in (BLIND, BLIND_SUSPECT):
                self.assertEqual(
                    merge(evidence, {**others, "blind": blind}, cut_off), merge(evidence, others, cut_off)
                )

    @given(others=OTHERS)
    def test_the_cut_off_evict_nothing(self, others: dict[str, Observed | None]) -> None:
        """When whoever says "down" is cut off, nothing is evicted on their word."""
        cut_off = {name for name, each in others.items() if each is DOWN}
        self.assertFalse(merge(NONE, others, cut_off).down)

    @given(others=OTHERS, cut_off=st.sets(NAMES))
    def test_no_echo(self, others: dict[str, Observed | None], cut_off: set[str]) -> None:
        """Two directors without evidence, each blind in the other's eyes, judge the same by what third ones say."""
        first = merge(NONE, {**others, "second": BLIND}, cut_off)
        second = merge(NONE, {**others, "first": BLIND}, cut_off)
        self.assertEqual(first, second)

    def test_cut_off(self) -> None:
        """Cut off is who sees two hosts or more down, and more than the fraction of all."""
        for down, hosts, fraction, expected in (
            (1, 1, 0.5, False), (2, 4, 0.5, False), (3, 4, 0.5, True), (2, 2, 0.5, True), (4, 4, 1.0, False),
        ):
            self.assertEqual(is_cut_off(down, hosts, fraction), expected, (down, hosts))


class DisagreementsTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Down here and not there is a disagreement; the blind and the dead have no view, and suspicion is not one."""
        for by, expected in (
            ({}, ()),
            ({"d1": DOWN, "d2": DOWN}, ()),
            ({"d1": DOWN, "d2": BLIND}, ()),
            ({"d1": SUSPECT}, ()),
            ({"dead": DOWN}, ()),
            ({"d1": DOWN}, (Disagreement(WEB, {"d1": "down"}),)),
            ({"d2": DOWN, "d1": SUSPECT}, (Disagreement(WEB, {"d1": "suspect", "d2": "down"}),)),
        ):
            self.assertEqual(disagreements({WEB: by}, ["d2", "d1"]), expected, by)
        with_third = disagreements({WEB: {"d1": DOWN, "d3": BLIND}}, ["d1", "d2", "d3"])
        self.assertEqual(with_third, (Disagreement(WEB, {"d1": "down", "d3": "unseen"}),))

    def test_blind_and_down(self) -> None:
        """Who took it out before it went blind speaks neither way: all others agree."""
        blind = record(HostState.DOWN, blind=True)
        self.assertEqual(disagreements({WEB: {"d1": blind, "d2": DOWN}}, ["d1", "d2"]), ())

    def test_order(self) -> None:
        """By host."""
        other = HostRef("web", "blue", "b")
        found = disagreements({other: {"d1": DOWN}, WEB: {"d1": DOWN}}, {"d1", "d2"})
        self.assertEqual([each.ref for each in found], [WEB, other])


class OthersTests(SynchronousTestCase):
    def test_put(self) -> None:
        """A record replaces the former, and None removes it."""
        others = Others(0.5)
        others.set_live(["d2", "d1"])
        others.put("d1", WEB, DOWN)
        self.assertTrue(others.say_down(WEB))
        others.put("d1", WEB, SUSPECT)
        self.assertFalse(others.say_down(WEB))
        self.assertEqual(others.about(WEB), {"d1": SUSPECT, "d2": None})
        self.assertEqual(others.records(WEB), (("d1", SUSPECT),))
        others.put("d1", WEB, None)
        others.put("d1", WEB, None)
        self.assertNotIn(WEB, others)
        self.assertEqual(others.about(WEB), {"d1": None, "d2": None})

    @given(st.lists(st.tuples(NAMES, st.sampled_from("abcd"), RECORDS)))
    def test_cut_off(self, puts: list[tuple[str, str, Observed | None]]) -> None:
        """Who is cut off follows from the records that stand, whatever stood before."""
        others = Others(0.5)
        standing: dict[tuple[str, str], Observed | None] = {}
        for director, host, each in puts:
            others.put(director, HostRef("web", "blue", host), each)
            standing[director, host] = each
        others.judge_cut_off(4)
        down = [director for (director, _), each in standing.items() if each is DOWN]
        self.assertEqual(others.cut_off, {name for name in down if down.count(name) > 2})
        self.assertFalse(others.judge_cut_off(4))
