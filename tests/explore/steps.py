"""Every step that may be taken in a state of a `World`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster.takeover.words import Aim, Commit, Outcome, SendAck, SendBeat, Transaction
from tests.explore.world import Director, Request, State, Step, World, outcome

_NOBODY: frozenset[str] = frozenset()


class Steps:
    """:param world: whose."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._n = len(world.names)
        self._everybody = frozenset(world.names)

    def after(self, state: State) -> Iterator[tuple[Step, State]]:
        """Each step, and the state after it."""
        world, n = self._world, self._n
        yield ("a tick",), tuple(map(world._older_of, state))
        etcd = world.book.values[state[0]]
        for i in range(n):
            director: Director = world.book.values[state[1 + i]]
            if director.late:
                yield ("refreshes late", i), self._put(state, 1 + i, director._replace(fence=director.late[0], late=()))
                if "overtaking" not in world.lapses:
                    yield from self._crashes(state, i, director, etcd)
                    continue
            yield from self._crashes(state, i, director, etcd)
            yield from self._reads(state, i, etcd)
            yield from self._turns(state, i)
            yield from self._promises(state, i)
            yield from self._orders(state, i, etcd)
            yield from self._requests(state, i)
        if etcd.reign is not None and etcd.deletions < world.bounds.deletions:
            gone = etcd._replace(reign=None, mod=0, beat=0, deletions=etcd.deletions + 1)
            yield ("the record is deleted",), self._put(state, 0, gone)

    # --- tools

    def _put(self, state: State, at: int, value: Any) -> State:
        return (*state[:at], self._world.book.number(value), *state[at + 1 :])

    def _call(self, state: State, i: int, call: str, *arguments: Any,
              clocks: bool = False) -> Iterator[tuple[State, tuple[Any, ...]]]:
        """Director *i* is called; with *clocks* by each that it may have; with a late fence it may stop before a refresh."""
        world = self._world
        number = state[1 + i]
        for clock in range(len(world._clocks) if clocks else 1):
            after, sent = world.does(i, number, call, *arguments, clock=clock)
            yield (*state[: 1 + i], after, *state[2 + i :]), sent
        if world.bounds.late_fence:
            stopped, sent_before = world.does(i, number, call, *arguments, late=True)
            if stopped != after and world.book.values[stopped].late:
                yield (*state[: 1 + i], stopped, *state[2 + i :]), sent_before

    def _sends(self, state: State, i: int, transaction: Transaction) -> State:
        """A request to the store is on the way. There is room for few: what was answered is forgotten first."""
        world, at = self._world, 1 + self._n + i
        flight = list(world.book.values[state[at]])
        if Request(transaction) in flight and transaction.aim is not Aim.RECREATE:
            return state  # the same once more: whichever arrives first, the other's comparison does not hold
        if len(flight) >= world.bounds.in_flight:
            answered = next((each for each in flight if each.revision), None)
            if answered is None:
                return state
            flight.remove(answered)
        return self._put(state, at, tuple(sorted([*flight, Request(transaction)], key=repr)))

    def _tell(self, state: State, i: int, transaction: Transaction, revision: int) -> Iterator[State]:
        for after, _ in self._call(state, i, "answered", transaction, Outcome.DONE, revision, 1):
            yield after

    def _request(self, state: State, i: int, transaction: Transaction, step: Step) -> Iterator[tuple[Step, State]]:
        """It is sent; without *requests* it is done at once or never, and beats are answered at once."""
        world = self._world
        if world.bounds.requests:
            yield (*step, "sends", transaction.aim.value), self._sends(state, i, transaction)
            return
        yield (*step, "in vain"), state
        done = world.commits(state, i, transaction)
        if transaction.aim is Aim.RECREATE or done is None:
            late = self._sends(state, i, transaction)
            if late != state and transaction.aim is Aim.RECREATE:
                yield (*step, "sends", transaction.aim.value), late
        if done is None:
            return
        after, revision = done
        if transaction.aim is Aim.BEAT:
            for told in self._tell(after, i, transaction, revision):
                yield (*step, "beats in etcd"), told
            return
        flight = (*world.book.values[after[1 + self._n + i]], Request(transaction, revision))
        if len(flight) > world.bounds.in_flight:
            return
        yield (*step, transaction.aim.value, "commits"), self._put(after, 1 + self._n + i, tuple(sorted(flight, key=repr)))

    # --- steps

    def _crashes(self, state: State, i: int, director: Director, etcd: Any) -> Iterator[tuple[Step, State]]:
        """Killed, and started again at once; staying down is taking no step. The kernel's fence stays, requests are on the way,
        and nobody waits for their answers."""
        world = self._world
        if etcd.crashes >= world.bounds.crashes:
            return
        flight = tuple(each._replace(orphan=True) for each in world.book.values[state[1 + self._n + i]] if not each.revision)
        dead = self._put(state, 0, etcd._replace(crashes=etcd.crashes + 1))
        dead = self._put(dead, 1 + self._n + i, flight)
        dead = self._put(dead, 1 + i, Director(None, director.incarnation + 1, director.fence))
        for after, _ in self._call(dead, i, "start", 1, clocks=True):
            yield ("is killed, and starts", i), after

    def _reads(self, state: State, i: int, etcd: Any) -> Iterator[tuple[Step, State]]:
        for after, sent in self._call(state, i, "seen", etcd.seen, 1, clocks=True):
            if after != state:
                yield ("reads", i), after
            for each in sent:
                if isinstance(each, Commit):
                    yield from self._request(after, i, each.transaction, ("reads", i))

    def _turns(self, state: State, i: int) -> Iterator[tuple[Step, State]]:
        """A turn's beats are `_promises`' business."""
        for after, sent in self._call(state, i, "turn", 1):
            if after != state:
                yield ("turns", i), after
            for each in sent:
                if isinstance(each, Commit):
                    yield from self._request(after, i, each.transaction, ("turns", i))

    def _promises(self, state: State, i: int) -> Iterator[tuple[Step, State]]:
        world, n = self._world, self._n
        if not world.bounds.wires:
            for turned, sent in self._call(state, i, "turn", 1):
                for each in sent:
                    if isinstance(each, SendBeat):
                        for j in range(n):
                            if j != i:
                                yield from self._promise_at_once(turned, i, j, each)
            return
        for j in range(n):
            if j == i:
                continue
            at = 1 + 2 * n + n * i + j
            for turned, sent in self._call(state, i, "turn", 1):
                for each in sent:
                    if isinstance(each, SendBeat):
                        yield ("sends a beat", i, j), self._put(turned, at, each)
            arriving = world.book.values[state[at]]
            if isinstance(arriving, SendBeat) and not world.book.values[state[1 + j]].late:
                back = 1 + 2 * n + n * j + i
                for after, sent in self._call(state, j, "beat", world.names[i], arriving.beat, 1, clocks=True):
                    for each in sent:
                        if isinstance(each, SendAck):
                            yield ("promises", j, i), self._put(self._put(after, at, ()), back, each)
            elif isinstance(arriving, SendAck) and not world.book.values[state[1 + j]].late:
                for after, _ in self._call(state, j, "ack", world.names[i], arriving.ack, 1):
                    yield ("hears the promise", j, i), self._put(after, at, ())

    def _promise_at_once(self, state: State, i: int, j: int, said: SendBeat) -> Iterator[tuple[Step, State]]:
        world = self._world
        if world.book.values[state[1 + j]].late or world.book.values[state[1 + i]].late:
            return
        for heard, sent in self._call(state, j, "beat", world.names[i], said.beat, 1, clocks=True):
            for each in sent:
                if isinstance(each, SendAck):
                    for after, _ in self._call(heard, i, "ack", world.names[j], each.ack, 1):
                        yield ("beats and is promised", i, j), after

    def _orders(self, state: State, i: int, etcd: Any) -> Iterator[tuple[Step, State]]:
        world = self._world
        if etcd.reign is None:
            return
        for j, other in enumerate(world.names):
            if j == i:
                continue
            if world.bounds.hand_overs:
                incarnation = f"{other}{world.book.values[state[1 + j]].incarnation}"
                for after, sent in self._call(state, i, "hand_over", other, incarnation, 1):
                    for each in sent:
                        if isinstance(each, Commit):
                            yield from self._request(after, i, each.transaction, ("hands over", i, j))
            if etcd.changes >= world.bounds.changes:
                continue
            for after, sent in self._call(state, i, "remove", other, 1):
                for each in sent:
                    if isinstance(each, Commit):
                        yield from self._request(after, i, each.transaction, ("removes", i, j))
            if other not in etcd.reign.electors:
                yield from self._adds(state, i, other)

    def _adds(self, state: State, i: int, other: str) -> Iterator[tuple[Step, State]]:
        for told, _ in self._call(state, i, "directory", self._everybody, frozenset((other,))):
            for turned, sent in self._call(told, i, "turn", 1):
                for after, _ in self._call(turned, i, "directory", _NOBODY, _NOBODY):
                    for each in sent:
                        if isinstance(each, Commit) and each.transaction.aim is Aim.CHANGE:
                            yield from self._request(after, i, each.transaction, ("adds", i, other))

    def _requests(self, state: State, i: int) -> Iterator[tuple[Step, State]]:
        """What is on the way to the store arrives; what was done there is told."""
        world, at = self._world, 1 + self._n + i
        flight = world.book.values[state[at]]
        for k, each in enumerate(flight):
            rest = (*flight[:k], *flight[k + 1 :])
            if each.revision:
                if not each.orphan:
                    told = self._put(state, at, rest)
                    for after, _ in self._call(told, i, "answered", each.transaction, outcome(each), each.revision, 1):
                        yield ("hears that it is done", i, each.transaction.aim.value), after
                continue
            done = world.commits(state, i, each.transaction)
            if done is not None:
                after, revision = done
                kept = rest if each.orphan else (*rest, each._replace(revision=revision))
                kept = tuple(sorted(kept, key=repr))
                yield (each.transaction.aim.value, "commits", i), self._put(after, at, kept)
            elif each.transaction.aim in (Aim.RECREATE, Aim.CHANGE) and not each.orphan:
                told = self._put(state, at, rest)
                for after, _ in self._call(told, i, "answered", each.transaction, outcome(each), 0, 1):
                    yield ("hears that it is not done", i, each.transaction.aim.value), after

