"""What a frontend does with those who wait, and when something breaks, in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cluster.model import (
    AdminState,
    Group,
    Health,
    Host,
    HostRef,
    HostState,
    Limits,
    LoadReport,
    Order,
    Probe,
    Reason,
    Service,
    Timeouts,
)
from director.engine.node import HOUSEKEEPING_S
from director.traffic.connection import Connection
from director.traffic.tries import AVOID_S
from tests.unit.engine.virtual_director import VirtualDirector

HEALTH = Health(probe=Probe(kind="none"), jitter=0.0)


def ref(host: str) -> HostRef:
    return HostRef("web", "blue", host)


def address(host: str) -> str:
    return f"10.0.0.{'abcd'.index(host) + 1}:80"


class FrontendTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.director = VirtualDirector()
        self.addCleanup(self.director.close)

    def web(self, **hosts: Host) -> None:
        """A service whose queue is long enough; past the grace."""
        self.director.node.apply_service("web", Service(
            groups={"blue": Group(hosts=hosts, health=HEALTH, scheduler="leastconns")}, limits=Limits(queue=9)))
        self.director.run(HEALTH.timeout_s)

    def host(self, name: str, **changes: Any) -> Host:
        return Host(address=address(name), **{"max_connections": 1, **changes})

    def arrive(self, number: int = 1) -> list[Connection]:
        return [self.director.arrive("web", client) for client in range(number)]

    def order(self, name: str, state: AdminState | None) -> None:
        order = None if state is None else Order(state=state, who="ann", at=0.0)
        self.director.node.set_order(ref(name), "operator", order)

    def served(self, clients: list[Connection]) -> list[str | None]:
        """On which host each is."""
        return [client.host.name if client.host is not None else None for client in clients]

    def ended(self, reason: Reason) -> int:
        return self.director.metrics.service("web").ended[reason]


class QueueTests(FrontendTestCase):
    def test_one_that_breaks_does_not_silence_the_queue(self) -> None:
        """An exception while one client of the queue is connected ends that client; the others are served, and later ones."""
        self.web(a=self.host("a"))
        first, *waiting = self.arrive(4)
        entry, calls = self.director.entry(ref("a")), []

        def connect() -> int:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("broken")
            return self.director.connect(address("a"))

        self.director.node.inventory.resolved(entry, entry.target._replace(connect=connect))
        self.director.relay.turn()
        self.director.relay.close(first.handle, Reason.CLIENT_CLOSED)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual((self.ended(Reason.RELAY_ERROR), self.served(waiting)), (1, ["a", "a", None]))
        self.director.relay.turn()
        self.director.relay.close(waiting[1].handle, Reason.CLIENT_CLOSED)
        self.assertTrue(waiting[2].handle)
        self.assertEqual(entry.host.in_flight, 1)

    def test_who_was_let_in_goes_before_who_waits(self) -> None:
        """The client whose failed connect brings the backup in gets its place, and not the next of the queue."""
        self.web(a=self.host("a", max_connections=3), b=self.host("b", backup=True))
        clients = self.arrive(6)
        self.assertEqual(self.served(clients), ["a", "a", "a", None, None, None])
        self.director.world.unreachable.add(address("a"))
        self.director.relay.turn()  # the third failure takes the host out
        self.assertEqual(self.served(clients)[2:], ["b", "a", "a", None])
        self.assertEqual(self.ended(Reason.CONNECT_FAILED), 2)

    def test_turn_that_came_before_the_service_went(self) -> None:
        """A client whose turn came in the same instant as the service's deletion ends, once."""
        self.web(a=self.host("a"), b=self.host("b"))
        self.order("b", AdminState.DOWN)
        clients = self.arrive(2)
        inventory = self.director.node.inventory
        inventory.set_order(ref("b"), "operator", None, self.director.now)  # not acted upon yet
        self.director.node.apply_service("web", None)
        self.director.relay.turn()
        for client in clients:
            if client.handle:
                self.director.relay.close(client.handle, Reason.CLIENT_CLOSED)
        self.assertEqual([self.director.ended[client] for client in clients], [1, 1])

    def test_turn_that_came_before_the_end(self) -> None:
        """A client whose turn came in the instant of the director's end is ended with the others."""
        self.web(a=self.host("a"), b=self.host("b"))
        self.order("b", AdminState.DOWN)
        clients = self.arrive(2)
        self.director.node.inventory.set_order(ref("b"), "operator", None, self.director.now)
        self.director.node.cut()
        self.assertEqual([self.director.ended[client] for client in clients], [1, 1])

    def test_nobody_waits_for_somebody_to_look(self) -> None:
        """Whoever gives the inventory an input: what follows is acted upon, though he does not ask for it."""
        self.web(a=self.host("a"))
        clients = self.arrive(2)
        self.director.node.inventory.reported(ref("a"), LoadReport(), self.director.now)
        self.director.node.inventory.apply_service("web", Service(
            groups={"blue": Group(hosts={"a": self.host("a", max_connections=2)}, health=HEALTH)},
            limits=Limits(queue=9)), self.director.now)
        self.director.run()
        self.assertTrue(all(client.handle for client in clients))


class LimitsTests(FrontendTestCase):
    def test_half_closed_is_idle(self) -> None:
        """A connection whose one side has finished may be quiet for as long as any, unless something else is configured."""
        for timeouts, half_closed_s in (
            (Timeouts(), Timeouts().idle_s), (Timeouts(idle_s=7.0), 7.0), (Timeouts(idle_s=7.0, half_closed_s=3.0), 3.0),
        ):
            self.director.node.apply_service("web", Service(
                groups={"blue": Group(hosts={"a": Host(address=address("a"))}, health=HEALTH)}, timeouts=timeouts))
            (client,) = self.arrive()
            limits = self.director.relay.limits[client.handle]
            self.assertEqual((limits.idle_s, limits.half_closed_s), (timeouts.idle_s, half_closed_s))


class FailingTests(FrontendTestCase):
    """Three of four hosts do not answer, which is not judged yet."""

    def setUp(self) -> None:
        super().setUp()
        hosts = {name: Host(address=address(name)) for name in "abcd"}
        self.director.node.apply_service("web", Service(
            groups={"blue": Group(hosts=hosts, health=HEALTH, scheduler="roundrobin")}))
        self.director.run(HEALTH.timeout_s)
        self.director.world.unreachable.update(map(address, "abc"))

    def client(self) -> str | None:
        [client] = self.arrive()
        while not client.established and client.handle:
            self.director.relay.turn()
        return client.host.name if client.established and client.host is not None else None

    def test_avoided(self) -> None:
        """The first client meets all three. Whoever comes after and meets one of them is not sent to the others."""
        self.assertEqual([self.client() for _ in range(3)], [None, "d", "d"])
        self.assertEqual(self.director.metrics.service("web").retries, 3)

    def test_better_than_nobody(self) -> None:
        """Where nobody else is left they are tried all the same."""
        self.client()
        self.director.world.heal(address("b"))
        self.order("d", AdminState.DOWN)
        self.assertEqual(self.client(), "b")

    def test_not_for_long(self) -> None:
        """They are avoided for a second."""
        self.client()
        self.director.run(AVOID_S)
        self.assertEqual([self.client() for _ in range(2)], ["d", None])


class SplitTests(FrontendTestCase):
    def group(self, client: Connection) -> str | None:
        return client.host.ref.group if client.host is not None else None

    def test_time_for_the_other_group(self) -> None:
        """A canary's only host that does not answer leaves time, and the client, to the enabled group."""
        groups = {name: Group(hosts={host: Host(address=address(host))}, health=HEALTH, scheduler="leastconns")
                  for name, host in (("blue", "a"), ("green", "b"))}
        self.director.node.apply_service("web", Service(groups=groups, split={"blue": 0.0, "green": 1.0}))
        self.director.run(HEALTH.timeout_s)
        [client] = self.arrive()
        self.director.world.unreachable.add(address("b"))
        connect_s = self.director.relay.limits[client.handle].connect_s
        self.assertEqual((self.group(client), connect_s), ("green", Timeouts().connect_s / 2))
        self.director.relay.turn()
        self.assertEqual(self.group(client), "blue")
        self.director.relay.turn()
        self.assertTrue(client.established)
        self.assertEqual(self.director.node.inventory.services["web"].strayed, {"green": 1})


class OnDownTests(FrontendTestCase):
    """What becomes of the open connections of a host that is out."""

    def hosts(self, on_down: str, *names: str) -> None:
        self.director.node.apply_service("web", Service(groups={"blue": Group(
            hosts={name: Host(address=address(name)) for name in names}, health=HEALTH, scheduler="leastconns",
            on_down=on_down)}))  # type: ignore[arg-type]

    def after(self, what: Callable[[], None], on_down: str = "cut") -> Counter[Reason]:
        """How the connections to "a" ended, of four clients on two hosts, a second after *what* at the latest."""
        self.hosts(on_down, "a", "b")
        self.director.run(HEALTH.timeout_s)
        clients = self.arrive(4)
        self.director.relay.turn()
        self.assertEqual(sorted(filter(None, self.served(clients))), ["a", "a", "b", "b"])
        before = Counter(self.director.metrics.service("web").ended)
        what()
        self.director.run(HOUSEKEEPING_S)
        self.director.relay.turn()
        self.assertEqual(len([client for client in clients if client.handle and client.host and client.host.name == "b"]), 2)
        return Counter(self.director.metrics.service("web").ended) - before

    def judge_down(self) -> None:
        for _ in range(HEALTH.fall):
            self.director.node.inventory.connect_failed(self.director.entry(ref("a")).host, "refused", self.director.now)

    def test_cut(self) -> None:
        """Each has a reason of its own; those of other hosts go on, and a drain is no end."""
        self.assertEqual(self.after(self.judge_down), {Reason.HOST_DOWN: 2})

    def test_ordered_down(self) -> None:
        self.assertEqual(self.after(lambda: self.order("a", AdminState.DOWN)), {Reason.ORDERED_DOWN: 2})

    def test_drained(self) -> None:
        """A drain has its own deadline."""
        self.assertEqual(self.after(lambda: self.order("a", AdminState.DRAIN)), {})

    def test_removed(self) -> None:
        self.assertEqual(self.after(lambda: self.hosts("cut", "b")), {Reason.HOST_REMOVED: 2})

    def test_said_later(self) -> None:
        """A host that is down already is cut when its group comes to say so."""
        self.assertEqual(self.after(lambda: self.order("a", AdminState.DOWN), "keep"), {})
        self.hosts("cut", "a", "b")
        self.director.run(HOUSEKEEPING_S)
        self.director.relay.turn()
        self.assertEqual(self.ended(Reason.ORDERED_DOWN), 2)

    def test_kept(self) -> None:
        """By default nobody is cut."""
        for what in (self.judge_down, lambda: self.order("a", AdminState.DOWN), lambda: self.hosts("keep", "b")):
            with self.subTest(what=what):
                self.tearDown()
                self.setUp()
                self.assertEqual(self.after(what, "keep"), {})

    def test_on_the_way(self) -> None:
        """A client whose connect is under way is not cut: it is, or goes to another host. Once it has got through, it is cut."""
        for unreachable in (True, False):
            for what, reason in ((self.judge_down, Reason.HOST_DOWN), (lambda: self.hosts("cut", "b"), Reason.HOST_REMOVED)):
                with self.subTest(unreachable=unreachable, reason=reason):
                    self.setUp()
                    self.hosts("cut", "a", "b")
                    self.director.run(HEALTH.timeout_s)
                    clients = self.arrive(2)
                    if unreachable:
                        self.director.world.unreachable.add(address("a"))
                    what()
                    self.director.run()
                    self.director.relay.turn()
                    self.director.relay.turn()
                    self.director.run(HOUSEKEEPING_S)
                    self.director.relay.turn()
                    hosts = [client.host.name for client in clients if client.handle and client.host]
                    self.assertEqual(hosts, ["b", "b"] if unreachable else ["b"])
                    self.assertEqual(self.ended(reason), 0 if unreachable else 1)


class EarlyResetTests(FrontendTestCase):
    """Hosts that take clients and reset them."""

    def begin(self, **health: Any) -> None:
        self.director.node.apply_service("web", Service(groups={"blue": Group(
            hosts={"a": Host(address=address("a"))}, health=Health(jitter=0.0, **health))}))
        self.director.run(HEALTH.timeout_s + 1)

    def one(self, reason: Reason = Reason.HOST_RESET, *, to_client: int = 0, after_s: float = 0.0) -> bool:
        """A client comes and ends so; whether the host is in rotation still."""
        (client,) = self.arrive()
        self.director.relay.turn()
        self.director.run(after_s)
        if client.handle:
            self.director.relay.close(client.handle, reason, to_client)
        self.director.run()
        return not self.director.entry(ref("a")).verdict.down

    def test_taken_out(self) -> None:
        """By `fall` of them in a row, though each connect succeeded and probes pass all the time."""
        self.begin()
        self.assertEqual([self.one(after_s=0.4) for _ in range(HEALTH.fall)], [True, True, False])
        self.assertEqual(self.director.metrics.service("web").host("blue", "a").connect_failures, HEALTH.fall)
        self.assertIn("resets clients at once", self.director.entry(ref("a")).health.why)

    def test_served_in_between(self) -> None:
        """Who was served answers for the host; who merely went away does not."""
        self.begin()
        for reason, sent, seconds, answers in (
            (Reason.CLIENT_CLOSED, 1, 0.0, True), (Reason.HOST_RESET, 1, 0.0, True), (Reason.HOST_RESET, 0, 0.6, True),
            (Reason.CLIENT_CLOSED, 0, 0.6, True), (Reason.CLIENT_CLOSED, 0, 0.0, False), (Reason.CLIENT_RESET, 0, 0.0, False),
        ):
            with self.subTest(reason=reason, sent=sent, seconds=seconds):
                self.setUp()
                self.begin()
                for _ in range(HEALTH.fall - 1):
                    self.one()
                self.assertTrue(self.one(reason, to_client=sent, after_s=seconds))
                self.assertIs(self.one(), answers)

    def test_others_never_count(self) -> None:
        """Ends that are no early resets of the host, however many."""
        self.begin()
        for reason, sent, seconds in ((Reason.CLIENT_RESET, 0, 0.0), (Reason.HOST_CLOSED, 0, 0.0), (Reason.HOST_RESET, 1, 0.0),
                                      (Reason.HOST_RESET, 0, 0.6), (Reason.HOST_LOST, 0, 0.0)):
            self.assertTrue(all(self.one(reason, to_client=sent, after_s=seconds) for _ in range(10)), reason)

    def test_settable(self) -> None:
        """Other times, other bytes, or never."""
        self.begin(early_reset_s=3.0, early_reset_bytes=100)
        self.assertEqual([self.one(to_client=100, after_s=0.9) for _ in range(HEALTH.fall)], [True, True, False])
        self.setUp()
        self.begin(early_reset_s=0.0)
        self.assertTrue(all(self.one(after_s=0.01) for _ in range(10)))

    def test_a_minute_later(self) -> None:
        """A stray reset is forgotten: the host is up again by its probes a minute later."""
        self.begin()
        self.one()
        self.director.run(30.0)
        self.assertIs(self.director.entry(ref("a")).health.state, HostState.SUSPECT)
        self.director.run(32.0)
        self.assertIs(self.director.entry(ref("a")).health.state, HostState.UP)


class OutlierTests(FrontendTestCase):
    """What a host does to clients, as the group's comparison is told of it."""

    def ejected_after(self, reason: Reason, *, to_client: int = 0, after_s: float = 0.0, **health: Any) -> bool:
        """Whether "a" is ejected, whose clients all end so, while those of "b" and "c" are served."""
        self.setUp()
        self.director.node.apply_service("web", Service(groups={"blue": Group(
            hosts={name: Host(address=address(name)) for name in "abc"}, health=Health(jitter=0.0, **health),
            scheduler="roundrobin")}))
        self.director.run(HEALTH.timeout_s + 1)
        for _ in range(30):
            clients = self.arrive(3)
            self.director.relay.turn()
            self.director.run(after_s)
            for client in clients:
                if client.host is not None and client.host.name == "a":
                    self.director.relay.close(client.handle, reason, to_client)
                else:
                    self.director.relay.close(client.handle, Reason.CLIENT_CLOSED)
            self.director.run()
        return self.director.entry(ref("a")).conduct.ejected

    def test_what_counts(self) -> None:
        """What the host does at once, having sent nothing; no end that it did not make, and no shortage of our own."""
        for reason in Reason:
            with self.subTest(reason=reason):  # resets are health's, sooner
                self.assertIs(self.ejected_after(reason, fall=100), reason in (Reason.HOST_CLOSED, Reason.HOST_RESET))
        self.assertFalse(self.ejected_after(Reason.HOST_CLOSED, to_client=1))
        self.assertTrue(self.ejected_after(Reason.HOST_CLOSED, to_client=1, early_reset_bytes=1))
        self.assertFalse(self.ejected_after(Reason.HOST_CLOSED, after_s=0.6))
        self.assertFalse(self.ejected_after(Reason.HOST_CLOSED, early_reset_s=0.0))

    def test_told(self) -> None:
        """It is counted, and its clients go elsewhere."""
        self.assertTrue(self.ejected_after(Reason.HOST_CLOSED))
        self.assertEqual(self.director.metrics.service("web").host("blue", "a").ejections, 1)
        self.assertEqual({client.host.name for client in self.arrive(9) if client.host is not None}, {"b", "c"})

    def test_slow_connects(self) -> None:
        """A connect's time runs from the pick to the host's answer."""
        self.ejected_after(Reason.CLIENT_CLOSED)
        conduct = self.director.entry(ref("a")).conduct
        before = conduct.connects, conduct.connect_s
        self.arrive(3)
        self.director.run(0.25)
        self.director.relay.turn()
        self.assertEqual((conduct.connects - before[0], conduct.connect_s - before[1]), (1, 0.25))

    def test_refusals(self) -> None:
        """Connects that fail count too, though passed probes answer them before health takes the host out."""
        self.ejected_after(Reason.CLIENT_CLOSED, fall=100)
        self.director.world.unreachable.add(address("a"))
        for _ in range(30):
            self.arrive(3)
            self.director.relay.turn()
        self.assertTrue(self.director.entry(ref("a")).conduct.ejected)


class HostTimesTests(FrontendTestCase):
    def test_connects_and_durations(self) -> None:
        """From the pick on; a client whose host did not answer has no duration there."""
        self.web(a=self.host("a", max_connections=0))
        counted = self.director.metrics.service("web").host("blue", "a")
        first, _ = self.arrive(2)
        self.director.run(0.25)
        self.director.relay.turn()
        self.director.run(2.0)
        self.director.relay.close(first.handle, Reason.CLIENT_CLOSED)
        (third,) = self.arrive()
        self.director.relay.close(third.handle, Reason.CLIENT_RESET)
        self.director.run()
        self.assertEqual((sum(counted.connect.counts), counted.connect.sum), (2, 0.5))
        self.assertEqual((sum(counted.duration.counts), counted.duration.sum), (1, 2.25))


class SettlingTests(FrontendTestCase):
    def test_one_event_that_cannot_be_followed(self) -> None:
        """The events behind it are followed all the same."""
        self.web(a=self.host("a"), b=self.host("b"))
        self.order("b", AdminState.DOWN)
        clients = self.arrive(2)
        self.director.node.on_host.append(self.broken)
        self.patch(self.director.node.inventory, "_on_news", lambda: None)
        inventory = self.director.node.inventory
        for _ in range(HEALTH.fall):
            inventory.connect_failed(self.director.entry(ref("a")).host, "refused", self.director.now)
        inventory.set_order(ref("b"), "operator", None, self.director.now)
        self.director.node.settle()
        self.assertTrue(self.flushLoggedErrors(RuntimeError))
        self.assertEqual(self.served(clients), ["a", "b"])

    def test_housekeeping_goes_on(self) -> None:
        """A turn of the housekeeping that breaks is not the last."""
        self.web(a=self.host("a"))
        (client,) = self.arrive()
        self.director.relay.turn()
        drains = self.director.node.inventory.drains
        self.director.node.inventory.drains = self.broken  # type: ignore[method-assign, assignment]
        self.assertRaises(RuntimeError, self.director.run, 1.0)
        self.director.node.inventory.drains = drains  # type: ignore[method-assign]
        self.director.node.set_order(ref("a"), "operator", Order(state=AdminState.DRAIN, who="ann", at=0.0, deadline_s=0.5))
        self.director.run(2.0)
        self.director.relay.turn()
        self.assertEqual((self.ended(Reason.DRAIN_DEADLINE), client.handle), (1, 0))

    def broken(self, *_: object) -> Any:
        raise RuntimeError("broken")


