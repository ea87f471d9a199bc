"""Changes are answered, in time and truly, whatever the store does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import OutcomeUnknown, StoreUnavailable
from cluster.memory import MemoryStore
from cluster.model import AdminState, Configuration, Host, HostRef, Order, Registered, Service
from cluster.store import Committed, Compare, Delete, Operation, Put, Record
from director.engine.errors import Refused
from director.engine.swapping import DEADLINE_S, Swap, Swapping
from director.operations.node import NodeOperations
from director.reports.attendance import Attendance
from tests.unit.engine.test_sync import KEYS, Running, service

APP = HostRef("web", "blue", "h0")
REGISTERED = HostRef("web", "blue", "r0")


class MoodyStore(MemoryStore):
    """A memory store whose answers go astray: *mood* says how, for each question."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock, wall=lambda: 0.0)
        self.reactor = clock
        self.mood: Callable[[], str] = lambda: "answers"

    def get(self, key: str) -> Deferred[Record | None]:
        match self.mood():
            case "answers":
                return super().get(key)
            case "is silent" | "does it silently":
                return Deferred()
            case "is slow":
                return self.later(lambda: super(MoodyStore, self).get(key))
            case _:
                return fail(StoreUnavailable("away"))

    def commit(self, operations: Sequence[Operation], *, when: Sequence[Compare] = ()) -> Deferred[Committed]:
        def do() -> Deferred[Committed]:
            return super(MoodyStore, self).commit(operations, when=when)

        match self.mood():
            case "answers":
                return do()
            case "is silent":
                return Deferred()
            case "does it silently":
                do()
                return Deferred()
            case "is slow":
                return self.later(do)
            case "does it and breaks":
                do()
                return fail(OutcomeUnknown("broken off"))
            case "breaks and does it later":
                self.reactor.callLater(1.0, do)
                return fail(OutcomeUnknown("broken off"))
            case "breaks":
                return fail(OutcomeUnknown("broken off"))
            case _:
                return fail(StoreUnavailable("away"))

    def later(self, ask: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.reactor.callLater(2.0, lambda: ask().chainDeferred(answer))
        return answer


MOODS = ("answers", "answers", "answers", "is silent", "does it silently", "is slow", "does it and breaks",
         "breaks and does it later", "breaks", "is away")


class Director(Running):
    """One that can be given orders."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        super().__init__(store, clock)
        self.settled: list[tuple[str, str]] = []
        self.swapping = Swapping(store, self.sync, reactor=clock, on_settled=lambda *told: self.settled.append(told))
        self.swapping.startService()
        nobody = cast(Any, None)
        self.operations = NodeOperations(
            self.node, store, self.sync, KEYS, nobody, boot=Configuration(), audit=nobody, users=nobody,
            swapping=self.swapping, certificates=nobody, reactor=clock,
        )
        self.attendance = Attendance(self.node, self.swapping, KEYS, self.node.metrics)

    def stop(self) -> None:
        self.swapping.stopService()
        super().stop()


class SwappingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.addCleanup(lambda: [each.stop() for each in self.directors])
        self.begin_anew()

    def begin_anew(self) -> None:
        for each in getattr(self, "directors", ()):
            each.stop()
        self.store = MoodyStore(self.clock)
        self.successResultOf(self.store.start())
        self.directors = [Director(self.store, self.clock) for _ in range(2)]
        self.put(KEYS.service("web"), service("10.0.0.1:80", "10.0.0.2:80"))
        self.pass_time()

    def put(self, key: str, value: bytes) -> None:
        self.successResultOf(MemoryStore.commit(self.store, [Put(key, value)]))

    def stored(self, key: str) -> bytes | None:
        record = self.successResultOf(MemoryStore.get(self.store, key))
        return None if record is None else record.value

    def pass_time(self, seconds: float = 0.0) -> None:
        self.clock.pump([0.0] * 8 + [0.05] * round(seconds / 0.05) + [0.0] * 8)


class EveryChangeAnswersTests(SwappingTestCase):
    def test_up_several_times(self) -> None:
        """Orders to use a drained host again, several at once at two directors: all are answered, also those that find
        nothing to delete while the store goes on with other things."""
        first, second = self.directors
        for _ in range(5):
            first.operations.order(APP, AdminState.DRAIN, who="ada", why="")
            self.pass_time()
            answers = [each.operations.order(APP, AdminState.UP, who="ada", why="") for each in (first, second) * 3]
            self.put(KEYS.audit(1), b"{}")
            self.pass_time()
            for answer in answers:
                self.successResultOf(answer)
            self.assertEqual(first.node.inventory.hosts[APP].orders, {})

    def test_others_first(self) -> None:
        """An order that another director has carried out meanwhile is answered once it is followed here."""
        first, second = self.directors
        first.operations.order(APP, AdminState.DRAIN, who="ada", why="")
        self.pass_time()
        self.successResultOf(MemoryStore.commit(self.store, [Delete(KEYS.admin(APP, "operator"))]))
        answer = second.operations.order(APP, AdminState.UP, who="ada", why="")
        self.assertNoResult(answer)
        self.pass_time()
        self.successResultOf(answer)
        self.assertEqual(second.node.inventory.hosts[APP].orders, {})

    def test_watch_stuck(self) -> None:
        """What was made is told as made though the watch does not bring it back."""
        for watch in self.directors[0].sync._watches:
            watch.stop()
        answer = self.directors[0].operations.order(APP, AdminState.DRAIN, who="ada", why="")
        self.pass_time()
        self.assertNoResult(answer)
        self.pass_time(DEADLINE_S)
        self.successResultOf(answer)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32))
    def test_in_time_and_truly(self, seed: int) -> None:
        """Orders of every kind at two directors while the store answers as it likes: each is answered within the deadline;
        what is told as made was, and what is told as not made was not."""
        chance = random.Random(seed)
        clock = Clock()
        clock.advance(100)
        store = MoodyStore(clock)
        self.successResultOf(store.start())
        directors = [Director(store, clock) for _ in range(2)]
        registered = Registered(host=Host(address="10.0.1.1:80"), agent="a", boot_id="b", at=1.0, approved=True)
        for key, value in ((KEYS.service("web"), service("10.0.0.1:80", "10.0.0.2:80")),
                           (KEYS.registered(REGISTERED), msgspec.json.encode(registered))):
            self.successResultOf(MemoryStore.commit(store, [Put(key, value)]))
        clock.pump([0.0] * 20)
        store.mood = lambda: chance.choice(MOODS)
        answers: list[tuple[float, list[tuple[float, object]], bytes]] = []
        for number in range(25):
            operations = chance.choice(directors).operations
            weight, mark = 100.0 + number, f"mark-{number}-"
            deferred, trace = chance.choice((
                lambda mark=mark, to=operations: (to.order(APP, AdminState.DRAIN, who="ada", why=mark), mark.encode()),
                lambda to=operations: (to.order(APP, AdminState.UP, who="ada", why=""), b""),
                lambda weight=weight, to=operations: (to.set_weight(APP, weight, who="ada"), b":%.1f" % weight),
                lambda weight=weight, to=operations: (to.set_weight(REGISTERED, weight, who="ada"), b":%.1f" % weight),
                lambda to=operations: (to.approve(REGISTERED, who="ada"), b""),
            ))()
            told: list[tuple[float, object]] = []
            cast("Deferred[Any]", deferred).addBoth(lambda result, told=told: told.append((clock.seconds(), result)))
            answers.append((clock.seconds(), told, trace))
            clock.pump([0.1] * chance.randrange(10))
        clock.pump([0.1] * round(DEADLINE_S * 10 + 2))
        past = b"".join(change.value or b"" for change in self.successResultOf(store.history(KEYS.root, limit=10_000)))
        for asked, told, trace in answers:
            [(at, result)] = told
            self.assertLessEqual(at - asked, DEADLINE_S + 0.2)
            error = result.value if isinstance(result, Failure) else None
            if error is None:
                self.assertIn(trace, past)
            elif not isinstance(error, OutcomeUnknown):
                self.assertIsInstance(error, (StoreUnavailable, Refused))
                self.assertTrue(not trace or trace not in past, (error, trace))
        for each in directors:
            each.stop()


class UnknownTests(SwappingTestCase):
    def moods(self, *moods: str) -> None:
        """One after the other; the last one stays."""
        left = list(moods)
        self.store.mood = lambda: left.pop(0) if len(left) > 1 else left[0]

    def order(self) -> Deferred[None]:
        return self.directors[0].operations.order(APP, AdminState.DRAIN, who="ada", why="")

    def test_found_out_in_time(self) -> None:
        """A commit of unknown outcome is looked up and told as what it was, and is made once."""
        for mood in ("does it and breaks", "breaks", "breaks and does it later"):
            self.moods("answers", mood, "answers")
            answer = self.order()
            self.pass_time(2)
            self.successResultOf(answer)
            past = self.successResultOf(self.store.history(KEYS.orders()))
            self.assertEqual(len(past), 1, mood)
            self.begin_anew()

    def test_told_and_looked_up(self) -> None:
        """Unknown at the deadline is told so, and looked up once the store is back."""
        for mood, outcome in (("does it and breaks", "it was made"), ("breaks", "it was not made")):
            settled = self.directors[0].settled
            self.moods("answers", mood, "is away")
            answer = self.order()
            self.pass_time(DEADLINE_S)
            self.failureResultOf(answer, OutcomeUnknown)
            self.pass_time(5)
            self.assertEqual(settled, [])
            self.moods("answers")
            self.pass_time(2)
            self.assertEqual(settled, [(KEYS.admin(APP, "operator"), outcome)])
            self.begin_anew()

    def test_not_done(self) -> None:
        """A store that was never asked has changed nothing, and that is what is told."""
        self.moods("answers", "is away")
        answer = self.order()
        self.pass_time()
        failure = self.failureResultOf(answer, StoreUnavailable)
        self.assertNotIsInstance(failure.value, OutcomeUnknown)

    def test_somebody_else_since(self) -> None:
        """Where another has changed the record since, nobody can tell."""
        self.moods("answers", "breaks", "answers")
        answer = self.order()
        self.put(KEYS.admin(APP, "operator"), msgspec.json.encode(Order(state=AdminState.DOWN, who="bob", at=1.0)))
        self.pass_time(1)
        self.failureResultOf(answer, OutcomeUnknown)


class RegistrationTests(SwappingTestCase):
    def say_hello(self, director: Director, *, weight: float = 1.0, boot: str = "b1", port: int = 80) -> str:
        said = director.attendance.registered(REGISTERED, "agent", boot, f"10.0.1.1:{port}", weight, peer="10.0.1.1",
                                              identity="", most=9)
        self.pass_time()
        return said

    def registered(self) -> Registered:
        value = self.stored(KEYS.registered(REGISTERED))
        assert value is not None
        return msgspec.json.decode(value, type=Registered)

    def test_operators_weight(self) -> None:
        """The weight that an operator set stays whatever the agent asks, at any director and with another boot; without
        one, the agent's counts."""
        first, second = self.directors
        self.say_hello(first)
        self.say_hello(first, weight=2.0)
        self.assertEqual(self.registered().host.weight, 2.0)
        answer = second.operations.set_weight(REGISTERED, 5.0, who="ada")
        self.pass_time()
        self.successResultOf(answer)
        for director, boot in ((first, "b1"), (second, "b2"), (first, "b3")):
            self.say_hello(director, weight=1.0, boot=boot)
            self.assertEqual((self.registered().host.weight, self.registered().boot_id), (5.0, boot))
            self.assertEqual(director.node.inventory.hosts[REGISTERED].spec.weight, 5.0)

    def test_approval_is_not_lost(self) -> None:
        """An approval at one director and a hello at another at the same time: both count."""
        spec = msgspec.json.decode(service("10.0.0.1:80").replace(b'"auto"', b'"approve"'), type=Service)
        self.put(KEYS.service("web"), msgspec.json.encode(spec))
        self.pass_time()
        first, second = self.directors
        self.say_hello(first)
        self.assertFalse(self.registered().approved)
        asked = iter(("answers", "is slow") * 2)  # both have read before either has written
        self.store.mood = lambda: next(asked, "answers")
        answer = first.operations.approve(REGISTERED, who="ada")
        second.attendance.registered(REGISTERED, "agent", "b2", "10.0.1.1:81", 1.0, peer="10.0.1.1",
                                     identity="", most=9)
        self.pass_time(3)
        self.successResultOf(answer)
        self.assertEqual((self.registered().approved, self.registered().boot_id), (True, "b2"))

    def test_store_away(self) -> None:
        """A registration while the store is away is made once it is back; of several, the last."""
        self.store.mood = lambda: "is away"
        self.say_hello(self.directors[0])
        self.say_hello(self.directors[0], port=81)
        self.pass_time(3)
        self.assertIsNone(self.stored(KEYS.registered(REGISTERED)))
        self.store.mood = lambda: "answers"
        self.pass_time(2)
        self.assertEqual(self.registered().host.address, "10.0.1.1:81")


class LeftBehindTests(SwappingTestCase):
    def test_order_of_meanwhile(self) -> None:
        """Deleting a service deletes the orders about its hosts as they are then, or is decided anew."""
        first, second = self.directors
        second.operations.order(APP, AdminState.DRAIN, who="ada", why="")
        answer = first.operations.change("web", lambda spec: None)
        self.pass_time()
        self.successResultOf(answer)
        self.assertIsNone(self.stored(KEYS.admin(APP, "operator")))
        self.assertIsNone(self.stored(KEYS.service("web")))


class TurnsTests(SwappingTestCase):
    def test_one_at_a_time(self) -> None:
        """Changes of one record wait for each other: none decides from what another is about to replace."""
        swapping = self.directors[0].swapping
        seen: list[bytes | None] = []

        async def decide(record: Record | None) -> Swap:
            seen.append(None if record is None else record.value)
            return Swap(Put(KEYS.user("ada"), b"%d" % len(seen)))

        answers = [swapping.change(KEYS.user("ada"), decide) for _ in range(20)]
        self.pass_time(1)
        for answer in answers:
            self.successResultOf(answer)
        self.assertEqual(seen, [None, *(b"%d" % number for number in range(1, 20))])
