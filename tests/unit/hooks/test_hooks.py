"""Hooks' queues: each in order, one at a time, bounded, and nobody waits."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import ConfigError
from cluster.model.node import Hook
from director.hooks.hooks import END_S, MAX_WAITING, Hooks
from director.hooks.records import gained, lost

DOWN = {"event": "host_down", "service": "web"}


class HooksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Deferred[Any]] = []
        self.watched: list[str] = []
        self.leads = True
        self.registry = CollectorRegistry()
        self.lines: list[str] = []

        def observe(event: dict[str, Any]) -> None:
            if event.get("log_namespace") == "director.hooks.hooks.Delivery":
                self.lines.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def hooks(self, **hooks: Hook) -> Hooks:
        made = Hooks(hooks, director="d1", names=self, leads=lambda: self.leads, reactor=self.clock,
                     monotonic=self.clock.seconds, wall=lambda: 0.0)
        self.registry.register(made)
        made.startService()
        return made

    def resolve(self, _: str) -> Deferred[Any]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def watch(self, host: str, callback: Any) -> None:
        self.watched.append(host)

    def count(self, outcome: str, hook: str = "a") -> float | None:
        return self.registry.get_sample_value("txdirector_hook_records_total", {"hook": hook, "outcome": outcome})

    def waiting(self) -> float | None:
        return self.registry.get_sample_value("txdirector_hook_waiting", {"hook": "a"})

    def test_one_at_a_time(self) -> None:
        """The next one begins when the one before is over, also by its timeout; each is counted."""
        hooks = self.hooks(a=Hook(url="http://a/", timeout_s=3.0))
        for _ in range(3):
            hooks.tell(lost())
        self.assertEqual((len(self.asked), self.waiting()), (0, 3))
        self.clock.advance(0)
        self.assertEqual((len(self.asked), self.waiting()), (1, 2))
        self.clock.advance(3.0)
        self.clock.advance(0)
        self.assertEqual((len(self.asked), self.count("failed")), (2, 1))
        self.asked[1].errback(RuntimeError("no such name"))
        self.clock.advance(0)
        self.assertEqual((len(self.asked), self.count("failed")), (3, 2))
        self.assertEqual(self.lines, ["hook a failed: timed out"])  # the second one is held back

    def test_bounded(self) -> None:
        """What there is no room for is dropped, counted, and told once."""
        hooks = self.hooks(a=Hook(url="http://a/"), b=Hook(url="http://b/", on=("leader_gained",)))
        for _ in range(MAX_WAITING + 7):
            hooks.tell(lost())
        self.assertEqual((self.count("dropped"), self.count("dropped", "b")), (7, 0))
        self.assertEqual(self.lines, [f"hook a drops what it is told: {MAX_WAITING} wait already"])

    def test_what_it_is_told(self) -> None:
        """What it asked for; of hosts, where it wants so, only while this director leads."""
        hooks = self.hooks(a=Hook(url="http://a/", on=("host_down", "leader_gained"), when="leading"))
        for leads, record, waiting in ((True, DOWN, 1), (False, DOWN, 1), (False, gained(1), 2), (True, lost(), 2)):
            self.leads = leads
            hooks.tell(record)
            self.assertEqual(self.waiting(), waiting, record)

    def test_not_running(self) -> None:
        """What is found at the start, and at the end, is no news."""
        hooks = self.hooks(a=Hook(url="http://a/"))
        hooks.stopService()
        hooks.tell(lost())
        self.assertEqual(self.waiting(), 0)

    def test_a_program_that_is_none(self) -> None:
        """Fails, and the next one is tried all the same."""
        hooks = self.hooks(a=Hook(command=("/none/at/all",)))
        for _ in range(3):
            hooks.tell(lost())
        self.clock.pump([0.0] * 5)
        self.assertEqual((self.count("failed"), self.waiting()), (3, 0))
        self.assertEqual(self.lines, ["hook a failed: /none/at/all: no such file or directory"])

    def test_the_end(self) -> None:
        """Waits for what is under way, but not long; the rest is dropped."""
        hooks = self.hooks(a=Hook(url="http://a/"))
        hooks.tell(lost())
        hooks.tell(lost())
        over = hooks.stopService()
        self.clock.advance(0)
        self.assertNoResult(over)
        self.clock.advance(END_S)
        self.successResultOf(over)
        self.assertEqual((self.count("failed"), self.count("dropped"), self.waiting()), (1, 1, 0))

    def test_names_are_watched(self) -> None:
        """From the start, so that a first lookup is not what the first record waits for."""
        self.hooks(a=Hook(url="http://hooks.example/"), b=Hook(command=("/x",)))
        self.assertEqual(self.watched, ["hooks.example"])

    def test_an_idle_end(self) -> None:
        self.successResultOf(self.hooks(a=Hook(url="http://a/")).stopService())

    def test_no_authorities(self) -> None:
        """A file that holds none is an error, and not everybody's certificate."""
        with self.assertRaises(ConfigError):
            self.hooks(a=Hook(url="https://a/", ca="/etc/hostname"))
