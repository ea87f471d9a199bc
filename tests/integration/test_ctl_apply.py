"""``directorctl`` diff, apply and export: a file and the running services, made one."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import tomllib
from functools import partial
from typing import Any

from twisted.internet.threads import deferToThread

from cluster.model import HostRef
from director.config.files import parse
from tests.integration.ctl_kit import MAIN, CtlTestCase
from tests.integration.kit import closed_port, until

BEFORE = {
    "web": {"listen": ["127.0.0.1:0"], "groups": {"main": {"hosts": {"a": "127.0.0.1:9", "b": "127.0.0.1:9"}}}},
    "old": {"listen": ["127.0.0.1:0"], "groups": {"main": {"hosts": {"a": "127.0.0.1:9"}}}},
    "same": {"listen": ["127.0.0.1:0"], "groups": {"main": {"hosts": {"a": "127.0.0.1:9"}}}},
}

AFTER = """
[services.web]
listen = ["127.0.0.1:0"]
[services.web.groups.main.hosts]
a = { address = "127.0.0.1:9", weight = 2 }
c = "127.0.0.1:9"

[services.same]
listen = ["127.0.0.1:0"]
groups.main.hosts.a = "127.0.0.1:9"

[services.new]
listen = ["127.0.0.1:0"]
groups.main.hosts.a = "127.0.0.1:9"
"""


class ApplyTests(CtlTestCase):
    async def begin(self) -> str:
        await self.start({"services": json.loads(json.dumps(BEFORE))})
        return self.write(AFTER)

    async def specs(self) -> dict[str, Any]:
        exported = await self.ok("export")
        self.assertEqual(json.loads(await self.ok("export", "--format", "json")), tomllib.loads(exported))
        return dict(parse(exported).services)

    async def revisions(self) -> dict[str, int]:
        return {name: each.revision for name, each in (await self.running.operations.stored()).items()}

    async def test_diff(self) -> None:
        """Differences are told down to fields, as text and as JSON, with exit code 6; nothing changes."""
        file = await self.begin()
        before = await self.revisions()
        told = await self.ctl("diff", file)
        self.assertEqual((told.returncode, told.stderr), (6, ""))
        self.assertEqual(told.stdout.splitlines(), [
            "- services.old",
            "~ services.web",
            "    - groups.main.hosts.b  127.0.0.1:9",
            "    ~ groups.main.hosts.a.weight  1.0 → 2.0",
            "    + groups.main.hosts.c  127.0.0.1:9",
            "+ services.new  listens on 127.0.0.1:0; groups: 1, hosts: 1",
        ])
        as_json = await self.ctl("apply", "--dry-run", "--json", file)
        self.assertEqual(as_json.returncode, 6)
        web = json.loads(as_json.stdout)[1]
        self.assertEqual((web["service"], web["kind"]), ("web", "change"))
        self.assertEqual(web["changes"][1], {
            "place": "services.web.groups.main.hosts.a.weight", "kind": "change", "before": 1.0, "after": 2.0,
        })
        self.assertEqual(await self.revisions(), before)

    async def test_apply(self) -> None:
        """The services become the file's; those alike are not written at all; doing it again does nothing."""
        file = await self.begin()
        before = await self.revisions()
        out = await self.ok("apply", "--yes", file)
        self.assertIn("web: done, revision", out)
        after = await self.revisions()
        self.assertEqual(after.keys(), {"web", "same", "new"})
        self.assertEqual(after["same"], before["same"])
        self.assertNotEqual(after["web"], before["web"])
        self.assertEqual(await self.specs(), dict(parse(AFTER).services))
        self.assertIn(HostRef("web", "main", "c"), self.running.node.inventory.hosts)
        self.assertIn("nothing differs", await self.ok("apply", "--yes", file))
        self.assertEqual(await self.revisions(), after)
        self.assertEqual((await self.ctl("diff", file)).returncode, 0)

    async def test_export_is_a_file(self) -> None:
        """What export prints differs in nothing from what runs."""
        await self.begin()
        self.assertEqual(await self.ok("diff", self.write(await self.ok("export"), "exported.toml")), "")

    async def test_keep(self) -> None:
        """With --keep, services that the file does not name stay."""
        file = await self.begin()
        await self.ok("apply", "--yes", "--keep", file)
        self.assertEqual((await self.revisions()).keys(), {"web", "same", "old", "new"})

    async def test_empty_file(self) -> None:
        """A file without services deletes nothing."""
        await self.begin()
        done = await self.ctl("apply", "--yes", self.write("[node]\n"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("the file names no service", done.stderr)
        self.assertEqual((await self.revisions()).keys(), BEFORE.keys())

    async def test_errors_in_the_file(self) -> None:
        """Errors are told all at once, with lines, and exit code 2; those of the file's own node do not matter."""
        await self.begin()
        wrong = self.write('node.store = "nowhere"\n[services.web]\nlisten = ["what"]\nenable = "no"\n')
        done = await self.ctl("diff", wrong)
        self.assertEqual(done.returncode, 2)
        self.assertIn("services.toml:3: services.web.listen[0]", done.stderr)
        self.assertIn("services.toml:4: services.web.enable", done.stderr)
        self.assertNotIn("node", done.stderr)

    async def test_nobody_to_ask(self) -> None:
        """Where no terminal is, nothing is changed without --yes."""
        file = await self.begin()
        before = await self.revisions()
        done = await self.ctl("apply", file, typed="y\n")
        self.assertEqual(done.returncode, 2)
        self.assertIn("give --yes", done.stderr)
        self.assertEqual(await self.revisions(), before)

    async def test_stopped_half_way(self) -> None:
        """When a service cannot be changed, it is told which were changed and which are left; again does the rest."""
        file = await self.begin()
        port = closed_port()
        self.write(AFTER.replace('[services.new]\nlisten = ["127.0.0.1:0"]', f'[services.new]\nlisten = ["127.0.0.1:{port}"]'))
        taken = await deferToThread(self.listen, port)
        done = await self.ctl("apply", "--yes", file)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"cannot listen on 127.0.0.1:{port}", done.stderr)
        self.assertIn("changed: old, web; left: new; applying the file again does the rest", done.stderr)
        taken.close()
        self.assertIn("new: done", await self.ok("apply", "--yes", file))
        self.assertEqual((await self.ctl("diff", file)).returncode, 0)

    @staticmethod
    def listen(port: int) -> Any:
        import socket

        return socket.create_server(("127.0.0.1", port))

    async def test_addresses_move(self) -> None:
        """An address goes from one service to another in one apply."""
        port = closed_port()
        hosts = {"main": {"hosts": {"a": "127.0.0.1:9"}}}
        await self.start({"services": {"b": {"listen": [f"127.0.0.1:{port}"], "groups": hosts},
                                       "a": {"listen": ["127.0.0.1:0"], "groups": hosts}}})
        group = 'groups.main.hosts.a = "127.0.0.1:9"\n'
        await self.ok("apply", "--yes", self.write(
            f'[services.a]\nlisten = ["127.0.0.1:{port}"]\n{group}[services.b]\nlisten = ["127.0.0.1:0"]\n{group}'
        ))
        self.assertEqual(self.running.node.listeners.addresses("a"), (f"127.0.0.1:{port}",))


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """As somebody who presses ^C, and again when nothing happens: a signal just before a read(2) goes unnoticed."""
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2)
            return


class TerminalTests(CtlTestCase):
    """The question that `apply` asks on a terminal."""

    timeout = 240  # four commands, one after the other, on a machine that may be busy with other tests

    # A terminal's ^C is heard, though a shell that runs tests in the background lets them ignore it.
    async def ask(self, answer: bytes, file: str) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen([sys.executable, "-c", MAIN, "--url", self.url, "apply", file],
                                   stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                                   preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
        os.close(theirs)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(os.close, ours)
        said = b""

        def read() -> None:
            nonlocal said
            while b"[y/N]" not in said:
                said += os.read(ours, 4096)
            if answer == b"^C":
                interrupt(process)
            else:
                os.write(ours, answer + b"\n")
            try:
                while data := os.read(ours, 4096):
                    said += data
            except OSError:  # EIO: the other end is closed
                pass

        await deferToThread(read)
        await until(lambda: process.poll() is not None, "its end")
        return process.returncode, said.decode()

    async def test_question(self) -> None:
        """The differences are shown in colour and asked about; anything but yes, ^C too, leaves everything as it is."""
        await self.start({"services": {"web": BEFORE["web"]}})
        file = self.write(AFTER)
        before = (await self.running.operations.stored())["web"].revision
        for answer in (b"n", b"", b"^C"):
            code, said = await self.ask(answer, file)
            self.assertEqual(code, 1, said)
            self.assertIn("\x1b[33m    ~ groups.main.hosts.a.weight  1.0 → 2.0", said)
            self.assertIn("Change 3 services?", said)
            self.assertEqual((await self.running.operations.stored())["web"].revision, before)
        code, said = await self.ask(b"y", file)
        self.assertEqual(code, 0, said)
        self.assertEqual((await self.running.operations.stored()).keys(), {"web", "same", "new"})
