"""The clock of timers, and who may read the time of day."""

from __future__ import annotations

import ast
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from agent.config import AgentConfig
from agent.service import LoadReporter
from cluster import clock
from cluster.clock import run_on_monotonic
from director.builder import Director

ROOT = Path(__file__).parents[3]

#: The only modules that read the time of day, and for whom.
WALL = {
    "cluster/renewal.py": "until when a certificate is valid",
    "cluster/log/storms.py": "when a line was written",
    "director/cli.py": "from when to when a certificate is valid",
    "director/config/init/command.py": "from when to when a certificate is valid",
    "director/ha/clustering.py": "when this process started: shown to operators",
    "director/ctl/tables.py": "how a time is written for an operator",
    "director/ha/keeping.py": "when the snapshot on disk was saved",
    "director/logs/output.py": "when lines were dropped",
    "director/logs/records.py": "how a time is written for syslog",
    "director/hooks/hooks.py": "when something happened, for who is told of it",
    "director/ha/leading.py": "since when this director leads: shown to operators",
    "director/ha/reigning.py": "the same, by promises",
    "director/engine/node.py": "pictures, orders and the audit: shown to operators",
    "director/ha/peers.py": "since when a peer is linked: shown to operators",
    "director/ha/stores.py": "the history of the embedded stores",
    "director/ha/spreading.py": "the same, of each address",
    "director/ha/vips.py": "since when an address is held: shown to operators",
}
#: The only modules that take Twisted's own reactor, and who gives it the clock of timers.
REACTORS = {
    "agent/cli.py": "LoadReporter",
    "agent/tap.py": "LoadReporter",
    "director/builder.py": "DirectorService",
    "director/cli.py": "DirectorService; bootstrap, which has no service, by itself",
    "director/tap.py": "DirectorService",
}
#: What reads the time of day, by module.
READERS = {
    "time": {"time", "time_ns", "ctime", "asctime", "gmtime", "localtime", "CLOCK_REALTIME", "CLOCK_TAI"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}


class Bare(ReactorBase):
    """A reactor's timers, without descriptors."""

    def installWaker(self) -> None:
        """Nobody sleeps here."""


class ReactorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.day = 1e9
        twisteds_own = SimpleNamespace(seconds=lambda: self.day)
        self.patch(clock, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.patch(clock, "runtime", twisteds_own)
        self.reactor: Any = Bare()
        self.reactor.seconds = twisteds_own.seconds
        self.called: list[str] = []

    def turn(self, seconds: float) -> list[str]:
        """What was called after so long."""
        self.now += seconds
        self.reactor.runUntilCurrent()
        called = self.called[:]
        self.called.clear()
        return called

    def test_steps(self) -> None:
        """A call comes when its time has passed, wherever the time of day went meanwhile."""
        run_on_monotonic(self.reactor)
        for step in (-3600.0, 3600.0, -5.0):
            self.reactor.callLater(2.0, self.called.append, "due")
            self.assertAlmostEqual(self.reactor.timeout(), 2.0)
            self.day += step
            self.assertAlmostEqual(self.reactor.timeout(), 2.0)
            self.assertEqual(self.turn(1.9), [])
            self.assertEqual(self.turn(0.2), ["due"])

    def test_begun_late(self) -> None:
        """Calls that were scheduled before keep the time that was left, also when they are put off later."""
        first = self.reactor.callLater(2.0, self.called.append, "first")
        self.reactor.callLater(1.0, self.called.append, "cancelled").cancel()
        self.reactor.callLater(3.0, self.called.append, "second")
        run_on_monotonic(self.reactor)
        self.day -= 3600
        self.assertEqual(self.turn(1.0), [])
        first.reset(2.5)
        self.assertEqual(self.turn(2.1), ["second"])
        self.assertEqual(self.turn(0.5), ["first"])

    def test_within_a_call(self) -> None:
        """It may begin in a call that the reactor makes: no other call comes early for it."""
        self.reactor.callLater(0.0, run_on_monotonic, self.reactor)
        self.reactor.callLater(5.0, self.called.append, "due")
        self.assertEqual(self.turn(0.0), [])
        self.assertEqual(self.turn(4.9), [])
        self.assertEqual(self.turn(0.2), ["due"])

    def test_goes_on(self) -> None:
        """The reactor says the time of day of the beginning, and counts on from it; beginning again changes nothing."""
        run_on_monotonic(self.reactor)
        self.day, self.now = 5.0, self.now + 7
        run_on_monotonic(self.reactor)
        self.assertEqual(self.reactor.seconds(), 1e9 + 7)

    def test_others(self) -> None:
        """A clock that is not Twisted's own is left alone."""
        test = Clock()
        run_on_monotonic(test)
        self.assertNotIn("seconds", vars(test))
        run_on_monotonic(object())
        self.reactor.seconds = seconds = lambda: 4.0
        run_on_monotonic(self.reactor)
        self.assertIs(self.reactor.seconds, seconds)


class OwnersTests(SynchronousTestCase):
    def test_services(self) -> None:
        """A director and an agent's reporter bring it along, wherever they are built in."""
        agents, directors = Bare(), Bare()
        LoadReporter(AgentConfig(name="a", directors=("127.0.0.1:1",), hosts=("web/main/a",), token="a"), reactor=agents)
        Director().service_tree(directors)
        for reactor in (agents, directors):
            self.assertIsNot(reactor.seconds, time.time)


@functools.cache
def _modules() -> list[tuple[str, ast.Module]]:
    paths = (path for package in ("agent", "cluster", "director") for path in sorted((ROOT / package).rglob("*.py")))
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text())) for path in paths]


def _reads_wall(tree: ast.Module) -> Iterator[str]:
    """What in a module reads the time of day, in whichever way it was imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parent = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if node.attr in READERS.get(parent, ()):
                yield f"{parent}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names if name.name in READERS.get(node.module or "", ()))


class SourceTests(SynchronousTestCase):
    def test_wall(self) -> None:
        """No module reads the time of day but those named above."""
        found = {name for name, tree in _modules() if any(_reads_wall(tree))}
        self.assertEqual(found, set(WALL))

    def test_finds_readers(self) -> None:
        """Every way to write it is found."""
        for source in ("time.time()", "from time import time", "x = time.time", "datetime.now(UTC)",
                       "datetime.datetime.now()", "from time import time_ns as t", "date.today()",
                       "time.clock_gettime(time.CLOCK_REALTIME)"):
            self.assertTrue(list(_reads_wall(ast.parse(source))), source)
        for source in ("time.monotonic()", "datetime.fromtimestamp(at, UTC)", "now()", "self.time()"):
            self.assertEqual(list(_reads_wall(ast.parse(source))), [], source)

    def test_reactors(self) -> None:
        """Twisted's own reactor comes in nowhere but at the doors named above."""
        found = {
            name for name, tree in _modules() for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet"
            and any(each.name == "reactor" for each in node.names)
        }
        self.assertEqual(found, set(REACTORS))

    def test_bootstrap(self) -> None:
        """The only one of them without a service begins the clock itself."""
        tree = dict(_modules())["director/cli.py"]
        (bootstrap,) = (node for node in tree.body if getattr(node, "name", "") == "bootstrap")
        self.assertIn("run_on_monotonic(reactor)", map(ast.unparse, ast.walk(bootstrap)))
