"""A process killed while it commits: whatever it had been told was done is there afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cluster.file import FileStore

DEADLINE_S = 30.0
CRASHES = 8

#: Commits bursts of three through the reactor's threads, and says each revision once it is acknowledged.
COMMITTER = """
import os, sys, time
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from cluster import file
from cluster.store import Put

file.REWRITE_BYTES = 4000  # so that compactions are interrupted too

async def main():
    store = file.FileStore(sys.argv[1], clock=reactor, wall=time.time, threads=deferToThread, history_limit=20)
    await store.start()
    revision = (await store.list("")).revision
    while True:
        commits = [store.commit([Put(f"/{n % 40}", b"%d" % n), Put(f"/twin/{n % 40}", b"%d" % n)])
                   for n in range(revision + 1, revision + 4)]
        for commit in commits:
            revision = (await commit).revision
            os.write(1, b"%d\\n" % revision)

Deferred.fromCoroutine(main()).addErrback(lambda failure: (failure.printTraceback(), os._exit(3)))
reactor.run()
"""


class KillTests(SynchronousTestCase):

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.path = f"{self.directory}/store"

    def test_acknowledged_commits_survive_sigkill(self) -> None:
        """After each of several SIGKILLs every acknowledged commit is there, whole, and the lock is free."""
        acknowledged = 0
        for crash in range(CRASHES):
            acknowledged = self.run_and_kill(acknowledged + 20 + 7 * crash)
            store = FileStore(self.path, clock=Clock(), wall=time.time, threads=maybeDeferred)
            self.successResultOf(store.start())
            listing = self.successResultOf(store.list(""))
            self.assertGreaterEqual(listing.revision, acknowledged)
            # The value at every key is the last of the revisions that wrote it.
            expected = {f"/{n % 40}": b"%d" % n for n in range(1, listing.revision + 1)}
            expected.update({f"/twin{key}": value for key, value in expected.items()})
            self.assertEqual({record.key: record.value for record in listing.records}, expected)
            self.successResultOf(store.stop())

    def test_start_while_another_runs(self) -> None:
        """A second process is told who holds the file, and harms nothing."""
        process = self.spawn()
        try:
            self.lines_until(process, 5)
            store = FileStore(self.path, clock=Clock(), wall=time.time, threads=maybeDeferred)
            error = self.failureResultOf(store.start()).value
            self.assertIn(f"in use by process {process.pid}", str(error))
            self.lines_until(process, 50)
        finally:
            self.kill(process)

    def spawn(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([sys.executable, "-c", COMMITTER, self.path], stdout=subprocess.PIPE,
                                   env=environment)
        watchdog = threading.Timer(DEADLINE_S, process.kill)  # so that reading from it always ends
        watchdog.start()
        self.addCleanup(watchdog.cancel)
        return process

    def run_and_kill(self, revision: int) -> int:
        """Kill a committer once it has acknowledged *revision*; answers the last it acknowledged."""
        process = self.spawn()
        try:
            last = self.lines_until(process, revision)
        finally:
            rest = self.kill(process)
        return int(rest[-1]) if rest else last

    def lines_until(self, process: subprocess.Popen[bytes], revision: int) -> int:
        output = process.stdout
        assert output is not None
        last = 0
        while last < revision:
            line = output.readline()
            self.assertTrue(line, "the committer ended by itself, or made no progress")
            last = int(line)
        return last

    def kill(self, process: subprocess.Popen[bytes]) -> list[bytes]:
        """SIGKILL; answers the lines it had still written."""
        process.send_signal(signal.SIGKILL)
        output: IO[bytes] | None = process.stdout
        assert output is not None
        with output:
            rest = output.read().splitlines()
        process.wait()
        return rest
