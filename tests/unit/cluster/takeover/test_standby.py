"""Everybody but the owner: promises, suspicion, campaigns, winning."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cluster.takeover.machine import Takeover
from cluster.takeover.words import Ack, CloseFence, Gained, Lost, OpenFence, Read, Seen, SendAck
from tests.unit.cluster.takeover.takeover_kit import (
    ALL,
    MS,
    T0,
    TIMING,
    Aim,
    Beat,
    Kind,
    Outcome,
    SendBeat,
    answering,
    beat,
    of,
    promise,
    seen,
    sent,
    standby,
)


class PromiseTests(SynchronousTestCase):
    def test_promises(self) -> None:
        """R1: the own fence is closed before the promise goes out; it names the beat."""
        machine = standby()
        self.assertEqual(machine.beat("a", beat(), T0), [CloseFence(), SendAck("a", Ack(5, "a0", T0))])
        self.assertEqual((machine.promised_until, machine.suspect_from), (T0 + TIMING.promise_ns, T0 + TIMING.silence_ns))

    def test_reads_first(self) -> None:
        """R2: a process promises nothing before it has read the store; what its predecessor promised may count."""
        machine = Takeover("b", "b1", TIMING)
        self.assertEqual(machine.start(T0), [CloseFence(), Read()])
        self.assertEqual(machine.promised_until, T0 + TIMING.promise_ns)
        self.assertEqual(machine.beat("a", beat(), T0), [])
        machine.seen(Seen(None, 0, 0), T0)
        self.assertEqual(machine.beat("a", beat(), T0), [])
        machine.seen(seen(), T0)
        self.assertEqual(len(of(SendAck, machine.beat("a", beat(), T0))), 1)

    def test_terms(self) -> None:
        """R1: not to a lower one; a higher one is known from then on, and read about."""
        machine = standby()
        self.assertEqual(machine.beat("a", beat(4), T0), [])
        effects = machine.beat("c", beat(6), T0)
        self.assertEqual((len(of(SendAck, effects)), of(Read, effects), machine.term), (1, [Read()], 6))
        self.assertEqual(machine.beat("a", beat(5), T0), [])

    def test_an_owner(self) -> None:
        """R1: it steps down before it promises a higher term, and promises nobody in its own."""
        machine = answering()
        self.assertEqual(machine.beat("b", beat(5), T0), [])
        effects = machine.beat("b", beat(6), T0)
        self.assertEqual([type(each) for each in effects], [CloseFence, Lost, SendAck, Read])

    def test_other_constants(self) -> None:
        """I1, I2: an owner that would count on more than is promised, or waited for, gets no promise, and no rival."""
        machine = standby()
        self.assertEqual(machine.beat("a", Beat(5, "a0", T0, TIMING.promise_ns), T0), [])
        known = seen()
        machine.seen(known._replace(beat=6, reign=known.reign._replace(counts_ns=TIMING.wait_ns)), T0)
        self.assertEqual(sent(machine.turn(T0 + 9000 * MS)), [])


class CampaignTests(SynchronousTestCase):
    def test_silence(self) -> None:
        """R7, R8: after S without a beat, comparing what was seen last; one at a time."""
        machine = standby()
        self.assertEqual(machine.turn(T0 + TIMING.silence_ns - 1), [])
        (made,) = sent(machine.turn(T0 + TIMING.silence_ns))
        self.assertEqual((made.aim, made.mod, made.beat, made.reign.owner, made.reign.electors),
                         (Aim.CAMPAIGN, 5, 5, "b", ALL))
        self.assertEqual(machine.turn(T0 + TIMING.silence_ns + 1), [])

    def test_beat_in_the_store(self) -> None:
        """R7: one that was seen is a sign of life, and the first sight of it is waited for."""
        machine = standby()
        machine.seen(seen(beat=6), T0 + 200 * MS)
        self.assertEqual(machine.turn(T0 + TIMING.silence_ns), [])
        self.assertEqual(machine.observed_until, T0 + 200 * MS + TIMING.wait_ns)
        machine.seen(seen(beat=6), T0 + 250 * MS)
        self.assertEqual(machine.observed_until, T0 + 200 * MS + TIMING.wait_ns, "it is the first sight that counts")

    def test_lost_link(self) -> None:
        """R7: it is no sign of death; a refused connection, and a good-bye, are."""
        machine = standby()
        self.assertEqual(machine.link_lost("a", T0), [])
        self.assertEqual(sent(machine.left("c", T0)), [], "that one does not own")
        self.assertEqual([each.aim for each in sent(machine.left("a", T0))], [Aim.CAMPAIGN])

    def test_former_process(self) -> None:
        """R7: a restarted owner campaigns at once."""
        machine = standby("a", knows=seen(incarnation="a9"))
        self.assertEqual([each.aim for each in sent(machine.turn(T0))], [Aim.CAMPAIGN])

    def test_no_licence(self) -> None:
        """R8, R12: not a stranger, not without record or beat, not one that stops."""
        late = T0 + 9000 * MS
        self.assertEqual(sent(standby("x").turn(late)), [])
        for sight in (Seen(None, 0, 0), seen(beat=0)):
            machine = standby()
            machine.seen(sight, T0)
            self.assertEqual(machine.turn(late), [Read()])
        machine = standby()
        machine.stop()
        self.assertEqual(machine.turn(late), [])

    def test_no_answer(self) -> None:
        """R8: after `answer_ns` it reads, and campaigns by what it read."""
        machine = standby()
        begun = T0 + TIMING.silence_ns
        (made,) = sent(machine.turn(begun))
        self.assertEqual(machine.turn(begun + TIMING.answer_ns), [Read()])
        self.assertEqual([each.mod for each in sent(machine.turn(begun + TIMING.answer_ns))], [5])
        self.assertEqual(machine.answered(made, Outcome.ELSE, 0, begun), [Read()])
        self.assertEqual(machine.answered(made, Outcome.NOT_SENT, 0, begun), [])


class WinningTests(SynchronousTestCase):
    def won(self) -> Takeover:
        machine = standby()
        machine.beat("a", beat(), T0)
        self.begun = T0 + TIMING.silence_ns
        (made,) = sent(machine.turn(self.begun))
        effects = machine.answered(made, Outcome.DONE, 8, self.begun + 20 * MS)
        self.assertEqual([each.aim for each in sent(effects)], [Aim.BEAT], "the old owner is silent")
        self.assertEqual(of(SendBeat, effects)[0].beat.term, 8)
        self.assertEqual(of(OpenFence, effects), [])
        return machine

    def test_waits_its_own_promise_out(self) -> None:
        """R9: it answers P after its last promise, by the campaign's evidence, counted from the campaign's sending."""
        machine = self.won()
        over = T0 + TIMING.promise_ns
        self.assertEqual(machine.deadline(self.begun), over)
        self.assertEqual(machine.look(over - 1), [])
        self.assertEqual(machine.look(over), [OpenFence(self.begun + TIMING.etcd_count_ns), Gained(8)])

    def test_watch_tells_first(self) -> None:
        """R8: the record of the own campaign is a win; the first sight of what it compared counts on, and once."""
        machine = standby()
        machine.beat("a", beat(), T0)
        (made,) = sent(machine.turn(T0 + TIMING.silence_ns))
        machine.seen(seen("b", mod=8), T0 + 310 * MS)
        self.assertTrue(machine.owner)
        self.assertLess(machine.observed_until, T0)
        self.assertEqual(machine.limit(T0 + 310 * MS), 0, "which of its campaigns it was is not known")
        self.assertEqual(machine.answered(made, Outcome.DONE, 8, T0 + 320 * MS), [])

    def test_too_late(self) -> None:
        """R8: not once a higher term is known."""
        machine = standby()
        (made,) = sent(machine.turn(T0 + TIMING.silence_ns))
        machine.beat("c", beat(9), T0 + 310 * MS)
        self.assertEqual(machine.answered(made, Outcome.DONE, 8, T0 + 320 * MS), [])
        self.assertEqual(machine.seen(seen("b", mod=8), T0 + 320 * MS), [])
        self.assertFalse(machine.owner)

    def test_given(self) -> None:
        """R13: what is handed over is taken without waiting, by the first evidence; by this process only."""
        machine = standby()
        machine.beat("a", beat(), T0)
        self.assertEqual(of(SendBeat, machine.seen(seen("b", mod=8, kind=Kind.HAND_OVER, incarnation="b9"), T0)), [])
        effects = machine.seen(seen("b", mod=9, kind=Kind.HAND_OVER), T0 + 10 * MS)
        self.assertEqual(len(of(SendBeat, effects)), 1)
        for peer in "ac":
            effects = machine.ack(peer, promise(T0 + 10 * MS, term=9, incarnation="b0"), T0 + 11 * MS)
        self.assertEqual(effects, [OpenFence(T0 + 10 * MS + TIMING.count_ns), Gained(9)])
