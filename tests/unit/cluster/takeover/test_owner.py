"""An owner: evidence, the fence's limit, who may campaign, a deleted record, giving over."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.takeover.words import CloseFence, Gained, Lost, OpenFence, Read, Seen
from tests.unit.cluster.takeover.takeover_kit import (
    ALL,
    MS,
    T0,
    TIMING,
    Aim,
    Kind,
    Outcome,
    SendBeat,
    answering,
    of,
    owner,
    promise,
    seen,
    sent,
)

Q = TIMING.count_ns


class EvidenceTests(SynchronousTestCase):
    def test_counts_from_the_sending(self) -> None:
        """R3, R5: the fence is open until the oldest promise, counted from when its beat was sent; nobody is left out."""
        machine = owner()
        self.assertEqual(of(SendBeat, machine.turn(T0))[0].beat.sent, T0)
        self.assertEqual(machine.ack("b", promise(), T0 + 3 * MS), [])
        self.assertEqual(machine.ack("c", promise(T0 - 50 * MS), T0 + 4 * MS), [OpenFence(T0 - 50 * MS + Q), Gained(5)])
        self.assertEqual(machine.ack("c", promise(), T0 + 5 * MS), [OpenFence(T0 + Q)])
        self.assertEqual(machine.ack("c", promise(T0 - 50 * MS), T0 + 6 * MS), [], "an older one takes nothing back")

    def test_not_its_own(self) -> None:
        """A promise to another term, to another process, or to a beat not sent yet, is none."""
        machine = owner(electors=frozenset("ab"))
        for each in (promise(term=4), promise(incarnation="a9"), promise(T0 + 1)):
            self.assertEqual(machine.ack("b", each, T0), [])
        self.assertFalse(machine.answers(T0))

    def test_no_store_while_all_is_well(self) -> None:
        """R4: beats in the store begin when an acknowledgement is late by A and two beats, and are `etcd_beat_ns` apart."""
        machine = answering()
        late = T0 + TIMING.late_ns + TIMING.beat_ns
        self.assertEqual(sent(machine.turn(late - 1)), [])
        (first,) = sent(machine.turn(late))
        self.assertEqual((first.aim, first.mod, first.until), (Aim.BEAT, 5, late + TIMING.etcd_count_ns))
        self.assertEqual(sent(machine.turn(late + TIMING.beat_ns)), [])
        self.assertEqual(len(sent(machine.turn(late + TIMING.etcd_beat_ns))), 1)
        opened = machine.answered(first, Outcome.DONE, 6, late + 90 * MS)
        self.assertEqual(opened, [OpenFence(late + TIMING.etcd_count_ns)])

    def test_link_lost(self) -> None:
        """R4: at once, if the link of one of whom evidence is needed is lost."""
        machine = answering()
        self.assertEqual([each.aim for each in sent(machine.link_lost("b", T0))], [Aim.BEAT])
        self.assertEqual(machine.link_lost("x", T0), [])

    def test_lost_answer(self) -> None:
        """R4: without an answer there is no evidence; after "else" it reads who owns."""
        machine = owner()
        (beaten,) = sent(machine.turn(T0))
        self.assertEqual(machine.answered(beaten, Outcome.UNKNOWN, 0, T0), [])
        self.assertEqual(machine.answered(beaten, Outcome.ELSE, 0, T0), [Read()])
        self.assertEqual(machine.limit(T0), 0)
        self.assertEqual(machine.answered(beaten._replace(term=4), Outcome.DONE, 0, T0), [])

    def test_evidence_ends(self) -> None:
        """It says so at the limit, and closes the fence, and answers again by the next promise."""
        machine = answering()
        self.assertEqual(machine.deadline(T0), T0 + Q)
        self.assertEqual(machine.look(T0 + Q - 1), [])
        ended = machine.look(T0 + Q)
        self.assertEqual([type(each) for each in ended], [CloseFence, Lost])
        for peer in "bc":
            again = machine.ack(peer, promise(T0 + Q), T0 + Q + 1)
        self.assertEqual(again, [OpenFence(T0 + Q + Q), Gained(5)])

    def test_sole_member(self) -> None:
        """It needs no evidence."""
        machine = owner(electors=frozenset("a"))
        self.assertIn(OpenFence(T0 + Q), machine.turn(T0))
        self.assertIn(OpenFence(T0 + Q + 1), machine.turn(T0 + 1))


class ElectorTests(SynchronousTestCase):
    def test_joins_from_the_sending_on(self) -> None:
        """R10: whoever wishes and promises is asked for evidence before the answer is there; the term stays."""
        machine = answering(electors=frozenset("ab"))
        machine.directory(ALL, frozenset("c"))
        self.assertEqual(sent(machine.turn(T0), Aim.CHANGE), [], "its promises do not flow")
        machine.ack("c", promise(), T0)
        (change,) = sent(machine.turn(T0), Aim.CHANGE)
        assert change.reign is not None
        self.assertEqual((change.reign.electors, change.reign.term, change.mod), (ALL, 5, 5))
        self.assertEqual(machine.required, ALL)
        self.assertEqual(sent(machine.turn(T0), Aim.CHANGE), [], "one at a time")
        machine.answered(change, Outcome.DONE, 9, T0)
        self.assertEqual((machine.mod, machine.required), (9, ALL))
        self.assertEqual(sent(machine.turn(T0), Aim.CHANGE), [])

    def test_unknown_outcome(self) -> None:
        """R10: it is still asked for evidence, and the change is made anew from what is read."""
        machine = answering(electors=frozenset("ab"))
        machine.directory(ALL, frozenset("c"))
        machine.ack("c", promise(), T0)
        (change,) = sent(machine.turn(T0), Aim.CHANGE)
        self.assertEqual(machine.answered(change, Outcome.UNKNOWN, 0, T0), [Read()])
        machine.seen(seen(electors=frozenset("ab")), T0)
        self.assertEqual(machine.required, ALL)
        self.assertEqual(sent(machine.turn(T0), Aim.CHANGE), [change])

    def test_leaves_after_the_answer(self) -> None:
        """R11: whoever is silent for `remove_ns`, and no member any more, is asked until the answer is there."""
        machine = answering()
        machine.directory(frozenset("ab"), frozenset())
        later = T0 + TIMING.remove_ns
        machine.ack("b", promise(later - 1), later - 1)
        machine.etcd_evidence = later + 100 * MS
        self.assertEqual(sent(machine.turn(later - 1), Aim.CHANGE), [])
        (change,) = sent(machine.turn(later), Aim.CHANGE)
        self.assertEqual((change.reign.electors, machine.required), (frozenset("ab"), ALL))
        machine.answered(change, Outcome.DONE, 9, later)
        self.assertEqual(machine.required, frozenset("ab"))

    def test_never_one_by_itself(self) -> None:
        """R11: two stay two, but by an operator's word."""
        machine = answering(electors=frozenset("ab"))
        machine.directory(frozenset("a"), frozenset())
        machine.etcd_evidence = T0 + 2 * TIMING.remove_ns
        later = T0 + TIMING.remove_ns
        self.assertEqual(sent(machine.turn(later), Aim.CHANGE), [])
        self.assertEqual(machine.remove("x", later), [])
        (change,) = sent(machine.remove("b", later))
        self.assertEqual(change.reign.electors, frozenset("a"))

    def test_only_one_that_answers(self) -> None:
        """R10, R11: no change before its waits are over, without evidence, or without its record's revision."""
        machine = owner()
        self.assertEqual(machine.remove("b", T0), [])
        machine = answering()
        machine.promised_until = T0 + 1
        self.assertEqual(machine.remove("b", T0), [])


class DeletionTests(SynchronousTestCase):
    def test_goes_on(self) -> None:
        """R12: by promises, without the store; a beat there would be none."""
        machine = answering()
        machine.seen(Seen(None, 0, 0), T0)
        self.assertTrue(machine.answers(T0))
        self.assertEqual(sent(machine.link_lost("b", T0)), [])

    def test_recreates_once(self) -> None:
        """R12: with everybody's promise; not again while the outcome is unknown."""
        machine = answering()
        machine.seen(Seen(None, 0, 0), T0)
        (made,) = sent(machine.turn(T0), Aim.RECREATE)
        self.assertEqual((made.mod, made.reign.electors, made.reign.kind), (0, ALL, Kind.RECREATED))
        self.assertEqual(machine.answered(made, Outcome.UNKNOWN, 0, T0), [Read()])
        self.assertEqual(sent(machine.turn(T0)), [])
        machine.answered(made, Outcome.ELSE, 0, T0)
        self.assertEqual(len(sent(machine.turn(T0), Aim.RECREATE)), 1, "that one failed for certain")

    def test_not_without_promises(self) -> None:
        """R12: evidence from the store does not count for it."""
        machine = owner()
        machine.etcd_evidence = T0 + 100 * MS
        machine.seen(Seen(None, 0, 0), T0)
        self.assertTrue(machine.answers(T0))
        self.assertEqual(sent(machine.turn(T0)), [])

    def test_holds(self) -> None:
        """R12: in the new term there is no evidence from the store for H, nor a change; told or read, it is the same."""
        for told in (True, False):
            machine = answering()
            machine.seen(Seen(None, 0, 0), T0)
            (made,) = sent(machine.turn(T0), Aim.RECREATE)
            if told:
                machine.answered(made, Outcome.DONE, 9, T0)
            else:
                machine.seen(seen(mod=9, kind=Kind.RECREATED), T0)
            self.assertEqual((machine.term, machine.mod, machine.owner), (9, 9, True))
            self.assertEqual(machine.remove("b", T0), [])
            self.assertEqual(sent(machine.link_lost("b", T0)), [])
            for peer in "bc":
                machine.ack(peer, promise(T0 + 300 * MS, term=9), T0 + 300 * MS)
            self.assertEqual(len(sent(machine.remove("b", T0 + TIMING.wait_ns))), 1)

    def test_answer_without_promises(self) -> None:
        """R12: it steps down when the answer finds a promise missing."""
        machine = answering()
        machine.seen(Seen(None, 0, 0), T0)
        (made,) = sent(machine.turn(T0), Aim.RECREATE)
        effects = machine.answered(made, Outcome.DONE, 9, T0 + Q)
        self.assertEqual(type(effects[0]), CloseFence)
        self.assertFalse(machine.owner)


class GivingOverTests(SynchronousTestCase):
    def test_hand_over(self) -> None:
        """R13: the fence is closed and the loss told before the store is; in this term it never owns again."""
        machine = answering()
        effects = machine.hand_over("b", "b7", T0)
        self.assertEqual([type(each) for each in effects[:2]], [CloseFence, Lost])
        (made,) = sent(effects)
        self.assertEqual((made.aim, made.mod, made.reign.owner, made.reign.incarnation, made.reign.kind),
                         (Aim.HAND_OVER, 5, "b", "b7", Kind.HAND_OVER))
        self.assertEqual(machine.answered(made, Outcome.UNKNOWN, 0, T0), [Read()])
        machine.seen(seen(), T0)
        machine.ack("b", promise(), T0)
        self.assertFalse(machine.owner)
        self.assertEqual(sent(machine.turn(T0 + TIMING.silence_ns - 1)), [])
        self.assertEqual([each.aim for each in sent(machine.turn(T0 + TIMING.silence_ns))], [Aim.CAMPAIGN])

    def test_only_to_who_may(self) -> None:
        """Neither to itself, nor to a stranger, nor by one that does not answer."""
        self.assertEqual(answering().hand_over("a", "a0", T0), [])
        self.assertEqual(answering().hand_over("x", "x0", T0), [])
        self.assertEqual(owner().hand_over("b", "b0", T0), [])

    def test_higher_term(self) -> None:
        """R15: another's record deposes at once; an older one says nothing."""
        machine = answering()
        self.assertEqual(machine.seen(seen("b", mod=4), T0), [])
        effects = machine.seen(seen("b", mod=6), T0)
        self.assertEqual([type(each) for each in effects], [CloseFence, Lost])
        self.assertEqual((machine.owner, machine.term), (False, 6))
        self.assertEqual(machine.observed_until, T0 + TIMING.wait_ns)
