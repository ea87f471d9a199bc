"""The units are sound and strict, and what they start speaks sd_notify's protocol with a real socket."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from director.relay.choice import native_missing
from tests.integration.test_cli import DEADLINE_S, SERVICE, CliTestCase, Running, address, listening
from tests.one_thread import stopped, threads

UNITS = Path(__file__).parents[2] / "deploy/systemd"
#: The watchdog's patience in these tests: fed each tenth of a second.
WATCHDOG_S = 0.3
#: The systemd that knows this type of service.
NOTIFY_RELOAD = 253
#: systemd's own scale of what a service could do to the machine, from 0 to 10.
MOST_EXPOSED = {"txdirector": 2.5, "director-agent": 1.5}


class Systemd:
    """Its end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(DEADLINE_S)
        self._socket.bind(address)

    def hear(self, wait_s: float = DEADLINE_S) -> dict[str, str]:
        """The next message."""
        self._socket.settimeout(wait_s)
        return dict(line.split("=", 1) for line in self._socket.recv(65536).decode().split("\n"))

    def hear_of(self, name: str, pattern: str = "") -> dict[str, str]:
        """The next one that has *name*, with *pattern* in its value."""
        deadline = time.monotonic() + DEADLINE_S
        while not (name in (heard := self.hear()) and re.search(pattern, heard[name])):
            assert time.monotonic() < deadline, f"{name} with {pattern!r} never came; the last: {heard}"
        return heard

    def hear_for(self, seconds: float) -> set[str]:
        """What all those have in them that come meanwhile."""
        end, names = time.monotonic() + seconds, set[str]()
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                names |= self.hear(left).keys()
        return names

    def close(self) -> None:
        self._socket.close()


class NotifyTests(CliTestCase):
    def listen(self, at: str) -> Systemd:
        systemd = Systemd(at)
        self.addCleanup(systemd.close)
        return systemd

    def begin(self, at: str, *command: str, watchdog_s: float = 0.0) -> Running:
        environment = {"NOTIFY_SOCKET": at, **({"WATCHDOG_USEC": str(int(watchdog_s * 1e6))} if watchdog_s else {})}
        running = Running(*command, env=environment)
        self.addCleanup(running.end)
        return running

    def test_a_director(self) -> None:
        """Ready, reloading twice (the second is refused), stopping for as long as its clients may take."""
        at = str(self.directory / "notify")
        systemd = self.listen(at)
        with listening() as backend:
            path = Path(self.write(SERVICE.format(port=0, host=address(backend))))
            running = self.begin(at, "-m", "director", "run", str(path))
            self.assertEqual(systemd.hear(), {"STATUS": "starting"})
            serving = "serving 1 service, 0 connections, 1 of 1 host in rotation"
            self.assertEqual(systemd.hear(), {"READY": "1", "MAINPID": str(running.process.pid), "STATUS": serving})
            port = int(running.says(r"web listens on 127\.0\.0\.1:(\d+)")[1])
            socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S).close()  # ready, and so it is
            backend.accept()[0].close()

            told_at = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            running.tell(signal.SIGHUP)
            reloading = systemd.hear_of("RELOADING")
            self.assertLessEqual(told_at, int(reloading["MONOTONIC_USEC"]))
            self.assertTrue(systemd.hear_of("READY")["STATUS"].startswith("serving 1 service, "))
            path.write_text("[rubbish")
            running.tell(signal.SIGHUP)
            systemd.hear_of("RELOADING")
            self.assertIn("in rotation; nothing was reloaded: ", systemd.hear_of("READY")["STATUS"])

            client, host = self.relayed(backend, port)
            systemd.hear_of("STATUS", " 1 connection, .*; nothing was reloaded: ")
            running.tell(signal.SIGTERM)
            self.assertEqual(systemd.hear_of("STOPPING"), {
                "STOPPING": "1", "EXTEND_TIMEOUT_USEC": "330000000", "STATUS": "SIGTERM: waiting for 1 connections",
            })
            client.close()
            host.close()
            self.assertEqual(running.ended(), 0)

    def watched(self, relay: str = "auto") -> tuple[Systemd, Running]:
        """A director whose watchdog is fed."""
        at = f"@txdirector-{os.getpid()}-{self.id()}"
        systemd = self.listen("\0" + at[1:])
        text = SERVICE.replace("[services.web]\n", f"[services.web]\nrelay = '{relay}'\n").format(port=0, host="127.0.0.1:1")
        running = self.begin(at, "-m", "director", "run", self.write(text), watchdog_s=WATCHDOG_S)
        systemd.hear_of("READY")
        for _ in range(5):
            systemd.hear_of("WATCHDOG")
        return systemd, running

    def test_a_frozen_process(self) -> None:
        """It feeds the watchdog no more, and again once it goes on."""
        systemd, running = self.watched()
        running.tell(signal.SIGSTOP)
        os.waitid(os.P_PID, running.process.pid, os.WSTOPPED | os.WNOWAIT)
        systemd.hear_for(WATCHDOG_S)  # what was on its way
        self.assertEqual(systemd.hear_for(3 * WATCHDOG_S), set())
        running.tell(signal.SIGCONT)
        systemd.hear_of("WATCHDOG")

    def test_a_reactor_that_does_not_turn(self) -> None:
        """Nor does it while only the reactor's thread stands still."""
        systemd, running = self.watched()
        with stopped(running.process.pid):
            systemd.hear_for(WATCHDOG_S)
            self.assertEqual(systemd.hear_for(3 * WATCHDOG_S), set())
        systemd.hear_of("WATCHDOG")

    def test_a_relay_that_does_not_turn(self) -> None:
        """Nor while one thread of the relay stands still, though the reactor turns; both log and status say so."""
        if native_missing():
            raise SkipTest(f"needs the native relay: {native_missing()}")
        systemd, running = self.watched()
        with stopped(threads(running.process.pid)["relay-0"]):
            systemd.hear_of("STATUS", "^a thread of the native relay has not turned for 5 s; serving 1 service, ")
            running.says("systemd's watchdog is not fed: a thread of the native relay has not turned for 5 s")
            self.assertEqual(systemd.hear_for(5 * WATCHDOG_S), {"STATUS"})
        self.assertTrue(systemd.hear_of("WATCHDOG")["STATUS"].startswith("serving 1 service, "))
        running.says("systemd's watchdog is fed again")

    def test_a_log_that_nobody_reads(self) -> None:
        """It is not what is waited for: the watchdog is fed though the log's pipe is full."""
        at = str(self.directory / "notify")
        systemd = self.listen(at)
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        os.set_blocking(writing, True)
        process = subprocess.Popen(
            [sys.executable, "-m", "director", "run", self.write(SERVICE.format(port=0, host="127.0.0.1:1"))], stderr=writing,
            env={**os.environ, "NOTIFY_SOCKET": at, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        os.close(writing)
        systemd.hear_of("READY")
        for _ in range(5):
            systemd.hear_of("WATCHDOG")

    def test_an_agent(self) -> None:
        """Ready though no director is there; stopping for as long as it may."""
        at = str(self.directory / "notify")
        systemd = self.listen(at)
        running = self.begin(at, "-m", "agent.cli", "--director", "127.0.0.1:1", "--host", "web/blue/a", "--leave-deadline", "7",
                             watchdog_s=WATCHDOG_S)
        heard = "for web/blue/a; 0 of 1 directors listen"
        self.assertEqual(systemd.hear_of("READY")["STATUS"], f"reporting {heard}")
        self.assertEqual(systemd.hear(), {"WATCHDOG": "1"})
        running.tell(signal.SIGTERM)
        self.assertEqual(systemd.hear_of("STOPPING"),
                         {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "37000000", "STATUS": f"leaving {heard}"})
        self.assertEqual(running.ended(), 0)

    def test_nobody_listens(self) -> None:
        """A socket that is not there costs one line of the log, and no client."""
        with listening() as backend:
            running = self.begin(str(self.directory / "none"), "-m", "director", "run",
                                 self.write(SERVICE.format(port=0, host=address(backend))), watchdog_s=0.03)
            running.says("systemd was not told STATUS=starting: ")
            for end in self.relayed(backend, int(running.says(r"web listens on 127\.0\.0\.1:(\d+)")[1])):
                end.close()
            running.tell(signal.SIGTERM)
            self.assertEqual(running.ended(), 0)
            self.assertEqual(running.output.count("systemd was not told"), 1)


class UnitTests(SynchronousTestCase):
    def setUp(self) -> None:
        if shutil.which("systemd-analyze") is None:
            if os.environ.get("CI") == "true":
                raise AssertionError("systemd is not installed: apt-get install systemd")
            raise SkipTest("needs systemd-analyze: apt-get install systemd")
        self.folder = Path(self.mktemp())
        shutil.copytree(UNITS, self.folder)
        for unit in self.folder.glob("*.service"):  # the commands as they are installed here
            unit.write_text(unit.read_text().replace("=/usr/bin/", f"={Path(sys.executable).parent}/"))
        if self.version() < NOTIFY_RELOAD:
            (self.folder / "txdirector.service.d/notify-reload.conf").unlink()

    def version(self) -> int:
        found = re.match(r"systemd (\d+)", self.analyze("--version"))
        assert found is not None
        return int(found[1])

    def analyze(self, *words: str) -> str:
        done = subprocess.run(["systemd-analyze", "--no-pager", *words], cwd=self.folder, capture_output=True, text=True, timeout=60,
                              check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_verify(self) -> None:
        """systemd reads every line of them, the drop-in too, without a word."""
        for name in MOST_EXPOSED:
            self.assertEqual(self.analyze("verify", "--man=no", f"./{name}.service"), "")

    def test_security(self) -> None:
        """By systemd's measure, with the drop-in for virtual addresses and without."""
        for drop_ins in (True, False):
            for name, most in MOST_EXPOSED.items():
                exposed = re.search(r"exposure level for \S+: ([\d.]+)", self.analyze("security", "--offline=yes", f"./{name}.service"))
                assert exposed is not None
                self.assertLessEqual(float(exposed[1]), most, name)
            if drop_ins:
                shutil.rmtree(self.folder / "txdirector.service.d")

    def test_users(self) -> None:
        """Those that the units run as are those that sysusers makes, and tmpfiles names no other."""
        text = (UNITS / "sysusers.d/txdirector.conf").read_text()
        made = set(re.findall(r"^u +(\S+)", text, flags=re.M))
        used = {user for unit in UNITS.glob("*.service") for user in re.findall(r"^(?:User|Group)=(.*)", unit.read_text(), flags=re.M)}
        named = set(re.findall(r"^\w +\S+ +\d+ +(\S+) +(\S+)", (UNITS / "tmpfiles.d/txdirector.conf").read_text(), flags=re.M))
        self.assertEqual(used, made)
        self.assertLessEqual({name for pair in named for name in pair}, made | {"root"})
        if shutil.which("systemd-sysusers"):
            done = subprocess.run(["systemd-sysusers", "--dry-run", str(UNITS / "sysusers.d/txdirector.conf")], capture_output=True,
                                  text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
