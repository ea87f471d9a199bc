"""Upgrades that must not happen: whatever the new process does, the old one serves on, and says why."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from unittest import skipUnless

from tests.integration.test_upgrade import UpgradeTestCase
from tests.integration.upgrade_kit import Releases, Stage, until


class FailingTests(UpgradeTestCase):
    def released(self, *names: str, more: str = "") -> tuple[Stage, Releases]:
        releases = Releases(self.directory, "this", *names)
        stage = Stage(self.directory, self.config(more=more), env=releases.env)
        self.addCleanup(stage.end)
        return stage, releases

    def test_new_process_fails(self) -> None:
        """It crashes at its import, dies or fails amid the hand-over, or is killed from outside: a sentence each, and not one
        client notices; the next upgrade works."""
        stage, releases = self.released("crashes", "dies", "fails")
        load = self.load(idle=5)
        until(lambda: load.done > 20)
        for name, expected in (("crashes", "ended with exit code 1 before it served"),
                               ("dies", "was ended by SIGKILL before it served"),
                               ("fails", "the new process cannot serve: no")):
            releases.install(name)
            why = stage.fails()
            self.assertIn(expected, why, name)
            self.assertEqual(why.count("\n"), 1, why)
            done = load.done
            until(lambda done=done: load.done > done + 20)
        self.assertIn("ZeroDivisionError", stage.stderr.read_text())
        self.assertEqual(stage.ctl("weight", "web/blue/app1", "2").returncode, 0)  # the store is written to again
        releases.install("this")
        stage.upgrade()
        load.end()
        self.assertEqual(load.faults, {})
        stage.alone()

    def test_hangs(self) -> None:
        """A new process that is not ready in time is ended; meanwhile a second upgrade is refused."""
        stage, releases = self.released("hangs", more="[services.web.limits]\nmax_connections = 1000\n")
        stage.write(self.config().replace("[node]", "[node]\nupgrade_ready_s = 20.0"))
        stage.upgrade()
        stage.alone()
        load = self.load(per_s=50.0, idle=1)
        releases.install("hangs")
        answers: list[str] = []
        first = threading.Thread(target=lambda: answers.append(stage.fails()))
        first.start()
        until(lambda: "upgrading: process" in stage.text.rpartition("this process has taken over")[2])
        self.assertIn("an upgrade is under way", stage.fails())
        first.join()
        self.assertIn("was not ready within 20 s", answers[0])
        load.end()
        self.assertEqual(load.faults, {})
        self.assertEqual(stage.alive(), stage.pids[-1:])

    def test_other_forms(self) -> None:
        """Between releases that tell of hosts in different forms: what is understood is taken, and a host that is down gets
        nobody for all that."""
        dead = self.backend.address.replace("127.0.0.1", "127.0.0.9")
        stage, releases = self.released("next", more="")
        stage.write(self.config() + f'app2 = "{dead}"\n')
        stage.upgrade()
        stage.alone()
        load = self.load()
        for name in ("next", "this"):
            until(lambda: "is down" in stage.text)
            releases.install(name)
            stage.upgrade()
            self.assertIn("in another form", stage.text)
            stage.alone()
        load.end()
        self.assertEqual(load.faults, {})

    def test_another_director(self) -> None:
        """A file that makes it another director takes a restart."""
        stage, _ = self.released()
        stage.write(self.config(store="memory:"))
        self.assertIn("node.store", stage.fails())
        stage.write(self.config().replace("[node]", "[node]\nname = 'other'"))
        self.assertIn("node.name", stage.fails())

    @skipUnless(os.geteuid() == 0, "only root mounts a small disk")
    def test_full_disk(self) -> None:
        """The disk of the store is full: state passes all the same, and what could not be written before can be after."""
        disk = self.directory / "disk"
        disk.mkdir()
        mount = f"mount -t tmpfs -o size=64k none {disk} && exec \"$@\""
        program = ("unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-m", "director")
        config = self.config(store=f"file:{disk}/store") + f'app2 = "{self.backend.address}"\n'
        stage = Stage(self.directory, config, program=program)
        self.addCleanup(stage.end)
        load = self.load(per_s=50.0, idle=1)
        fill = Path(f"/proc/{stage.pids[0]}/root{disk}/fill")
        with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 1024)
        until(lambda: stage.ctl("drain", "web/blue/app2", "--why", "x" * 200).returncode)
        stage.upgrade()
        Path(f"/proc/{stage.pids[-1]}/root{disk}/fill").unlink()
        self.assertEqual(stage.ctl("weight", "web/blue/app1", "2").returncode, 0)
        load.end()
        self.assertEqual(load.faults, {})
        stage.alone()

    def test_stopped(self) -> None:
        """A new process is a process like the first: it stops in order."""
        stage, _ = self.released()
        pid = stage.upgrade()
        stage.alone()
        os.kill(pid, signal.SIGTERM)
        until(lambda: stage.alive() == [])
        self.assertTrue((self.directory / "store").exists())
