"""Directors and a store that answers late, never, or after it was given up: two never lead at once.

A simulation in random time. What is assumed is what leases promise: the store lets a lease go no earlier than its time to
live after it *received* a renewal, and all clocks run at one speed. Requests and answers are delayed and lost; a
request that was given up may still be carried out; directors freeze and wake; the store goes away and comes back.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cluster.leadership import AskLease, Campaign, Effect, Gained, GiveUp, Leadership, Lost, Resign, State
from cluster.store import Record

KEY = "/txdirector/c/leader"
TTL_S = 2.0
RENEW_S = 0.5
PATIENCE_S = 1.0  #: of a director, for an answer
LENGTH_S = 60.0


class World:
    """Time, the store, and who leads."""

    def __init__(self, random: Random, directors: int) -> None:
        self.random = random
        self.now = 0.0
        self.revision = 1
        self.record: Record | None = None
        self.terms: list[int] = []
        self.leases: dict[int, float] = {}
        self.away_until = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._lease_numbers = count(1)
        self.directors = [Director(self, f"d{n}") for n in range(directors)]

    def at(self, time: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (time, next(self._order), do))

    def delay(self) -> float:
        """Of a message: mostly short, sometimes longer than a lease lives."""
        return self.random.choice((0.001, 0.001, 0.01, 0.2, 0.9, 2.5)) * self.random.uniform(0.5, 1.0)

    def run(self) -> None:
        for director in self.directors:
            director.begin()
        self.at(self.random.uniform(0, 10), self.mishap)
        while self._agenda and self._agenda[0][0] < LENGTH_S:
            self.now, _, do = heapq.heappop(self._agenda)
            for lease in [lease for lease, until in self.leases.items() if until <= self.now]:
                self.end(lease)
            do()
            self.check()

    def check(self) -> None:
        """Whoever leads has written the record, so that its fence holds; so nobody else leads, and nobody else's does."""
        for director in self.directors:
            if director.machine.leads(self.now):
                assert self.record is not None, f"{director.name} leads without a record"
                assert self.record.value == director.name.encode(), f"{director.name} leads beside {self.record.value!r}"
                assert self.record.create_revision == director.machine.fence().mod_revision
            assert (director.machine.state is State.LEADING) is (director.leading is not None)

    def mishap(self) -> None:
        director = self.random.choice(self.directors)
        match self.random.randrange(4):
            case 0:
                self.away_until = self.now + self.random.uniform(0, 6)
            case 1:
                director.frozen_until = self.now + self.random.uniform(0, 6)
            case 2 if director.machine.state not in (State.OFF, State.STOPPING):
                director.follow(director.machine.resign(self.now + self.random.uniform(0, 3)))
            case 3 if director.machine.state is State.OFF:
                director.follow(director.machine.start(self.now))
            case 3 if director.machine.state is not State.STOPPING:
                director.follow(director.machine.stop())
        self.at(self.now + self.random.uniform(0, 5), self.mishap)

    # --- the store

    def lease(self) -> int:
        lease = next(self._lease_numbers)
        self.leases[lease] = self.now + TTL_S
        return lease

    def renew(self, lease: int) -> bool:
        if lease in self.leases:
            self.leases[lease] = self.now + TTL_S
        return lease in self.leases

    def create(self, value: bytes, lease: int) -> tuple[bool, int]:
        if lease not in self.leases:
            raise LookupError
        if self.record is not None:
            return False, self.revision
        self.write(lambda revision: Record(KEY, value, revision, revision, lease))
        return True, self.revision

    def end(self, lease: int) -> None:
        if self.leases.pop(lease, None) is not None and self.record is not None and self.record.lease == lease:
            self.write(lambda revision: None)

    def delete(self, term: int) -> None:
        if self.record is not None and self.record.create_revision == term:
            self.write(lambda revision: None)

    def write(self, make: Callable[[int], Record | None]) -> None:
        self.revision += 1
        self.record = make(self.revision)
        for director in self.directors:
            director.watched(self.record, self.revision)


class Director:
    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.world = world
        self.machine = Leadership(KEY, name.encode())
        self.leading: int | None = None
        self.frozen_until = 0.0
        self.lease = 0
        self._heard_at = 0.0

    def begin(self) -> None:
        self.follow(self.machine.start(self.world.now))
        self.watched(self.world.record, self.world.revision)
        self.tick()

    def tick(self) -> None:
        """Looks at its clock every now and then, renews its lease, says when it is overdue."""
        self.follow(self.machine.tick(self.world.now))
        sent, lease = self.world.now, self.lease
        if lease:
            self.ask(lambda: self.world.renew(lease), lambda alive: self.renewed(lease, sent, bool(alive)), lambda: None)
        self.world.at(self.world.now + self.world.random.uniform(0, RENEW_S), self.awake(self.tick))

    def renewed(self, lease: int, sent: float, alive: bool) -> None:
        if alive:
            self.machine.extended(lease, sent + TTL_S)
        else:
            self.follow(self.machine.lease_lost(lease, self.world.now))

    def awake(self, do: Callable[[], None]) -> Callable[[], None]:
        """Do it now, or when the director wakes."""
        def maybe() -> None:
            if self.frozen_until > self.world.now:
                self.world.at(self.frozen_until, maybe)
            else:
                do()
        return maybe

    def watched(self, record: Record | None, revision: int) -> None:
        """Events arrive late, in order."""
        self._heard_at = max(self._heard_at, self.world.now + self.world.delay())
        self.world.at(self._heard_at, self.awake(
            lambda: self.follow(self.machine.seen(record, revision, self.world.now))))

    def ask(self, work: Callable[[], object], answered: Callable[[object], None], failed: Callable[[], None]) -> None:
        """Have the store do *work*; exactly one of the others is called, unless the director waits no longer."""
        world, over = self.world, [False]

        def once(do: Callable[[], None]) -> Callable[[], None]:
            def maybe() -> None:
                if not over[0]:
                    over[0] = True
                    do()
            return self.awake(maybe)

        def arrive() -> None:
            if world.away_until > world.now:
                return
            try:
                result = work()
            except LookupError:
                world.at(world.now + world.delay(), once(failed))
                return
            if world.random.random() > 0.1:
                world.at(world.now + world.delay(), once(lambda: answered(result)))

        world.at(world.now + PATIENCE_S, once(failed))
        if world.random.random() > 0.1:
            world.at(world.now + world.delay(), arrive)

    def follow(self, effects: list[Effect]) -> None:
        world, machine = self.world, self.machine
        sent = world.now
        for effect in effects:
            match effect:
                case AskLease():
                    self.ask(world.lease, lambda lease: self.granted(lease, sent),  # type: ignore[arg-type]
                             lambda: self.follow(machine.ungranted(world.now)))
                case Campaign(put):
                    self.campaign(put.value, self.lease)
                case Gained(term):
                    assert all(term > before for before in world.terms), "terms grow"
                    assert self.leading is None
                    self.leading = term
                    world.terms.append(term)
                case Lost(term):
                    assert self.leading == term
                    self.leading = None
                case GiveUp(lease):
                    self.give_up(lease)
                case Resign(term, lease):
                    self.lease = 0

                    def done(_: object = None) -> None:
                        self.follow(machine.resigned(world.now))

                    self.ask(lambda term=term, lease=lease: (world.delete(term), world.end(lease)),  # type: ignore[misc]
                             done, done)

    def give_up(self, lease: int) -> None:
        if lease == self.lease:
            self.lease = 0
        self.ask(lambda: self.world.end(lease), lambda _: None, lambda: None)

    def granted(self, lease: int, sent: float) -> None:
        if self.machine.state is State.LEASING:
            self.lease = lease
        self.follow(self.machine.granted(lease, sent + TTL_S))

    def campaign(self, value: bytes, lease: int) -> None:
        machine, world = self.machine, self.world
        self.ask(
            lambda: world.create(value, lease),
            lambda outcome: self.follow(machine.committed(lease, *outcome, world.now)),  # type: ignore[misc]
            lambda: self.follow(machine.unanswered(lease, world.now)),
        )


class LeadersTests(SynchronousTestCase):
    @settings(max_examples=150)
    @given(seed=st.integers(0, 2**32), directors=st.integers(2, 3))
    def test_never_two(self, seed: int, directors: int) -> None:
        """Whatever is late or lost: at most one leads, its fence holds while it does, terms grow, every gain is told and
        every loss."""
        World(Random(seed), directors).run()

    def test_somebody_leads(self) -> None:
        """The simulation gets somewhere: in every run somebody leads, mostly several in turn."""
        terms = []
        for seed in range(20):
            world = World(Random(seed), 2)
            world.run()
            terms.append(len(world.terms))
        self.assertTrue(all(terms))
        self.assertGreater(sum(terms) / len(terms), 3)
