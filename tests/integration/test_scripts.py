"""Script probes by real programs: how they end, what they leave behind, how many run at a time."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cluster.address import Address
from cluster.model import HostRef, HostState, Probe
from director.checks import child
from director.checks.child import MAX_OUTPUT_BYTES, Readable
from director.checks.probes import ProbeResult
from director.checks.scripts import MAX_SCRIPTS, Scripts
from tests.integration.kit import BackendSite, DirectorTestCase, until

REF = HostRef("web", "blue", "a")
#: Of scripts that are to end by themselves.
LONG_S = 20.0


def lives(pid: int) -> bool:
    """Whether a process is there, and no zombie that somebody else has to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class ScriptsTestCase(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.directory.chmod(0o755)
        self.scripts = Scripts(str(self.directory), reactor=reactor)
        self.scripts.startService()
        self.addCleanup(self.scripts.stopService)

    def script(self, text: str, *, name: str = "check", shebang: str = "#!/bin/sh\n") -> str:
        path = self.directory / name
        path.write_text(shebang + text)
        path.chmod(0o755)
        return str(path)

    def probe(self, *command: str, timeout_s: float = LONG_S) -> Deferred[ProbeResult]:
        return self.scripts.probe(Address("192.0.2.7", 5432), Probe(kind="script", command=command, timeout_s=timeout_s), REF)

    async def said(self, name: str) -> str:
        """What a script wrote into a file."""
        path = self.directory / name
        await until(lambda: path.exists() and path.read_text().endswith("\n"), f"{name} is written")
        return path.read_text()


class ScriptTests(ScriptsTestCase):
    async def test_exits(self) -> None:
        """0 passes; whatever else, or a signal, does not. What it said last is told."""
        for text, ok, detail in (
            ("exit 0", True, r"^exit 0 in \d+ ms$"), ("echo fine; echo replica 3", True, r"^exit 0 in \d+ ms: replica 3$"),
            ("exit 3", False, r"^exit 3$"), ("echo a; echo 'no  primary' >&2; exit 2", False, r"^exit 2: no primary$"),
            ("kill -SEGV $$", False, r"^killed by SIGSEGV$"),
        ):
            result = await self.probe(self.script(text))
            self.assertEqual(result.ok, ok, text)
            self.assertRegex(result.detail, detail)

    async def test_what_it_is_given(self) -> None:
        """Its arguments as they are, the host, nothing to read, no descriptor of the director's, a group of its own."""
        self.patch(self.scripts, "_inherited", {"PATH": os.environ["PATH"], "SECRET": "x"})
        path = self.script(
            'read x && exit 9\necho "$2|$TXDIRECTOR_SERVICE/$TXDIRECTOR_GROUP/$TXDIRECTOR_HOST'
            '|$TXDIRECTOR_ADDRESS:$TXDIRECTOR_PORT|$SECRET|$(ls -l /proc/$$/fd | grep -c socket)$(ls -l /proc/$$/fd | grep -c anon_inode)|$(cut -d" " -f5 /proc/$$/stat)=$$"')
        result = await self.probe(path, "-c", "$(id); 'x'")
        said = result.detail.split(": ", 1)[1].split("|")
        self.assertEqual(said[:4], ["$(id); 'x'", "web/blue/a", "192.0.2.7:5432", ""])
        self.assertEqual(said[4], "00")  # sockets, epoll objects
        self.assertEqual(*said[5].split("="))

    async def test_hangs(self) -> None:
        """One that does not end is killed with all its children when its time is over, and says how far it got."""
        path = self.script("sleep 600 & echo $! $$ > pids.new; mv pids.new pids; echo looking; trap '' TERM; sleep 600",
                           shebang=f"#!/bin/sh\ncd {self.directory}\n")
        begun = time.monotonic()
        result = await self.probe(path, timeout_s=1.0)
        self.assertEqual((result.ok, result.detail), (False, "timed out after 1 s: looking"))
        self.assertLess(time.monotonic() - begun, LONG_S / 2)
        pids = [int(pid) for pid in (await self.said("pids")).split()]
        await until(lambda: not any(map(lives, pids)), "they have ended")
        await self.all_over()

    async def test_children_that_stay(self) -> None:
        """Who has exited is not waited for, though a child holds its output; the child goes too."""
        path = self.script("sleep 600 & echo $! > pid.new; mv pid.new pid; echo fine", shebang=f"#!/bin/sh\ncd {self.directory}\n")
        result = await self.probe(path)
        self.assertRegex(result.detail, r"^exit 0 in \d+ ms: fine$")
        pid = int(await self.said("pid"))
        await until(lambda: not lives(pid), "the child has ended")
        await self.all_over()

    async def test_flood(self) -> None:
        """One that does not stop talking has failed before its time is over."""
        result = await self.probe(self.script("exec yes"))
        self.assertEqual((result.ok, result.detail), (False, f"said more than {MAX_OUTPUT_BYTES} bytes"))
        await self.all_over()

    async def test_as_much_as_allowed(self) -> None:
        result = await self.probe(self.script(f"head -c {MAX_OUTPUT_BYTES} /dev/zero | tr '\\0' x"))
        self.assertTrue(result.ok, result.detail)

    async def test_silent_end_of_output(self) -> None:
        """One that closes its output and goes on costs nothing until it exits."""
        result = await self.probe(self.script("exec >&- 2>&-; sleep 0.3; exit 4"))
        self.assertEqual((result.ok, result.detail), (False, "exit 4"))

    async def test_not_a_program(self) -> None:
        """What the kernel cannot execute is no failure of the host, and is told; so is an interpreter that is missing."""
        for shebang, why in (("", "exec format error"), ("#!/nonexistent/interpreter\n", "no such file or directory")):
            result = await self.probe(self.script("exit 0", shebang=shebang))
            self.assertEqual((result.ok, result.detail), (None, why))
            self.assertIn(why, self.scripts.problems[0])
        self.assertTrue((await self.probe(self.script("exit 0"))).ok)
        self.assertEqual(self.scripts.problems, ())
        await self.all_over()

    async def test_bounded(self) -> None:
        """So many run at a time, over all hosts; the time of those that wait begins with their turn."""
        path = self.script("echo >> begun; while [ ! -e go ]; do sleep 0.02; done", shebang=f"#!/bin/sh\ncd {self.directory}\n")
        probes = [self.probe(path) for _ in range(MAX_SCRIPTS + 4)]
        begun = self.directory / "begun"
        await until(lambda: begun.exists() and len(begun.read_text()) == MAX_SCRIPTS, "as many as may have begun")
        # a shell that forks is there twice for a moment
        await until(lambda: len(scripts_of(self.directory)) == MAX_SCRIPTS, "so many, and no more")
        probes[-1].cancel()
        self.assertEqual((await probes[-1]).detail, "cancelled")
        (self.directory / "go").write_text("")
        self.assertTrue(all(result.ok for _, result in await DeferredList(probes[:-1])))
        self.assertEqual(len(begun.read_text()), MAX_SCRIPTS + 3)

    async def test_stop(self) -> None:
        """A stop ends all of them, those that wait too, and is over when they are."""
        path = self.script("sleep 600")
        probes = [self.probe(path, timeout_s=600.0) for _ in range(MAX_SCRIPTS + 2)]
        await self.scripts.stopService()
        self.assertEqual({result.detail for _, result in await DeferredList(probes)}, {"cancelled"})
        await until(lambda: scripts_of(self.directory) == [], "none is left, nor what a shell had just forked")
        await self.all_over()

    async def test_one_that_cannot_be_killed(self) -> None:
        """It holds its place for a moment only, and is reaped when it ends after all."""
        self.patch(child.os, "killpg", lambda pid, number: None)
        path = self.script("while [ ! -e go ]; do sleep 0.02; done", shebang=f"#!/bin/sh\ncd {self.directory}\n")
        self.assertFalse((await self.probe(path, timeout_s=0.1)).ok)
        await self.scripts.stopService()
        self.assertEqual(len(scripts_of(self.directory)), 1)
        (self.directory / "go").write_text("")
        await until(lambda: not scripts_of(self.directory), "it has ended")
        await self.all_over()

    async def test_numbers_of_descriptors(self) -> None:
        """They are nobody else's until the reactor's turn is over, which may have an event left for them."""
        probe = self.probe(self.script("sleep 0.2"))
        mine = [each.fileno() for each in reactor.getReaders() if isinstance(each, Readable)]
        probe.addCallback(lambda _: deferLater(
            reactor, 0, lambda: sorted(os.readlink(f"/proc/self/fd/{fd}").split(":")[0] for fd in mine)))
        self.assertEqual(await probe, ["anon_inode", "pipe"])
        await self.all_over()

    async def test_stopped_process(self) -> None:
        """A stopped one is not waited for beyond its time."""
        result = await self.probe(self.script(f"kill -{signal.SIGSTOP.value} $$"), timeout_s=0.3)
        self.assertEqual(result.detail, "timed out after 0.3 s")

    async def all_over(self) -> None:
        """No process, no descriptor and no timer is left."""
        await until(lambda: not self.scripts._running, "all have ended")
        await until(lambda: not any(isinstance(each, Readable) for each in reactor.getReaders()), "nothing is read")
        with self.assertRaises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def scripts_of(directory: Path) -> list[str]:
    """Processes that run a script of *directory*."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{directory}/" in (entry / "cmdline").read_text() and lives(int(entry.name)):
                found.append(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class NodeTests(DirectorTestCase):
    async def test_health(self) -> None:
        """A host whose script fails goes down with what it said, and comes back; where none may run, nobody goes."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "check"
            path.write_text(f'#!/bin/sh\ncd {directory}\n[ ! -e "bad-$TXDIRECTOR_HOST" ] && exit 0\necho lagging behind\nexit 1\n')
            path.chmod(0o755)
            sites = {name: BackendSite(name) for name in "ab"}
            for site in sites.values():
                self.addCleanup(site.stop)
            services = {"web": {"listen": ["127.0.0.1:0"], "groups": {"blue": {
                "hosts": {name: site.address for name, site in sites.items()},
                "health": {"interval_s": 0.05, "suspect_interval_s": 0.05, "timeout_s": 0.2, "suspect_after_s": 0.1,
                           "probe": {"kind": "script", "command": [str(path)], "timeout_s": LONG_S}}}}}}
            director = await self.director({"node": {"scripts": directory}, "services": services})
            inventory = director.node.inventory
            entries = {name: inventory.hosts[HostRef("web", "blue", name)] for name in sites}
            await until(lambda: all(entry.health.last_check and entry.health.last_check.ok for entry in entries.values()))
            (Path(directory) / "bad-a").write_text("")
            await until(lambda: entries["a"].health.state is HostState.DOWN)
            self.assertIn("exit 1: lagging behind", entries["a"].health.why)
            self.assertIs(entries["b"].health.state, HostState.UP)
            (Path(directory) / "bad-a").unlink()
            await until(lambda: entries["a"].health.state is HostState.UP)
            path.chmod(0o644)
            await until(lambda: director.operations.picture().problems)
            self.assertIn("it is not executable", director.operations.picture().problems[0])
            self.assertIs(entries["a"].health.state, HostState.UP)
