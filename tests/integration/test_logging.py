"""A director whose log cannot be written: it serves on, counts what it drops, and logs again when it can."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cluster import wire
from director.ctl.client import CallFailed, Client
from tests.integration.test_cli import DEADLINE_S, SERVICE, address, until

#: Their lines are half as much again as pipe and backlog hold.
CONNECTIONS = 10_000
HEAD = "[[node.admin.endpoints]]\nlisten = '127.0.0.1:0'\n[node.log]\naccess = true\n"


@contextlib.contextmanager
def greeting() -> Iterator[str]:
    """A backend that says pong and closes; its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as sock:
        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = sock.accept()
                    with client:
                        client.sendall(b"pong")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield address(sock)
        sock.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE_S)


def answered(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as client:
        return client.recv(100) == b"pong"


class LoggingCase(SynchronousTestCase):
    """A director with one service, whose log is looked at."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.log = self.directory / "log"

    def begin(self, more: str = "", *, stderr: int = subprocess.DEVNULL,
              before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        backend = self.enterContext(greeting())
        config = self.directory / "director.toml"
        config.write_text(HEAD + more + SERVICE.format(port=0, host=backend))
        process = subprocess.Popen([*before, sys.executable, "-m", "director", "run", str(config)], stderr=stderr)
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()

    def written(self) -> str:
        """The log until now."""
        return self.log.read_text() if self.log.exists() else ""

    def said(self, pattern: str) -> re.Match[str]:
        """Wait for *pattern* in the log."""
        found: list[re.Match[str]] = []

        def looked() -> bool:
            found.extend(re.finditer(pattern, self.written()))
            return bool(found)

        until(looked)
        return found[0]

    def ready(self) -> tuple[int, str]:
        """The service's port, and the admin's URL."""
        self.said("ready\n")
        return int(self.said(r"web listens on 127\.0\.0\.1:(\d+)")[1]), self.said(r"admin at (http://\S+)")[1]

    def dropped(self, admin: str) -> int:
        with urllib.request.urlopen(f"{admin}/metrics", timeout=DEADLINE_S) as answer:
            found = re.search(r"^txdirector_log_lines_dropped_total (\S+)$", answer.read().decode(), re.M)
        assert found is not None
        return int(float(found[1]))


class LoggingTests(LoggingCase):
    def stopped_reader(self, writes: int, reader: subprocess.Popen[bytes], process: subprocess.Popen[bytes]) -> None:
        """What a director must do while *reader* of its log is stopped, and when it goes on."""
        os.close(writes)
        port, admin = self.ready()
        reader.send_signal(signal.SIGSTOP)
        served = sum(answered(port) for _ in range(CONNECTIONS))
        self.assertEqual(served, CONNECTIONS)
        dropped = self.dropped(admin)
        self.assertTrue(0 < dropped < CONNECTIONS, dropped)
        reader.send_signal(signal.SIGCONT)
        self.said(r"warn  \[director\.logs\.output\] \d+ lines were dropped here")
        self.assertTrue(answered(port))
        process.terminate()
        self.assertEqual(process.wait(DEADLINE_S), 0)
        self.assertEqual(reader.wait(DEADLINE_S), 0)
        text = self.log.read_text()
        told = sum(map(int, re.findall(r"(\d+) lines were dropped here", text)))
        self.assertGreaterEqual(told, dropped)  # the last clients may have been logged after they were counted
        self.assertEqual(text.count(" service=web "), CONNECTIONS + 1 - told)
        self.assertTrue(all(re.match(r"\d{4}-\S+Z \w+ +\[\S+\] ", line) for line in text.splitlines()))
        self.assertIn("SIGTERM: stopping", text)

    def reader(self, stdin: int) -> subprocess.Popen[bytes]:
        with open(self.log, "wb") as file:
            reader = subprocess.Popen(["cat"], stdin=stdin, stdout=file)
        os.close(stdin)
        self.addCleanup(self.end, reader)
        return reader

    def test_pipe(self) -> None:
        """While the reader of stderr, a pipe, is stopped, 10,000 clients are served."""
        reads, writes = os.pipe()
        reader = self.reader(reads)
        self.stopped_reader(writes, reader, self.begin(stderr=writes))

    def test_socket(self) -> None:
        """The same with a socket, as the journal's."""
        ours, theirs = socket.socketpair()
        reader = self.reader(theirs.detach())
        writes = ours.detach()
        self.stopped_reader(writes, reader, self.begin(stderr=writes))

    def test_reader_gone(self) -> None:
        """The reader's end is not the director's."""
        reads, writes = os.pipe()
        reader = self.reader(reads)
        process = self.begin(stderr=writes)
        os.close(writes)
        port, _ = self.ready()
        reader.kill()
        reader.wait()
        self.assertTrue(all(answered(port) for _ in range(100)))
        process.terminate()
        self.assertEqual(process.wait(DEADLINE_S), 0)

    def test_last_words(self) -> None:
        """Why a director cannot start is told in full, though it ends at once."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            reads, writes = os.pipe()
            reader = self.reader(reads)
            more = f"[node.agents]\nlisten = ['{address(taken)}']\n"
            process = self.begin(more, stderr=writes)
            os.close(writes)
            self.assertEqual(process.wait(DEADLINE_S), 1)
            reader.wait(DEADLINE_S)
            self.assertRegex(self.log.read_text(), r"critical \[.*cannot start: .*Address already in use")

    def test_quarrel(self) -> None:
        """Two agents of one identity that push each other out, 300 times, write some lines and a count."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.begin(f"target = '{self.log}'\n[node.agents]\nlisten = ['127.0.0.1:{port}']\n")
        self.ready()
        before = self.log.read_text().count("\n")
        for _ in range(300):
            hello = wire.Hello(version=1, agent="app1", boot_id="b",
                               hosts=[wire.HostClaim(host="web/blue/app1")])
            agent = self.enterContext(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
            agent.sendall(wire.encode(hello))
            self.assertRegex(agent.recv(4096), b"welcome|contested")
        self.said(r"and \d+ more like this in [\d.]+ s, the last: agent app1 ")
        text = self.log.read_text()
        self.assertIn(" agent app1 connected from ", text)
        self.assertLess(text.count("\n") - before, 150, text)

    def test_full_disk(self) -> None:
        """On a full disk the log waits, through a rotation too; when its new file cannot be made the caller is told, and it
        is tried again. All lines come when there is room."""
        if os.geteuid() != 0:
            raise SkipTest("mounting takes root")
        disk = self.directory / "disk"
        disk.mkdir()
        mount = f"mount -t tmpfs -o size=64k,nr_inodes=5 none {disk} && exec \"$@\""
        process = self.begin(f"target = '{disk}/log'\n", before=("unshare", "--mount", "sh", "-c", mount, "sh"))
        disk = Path(f"/proc/{process.pid}/root{disk}")
        self.log = disk / "log"
        port, admin = self.ready()
        client = Client(admin)
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(64))
        for _ in range(100):
            self.assertTrue(answered(port))
        until(lambda: os.stat(self.log).st_size % 4096 == 0)  # its last page is full
        self.log.rename(disk / "log.1")
        client.post("process", "reopen_logs")
        for _ in range(100):
            self.assertTrue(answered(port))
        self.assertEqual(self.log.read_text(), "")
        # and no room for one more file
        self.log.rename(disk / "log.2")
        (disk / "one more").touch()
        with self.assertRaises(CallFailed) as refused:
            client.post("process", "reopen_logs")
        self.assertRegex(str(refused.exception), "cannot reopen .*/log, which is tried again every 5 s; until then the old "
                                                 "file is written to: No space left on device")
        ballast.unlink()
        self.said("the log is open again")
        self.assertTrue(answered(port))
        names = [disk / name for name in ("log.1", "log.2", "log")]
        until(lambda: sum(len(re.findall(r" service=web .* duration_s=\S+\n", name.read_text())) for name in names) == 201)
        self.assertIn("cannot reopen the log", "".join(name.read_text() for name in names))
        self.assertEqual(self.dropped(admin), 0)
