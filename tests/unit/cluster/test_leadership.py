"""One director's leadership: its table, its deadlines, and every interruption of what takes several steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import Misuse
from cluster.leadership import (
    RETRY_S,
    TABLE,
    AskLease,
    Campaign,
    Effect,
    Gained,
    GiveUp,
    Input,
    Leadership,
    Lost,
    Resign,
    State,
    diagram,
)
from cluster.store import Compare, Put, Record

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "leadership.md"
KEY = "/txdirector/c/leader"
TTL_S = 2.0


def mine(revision: int, lease: int = 7) -> Record:
    return Record(KEY, b"me", revision, revision, lease)


def others(revision: int) -> Record:
    return Record(KEY, b"other", revision, revision, 99)


class LeadershipTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine = Leadership(KEY, b"me")

    def bring(self, state: State) -> Leadership:
        """A machine in *state*; its lease is 7, until 102; its term, if it leads or led, 11."""
        steps: dict[State, list[Callable[[Leadership], object]]] = {
            State.OFF: [],
            State.WAITING: [lambda m: m.start(100.0)],
            State.LEASING: [lambda m: m.seen(None, 10, 100.0)],
            State.CAMPAIGNING: [lambda m: m.granted(7, 102.0)],
            State.LEADING: [lambda m: m.committed(7, True, 11, 100.0)],
            State.RESIGNING: [lambda m: m.resign(110.0)],
        }
        machine = self.machine = Leadership(KEY, b"me")
        for reached, calls in steps.items():
            for call in calls:
                call(machine)
            if reached is state:
                break
        if state is State.STOPPING:
            machine = self.machine = self.bring(State.LEADING)
            machine.stop()
        self.assertIs(machine.state, state)
        return machine


class TableTests(LeadershipTestCase):
    def test_every_input_in_every_state(self) -> None:
        """Each call does what the table says; without a row orders raise, news is ignored, and nothing changes."""
        calls: dict[Input, Callable[[Leadership], list[Effect]]] = {
            Input.START: lambda m: m.start(100.5),
            Input.TAKEN: lambda m: m.seen(others(12), 12, 100.5),
            Input.ADOPTED: lambda m: m.adopt(7, 102.0, 11),
            Input.GRANTED: lambda m: m.granted(7, 102.0),
            Input.UNGRANTED: lambda m: m.ungranted(100.5),
            Input.WON: lambda m: m.committed(7, True, 11, 100.5),
            Input.BEATEN: lambda m: m.committed(7, False, 12, 100.5),
            Input.UNANSWERED: lambda m: m.unanswered(7, 100.5),
            Input.LAPSED: lambda m: m.lease_lost(7, 100.5),
            Input.RESIGN: lambda m: m.resign(110.0),
            Input.RESIGNED: lambda m: m.resigned(100.5),
            Input.STOP: lambda m: m.stop(),
        }
        for state in State:
            for given, call in calls.items():
                machine = self.bring(state)
                row = TABLE.get((state, given))
                if row is not None:
                    effects = call(machine)
                    self.assertEqual((machine.state, tuple(map(type, effects))), row, (state, given))
                    continue
                if given in (Input.START, Input.ADOPTED, Input.RESIGN, Input.RESIGNED, Input.STOP):
                    self.assertRaises(Misuse, call, machine)
                elif given is Input.GRANTED:
                    self.assertEqual(call(machine), [GiveUp(7)], "a lease that is not wanted goes back")
                else:
                    self.assertEqual(call(machine), [], (state, given))
                self.assertIs(machine.state, state)

    def test_effects(self) -> None:
        """From an absent key to a leader, and back by an order: each effect says all that is needed to carry it out."""
        machine = self.machine
        self.assertEqual(machine.start(100.0), [])
        self.assertEqual(machine.seen(None, 10, 100.0), [AskLease()])
        self.assertEqual(machine.granted(7, 102.0), [Campaign(Put(KEY, b"me", 7), Compare(KEY, 0))])
        self.assertEqual(machine.committed(7, True, 11, 100.1), [Gained(11)])
        self.assertEqual(machine.fence(), Compare(KEY, 11, created=True))
        self.assertEqual(machine.resign(110.0), [Lost(11, "ordered to resign"), Resign(11, 7)])
        self.assertRaises(Misuse, machine.fence)

    def test_adopted(self) -> None:
        """In the place of another process it leads at once, in the same term, until the lease's end or another's record."""
        machine = self.machine
        self.assertEqual(machine.adopt(7, 102.0, 11), [])
        self.assertEqual((machine.leads(101.9), machine.leads(102.0), machine.term), (True, False, 11))
        self.assertEqual(machine.fence(), Compare(KEY, 11, created=True))
        machine.extended(7, 104.0)
        self.assertEqual(machine.tick(103.9), [])
        self.assertEqual(machine.tick(104.0), [Lost(11, "the store did not answer in time", True), GiveUp(7)])

    def test_every_state_is_reached_and_left(self) -> None:
        """No state is a dead end, and the reference shows the transitions as they are."""
        self.assertEqual({after for after, _ in TABLE.values()}, set(State))
        self.assertEqual({before for before, _ in TABLE}, set(State))
        self.assertIn(f"```mermaid\n{diagram()}\n```", PAGE.read_text())


class DeadlineTests(LeadershipTestCase):
    def test_steps_down_at_the_deadline(self) -> None:
        """It leads up to the moment that the last answered renewal promised, even before anybody says that it came."""
        machine = self.bring(State.LEADING)
        machine.extended(7, 103.0)
        self.assertEqual(machine.deadline(), 103.0)
        self.assertEqual(machine.tick(102.9), [])
        self.assertTrue(machine.leads(102.999))
        self.assertFalse(machine.leads(103.0))
        self.assertEqual(machine.until(103.0), -math.inf)
        self.assertEqual(machine.tick(103.0), [Lost(11, "the store did not answer in time", lapsed=True), GiveUp(7)])

    def test_a_promise_is_never_shortened(self) -> None:
        """Answers that overtake each other count by the latest promise; those about another lease do not count."""
        machine = self.bring(State.LEADING)
        for lease, until in ((7, 105.0), (7, 104.0), (8, 200.0)):
            machine.extended(lease, until)
        self.assertEqual(machine.until(101.0), 105.0)

    def test_won_too_late(self) -> None:
        """A campaign whose outcome arrives after its lease lapsed does not lead, not for a moment."""
        machine = self.bring(State.CAMPAIGNING)
        self.assertEqual(machine.committed(7, True, 11, 102.0), [GiveUp(7)])
        self.assertEqual(machine.term, 0)

    def test_campaigns_again_after_a_while(self) -> None:
        """In vain it tries again after `RETRY_S`, not at once, and only while the key is absent."""
        for end in (lambda m: m.committed(7, False, 12, 101.0), lambda m: m.unanswered(7, 101.0),
                    lambda m: m.lease_lost(7, 101.0)):
            machine = self.bring(State.CAMPAIGNING)
            end(machine)
            self.assertEqual(machine.deadline(), 101.0 + RETRY_S)
            self.assertEqual(machine.tick(101.0), [])
            self.assertEqual(machine.tick(101.0 + RETRY_S), [AskLease()])
        machine.seen(others(12), 12, 101.5)
        self.assertEqual(machine.deadline(), math.inf)


class WatchTests(LeadershipTestCase):
    def test_watch_tells_of_the_victory_first(self) -> None:
        """A record with our lease is ours, whether the watch or the commit's answer comes first, and counts once."""
        machine = self.bring(State.CAMPAIGNING)
        self.assertEqual(machine.seen(mine(11), 11, 100.1), [Gained(11)])
        self.assertEqual(machine.committed(7, True, 11, 100.2), [])

    def test_old_news(self) -> None:
        """What happened before the term does not depose: another's record, and its deletion."""
        machine = self.bring(State.LEADING)
        self.assertEqual(machine.seen(others(9), 9, 100.1), [])
        self.assertEqual(machine.seen(None, 10, 100.1), [])
        self.assertEqual(machine.seen(mine(11), 11, 100.1), [])
        self.assertTrue(machine.leads(100.1))

    def test_deposed(self) -> None:
        """A deleted record deposes at once, and so does another's; the lease goes back."""
        for record, why in ((None, "the record was deleted"), (others(13), "another leads")):
            machine = self.bring(State.LEADING)
            self.assertEqual(machine.seen(record, 13, 100.5), [Lost(11, why), GiveUp(7)])

    def test_a_given_up_lease_never_leads(self) -> None:
        """The record of a campaign that was given up may still appear: it is another's, like any."""
        machine = self.bring(State.CAMPAIGNING)
        machine.unanswered(7, 100.5)
        self.assertEqual(machine.seen(mine(11), 11, 100.6), [])
        self.assertEqual(machine.tick(101.0), [], "the key is not absent")
        self.assertEqual(machine.seen(None, 12, 101.0), [AskLease()])


    def test_outcome_of_a_former_campaign(self) -> None:
        """A late answer about a lease that was given up says nothing about the campaign under way."""
        machine = self.bring(State.CAMPAIGNING)
        machine.unanswered(7, 100.5)
        machine.tick(101.0)
        machine.granted(8, 103.0)
        self.assertEqual(machine.committed(7, True, 11, 101.0), [])
        self.assertEqual(machine.unanswered(7, 101.0), [])
        self.assertEqual(machine.committed(8, True, 12, 101.0), [Gained(12)])


class HoldingBackTests(LeadershipTestCase):
    def test_after_an_order_another_gets_its_chance(self) -> None:
        """After resigning it does not campaign before the time given, and then it does."""
        machine = self.bring(State.RESIGNING)
        self.assertEqual(machine.seen(None, 12, 100.6), [])
        self.assertEqual(machine.resigned(100.6), [])
        self.assertEqual(machine.deadline(), 110.0)
        self.assertEqual(machine.tick(110.0), [AskLease()])

    def test_promise(self) -> None:
        """While a promise stands nobody campaigns; whoever leads or campaigns promises nothing."""
        machine = self.bring(State.WAITING)
        machine.promise(106.0)
        machine.promise(104.0)
        self.assertEqual(machine.seen(None, 12, 105.9), [])
        self.assertEqual(machine.tick(106.0), [AskLease()])
        for state in (State.LEASING, State.CAMPAIGNING, State.LEADING, State.RESIGNING):
            self.assertRaises(Misuse, self.bring(state).promise, 106.0)




#: What takes several steps, from a fresh machine on.
CAMPAIGN = (
    lambda m: m.start(100.0),
    lambda m: m.seen(None, 10, 100.0),
    lambda m: m.granted(7, 102.0),
    lambda m: m.committed(7, True, 11, 100.1),
    lambda m: m.seen(mine(11), 11, 100.1),
)
OPERATIONS = {
    "campaign": CAMPAIGN,
    "hand-over": (*CAMPAIGN, lambda m: m.resign(110.0), lambda m: m.seen(None, 12, 101.0), lambda m: m.resigned(101.0)),
    "stop": (*CAMPAIGN, lambda m: m.stop(), lambda m: m.resigned(101.0)),
    "loss": (*CAMPAIGN, lambda m: m.tick(102.0), lambda m: m.seen(None, 12, 103.0), lambda m: m.granted(8, 105.0)),
    "in vain": (*CAMPAIGN[:3], lambda m: m.committed(7, False, 12, 100.2), lambda m: m.seen(others(12), 12, 100.2)),
}


class InterruptionTests(LeadershipTestCase):
    def test_every_prefix(self) -> None:
        """Interrupted anywhere by silence of the store, an operation ends without leading, every gain followed by its
        loss, every lease given back; and once the key is absent again the director campaigns anew."""
        for name, steps in OPERATIONS.items():
            for length in range(len(steps) + 1):
                machine = Leadership(KEY, b"me")
                effects = [effect for step in steps[:length] for effect in step(machine)]
                effects += self.silence(machine)
                where = (name, length, effects)
                self.assertFalse(machine.leads(200.0), where)
                gains = [effect.term for effect in effects if isinstance(effect, Gained)]
                losses = [effect.term for effect in effects if isinstance(effect, Lost)]
                self.assertEqual(gains, losses, where)
                back = {effect.lease for effect in effects if isinstance(effect, GiveUp | Resign)}
                self.assertEqual({effect.put.lease for effect in effects if isinstance(effect, Campaign)}, back, where)
                if machine.state is State.WAITING:
                    again = machine.seen(None, 50, 200.0) or machine.tick(200.0)
                    self.assertEqual(again, [AskLease()], where)

    def test_stopped_anywhere(self) -> None:
        """A stop after any step ends in OFF, with the loss told before the record is deleted."""
        for name, steps in OPERATIONS.items():
            for length in range(1, len(steps) + 1):
                machine = Leadership(KEY, b"me")
                for step in steps[:length]:
                    step(machine)
                if machine.state in (State.OFF, State.STOPPING):
                    continue
                led = machine.state is State.LEADING
                effects = machine.stop()
                if led:
                    self.assertEqual([type(effect) for effect in effects], [Lost, Resign])
                if machine.state is State.STOPPING:
                    machine.resigned(101.5)
                self.assertIs(machine.state, State.OFF, (name, length))

    def silence(self, machine: Leadership) -> list[Effect]:
        """The store answers nothing any more, and every call to it fails in the end."""
        effects: list[Effect] = []
        if machine.state is State.LEASING:
            effects += machine.ungranted(150.0)
        if machine.state in (State.CAMPAIGNING, State.LEADING):
            effects += machine.tick(150.0)
        if machine.state in (State.RESIGNING, State.STOPPING):
            effects += machine.resigned(150.0)
        # A machine that still believes in an absent key asks again, in vain.
        for now in (160.0, 170.0):
            if machine.tick(now):
                effects += machine.ungranted(now)
        return effects
