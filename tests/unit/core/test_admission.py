"""Who comes in, who waits and who is refused; and that every count returns to zero."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import Misuse
from cluster.model import Limits, Reason
from director.core.admission import Admission
from director.core.pool import Ticket
from tests.unit.core.core_pools import address, has_place, pool_of, ref, split_of

DONE = Reason.CLIENT_CLOSED
FAILED = Reason.CONNECT_FAILED


class ArriveTests(SynchronousTestCase):
    def test_refusals(self) -> None:
        """Each refusal has its own reason; without a queue it comes at once."""
        self.assertIs(Admission(None, Limits(queue=5)).arrive(None, 1, 0.0), Reason.NO_HOST)
        pool = pool_of("leastconns", [1])
        gate = Admission(pool, Limits(max_connections=2))
        self.assertIsInstance(gate.arrive(None, 1, 0.0), Ticket)
        pool.set_maximum(pool.hosts["h0"], 1)
        self.assertIs(gate.arrive(None, 2, 0.0), Reason.HOSTS_FULL)
        pool.set_maximum(pool.hosts["h0"], 0)
        self.assertIsInstance(gate.arrive(None, 3, 0.0), Ticket)
        self.assertIs(gate.arrive(None, 4, 0.0), Reason.SERVICE_FULL)
        gate.set_limits(Limits(max_connections=2, queue=1))
        self.assertIsNone(gate.arrive(None, 5, 0.0))
        self.assertIs(gate.arrive(None, 6, 0.0), Reason.QUEUE_FULL)
        pool.set_available(pool.hosts["h0"], False, True)
        self.assertIs(gate.arrive(None, 7, 0.0), Reason.NO_HOST)
        self.assertEqual((gate.connections, gate.queued), (2, 1))

    def test_no_queueing_for_a_repair(self) -> None:
        """Without any host in rotation clients are refused at once, however long the queue may be."""
        for weights in ([], [0]):
            gate = Admission(pool_of("leastconns", weights), Limits(queue=10))
            self.assertIs(gate.arrive(None, 1, 0.0), Reason.NO_HOST)

    def test_client_reaches_the_scheduler(self) -> None:
        """The client's address decides under consistent hashing, from the queue and at a redispatch too."""
        pool = pool_of("maglev", [1] * 5)
        gate = Admission(pool, Limits(max_connections=1, queue=5))
        first = gate.arrive(address(1), "first", 0.0)
        self.assertIsNone(gate.arrive(address(2), "second", 0.0))
        [(_waiter, second)] = gate.leave(first, DONE, 1.0)
        expected = pool.explain(address(2), 1.0).chosen
        self.assertIs(second.host, expected)
        third = gate.redispatch(second, address(2), FAILED, 2.0, (expected,))
        pool.set_available(expected, False, False)
        self.assertIs(third.host, pool.explain(address(2), 2.0).chosen)


class QueueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pool = pool_of("leastconns", [1])
        self.host = self.pool.hosts["h0"]
        self.pool.set_maximum(self.host, 1)
        self.gate = Admission(self.pool, Limits(queue=3, queue_timeout_s=5))
        self.inside = self.gate.arrive(None, "first", 0.0)

    def wait(self, *waiters: str, now: float = 0.0) -> None:
        for waiter in waiters:
            self.assertIsNone(self.gate.arrive(None, waiter, now))

    def test_first_come(self) -> None:
        """Who came first goes in first, one for each that leaves."""
        self.wait("a", "b", "c")
        order = []
        while served := self.gate.leave(self.inside, DONE, 1.0):
            [(waiter, self.inside)] = served
            order.append(waiter)
        self.assertEqual((order, self.gate.connections, self.gate.queued), (["a", "b", "c"], 0, 0))

    def test_nobody_overtakes(self) -> None:
        """While somebody waits a newcomer waits too, even if capacity has just grown."""
        self.wait("a")
        self.pool.set_maximum(self.host, 2)
        self.wait("b")
        self.assertEqual([waiter for waiter, _ in self.gate.serve(1.0)], ["a"])

    def test_timeouts(self) -> None:
        """Waiting ends on the dot, in order; an abandoned place is free again."""
        self.wait("a", now=1.0)
        self.wait("b", now=2.0)
        self.wait("c", now=2.0)
        self.assertEqual(self.gate.next_expiry(), 6.0)
        self.assertEqual(self.gate.expire(5.99), [])
        self.assertEqual(self.gate.expire(6.0), ["a"])
        self.assertEqual((self.gate.abandon("b"), self.gate.abandon("b")), (True, False))
        self.assertEqual(self.gate.next_expiry(), 7.0)
        self.assertEqual(self.gate.expire(100.0), ["c"])
        self.assertIsNone(self.gate.next_expiry())

    def test_timeout_changed(self) -> None:
        """Another timeout counts for those who wait already."""
        self.wait("a", now=1.0)
        self.gate.set_limits(Limits(queue=3, queue_timeout_s=1))
        self.assertEqual((self.gate.next_expiry(), self.gate.expire(2.0)), (2.0, ["a"]))

    def test_waits_once(self) -> None:
        """The same waiter cannot stand in line twice."""
        self.wait("a")
        with self.assertRaises(Misuse):
            self.gate.arrive(None, "a", 1.0)
        self.assertEqual(self.gate.queued, 1)

    def test_service_limit_serves(self) -> None:
        """Raising the service's limit lets in as many as it grew."""
        self.pool.set_maximum(self.host, 0)
        self.gate.set_limits(Limits(max_connections=1, queue=3))
        self.wait("a", "b", "c")
        self.gate.set_limits(Limits(max_connections=3, queue=3))
        self.assertEqual([waiter for waiter, _ in self.gate.serve(1.0)], ["a", "b"])
        self.assertEqual((self.gate.connections, self.gate.queued), (3, 1))

    def test_lowered_limit(self) -> None:
        """A lowered limit throws nobody out, and lets nobody in until enough have left."""
        self.pool.set_maximum(self.host, 0)
        others = [self.gate.arrive(None, n, 0.0) for n in range(2)]
        self.gate.set_limits(Limits(max_connections=1, queue=3))
        self.wait("a")
        self.assertEqual(self.gate.leave(others[0], DONE, 1.0), [])
        self.assertEqual(self.gate.leave(others[1], DONE, 1.0), [])
        self.assertEqual([waiter for waiter, _ in self.gate.leave(self.inside, DONE, 1.0)], ["a"])

    def test_other_group_serves(self) -> None:
        """Who waits is served by the group that is enabled next; the old one's tickets count down where they were."""
        self.wait("a", "b")
        other = pool_of("leastconns", [1])
        self.gate.switch(other)
        served = self.gate.serve(1.0)
        self.assertEqual([ticket.pool for _, ticket in served], [other, other])
        self.assertEqual((self.gate.connections, self.pool.in_flight, other.in_flight), (3, 1, 2))
        for ticket in (self.inside, *(ticket for _, ticket in served)):
            self.gate.leave(ticket, DONE, 2.0)
        self.assertEqual((self.gate.connections, self.pool.in_flight, other.in_flight), (0, 0, 0))


    def test_split(self) -> None:
        """One queue for all groups of a split: who waits keeps its turn, and who comes later waits behind it."""
        pools = {name: pool_of("leastconns", [1], group=name) for name in ("blue", "green")}
        pools["blue"].set_maximum(pools["blue"].hosts["h0"], 1)
        gate = Admission(split_of(pools, {"blue": 1, "green": 1}, by_address=False), Limits(queue=50))
        tickets = []
        while isinstance(ticket := gate.arrive(address(1), len(tickets), 0.0), Ticket):
            tickets.append(ticket)
        for waiter in range(len(tickets) + 1, len(tickets) + 20):
            self.assertIsNone(gate.arrive(address(1), waiter, 0.0))
        for _ in range(50):
            self.assertEqual(gate.serve(1.0), [])
        blue = next(ticket for ticket in tickets if ticket.pool is pools["blue"])
        served = gate.leave(blue, DONE, 2.0)
        self.assertEqual([waiter for waiter, _ in served], list(range(len(tickets), len(tickets) + len(served))))
        self.assertEqual([ticket.host.ref.group for _, ticket in served].count("blue"), 1)
        self.assertIs(served[0][1].pool, pools["blue"])


class RedispatchTests(SynchronousTestCase):
    def test_avoided(self) -> None:
        """A host that is to be avoided is picked where no other is left, and only there."""
        gate = Admission(pool_of("leastconns", [1, 1, 1]), Limits())
        ticket = gate.arrive(None, 1, 0.0)
        second = gate.redispatch(ticket, None, FAILED, 0.0, [ticket.host])
        third = gate.redispatch(second, None, FAILED, 0.0, [second.host], [ticket.host])
        self.assertEqual(len({ticket.host, second.host, third.host}), 3)
        fourth = gate.redispatch(third, None, FAILED, 0.0, [second.host, third.host], [ticket.host, third.host])
        self.assertIs(fourth.host, ticket.host)
        self.assertEqual(gate.connections, 1)

    def test_keeps_its_place(self) -> None:
        """A failed try moves the client to another host; the service counts it once, ahead of those who wait."""
        pool = pool_of("leastconns", [1, 1])
        gate = Admission(pool, Limits(max_connections=1, queue=2))
        ticket = gate.arrive(None, 1, 0.0)
        self.assertIsNone(gate.arrive(None, 2, 0.0))
        tried = [ticket.host]
        again = gate.redispatch(ticket, None, FAILED, 0.0, tried)
        self.assertIsNot(again.host, ticket.host)
        self.assertEqual((gate.connections, pool.in_flight, gate.queued), (1, 1, 1))
        self.assertIsNone(gate.redispatch(again, None, FAILED, 0.0, [*tried, again.host]))
        self.assertEqual((gate.connections, pool.in_flight, gate.queued), (1, 0, 1))
        self.assertEqual([waiter for waiter, _ in gate.leave(None, FAILED, 1.0)], [2])

    def test_between_hosts(self) -> None:
        """Who is between two hosts keeps its place in the service, however many others have one."""
        for holding, between in ((3, 1), (2, 2), (1, 3), (0, 4), (4, 0)):
            gate = Admission(pool_of("leastconns", [1]), Limits(max_connections=5))
            tickets = [gate.arrive(None, number, 0.0) for number in range(holding + between)]
            for ticket in tickets[:between]:
                self.assertIsNone(gate.redispatch(ticket, None, FAILED, 0.0, (ticket.host,)))
            self.assertEqual(gate.connections, 4)
            self.assertIsNotNone(gate.arrive(None, 5, 0.0).host)
            self.assertIs(gate.arrive(None, 6, 0.0), Reason.SERVICE_FULL)

    def test_frees_the_failed_host(self) -> None:
        """After a redispatch those who wait can have the place on the failed host."""
        pool = pool_of("leastconns", [1, 1])
        gate = Admission(pool, Limits(queue=1))
        ticket = gate.arrive(None, 1, 0.0)
        pool.set_maximum(ticket.host, 1)
        other = next(host for host in pool.hosts.values() if host is not ticket.host)
        pool.set_maximum(other, 1)
        second = gate.arrive(None, 2, 0.0)
        self.assertIsNone(gate.arrive(None, 3, 0.0))
        pool.set_maximum(other, 2)
        self.assertIs(gate.redispatch(ticket, None, FAILED, 0.0, (ticket.host,)).host, second.host)
        self.assertEqual([(waiter, each.host) for waiter, each in gate.serve(0.0)], [(3, ticket.host)])

    def test_into_another_group(self) -> None:
        """A try that fails after a switch goes on in the new group; with none enabled it ends."""
        old, new = pool_of("leastconns", [1]), pool_of("leastconns", [1])
        gate = Admission(old, Limits())
        ticket = gate.arrive(None, 1, 0.0)
        gate.switch(new)
        again = gate.redispatch(ticket, None, FAILED, 0.0, (ticket.host,))
        self.assertIs(again.pool, new)
        gate.switch(None)
        self.assertIsNone(gate.redispatch(again, None, FAILED, 0.0, (again.host,)))
        gate.leave(None, FAILED, 0.0)
        self.assertEqual((gate.connections, old.in_flight, new.in_flight), (0, 0, 0))

    def test_leaves_once(self) -> None:
        """Leaving or redispatching twice raises and changes nothing."""
        pool = pool_of("leastconns", [1, 1])
        gate = Admission(pool, Limits())
        ticket, other = gate.arrive(None, 1, 0.0), gate.arrive(None, 2, 0.0)
        gate.leave(ticket, DONE, 1.0)
        for call in (
            lambda: gate.leave(ticket, DONE, 1.0),
            lambda: gate.leave(None, DONE, 1.0),
            lambda: gate.redispatch(ticket, None, DONE, 1.0, ()),
        ):
            with self.assertRaises(Misuse):
                call()
        self.assertEqual((gate.connections, pool.in_flight), (1, 1))
        gate.leave(other, DONE, 1.0)


NAMES = st.sampled_from(["a", "b", "c"])


class AdmissionMachine(RuleBasedStateMachine):
    """Clients come, fail, leave and wait while hosts and groups change; a list is the model of the queue."""

    @initialize(maximum=st.integers(0, 4), queue=st.integers(0, 3), timeout=st.integers(1, 5))
    def begin(self, maximum: int, queue: int, timeout: int) -> None:
        self.pools = [pool_of("leastconns", [1, 1]), pool_of("sticky-table", [1, 2], group="green")]
        self.limits = Limits(max_connections=maximum, queue=queue, queue_timeout_s=timeout)
        self.answering = self.pools[:1]
        self.gate = Admission(self.pools[0], self.limits)
        self.tickets: list[Ticket] = []
        self.between = 0
        self.waiting: list[tuple[int, float]] = []
        self.now = 0.0
        self.clients = 0

    def served(self, served: list[tuple[Hashable, Ticket]]) -> None:
        """Who was let in stood first; who was not finds no room."""
        for waiter, ticket in served:
            assert waiter == self.waiting.pop(0)[0]
            self.tickets.append(ticket)
        assert not (self.waiting and self.room() and self.has_place(self.waiting[0][0]))

    def has_place(self, client: int) -> bool:
        return self.gate.pool is not None and has_place(self.gate.pool, address(client % 3), self.now)

    def room(self) -> bool:
        return not self.limits.max_connections or len(self.tickets) + self.between < self.limits.max_connections

    @rule(wait=st.integers(0, 2))
    def arrive(self, wait: int) -> None:
        self.now += wait
        self.clients += 1
        room, eligible = self.room(), self.has_place(self.clients)
        available = self.gate.pool.available if self.gate.pool else 0
        match self.gate.arrive(address(self.clients % 3), self.clients, self.now):
            case Ticket() as ticket:
                assert room and eligible and not self.waiting
                self.tickets.append(ticket)
            case None:
                assert available and len(self.waiting) < self.limits.queue
                assert self.waiting or not room or not eligible
                self.waiting.append((self.clients, self.now))
            case Reason.NO_HOST:
                assert not available
            case Reason.SERVICE_FULL:
                assert available and not room and not self.limits.queue
            case Reason.HOSTS_FULL:
                assert available and room and not eligible and not self.limits.queue
            case Reason.QUEUE_FULL:
                assert available and len(self.waiting) >= self.limits.queue

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        self.served(self.gate.leave(ticket, DONE, self.now))

    @precondition(lambda self: self.between)
    @rule()
    def give_up(self) -> None:
        self.between -= 1
        self.served(self.gate.leave(None, FAILED, self.now))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def redispatch(self, data: st.DataObject) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        again = self.gate.redispatch(ticket, None, FAILED, self.now, (ticket.host,))
        if again is None:
            self.between += 1
        else:
            assert again.host is not ticket.host and again.pool in self.answering
            self.tickets.append(again)
        self.served(self.gate.serve(self.now))

    @rule(which=st.sampled_from([0, 1, None]))
    def switch(self, which: int | None) -> None:
        self.answering = [] if which is None else [self.pools[which]]
        self.gate.switch(None if which is None else self.pools[which])
        self.served(self.gate.serve(self.now))

    @rule(blue=st.integers(0, 2), green=st.integers(0, 2), reverse=st.booleans())
    def split(self, blue: int, green: int, reverse: bool) -> None:
        weights = {"blue": blue, "green": green if blue else 1}
        pools = list(zip(weights, self.pools, strict=True))
        self.answering = self.pools
        self.gate.switch(split_of(dict(reversed(pools) if reverse else pools), weights))
        self.served(self.gate.serve(self.now))

    @rule(which=st.integers(0, 1), name=NAMES, maximum=st.integers(0, 2), up=st.booleans(), keep=st.booleans())
    def change_host(self, which: int, name: str, maximum: int, up: bool, keep: bool) -> None:
        pool = self.pools[which]
        if keep:
            host = pool.put(ref(name, ("blue", "green")[which]), max_connections=maximum)
            pool.set_available(host, up, True)
        else:
            pool.discard(name)
        pool.configured()
        self.served(self.gate.serve(self.now))

    @rule(maximum=st.integers(0, 4), queue=st.integers(0, 3), timeout=st.integers(1, 5))
    def change_limits(self, maximum: int, queue: int, timeout: int) -> None:
        self.limits = Limits(max_connections=maximum, queue=queue, queue_timeout_s=timeout)
        self.gate.set_limits(self.limits)
        self.served(self.gate.serve(self.now))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        waiter, _since = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        assert self.gate.abandon(waiter)
        assert not self.gate.abandon(waiter)

    @rule(wait=st.integers(0, 4))
    def expire(self, wait: int) -> None:
        self.now += wait
        due = [waiter for waiter, since in self.waiting if since + self.limits.queue_timeout_s <= self.now]
        assert self.gate.expire(self.now) == due
        del self.waiting[: len(due)]

    @invariant()
    def counts_agree(self) -> None:
        assert self.gate.connections == len(self.tickets) + self.between
        assert self.gate.waiters() == [waiter for waiter, _since in self.waiting]
        assert self.gate.queued == len(self.waiting)
        assert sum(pool.in_flight for pool in self.pools) == len(self.tickets)
        assert (self.gate.next_expiry() is None) == (not self.waiting)

    def teardown(self) -> None:
        if not hasattr(self, "gate"):
            return
        for waiter, _since in self.waiting:
            self.gate.abandon(waiter)
        for ticket in self.tickets:
            self.gate.leave(ticket, Reason.SHUTDOWN, self.now)
        for _ in range(self.between):
            self.gate.leave(None, FAILED, self.now)
        assert self.gate.connections == self.gate.queued == 0
        for pool in self.pools:
            assert pool.in_flight == 0
            assert all(host.in_flight == 0 for host in pool.hosts.values())


TestAnySequence = AdmissionMachine.TestCase
TestAnySequence.settings = settings(max_examples=80, stateful_step_count=40)
