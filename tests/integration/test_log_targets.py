"""A director that logs to syslog or the journal: a daemon that goes and comes back, and the real journal, which stands still."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.integration.test_cli import DEADLINE_S, until
from tests.integration.test_logging import LoggingCase, answered

JOURNALD = "/lib/systemd/systemd-journald"
#: Their lines are more than the backlog holds.
CONNECTIONS = 6_000
#: A journal with /run and /var/log of its own.
ALONE = ("mount -t tmpfs none /run && mount -t tmpfs none /var/log && mkdir -p /run/systemd/journal /run/log/journal && "
         f"exec {JOURNALD}")


def require_journald() -> None:
    """Skip where it cannot be run, fail in CI."""
    why = "" if os.path.exists(JOURNALD) and shutil.which("journalctl") else "the journal is missing: apt-get install systemd"
    if not why and os.geteuid() != 0:
        why = "a mount namespace with a journal of its own takes root"
    if why and os.environ.get("CI") == "true":
        raise AssertionError(why)
    if why:
        raise SkipTest(why)


class SyslogTests(LoggingCase):
    def daemon(self) -> None:
        """Listens at `path`; what it hears is the log."""
        self.heard: list[bytes] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        heard, sock = self.heard, self.socket

        def listen() -> None:
            while data := sock.recv(1 << 17):
                heard.append(data)

        self.thread = threading.Thread(target=listen, daemon=True)
        self.thread.start()

    def leave(self) -> None:
        """The daemon ends."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.path)
        self.thread.join(DEADLINE_S)
        self.socket.close()
        os.unlink(self.path)

    def written(self) -> str:
        return "".join(f"{record.decode()}\n" for record in self.heard)

    def test_a_daemon(self) -> None:
        """Records as daemons expect them; those of a time without a daemon reach the next one, and nobody waits."""
        self.path = str(self.directory / "dev-log")
        self.daemon()
        process = self.begin(f"target = 'syslog:{self.path}'\n")
        port, admin = self.ready()
        self.said(rf"<30>\w{{3}} [ \d]\d \d\d:\d\d:\d\d director\[{process.pid}\]: \[director\.process\.Process\] ready\n")
        self.leave()
        self.assertTrue(all(answered(port) for _ in range(50)))
        self.daemon()
        until(lambda: self.written().count(" service=web ") == 50)
        self.assertEqual(self.dropped(admin), 0)
        process.terminate()
        self.assertEqual(process.wait(DEADLINE_S), 0)
        self.said("SIGTERM: stopping")
        self.leave()

    def test_nobody_there(self) -> None:
        """A target that cannot be reached is an error of the file, with its place; `check` tells it too."""
        config = self.directory / "director.toml"
        config.write_text(f"[node.log]\ntarget = 'syslog:{self.directory}/none'\n")
        for command in ("check", "run"):
            done = subprocess.run([sys.executable, "-m", "director", command, str(config)], capture_output=True, text=True,
                                  timeout=60, check=False)
            self.assertEqual(done.returncode, 2)
            self.assertIn(f"director.toml:2: node.log.target: cannot write the log to syslog:{self.directory}/none: "
                          "No such file or directory", done.stderr)


class JournalTests(LoggingCase):
    def setUp(self) -> None:
        require_journald()
        super().setUp()
        self.journal = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", ALONE],
                                        stderr=subprocess.DEVNULL)
        self.addCleanup(self.end, self.journal)
        until(Path(f"/proc/{self.journal.pid}/root/run/systemd/journal/socket").is_socket)

    def inside(self, *words: str) -> tuple[str, ...]:
        """A command beside the journal."""
        return ("nsenter", "-t", str(self.journal.pid), "--mount", f"--wdns={Path.cwd()}", *words)

    def entries(self) -> list[dict[str, Any]]:
        done = subprocess.run(self.inside("journalctl", "-D", "/run/log/journal", "-o", "json", "-t", "director"),
                              capture_output=True, text=True, timeout=60, check=False)
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def written(self) -> str:
        return "".join(f"{each['MESSAGE']}\n" for each in self.entries())

    def said(self, pattern: str) -> re.Match[str]:
        """Each look is a process or two, which a busy machine needs for the director: so they are few, and there is time."""
        deadline = time.monotonic() + 4 * DEADLINE_S
        while not (found := re.search(pattern, self.written())):
            assert time.monotonic() < deadline, pattern
            time.sleep(0.2)
        return found

    def run_beside(self, target: str) -> subprocess.Popen[bytes]:
        return self.begin(f"target = '{target}'\n", before=self.inside())

    def test_fields(self) -> None:
        """Each event is one entry with its severity, who said it, and the event's own fields."""
        process = self.run_beside("journal")
        port, _ = self.ready()
        self.assertTrue(answered(port))
        self.said(" service=web ")
        (entry,) = [each for each in self.entries() if each.get("TXDIRECTOR_NAMESPACE") == "director.access"]
        self.assertEqual((entry["PRIORITY"], entry["SYSLOG_FACILITY"], entry["TXDIRECTOR_SERVICE"], entry["TXDIRECTOR_TO_CLIENT"]),
                         ("6", "3", "web", "4"))
        self.assertEqual(entry["_PID"], str(process.pid))
        process.terminate()
        self.assertEqual(process.wait(DEADLINE_S), 0)
        self.said("SIGTERM: stopping")

    def test_stands_still(self) -> None:
        """While the journal takes nothing clients are served, what there is no room for is counted, and told afterwards."""
        self.run_beside("journal")
        port, admin = self.ready()
        self.journal.send_signal(signal.SIGSTOP)
        self.assertTrue(all(answered(port) for _ in range(CONNECTIONS)))
        dropped = self.dropped(admin)
        self.assertTrue(0 < dropped < CONNECTIONS, dropped)
        self.journal.send_signal(signal.SIGCONT)
        self.said(rf"{dropped} lines were dropped here")
        self.assertEqual(self.written().count(" service=web "), CONNECTIONS - dropped)

    def test_by_its_syslog_socket(self) -> None:
        """A real daemon understands our records of syslog."""
        process = self.run_beside("syslog:/run/systemd/journal/dev-log")
        self.ready()
        self.said("ready\n")
        (entry,) = [each for each in self.entries() if each["MESSAGE"].endswith("] ready")]
        self.assertEqual((entry["PRIORITY"], entry["SYSLOG_PID"], entry["_TRANSPORT"]), ("6", str(process.pid), "syslog"))
