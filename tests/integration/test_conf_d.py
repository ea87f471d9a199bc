"""A director whose configuration is in several files: started, reloaded and compared as if it were in one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.integration.test_cli import CliTestCase, until

MAIN = """include = ["conf.d"]
[[node.admin.endpoints]]
listen = "127.0.0.1:0"
[node]
store = "file:{store}"
log.target = "{log}"
"""
SERVICE = "[services.{name}]\nlisten = ['127.0.0.1:0']\n[services.{name}.groups.main.hosts]\na = '127.0.0.1:{port}'\n"


class ConfDTests(CliTestCase):
    def setUp(self) -> None:
        super().setUp()
        (self.directory / "conf.d").mkdir()
        self.log = self.directory / "log"
        self.main = self.write(MAIN.format(store=self.directory / "store", log=self.log))
        self.service("web", 1)
        self.service("mail", 2)

    def service(self, name: str, port: int, file: str | None = None) -> None:
        self.write(SERVICE.format(name=name, port=port), f"conf.d/{file or name}.toml")

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def begin(self) -> str:
        """Start it; where its admin is."""
        self.log.unlink(missing_ok=True)
        self.running = self.start("-m", "director", "run", self.main)
        until(lambda: "] ready" in self.said())
        return "http" + self.said().partition("admin at http")[2].split()[0]

    def ctl(self, url: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", "from director.ctl.main import main; main()", "--url", url, *words],
                              capture_output=True, text=True, timeout=60, check=False)

    def test_as_one_file(self) -> None:
        """Both services run; apply and diff take the main file, whichever of its files a service is in; so does a restart."""
        url = self.begin()
        self.assertIn("mail listens on", self.said())
        self.assertIn("web listens on", self.said())
        self.assertEqual(self.ctl(url, "diff", self.main).returncode, 0)
        os.rename(self.directory / "conf.d/web.toml", self.directory / "conf.d/00-web.toml")
        self.assertEqual(self.ctl(url, "diff", self.main).returncode, 0)
        self.service("mail", 3)
        done = self.ctl(url, "apply", "--yes", self.main)
        self.assertEqual((done.returncode, "127.0.0.1:3" in done.stdout, "web" in done.stdout), (0, True, False), done.stdout)
        # one of its files alone is that file's services, of which the others are to be left alone
        self.service("mail", 4)
        done = self.ctl(url, "apply", "--yes", "--keep", str(self.directory / "conf.d/mail.toml"))
        self.assertEqual((done.returncode, self.ctl(url, "diff", self.main).returncode), (0, 0), done.stderr)
        self.running.tell(signal.SIGTERM)
        self.assertEqual(self.running.ended(), 0)
        url = self.begin()  # nothing is put back by the store, and nothing replaced
        self.assertEqual(self.ctl(url, "diff", self.main).returncode, 0)
        self.assertNotIn("replaces", self.said())

    def test_reload(self) -> None:
        """Reads all files: a changed level is taken over, a broken file changes nothing and is told by its name and line."""
        self.begin()
        level = "[node.log]\nlevel = 'debug'\n"
        self.write(level, "conf.d/log.toml")
        self.running.tell(signal.SIGHUP)
        until(lambda: "node.log.level was reloaded" in self.said())
        self.write(level, "conf.d/log2.toml")
        self.running.tell(signal.SIGHUP)
        until(lambda: "nothing was reloaded" in self.said())
        self.assertIn(f"{self.directory}/conf.d/log2.toml:2: node.log.level: is there already: "
                      f"{self.directory}/conf.d/log.toml:2", self.said())

    def test_check(self) -> None:
        """Tells what `run` would, of any of the files."""
        self.service("web", 9, "again")
        for command in ("check", "run"):
            done = subprocess.run([sys.executable, "-m", "director", command, self.main], capture_output=True, text=True,
                                  timeout=60, check=False)
            self.assertEqual(done.returncode, 2)
            self.assertIn("conf.d/web.toml:1: services.web: is there already: ", done.stderr)
