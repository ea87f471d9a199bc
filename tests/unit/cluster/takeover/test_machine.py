"""Whatever happens to a machine, in whatever order: what it never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.takeover.machine import Takeover
from cluster.takeover.words import (
    Ack,
    Beat,
    CloseFence,
    Commit,
    Effect,
    Gained,
    Lost,
    OpenFence,
    Outcome,
    Seen,
    SendAck,
    SendBeat,
    SendBye,
    Transaction,
)
from tests.unit.cluster.takeover.takeover_kit import ALL, MS, T0, TIMING, Aim, Kind, answering, of, reign, sent, standby

NAMES = st.sampled_from("abc")
TERMS = st.integers(1, 9)
#: How long before now something was sent.
AGES = st.integers(-20, 600).map(lambda ms: ms * MS)
REIGNS = st.builds(lambda owner, term, electors, kind, old: reign(owner, term=term, electors=electors, kind=kind,
                                                                  incarnation=f"{owner}{old}"),
                   NAMES, TERMS, st.frozensets(NAMES, min_size=1), st.sampled_from(list(Kind)), st.integers(0, 1))
SIGHTS = st.one_of(st.builds(lambda beat: Seen(None, 0, beat), st.integers(0, 9)),
                   st.builds(lambda reign, more, beat: Seen(reign, reign.term + more, beat), REIGNS, st.integers(0, 2),
                             st.integers(0, 9)))
Call = Callable[[Takeover, int], Any]
#: One input each; what is an instant in it is told from *now*.
CALLS: st.SearchStrategy[Call] = st.one_of(
    st.builds(lambda who, term, age: lambda m, now: m.beat(who, Beat(term, f"{who}0", now - age, TIMING.count_ns), now),
              NAMES, TERMS, AGES),
    st.builds(lambda who, age: lambda m, now: m.ack(who, Ack(m.term, m.incarnation, now - age), now), NAMES, AGES),
    st.builds(lambda sight: lambda m, now: m.seen(sight, now), SIGHTS),
    st.just(lambda m, now: m.turn(now)), st.just(lambda m, now: m.look(now)),
    st.builds(lambda who: lambda m, now: m.link_lost(who, now), NAMES),
    st.builds(lambda who: lambda m, now: m.left(who, now), NAMES),
    st.builds(lambda who: lambda m, now: m.remove(who, now), NAMES),
    st.builds(lambda who: lambda m, now: m.hand_over(who, f"{who}0", now), NAMES),
    st.builds(lambda alive, wishing: lambda m, now: m.directory(alive, wishing), st.frozensets(NAMES),
              st.frozensets(NAMES)),
)
STEPS = st.lists(st.tuples(CALLS, st.integers(0, 300).map(lambda ms: ms * MS), st.sampled_from(list(Outcome))), max_size=40)
BEGUN = st.sampled_from([standby, answering])


def run(machine: Takeover, steps: Any, begun: int) -> list[tuple[int, list[Effect]]]:
    """Each call at its time, and an answer to what it sent to the store by the next one."""
    now, done, asked = begun, [], []
    for call, wait, outcome in steps:
        now += wait
        for each in asked[:1]:
            done.append((now, machine.answered(each, outcome, 7 + len(done), now)))
        asked = [*asked[1:], *(each.transaction for _, effects in done[-1:] for each in of(Commit, effects))]
        effects = call(machine, now) or []
        asked += sent(effects)
        done.append((now, effects))
    return done


class EffectTests(SynchronousTestCase):
    @given(BEGUN, STEPS)
    @settings(max_examples=300, deadline=None)
    def test_bounds(self, begin: Callable[[], Takeover], steps: Any) -> None:
        """The fence is never opened for longer than is counted of anything; never between a promise and its end, but by a
        hand-over; and closed in the same breath as a promise. Gains and losses alternate."""
        machine = begin()
        kept, gained = 0, machine.answering
        for now, effects in run(machine, steps, T0):
            for place, each in enumerate(effects):
                if isinstance(each, OpenFence):
                    self.assertLessEqual(each.until, now + max(TIMING.count_ns, TIMING.etcd_count_ns))
                    self.assertGreater(each.until, now)
                    self.assertTrue(now >= kept or machine.kind() is Kind.HAND_OVER)
                elif isinstance(each, SendAck):
                    kept = now + TIMING.promise_ns
                    self.assertIn(CloseFence(), effects[:place])
                elif isinstance(each, Gained | Lost):
                    self.assertNotEqual(gained, isinstance(each, Gained))
                    gained = isinstance(each, Gained)
            self.assertTrue(machine.answers(now) or not machine.answering or not effects or not of(OpenFence, effects))

    @given(BEGUN, STEPS)
    @settings(max_examples=300, deadline=None)
    def test_terms_grow(self, begin: Callable[[], Takeover], steps: Any) -> None:
        """And nobody owns in a term that it gave over."""
        machine = begin()
        given: set[int] = set()
        for step in steps:
            term, owned = machine.term, machine.owner
            (*_, (_, effects)) = run(machine, [step], T0)
            self.assertGreaterEqual(machine.term, term)
            if any(each.aim is Aim.HAND_OVER for each in sent(effects)):
                given.add(term)
            self.assertFalse(machine.owner and machine.term in given and not owned)

    @given(BEGUN, STEPS, st.integers(1, 10**15))
    @settings(max_examples=100, deadline=None)
    def test_any_clock(self, begin: Callable[[], Takeover], steps: Any, shift: int) -> None:
        """The same happens whatever the clock reads: the explorer counts on it."""
        one, other = begin(), begin()
        for name, value in vars(other).items():
            if isinstance(value, int) and name.endswith(("_until", "_from", "_evidence")) and value:
                setattr(other, name, value + shift)
            elif isinstance(value, dict):
                setattr(other, name, {who: at + shift for who, at in value.items()})
        plain, shifted = run(one, steps, T0), run(other, steps, T0 + shift)
        self.assertEqual([[self.moved(each, shift) for each in effects] for _, effects in plain],
                         [effects for _, effects in shifted])

    def moved(self, effect: Effect, shift: int) -> Effect:
        match effect:
            case OpenFence(until):
                return OpenFence(until + shift)
            case SendBeat(beat):
                return SendBeat(beat._replace(sent=beat.sent + shift))
            case SendAck(to, ack):
                return SendAck(to, ack._replace(sent=ack.sent + shift))
            case Commit(transaction) if transaction.until:
                return Commit(transaction._replace(until=transaction.until + shift))
        return effect


class OrderTests(SynchronousTestCase):
    def test_stop(self) -> None:
        """R14: the fence is closed before the good-bye."""
        self.assertEqual([type(each) for each in answering().stop()], [CloseFence, Lost, SendBye])
        self.assertEqual([type(each) for each in standby().stop()], [CloseFence, SendBye])

    def test_no_deadline(self) -> None:
        """A standby has no business between its turns; nor an owner without evidence."""
        self.assertIsNone(standby().deadline(T0))
        machine = answering()
        machine.evidence.clear()
        self.assertIsNone(machine.deadline(T0))
        self.assertEqual(machine.look(T0)[0], CloseFence())
        self.assertEqual(standby().look(T0), [])

    def test_late_answers(self) -> None:
        """Of a term that is over: only what they say of the store counts."""
        machine = answering(electors=ALL)
        (change,) = sent(machine.remove("c", T0))
        machine.step_down("a test")
        self.assertEqual(machine.answered(change, Outcome.DONE, 9, T0), [])
        self.assertFalse(machine.owner)
        self.assertIsInstance(change, Transaction)
