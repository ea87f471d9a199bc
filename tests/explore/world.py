"""Directors, a store, the wires between them and a kernel's fence each: every state that a few faults lead to.

The machine explored is the one that ships (`cluster.takeover.Takeover`), or one with a rule taken out of it. No step but the
clock's is ever forced, so that a freeze, a delay, a loss, a cut, a slow or a dead store are all "the step is not taken, or not
yet". What a machine does with an input depends on nothing else, so that each is run once and looked up from then on: that is
why a million states take a minute.

A state is a tuple of small numbers, each the name of a value in a `Book`: the store, then each director, then what each has
sent to the store, then (with *wires*) what is on the way between every two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from cluster.takeover.machine import Takeover
from cluster.takeover.state import PAST
from cluster.takeover.words import (
    Aim,
    CloseFence,
    Commit,
    Kind,
    OpenFence,
    Outcome,
    Reign,
    Seen,
    SendAck,
    SendBeat,
    Transaction,
)
from tests.explore.ticks import NOW, Ticks, aged, frozen, nearer, thawed

State = tuple[int, ...]
Step = tuple[Any, ...]


class Bounds(NamedTuple):
    """How much may happen."""

    terms: int = 3
    crashes: int = 0
    deletions: int = 0
    changes: int = 0
    hand_overs: bool = False
    wires: bool = False  #: beats and promises are on the way for a while; else they arrive at once or never
    requests: bool = False  #: so are requests to the store
    late_fence: bool = False  #: a director may stop between a refresh's decision and its execution
    drift: bool = True  #: clocks: each wait is over a tick early, or is not
    in_flight: int = 2  #: of one director's requests


class Etcd(NamedTuple):
    reign: Reign | None
    mod: int
    beat: int
    last: int  #: the highest revision that wrote a record
    crashes: int = 0
    deletions: int = 0
    changes: int = 0

    @property
    def seen(self) -> Seen:
        return Seen(self.reign, self.mod, self.beat)


class Director(NamedTuple):
    memory: Any
    incarnation: int
    fence: int = PAST  #: the kernel's
    late: tuple[int, ...] = ()  #: a refresh that was decided, and not executed


class Request(NamedTuple):
    transaction: Transaction
    revision: int = 0  #: of what was done; 0: it is on the way to the store
    orphan: bool = False  #: nobody waits for the answer


class Book:
    """Names values by small numbers."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        known = self._numbers.setdefault(value, len(self.values))
        if known == len(self.values):
            self.values.append(value)
        return known


class World:
    """:param rules: makes a director's machine; the one that ships, or one that lacks a rule.
    :param lapses: what the world around it gets wrong: ``relative`` (the fence is told how long, not until when),
        ``overtaking`` (a late refresh is executed after a closing), ``owner only`` (a beat in the store compares who owns).
    """

    def __init__(self, members: int, bounds: Bounds, *, rules: type[Takeover] = Takeover, electors: int | None = None,
                 ticks: Ticks | None = None, lapses: frozenset[str] = frozenset()) -> None:
        self.names = tuple("abcde"[:members])
        self.bounds = bounds
        self.lapses = lapses
        self._rules = rules
        ticks = Ticks() if ticks is None else ticks
        fast = Ticks(promise_ns=ticks.promise_ns - 1, wait_ns=ticks.wait_ns - 1, count_ns=ticks.count_ns,
                     etcd_count_ns=ticks.etcd_count_ns)
        self._clocks = (ticks, fast) if bounds.drift else (ticks,)
        self._count = max(ticks.count_ns, ticks.etcd_count_ns)
        self._electors = frozenset(self.names[:electors or members])
        self.book = Book()
        self._did: dict[Any, tuple[int, tuple[Any, ...]]] = {}
        self._older: dict[int, int] = {}
        self._labels: dict[int, tuple[Any, ...]] = {}
        self._nothing = self.book.number(())

    # --- one director

    def first(self) -> State:
        """The first record names the first director, which answers."""
        reign = Reign(self.names[0], "a0", self._electors, Kind.FIRST, 0, 1)
        etcd = Etcd(reign, 1, 1, 1)
        directors = []
        for name in self.names:
            machine = self._rules(name, f"{name}0", self._clocks[0])
            machine.term = 1
            if name == "a":
                machine.own(reign, 1, 1, PAST)
                machine.know = Seen(reign, 1, 0)
            else:
                machine.know = etcd.seen
            directors.append(self.book.number(Director(frozen(self._memory(machine)), 0)))
        empty = [self._nothing] * len(self.names)
        wires = [self._nothing] * (len(self.names) ** 2 if self.bounds.wires else 0)
        return (self.book.number(etcd), *directors, *empty, *wires)

    def _memory(self, machine: Takeover) -> dict[str, Any]:
        memory = dict(vars(machine))
        for fixed in ("me", "incarnation", "timing"):
            del memory[fixed]
        return memory

    def does(self, which: int, number: int, call: str, *arguments: Any, clock: int = 0,
             late: bool = False) -> tuple[int, tuple[Any, ...]]:
        """Director *which*, in the state *number*, is called: its state then, and what it sends."""
        key = (which, number, call, arguments, clock, late)
        did = self._did.get(key)
        if did is None:
            did = self._did[key] = self._do(which, self.book.values[number], call, arguments, clock, late)
        return did

    def _do(self, which: int, director: Director, call: str, arguments: Any, clock: int,
            late: bool) -> tuple[int, tuple[Any, ...]]:
        name = self.names[which]
        machine = self._rules(name, f"{name}{director.incarnation}", self._clocks[clock])
        if director.memory is not None:
            vars(machine).update(thawed(director.memory))
        effects = getattr(machine, call)(*arguments) or []
        fence, waits, sent = director.fence, director.late, []
        for effect in effects:
            if isinstance(effect, OpenFence):
                if late:  # it is stopped here: nothing after this is done
                    waits = (effect.until,)
                    break
                fence = effect.until
            elif isinstance(effect, CloseFence):
                fence = PAST
            elif isinstance(effect, Commit | SendAck | SendBeat):
                sent.append(effect)
        after = Director(frozen(self._memory(machine)), director.incarnation, nearer(fence, 0), waits)
        return self.book.number(after), tuple(sent)

    # --- time

    def _older_of(self, number: int) -> int:
        known = self._older.get(number)
        if known is None:
            known = self._older[number] = self.book.number(self._aged(self.book.values[number]))
        return known

    def _aged(self, value: Any) -> Any:
        if isinstance(value, Director):
            memory = None if value.memory is None else frozen(thawed(value.memory), 1)
            late = value.late if "relative" in self.lapses else tuple(nearer(each, 1) for each in value.late)
            return Director(memory, value.incarnation, nearer(value.fence, 1), late)
        if isinstance(value, tuple) and value and isinstance(value[0], Request):
            return tuple(each._replace(transaction=aged(each.transaction, 1)) for each in value)
        if isinstance(value, SendBeat):
            return SendBeat(value.beat._replace(sent=max(value.beat.sent - 1, NOW - self._count)))
        if isinstance(value, SendAck):
            return value._replace(ack=value.ack._replace(sent=max(value.ack.sent - 1, NOW - self._count)))
        return value

    # --- the store

    def commits(self, state: State, which: int, transaction: Transaction) -> tuple[State, int] | None:
        """The state after *transaction*, and its revision; None: a comparison does not hold, or it is beyond the bounds."""
        etcd: Etcd = self.book.values[state[0]]
        owner_only = transaction.aim is Aim.BEAT and "owner only" in self.lapses
        if owner_only:
            if etcd.reign is None or etcd.reign.owner != self.names[which]:
                return None
        elif transaction.mod != etcd.mod or transaction.beat not in (None, etcd.beat):
            return None
        if transaction.reign is None:
            after = etcd._replace(beat=self._unused(state, etcd))
            return (self.book.number(after), *state[1:]), after.mod
        revision = etcd.last + 1
        if transaction.reign.term == 0 and revision > self.bounds.terms + etcd.changes:
            return None
        changes = etcd.changes + (transaction.aim is Aim.CHANGE)
        if changes > self.bounds.changes:
            return None
        reign = transaction.reign._replace(term=transaction.reign.term or revision, counts_ns=0)
        after = etcd._replace(reign=reign, mod=revision, beat=1, last=revision, changes=changes)
        return (self.book.number(after), *state[1:]), revision

    def _unused(self, state: State, etcd: Etcd) -> int:
        """A revision of the beat that nobody remembers: all that is ever asked of one is whether it is the same."""
        used = {etcd.beat}
        for number in state[1 : 1 + 2 * len(self.names)]:
            known = self._labels.get(number)
            if known is None:
                known = self._labels[number] = tuple(self._remembered(self.book.values[number]))
            used.update(beat for mod, beat in known if mod == etcd.mod)
        return next(label for label in range(1, len(used) + 2) if label not in used)

    def _remembered(self, value: Any) -> Iterator[tuple[int, int]]:
        if isinstance(value, Director) and value.memory is not None:
            memory = dict(value.memory)
            if memory["know"] is not None:
                yield memory["know"].mod, memory["know"].beat
            if memory["campaign"] is not None:
                yield memory["campaign"].mod, memory["campaign"].beat or 0
        elif isinstance(value, tuple) and not isinstance(value, Director):
            for each in value:
                if isinstance(each, Request) and each.transaction.beat is not None:
                    yield each.transaction.mod, each.transaction.beat

    # --- what is wrong

    def owners(self, state: State) -> int:
        """How many answer for one address."""
        return sum(self.book.values[number].fence != PAST for number in state[1 : 1 + len(self.names)])

    def who(self, state: State) -> int:
        """The first of them; there is one."""
        return next(i for i, number in enumerate(state[1 : 1 + len(self.names)]) if self.book.values[number].fence != PAST)


def outcome(request: Request) -> Outcome:
    return Outcome.DONE if request.revision else Outcome.ELSE

