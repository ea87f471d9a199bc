"""`cluster.log.storms`: an observer that sums up what comes too often, whatever it tells of."""

from __future__ import annotations

from threading import Thread
from typing import Any

from twisted.logger import Logger, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from cluster.log.limit import BURST
from cluster.log.storms import Storms
from tests.unit.cluster.log.log_kit import LogReactor


class StormsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = LogReactor()
        self.seen: list[dict[str, Any]] = []
        self.storms = Storms(self.seen.append, reactor=self.reactor, monotonic=self.reactor.seconds, wall=lambda: 1e9)
        self.log = Logger(namespace="n", observer=self.storms)

    def test_storm(self) -> None:
        """Of a thousand events of one place in the code the first are told, then how many more, with the last."""
        for number in range(1000):
            self.log.warn("{host} is down", host=f"app{number}")
        self.reactor.advance(0.999)
        self.assertEqual(len(self.seen), BURST)
        self.reactor.advance(0.001)
        *_, last = self.seen
        self.assertEqual(len(self.seen), BURST + 1)
        self.assertEqual(formatEvent(last), "and 980 more like this in 1 s, the last: app999 is down")
        self.assertEqual((last["log_level"], last["log_namespace"], last["log_time"]), (LogLevel.warn, "n", 1e9))
        self.reactor.advance(3600.0)
        self.assertEqual(len(self.seen), BURST + 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_kinds(self) -> None:
        """Other formats and namespaces are other kinds."""
        for _ in range(100):
            self.log.info("a")
        self.log.info("b")
        Logger(namespace="m", observer=self.storms).info("a")
        self.assertEqual([(each["log_namespace"], each["log_format"]) for each in self.seen[BURST:]],
                         [("n", "b"), ("m", "a")])

    def test_always_told(self) -> None:
        """Critical events, and those that are facts of their own."""
        for _ in range(100):
            self.log.critical("why")
            self.log.info("order", log_each=True)
        self.assertEqual(len(self.seen), 200)

    def test_finish(self) -> None:
        """At the end what was held back is told at once, and no timer stays."""
        for _ in range(BURST + 5):
            self.log.info("a")
        self.storms.finish()
        self.assertIn("and 5 more like this", formatEvent(self.seen[-1]))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_threads(self) -> None:
        """What another thread logs is taken into the reactor's."""
        called: list[Any] = []
        self.patch(self.reactor, "callFromThread", lambda *call: called.append(call))
        thread = Thread(target=self.log.info, args=("a",))
        thread.start()
        thread.join()
        self.assertEqual(self.seen, [])
        [(call, event)] = called
        call(event)
        self.assertEqual([each["log_format"] for each in self.seen], ["a"])
