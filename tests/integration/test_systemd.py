"""The units are sound and strict, and what they start speaks sd_notify's protocol with a real socket."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration.test_cli import DEADLINE_S, SERVICE, CliTestCase, Running, address, listening

UNITS = Path(__file__).parents[2] / "deploy/systemd"
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

    def hear_but_food(self) -> dict[str, str]:
        """The next one that is not the watchdog's."""
        while (heard := self.hear()) == {"WATCHDOG": "1"}:
            pass
        return heard

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
            self.assertEqual(systemd.hear(), {"READY": "1", "MAINPID": str(running.process.pid), "STATUS": "serving"})
            running.says("ready\n")  # and so it is

            running.tell(signal.SIGHUP)
            reloading = systemd.hear()
            self.assertEqual((reloading["RELOADING"], reloading["STATUS"]), ("1", "reloading"))
            self.assertTrue(reloading["MONOTONIC_USEC"].isdecimal())
            self.assertEqual(systemd.hear()["STATUS"], "serving")
            path.write_text("[rubbish")
            running.tell(signal.SIGHUP)
            self.assertEqual(systemd.hear()["RELOADING"], "1")
            refused = systemd.hear()
            self.assertEqual(refused["READY"], "1")
            self.assertIn("serving; nothing was reloaded: ", refused["STATUS"])

            client, host = self.relayed(backend, int(running.says(r"web listens on 127\.0\.0\.1:(\d+)")[1]))
            running.tell(signal.SIGTERM)
            self.assertEqual(systemd.hear(), {
                "STOPPING": "1", "EXTEND_TIMEOUT_USEC": "330000000", "STATUS": "SIGTERM: waiting for 1 connections",
            })
            client.close()
            host.close()
            self.assertEqual(running.ended(), 0)

    def test_the_watchdog_is_fed_by_what_turns(self) -> None:
        """Several times within its patience; a frozen director feeds it no more."""
        at = f"@txdirector-{os.getpid()}"
        systemd = self.listen("\0" + at[1:])
        running = self.begin(at, "-m", "director", "run", self.write(SERVICE.format(port=0, host="127.0.0.1:1")), watchdog_s=0.3)
        self.assertEqual(systemd.hear()["READY"], "1")
        for _ in range(5):
            self.assertEqual(systemd.hear(), {"WATCHDOG": "1"})
        running.tell(signal.SIGSTOP)
        os.waitid(os.P_PID, running.process.pid, os.WSTOPPED | os.WNOWAIT)
        with self.assertRaises(TimeoutError):
            for _ in range(100):
                systemd.hear(1.0)
        running.tell(signal.SIGCONT)
        self.assertEqual(systemd.hear(), {"WATCHDOG": "1"})

    def test_an_agent(self) -> None:
        """Ready though no director is there; stopping for as long as it may."""
        at = str(self.directory / "notify")
        systemd = self.listen(at)
        running = self.begin(at, "-m", "agent.cli", "--director", "127.0.0.1:1", "--host", "web/blue/a", "--leave-deadline", "7",
                             watchdog_s=0.3)
        self.assertEqual(systemd.hear()["READY"], "1")
        self.assertEqual(systemd.hear(), {"WATCHDOG": "1"})
        running.tell(signal.SIGTERM)
        self.assertEqual(systemd.hear_but_food(), {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "37000000", "STATUS": "leaving"})
        self.assertEqual(running.ended(), 0)

    def test_nobody_listens(self) -> None:
        """A socket that is not there costs one line of the log, and no client."""
        with listening() as backend:
            running = self.begin(str(self.directory / "none"), "-m", "director", "run",
                                 self.write(SERVICE.format(port=0, host=address(backend))), watchdog_s=0.03)
            running.says("systemd was not told READY=1: ")
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
