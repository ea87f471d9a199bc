"""The reporter against directors played by hand: fake reactor, fake time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from agent.config import AgentConfig
from agent.load import Sample
from agent.reporter import RETRY_FIRST_S, RETRY_MOST_S, WELCOME_TIMEOUT_S
from agent.service import ALIAS_S, DRAIN_DEFAULT_S, LEAVE_POLL_S, LoadReporter
from cluster import wire
from cluster.errors import ConfigError
from cluster.model import LoadReport
from cluster.version import VERSION as RELEASE

APP1 = "web/blue/app1"
APP2 = "web/blue/app2"


class FixedSampler:
    """A machine at rest, with as many connections as told."""

    open: int | None = None

    def sample(self) -> Sample:
        return Sample(connections=self.open)

    def connections(self) -> int | None:
        return self.open


class Transport(StringTransport):
    def abortConnection(self) -> None:
        self.disconnecting = True

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None


class Director:
    """The other end of one connection, by hand."""

    def __init__(self, reactor: MemoryReactorClock, index: int = -1, name: str = "d1") -> None:
        self.address, factory = reactor.unixClients[index][:2]
        self.name = name
        self.wire = wire.Conversation(wire.Role.DIRECTOR)
        self.transport = Transport()
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def heard(self) -> list[wire.Message]:
        """Everything new that the agent said."""
        self.wire.receive_data(self.transport.value())
        self.transport.clear()
        return list(iter(self.wire.next_message, None))

    def say(self, message: wire.Message) -> None:
        self.protocol.dataReceived(self.wire.send(message))

    def welcome(self, **fields: Any) -> list[wire.Message]:
        """Greet; what the agent said before and after."""
        said = self.heard()
        self.say(wire.Welcome(**({"version": 1, "director": self.name, "interval_s": 1.0} | fields)))
        return said + self.heard()

    def lose(self, reason: Exception | None = None) -> None:
        self.protocol.connectionLost(Failure(reason or ConnectionLost()))


class ReporterCase(SynchronousTestCase):
    def reporter(self, **fields: Any) -> LoadReporter:
        config = AgentConfig(**({"name": "app1", "directors": ("unix:/d1",), "hosts": (APP1, APP2)} | fields))
        reporter = LoadReporter(config, reactor=self.reactor, sampler=self.sampler, monotonic=self.reactor.seconds,
                                random=lambda: 0.5, boot_id="boot", ordered=self.orders.append)
        reporter.startService()
        return reporter

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.sampler = FixedSampler()
        self.orders: list[wire.Instruction] = []


class Reporting(ReporterCase):
    def test_hello_then_a_report_at_once_then_one_each_interval(self) -> None:
        """The first report follows the welcome; the interval is the director's; the sequence grows."""
        self.reporter(token="secret", register=":80", weight=2.0)
        director = Director(self.reactor)
        hello, first = director.welcome(interval_s=2.0)
        self.assertEqual(hello, wire.Hello(
            version=1, agent="app1", boot_id="boot", token="secret", interval_s=1.0, release=RELEASE,
            hosts=[wire.HostClaim(host=host, address=":80", weight=2.0) for host in (APP1, APP2)],
        ))
        self.assertEqual(first, wire.Report(seq=1, load=LoadReport()))
        self.reactor.pump([1.0] * 6)
        self.assertEqual([m.seq for m in director.heard()], [2, 3, 4])  # type: ignore[attr-defined]

    def test_every_director_hears_every_report(self) -> None:
        """One sequence over all of them; the most demanding interval counts."""
        self.reporter(directors=("unix:/d1", "unix:/d2"))
        one, two = Director(self.reactor, 0), Director(self.reactor, 1, "d2")
        one.welcome(interval_s=5.0)
        two.welcome(interval_s=0.5)
        self.reactor.advance(0.5)
        self.assertEqual(one.heard(), two.heard())

    def test_stated_values(self) -> None:
        """They hold until stated anew; nonsense is refused and changes nothing."""
        reporter = self.reporter()
        director = Director(self.reactor)
        director.welcome()
        reporter.report(in_flight=3, weight=0.5)
        self.assertRaises(ValueError, reporter.report, weight=2.0)
        self.assertRaises(TypeError, reporter.report, wait=2.0)
        reporter.report(in_flight=None, state="drain")
        self.reactor.advance(1.0)
        (report,) = director.heard()
        assert isinstance(report, wire.Report)
        self.assertEqual(report.load, LoadReport(weight=0.5, state="drain"))

    def test_tracking(self) -> None:
        """A block is a request with its duration; an exception makes it a failed one and goes on its way."""
        reporter = self.reporter()
        director = Director(self.reactor)
        director.welcome()

        def fail() -> None:
            with reporter.track():
                self.reactor.advance(0.25)
                raise LookupError

        self.assertRaises(LookupError, fail)
        self.reactor.advance(0.75)
        (report,) = director.heard()
        assert isinstance(report, wire.Report)
        self.assertEqual(report.load, LoadReport(in_flight=0, latency_s=0.25, rate=1.0, errors=1.0, completions=1))

    def test_a_director_that_does_not_take_reports_gets_none(self) -> None:
        """They are not kept for it: a late report says nothing."""
        self.reporter()
        director = Director(self.reactor)
        director.welcome()
        director.transport.producer.pauseProducing()
        self.reactor.pump([1.0] * 5)
        self.assertEqual(director.heard(), [])
        director.transport.producer.resumeProducing()
        self.reactor.advance(1.0)
        self.assertEqual(len(director.heard()), 1)

    def test_configuration_mistakes(self) -> None:
        """All of them at once."""
        with self.assertRaises(ConfigError) as raised:
            self.reporter(directors=("10.0.0.1:1", "x"), hosts=("a/b",), register="y", token="t", token_file="f")
        self.assertEqual([problem.place for problem in raised.exception.problems],
                         ["directors[0]", "directors[1]", "hosts[0]", "register", "token_file"])


class Reconnecting(ReporterCase):
    def tries_after(self, seconds: float) -> int:
        before = len(self.reactor.unixClients)
        self.reactor.advance(seconds)
        return len(self.reactor.unixClients) - before

    def test_waits_grow_until_a_welcome(self) -> None:
        """A connect alone proves nothing: only a welcome starts the waits anew."""
        self.reporter()
        waits = []
        for _ in range(12):
            Director(self.reactor).lose()
            waited = 0
            while not self.tries_after(0.125):
                waited += 1
            waits.append((waited + 1) * 0.125)
        self.assertEqual((waits[0], waits[-1]), (RETRY_FIRST_S, RETRY_MOST_S))
        self.assertEqual(waits, sorted(waits))
        director = Director(self.reactor)
        director.welcome()
        director.lose()
        self.assertEqual(self.tries_after(RETRY_FIRST_S), 1)

    def test_refused_connects_are_tried_again(self) -> None:
        """Also when nobody listens yet."""
        self.reporter()
        self.reactor.unixClients[0][1].clientConnectionFailed(None, Failure(ConnectError()))
        self.assertEqual(self.tries_after(RETRY_FIRST_S), 1)

    def test_a_refusal_is_respected(self) -> None:
        """The director says how long to stay away."""
        self.reporter()
        director = Director(self.reactor)
        director.heard()
        director.say(wire.Refused(reason="unauthenticated", retry_after_s=30.0))
        director.lose(ConnectionDone())
        self.assertEqual(self.tries_after(29.0), 0)
        self.assertEqual(self.tries_after(1.0), 1)

    def test_a_refusal_is_told_after_another_trouble(self) -> None:
        """What the director says is news, though the first try found nobody; once for each reason."""
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        self.reporter()
        self.reactor.unixClients[0][1].clientConnectionFailed(None, Failure(ConnectError()))
        for _ in range(2):
            self.reactor.advance(RETRY_MOST_S)
            director = Director(self.reactor)
            director.heard()
            director.say(wire.Refused(reason="name_in_use"))
            director.lose(ConnectionDone())
        warned = [formatEvent(event) for event in logged if event["log_level"].name == "warn"]
        self.assertEqual(len(warned), 2, warned)
        self.assertIn("refused: name_in_use (another agent of this name is connected", warned[1])

    def test_a_web_server_is_told(self) -> None:
        """Somebody dialled the admin."""
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        self.reporter()
        director = Director(self.reactor)
        director.protocol.dataReceived(b"HTTP/1.1 400 Bad")  # no line yet
        self.assertTrue(director.transport.disconnecting)
        self.assertIn("HTTP is spoken there (perhaps the director's admin: agents connect to an address of node.agents.listen)",
                      str(formatEvent(logged[-1])))

    def test_a_renewed_token_is_shown(self) -> None:
        """Each hello has what the file has then; without a file, what it had last."""
        path = Path(self.mktemp())
        path.write_text("old")
        self.reporter(token_file=str(path))
        shown = []
        for change in (lambda: None, lambda: path.write_text("new\n"), path.unlink):
            change()
            director = Director(self.reactor)
            (hello,) = director.heard()
            shown.append(hello.token)  # type: ignore[attr-defined]
            director.lose()
            self.reactor.advance(RETRY_MOST_S)
        self.assertEqual(shown, ["old", "new", "new"])

    def test_no_welcome_in_time_and_garbage(self) -> None:
        """A director that says nothing, or nonsense, is left."""
        self.reporter()
        director = Director(self.reactor)
        self.reactor.advance(WELCOME_TIMEOUT_S)
        self.assertTrue(director.transport.disconnecting)
        director.lose()
        self.reactor.advance(RETRY_MOST_S)
        director = Director(self.reactor)
        director.protocol.dataReceived(b"HTTP/1.1 400\n")
        self.assertTrue(director.transport.disconnecting)


class Learning(ReporterCase):
    def test_directors_come_and_go(self) -> None:
        """A named director is connected to; one that nobody names and that is away is forgotten; configured ones stay;
        plaintext beyond this machine is never learned."""
        reporter = self.reporter()
        first = Director(self.reactor, 0)
        first.welcome(directors=["unix:/d1", "unix:/d2", "10.0.0.1:7946", "rubbish"])
        self.assertEqual(list(reporter.directors), ["unix:/d1", "unix:/d2"])
        second = Director(self.reactor, 1, "d2")
        second.welcome()
        first.welcome(directors=[])
        self.assertEqual(reporter.directors, {"unix:/d1": True, "unix:/d2": True})
        second.lose()
        first.welcome(directors=[])
        self.assertEqual(list(reporter.directors), ["unix:/d1"])

    def test_a_second_address_of_one_director_is_given_up(self) -> None:
        """Otherwise its two connections would replace each other for ever."""
        reporter = self.reporter()
        first = Director(self.reactor, 0)
        first.welcome(directors=["unix:/alias"])
        alias = Director(self.reactor, 1)
        alias.welcome(directors=["unix:/alias"])
        self.assertTrue(alias.transport.disconnecting)
        first.welcome(directors=["unix:/alias"])
        self.assertEqual(list(reporter.directors), ["unix:/d1"])
        first.lose()
        self.reactor.advance(RETRY_FIRST_S * 1.5)
        self.assertEqual(list(reporter.directors), ["unix:/d1"])

    def test_a_director_that_moved_to_its_second_address_is_found_there(self) -> None:
        """An alias is one only as long as the other address leads to the director; and then stays what is reached."""
        reporter = self.reporter()
        first = Director(self.reactor, 0)
        first.welcome(directors=["unix:/alias"])
        alias = Director(self.reactor, 1)
        alias.welcome(directors=["unix:/alias"])
        alias.lose(ConnectionDone())
        first.lose()
        for _ in range(9):
            self.reactor.advance(ALIAS_S / 4)
        self.assertEqual(reporter.directors, {"unix:/d1": False, "unix:/alias": False})
        again = Director(self.reactor, [client[0] for client in self.reactor.unixClients].index("/alias", 2))
        again.welcome(directors=["unix:/alias"])
        self.reactor.advance(ALIAS_S * 2)
        self.assertTrue(reporter.directors["unix:/alias"])


class Orders(ReporterCase):
    def states(self, director: Director) -> list[tuple[str | None, dict[str, str]]]:
        return [
            (report.load and report.load.state, {host: load.state for host, load in report.hosts.items()})
            for report in director.heard() if isinstance(report, wire.Report)
        ]

    def test_drain_and_up(self) -> None:
        """A drained host reports so at once and by itself, until ``up``; the application is told."""
        self.reporter()
        director = Director(self.reactor)
        director.welcome()
        director.say(wire.Instruction(order="drain", hosts=[APP1, "web/blue/other"]))
        director.say(wire.Instruction(order="up", hosts=[APP1]))
        self.assertEqual(self.states(director), [("ready", {APP1: "drain"}), ("ready", {})])
        self.assertEqual([order.order for order in self.orders], ["drain", "up"])

    def test_a_drain_ends_by_itself(self) -> None:
        """At its deadline, or at the default one: the director that ordered it may be gone."""
        self.reporter()
        director = Director(self.reactor)
        director.welcome()
        for deadline_s, lasts in ((5.0, 5.0), (None, DRAIN_DEFAULT_S)):
            director.say(wire.Instruction(order="drain", deadline_s=deadline_s))
            self.assertEqual(self.states(director), [("ready", {APP1: "drain", APP2: "drain"})])
            self.reactor.advance(lasts)
            self.assertEqual(self.states(director)[-1], ("ready", {}))

    def test_interval(self) -> None:
        """Obeyed within sane bounds."""
        self.reporter()
        director = Director(self.reactor)
        director.welcome()
        director.say(wire.Instruction(order="interval", interval_s=0.0001))
        self.reactor.pump([0.1] * 10)
        self.assertEqual(len(director.heard()), 10)


class Stopping(ReporterCase):
    def stopping(self, **fields: Any) -> tuple[LoadReporter, Director, Deferred[Any]]:
        reporter = self.reporter(**fields)
        director = Director(self.reactor)
        director.welcome()
        return reporter, director, reporter.stopService()

    def finish(self, director: Director, stopped: Deferred[Any]) -> None:
        """The agent has closed, and nothing of it is left."""
        self.assertTrue(director.transport.disconnecting)
        director.lose(ConnectionDone())
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_it_leaves_when_nothing_is_in_flight(self) -> None:
        """The farewell goes first; reports say drain; zero counts when it was seen twice."""
        self.sampler.open = 2
        _, director, stopped = self.stopping(port=80)
        self.assertEqual(director.heard(), [wire.Leaving(deadline_s=30.0)])
        self.reactor.pump([LEAVE_POLL_S] * 4)
        (report,) = director.heard()
        assert isinstance(report, wire.Report) and report.load is not None
        self.assertEqual((report.load.state, report.load.in_flight), ("drain", 2))
        self.sampler.open = 0
        self.reactor.advance(LEAVE_POLL_S)
        self.assertFalse(director.transport.disconnecting)
        self.reactor.advance(LEAVE_POLL_S)
        self.finish(director, stopped)

    def test_it_leaves_at_the_deadline(self) -> None:
        """Whether something is in flight still, or nobody can tell."""
        for count in (2, None):
            self.sampler.open = count
            _, director, stopped = self.stopping(leave_deadline_s=3.0)
            self.reactor.pump([LEAVE_POLL_S] * 11)
            self.assertFalse(director.transport.disconnecting)
            self.reactor.advance(LEAVE_POLL_S)
            self.finish(director, stopped)

    def test_it_does_not_wait_for_what_nobody_can_tell(self) -> None:
        """Without a port, or an application that counts, there is nothing to wait for, unless a time was asked for."""
        _, director, stopped = self.stopping()
        self.assertEqual(director.heard(), [wire.Leaving(deadline_s=30.0)])
        self.finish(director, stopped)

    def test_it_can_be_hurried(self) -> None:
        """The wait ends at once."""
        self.sampler.open = 2
        reporter, director, stopped = self.stopping()
        reporter.hurry()
        self.finish(director, stopped)

    def test_nobody_to_tell(self) -> None:
        """Without a connection there is nothing to wait for."""
        reporter = self.reporter()
        self.successResultOf(reporter.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_director_that_comes_back_is_told(self) -> None:
        """With what is left of the deadline."""
        self.sampler.open = 2
        _, director, _ = self.stopping()
        director.lose()
        self.reactor.advance(10.0)
        self.assertEqual(Director(self.reactor).welcome()[-1], wire.Leaving(deadline_s=20.0))
