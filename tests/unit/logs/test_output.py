"""`director.logs.output`: what is written where, from which level on; the access log."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cluster.log.limit import BURST
from cluster.model import Logging, Reason
from director.logs.lines import text_line
from director.logs.output import REOPEN_S, AccessRecord, Output, access_log, log_access
from tests.unit.cluster.log.log_kit import LogReactor
from tests.unit.logs.test_lines import event


class OutputTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "log")
        self.reactor = LogReactor()
        self.stderr = os.path.join(directory.name, "stderr")
        self.stream = open(self.stderr, "w", encoding="utf-8")  # noqa: SIM115 (the test's)
        self.addCleanup(self.stream.close)

    def output(self, config: Logging) -> Output:
        made = Output(config, reactor=self.reactor, streams={"stderr": self.stream})
        self.addCleanup(made.close)
        return made

    def read(self, path: str) -> str:
        with open(path, encoding="utf-8") as file:
            return file.read()

    def test_levels(self) -> None:
        """Events below the level are left out; at info, Twisted's own chatter too, but not its warnings."""
        output = self.output(Logging())
        for level, namespace in (
            ("debug", "director"),
            ("info", "twisted.web"),
            ("info", "director"),
            ("warn", "twisted.web"),
        ):
            output(event(level=LogLevel.levelWithName(level), log_namespace=namespace))
        self.assertEqual(
            [line.split(maxsplit=1)[1] for line in self.read(self.stderr).splitlines()],
            ["info  [director] web listens", "warn  [twisted.web] web listens"],
        )
        everything = self.output(Logging(level="debug"))
        everything(event(level=LogLevel.debug, log_namespace="twisted"))
        self.assertIn("debug [twisted]", self.read(self.stderr))

    def test_rotation(self) -> None:
        """After its file was moved away, `reopen` writes to a new one under the old name; nothing is lost."""
        output = self.output(Logging(target=self.path))
        output(event(a="one"))
        os.rename(self.path, self.path + ".1")
        output(event(a="two"))
        output.reopen()
        output(event(a="three é"))
        self.assertEqual([line.rsplit(" ", 2)[-2] for line in self.read(self.path + ".1").splitlines()], ["one", "two"])
        self.assertTrue(self.read(self.path).endswith("three é listens\n"))

    def test_failed_rotation(self) -> None:
        """When the new file cannot be opened, the old one is written to still; that is logged once and tried again."""
        output = self.output(Logging(target=self.path))
        self.reactor.begin()
        os.rename(self.path, self.path + ".1")
        os.mkdir(self.path)
        globalLogPublisher.addObserver(output)
        self.addCleanup(globalLogPublisher.removeObserver, output)
        self.assertEqual(output.reopen(), "Is a directory")
        for _ in range(3):
            self.reactor.work()
            self.reactor.advance(REOPEN_S)
        self.assertEqual(self.read(self.path + ".1").count("cannot reopen the log"), 1)
        os.rmdir(self.path)
        self.reactor.advance(REOPEN_S)
        self.reactor.work()
        self.assertIn("the log is open again\n", self.read(self.path))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_streams_stay_open(self) -> None:
        """Reopening or closing has no effect on the standard streams."""
        output = self.output(Logging(format="json"))
        self.assertEqual(output.reopen(), "")
        output(event())
        output.close()
        self.stream.write("still open\n")
        self.stream.close()
        first, second = self.read(self.stderr).splitlines()
        self.assertEqual((json.loads(first)["message"], second), ("web listens", "still open"))

    def test_storm(self) -> None:
        """A storm is summed up, at the end at the latest; not so the access log."""
        output = self.output(Logging(target=self.path, access=True))
        globalLogPublisher.addObserver(output)
        self.addCleanup(globalLogPublisher.removeObserver, output)
        for _ in range(100):
            output(event())
            log_access(AccessRecord("10.0.0.9:5", "web", "", "", Reason.NO_HOST, 0, 0, 0.0, 0.0))
        output.close()
        lines = self.read(self.path).splitlines()
        self.assertEqual(len(lines), BURST + 1 + 100)
        self.assertIn("[director.engine.node] and 80 more like this in 0", lines[-1])

    def test_dropped(self) -> None:
        """Lines that a full pipe has no room for are counted, and told when it has some."""
        reads, writes = os.pipe()
        self.addCleanup(os.close, reads)
        with open(writes, "w", encoding="utf-8") as stream:
            output = Output(Logging(), reactor=self.reactor, streams={"stderr": stream})
        self.addCleanup(output.close)
        self.reactor.begin()
        while not output.dropped:
            output(event(log_each=True))
        found = ""
        while self.reactor.writers:
            found += os.read(reads, 1 << 16).decode()
            self.reactor.writable()
        self.assertIn("[director.logs.output] 1 lines were dropped here", found + os.read(reads, 1 << 16).decode())

    def test_unwritable(self) -> None:
        """A target that cannot be opened is the caller's error."""
        with self.assertRaises(OSError):
            Output(Logging(target="/nowhere/log"), reactor=self.reactor)


class AccessTests(SynchronousTestCase):
    def test_line(self) -> None:
        """One event for a connection, with every field of the record by name."""
        seen: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(seen.append)
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)
        log_access(AccessRecord("10.0.0.9:5", "web", "blue", "app1", Reason.HOST_CLOSED, 10, 20, 0.0000014, 1.25))
        [found] = [each for each in seen if each["log_namespace"] == "director.access"]
        self.assertTrue(
            text_line(found).endswith(
                "[director.access] 10.0.0.9:5 service=web group=blue host=app1 reason=host_closed to_host=10 "
                "to_client=20 waited_s=1e-06 duration_s=1.25"
            )
        )
        self.assertEqual(
            {key: found[key] for key in AccessRecord._fields if key in ("reason", "host", "to_client")},
            {"reason": "host_closed", "host": "app1", "to_client": 20},
        )

    def test_off(self) -> None:
        """Without the access log nobody is told, so that connections cost nothing more."""
        self.assertIsNone(access_log(Logging()))
        self.assertIsNotNone(access_log(Logging(access=True)))


class SelfTests(SynchronousTestCase):
    def test_logger_events(self) -> None:
        """What twisted.logger emits has everything the formats need."""
        seen: list[dict[str, Any]] = []
        Logger(namespace="n", observer=seen.append).info("{x}", x=1)
        self.assertTrue(text_line(seen[0]).endswith("info  [n] 1"))
