"""`director init` as people and machines meet it: asked on a real terminal, and on a disk that is really full."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.integration.test_cli import DEADLINE_S, CliTestCase

ROOT = Path(__file__).parents[2]
#: A tree takes 100 KB and 30 names: tmpfs gives whole pages, so each of these ends in the midst of it.
SIZES = ("size=4k", "size=24k", "size=64k", "size=10m,nr_inodes=6", "size=10m,nr_inodes=15")
OPTIONS = ("--director", "lb1=127.80.0.1", "--director", "lb2=127.80.0.2", "--etcd", "127.80.0.21:2379",
           "--host", "app1=127.80.0.9:80")


class Terminal:
    """A command at one; what it shows is what a person would see."""

    def __init__(self, *command: str) -> None:
        self.pid, self._at = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, *command])
        self.shown = ""
        self._seen = 0

    def asks(self, question: str) -> None:
        """Wait for it, after all that was waited for before."""
        deadline = time.monotonic() + DEADLINE_S
        while not (found := re.compile(re.escape(question)).search(self.shown, self._seen)):
            assert self._read(deadline), f"never asked {question!r}:\n{self.shown}"
        self._seen = found.end()

    def asks_in_secret(self, question: str) -> None:
        """As `asks`; what is typed before the terminal echoes no more is thrown away, as the prompt comes before that."""
        self.asks(question)
        deadline = time.monotonic() + DEADLINE_S
        while termios.tcgetattr(self._at)[3] & termios.ECHO:
            assert time.monotonic() < deadline, f"it echoes:\n{self.shown}"
            time.sleep(0.01)

    def type(self, text: str) -> None:
        os.write(self._at, text.encode())

    def ended(self) -> int:
        """The exit code; all that it said is then shown."""
        deadline = time.monotonic() + DEADLINE_S
        while self._read(deadline):
            pass
        if time.monotonic() >= deadline:
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        while self._read(deadline):  # what the kernel had not passed on when it said that nobody is there
            pass
        self._at, at = -1, self._at
        os.close(at)
        return os.waitstatus_to_exitcode(status)

    def end(self) -> None:
        """For cleanup."""
        if self._at >= 0:
            os.kill(self.pid, signal.SIGKILL)
            self.ended()

    def _read(self, deadline: float) -> bool:
        """False: it has ended, or time is up."""
        if not select.select([self._at], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._at, 65536)
        except OSError:  # EIO: nobody is at the other end any more
            return False
        self.shown += data.decode().replace("\r\n", "\n")
        return bool(data)


class TerminalTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.there = self.directory / "cluster"
        self.terminal = Terminal("-m", "director", "init", str(self.there))
        self.addCleanup(self.terminal.end)

    def answer(self, *pairs: tuple[str, str]) -> None:
        for question, answer in pairs:
            self.terminal.asks(question)
            self.terminal.type(f"{answer}\n")

    def test_asked(self) -> None:
        """Two directors: each question once more until there is nothing to add; the password is not shown; then the next three
        commands, and files that `director check` takes."""
        self.answer(
            ("A director (NAME=ADDRESS)", "lb1"), ("Error: 'lb1': expected NAME=ADDRESS", ""),
            ("A director (NAME=ADDRESS)", "lb1=127.80.0.1"), ("A director (NAME=ADDRESS), or nothing", "lb2=127.80.0.2"),
            ("A director (NAME=ADDRESS), or nothing", ""), ("A member of etcd (HOST:PORT)", "127.80.0.21:2379"),
            ("A member of etcd (HOST:PORT), or nothing", ""), ("A virtual address (ADDRESS/PREFIX), or nothing", "10.9.0.100/24"),
            ("A virtual address (ADDRESS/PREFIX), or nothing", ""), ("The network interface that takes it", "lo"),
            ("A backend host (NAME=ADDRESS:PORT), or nothing", "app1=127.80.0.9:80"), ("A backend host", ""),
            ("Where clients connect", ""),
        )
        for question in ("A password for admin", "The same again"):
            self.terminal.asks_in_secret(question)
            self.terminal.type("open sesame\n")
        self.assertEqual(self.terminal.ended(), 0, self.terminal.shown)
        self.assertNotIn("sesame", self.terminal.shown)
        _, _, told = self.terminal.shown.partition("\nNext:\n")
        commands = [line.split()[:2] for line in told.splitlines()]
        self.assertEqual(commands, [["director", "bootstrap"], ["director", "run"], ["director-agent", "--config"]])
        for name in ("lb1", "lb2"):
            path = str(self.there / f"directors/{name}/director.toml")
            done = subprocess.run([sys.executable, "-m", "director", "check", path], capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual((done.returncode, done.stdout.partition("\n")[0]), (0, "OK"), done.stderr)
            self.assertIn("etcd at 127.80.0.21:2379", done.stdout)
        self.assertTrue((self.there / "agents/app1/agent.toml").exists())

    def test_interrupted(self) -> None:
        """^C in the midst of the questions, the hidden one too: nothing is there, and the terminal echoes again."""
        self.answer(("A director (NAME=ADDRESS)", "lb1=127.80.0.1"), ("A director", ""), ("A member of etcd", ""),
                    ("A virtual address", ""), ("A backend host", ""), ("Where clients connect", ""))
        self.terminal.asks_in_secret("A password for admin")
        self.terminal.type("\x03")
        self.assertEqual(self.terminal.ended(), 1)
        self.assertIn("Aborted!", self.terminal.shown)
        self.assertEqual(os.listdir(self.directory), [])


class FullDiskTests(CliTestCase):
    """In mounts of its own, of a disk so small that it is full soon."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid():
            raise SkipTest("needs root, to mount a small disk")

    def on_disk(self, options: str, script: str) -> str:
        """What *script* prints, run in an empty directory of such a disk; ``init`` there is the command, without a traceback."""
        words = " ".join(OPTIONS)
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-uc", f'mount -t tmpfs -o {options} tmpfs "$1"; cd "$1"; shift; '
             f'init() {{ "$@"; echo "code $?"; }}; new() {{ init {sys.executable} -m director init "$1" {words}; }}\n{script}', "-",
             str(self.directory)],
            capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
        self.assertNotIn("Traceback", done.stderr)
        return done.stdout + done.stderr

    def test_new(self) -> None:
        """One sentence, exit code 1, and nothing is left: neither the directory nor what was written beside it."""
        for options in SIZES:
            said = self.on_disk(options, "new cluster; ls -A")
            self.assertEqual(re.sub("/.*cluster", "CLUSTER", said),
                             "code 1\ndirector: cannot write CLUSTER: No space left on device\n", options)

    def test_renewed_and_added(self) -> None:
        """A cluster that is there stays as it is, byte for byte, when there is no room for new certificates or one more agent."""
        python = f"{sys.executable} -m director init"
        said = self.on_disk("size=10m", f"""
            new cluster >/dev/null
            find cluster -type f -exec sha256sum {{}} + | sort >../before
            head -c 20m /dev/zero >filling 2>/dev/null
            init {python} --renew cluster
            init {python} --add cluster --host app2=127.80.0.8:80
            find cluster -type f -exec sha256sum {{}} + | sort | diff ../before -
            ls -A cluster cluster/agents""".replace("../before", "/dev/shm/$$.before") + "; rm /dev/shm/$$.before")
        self.assertEqual(re.sub(r"/\S*cluster", "CLUSTER", said).splitlines(), [
            "code 1", "code 1", "cluster:", "agents", "authority", "directors", "services.toml", "", "cluster/agents:", "app1",
            "director: cannot write below CLUSTER: No space left on device",
            "director: cannot write CLUSTER/agents/app2: No space left on device",
        ])
