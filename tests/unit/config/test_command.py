"""`director init`, the command: what it writes, says and refuses, with its exit codes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

from argon2 import PasswordHasher
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from agent.config import configure
from director.cli import main
from director.config.files import examine
from director.config.init import command

PAGE = Path(__file__).parents[3] / "docs" / "operations" / "init.md"
ONE = ("--director", "lb1=127.80.0.1", "--host", "app1=127.80.0.9:80")
TWO = (*ONE, "--director", "lb2=127.80.0.2", "--etcd", "127.80.0.21:2379")


class CommandTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.parent = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.directory = self.parent / "cluster"

    def init(self, *words: str, typed: str = "") -> Result:
        return CliRunner().invoke(main, ["init", *words], input=typed)

    def good(self, *words: str) -> str:
        result = self.init(str(self.directory), *words)
        self.assertEqual(result.exit_code, 0, result.output)
        return result.output

    def refused(self, words: str, *given: str, code: int = 2) -> None:
        """Told in *words*, with exit code *code*; nothing is written."""
        before = sorted(os.walk(self.parent))
        result = self.init(*given)
        self.assertEqual(result.exit_code, code, result.output)
        self.assertIn(words, result.output)
        self.assertNotIn("Traceback", result.output)
        self.assertEqual(sorted(os.walk(self.parent)), before)


class InitTests(CommandTestCase):
    def test_alone(self) -> None:
        """One director: its file, the agent's, and the three commands; the password told is the user's."""
        output = self.good(*ONE)
        examine(str(self.directory / "directors/lb1/director.toml"), here=True)
        self.assertEqual(re.findall(r"^  (\S+(?: [a-z]\S*)?)", output, flags=re.M),
                         ["director run", "director-agent", "directorctl"])
        (password,) = re.findall(r"with the password (\S+) ", output)
        user, _, hashed = (self.directory / "directors/lb1/htpasswd").read_text().strip().partition(":")
        self.assertEqual(user, "admin")
        self.assertTrue(PasswordHasher().verify(hashed, password))
        for name, mode in (("", 0o711), ("directors", 0o711), ("directors/lb1", 0o700), ("agents/app1", 0o700), ("authority", 0o700)):
            self.assertEqual(stat.S_IMODE((self.directory / name).stat().st_mode), mode, name)

    def test_cluster(self) -> None:
        """Several: their services go into etcd first."""
        output = self.good(*TWO)
        self.assertEqual(re.findall(r"^  (\S+(?: [a-z]+)?)", output, flags=re.M),
                         ["director bootstrap", "director run", "director-agent"])
        self.assertIn("# on lb1; likewise lb2", output)

    def test_many(self) -> None:
        """A line that names machines stays one that can be read."""
        output = self.good(*ONE, *(word for number in range(2, 30) for word in ("--host", f"app{number}=127.80.0.9:{number}")))
        self.assertIn("# on app1; likewise app2, app3, app4, app5, app6, app7, app8, app9, 20 more\n", output)

    def test_relative(self) -> None:
        """A directory is named from here, and the files name each other by whole paths."""
        before = os.getcwd()
        os.chdir(self.parent)
        try:
            self.assertEqual(self.init("cluster", *ONE).exit_code, 0)
        finally:
            os.chdir(before)
        examine(str(self.directory / "directors/lb1/director.toml"), here=True)

    def test_refused(self) -> None:
        """One clear sentence each."""
        there = str(self.directory)
        for words, given in (
            ("--director NAME=ADDRESS", ()),
            ("it takes one director at least", ("--host", "a=10.0.0.1:80")),
            ("expected NAME=ADDRESS", ("--director", "lb1")),
            ("--etcd HOST:PORT", (*ONE, "--director", "lb2=127.80.0.2")),
            ("two directors cannot be called lb1 and LB1", (*TWO, "--director", "LB1=127.80.0.3")),
            ("two hosts cannot be called app1 and app1", (*ONE, "--host", "app1=127.80.0.8:80")),
            ("--interface", (*ONE, "--vip", "10.0.0.100/24")),
            ("it takes the length", (*ONE, "--vip", "10.0.0.100")),
            ("in a circle", (*ONE, "--host", "app2=127.80.0.1:8080")),
            ("--renew takes --days only", (*ONE, "--renew")),
            ("ca.pem: No such file", ("--renew",)),
        ):
            self.refused(words, there, *given)

    def test_there(self) -> None:
        """A second time, and over a file: one sentence, and what is there stays. Nobody is asked for anything first."""
        self.good(*ONE)
        for given in ((), ONE, TWO):
            self.refused(f"director: {self.directory} is there already, and stays as it is\n", str(self.directory), *given)
        (self.parent / "file").write_text("mine")
        self.refused("file", str(self.parent / "file"), *ONE)
        self.assertEqual((self.parent / "file").read_text(), "mine")

    def test_cannot_write(self) -> None:
        """Below a file, or a path that no disk takes, however far below directories that would have to be made."""
        (self.parent / "file").touch()
        self.refused("cannot write", str(self.parent / "file" / "cluster"), *ONE, code=1)
        self.refused("cannot write", str(self.parent / "no" / "more" / ("x" * 300)), *ONE, code=1)
        self.refused("cannot write", str(self.parent / ("x" * 300)), *ONE, code=1)

    def test_renew(self) -> None:
        """It names each file to copy, and until when they are valid; then nothing else has changed."""
        self.good(*TWO, "--days", "5")
        before = {path: path.read_bytes() for path in self.directory.rglob("*") if path.is_file()}
        output = self.good("--renew", "--days", "90")
        self.assertRegex(output, r"^5 certificates are valid until \d{4}-\d\d-\d\d, the authority until")
        named = {Path(line.strip()) for line in output.splitlines() if line.startswith("  ")}
        self.assertEqual({path for path in before if path.read_bytes() != before[path]}, named)


class ReferenceTests(SynchronousTestCase):
    def test_every_option(self) -> None:
        """The page tells of each, and of no other."""
        table = "\n".join(line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `--"))
        options = {name for parameter in command.init.params for name in parameter.opts if name.startswith("--")}
        self.assertEqual(set(re.findall(r"--[a-z]+", table)), options)


class AddTests(CommandTestCase):
    def test_added(self) -> None:
        """One more host: its agent's file is good, and with the lines told each director knows its token."""
        self.good(*TWO)
        output = self.good("--add", "--host", "app.2=127.80.0.10:81")
        agent = configure(str(self.directory / "agents/app.2/agent.toml"), {})
        self.assertEqual((agent.directors, agent.hosts, agent.port),
                         (("127.80.0.1:7946", "127.80.0.2:7946"), ("web/main/app.2",), 81))
        lines = output.partition("\n\n")[2].partition("Next:")[0]
        for name in ("lb1", "lb2"):
            path = self.directory / f"directors/{name}/director.toml"
            path.write_text(path.read_text() + lines)
            identities = examine(str(path), here=True).configuration.node.agents.identities
            token = (self.directory / "agents/app.2/token").read_text().strip()
            self.assertEqual(identities["app.2"].token_sha256, hashlib.sha256(token.encode()).hexdigest())
            self.assertEqual(identities["app.2"].hosts, ("web/main/app.2",))
        self.assertIn("directorctl host new web/main/app.2 127.80.0.10:81", output)
        self.assertRegex(self.good("--renew"), r"^6 certificates")

    def test_refused(self) -> None:
        """A host that is there, none or two, a directory that is no cluster's."""
        there = str(self.directory)
        self.refused("No such file", there, "--add", "--host", "app2=127.80.0.10:81")
        self.good(*ONE)
        (self.directory / "agents/app3").mkdir()
        (self.directory / "agents/app3/mine").write_text("mine")
        for words, given in (
            ("an agent is called app1 already", ("--host", "APP1=127.80.0.10:81")),
            ("app3 is there already", ("--host", "app3=127.80.0.10:81")),
            ("takes one --host", ()), ("takes one --host", ("--host", "a=127.80.0.10:1", "--host", "b=127.80.0.10:2")),
            ("takes one --host", ("--host", "a=127.80.0.10:1", "--director", "lb3=127.80.0.3")),
            ("not both", ("--renew",)),
        ):
            self.refused(words, there, "--add", *given)
        path = self.directory / "directors/lb1/director.toml"
        path.write_text(path.read_text().replace("node.agents", "node.agnets"))
        self.refused("agnets", there, "--add", "--host", "app2=127.80.0.10:81")

    def test_no_port(self) -> None:
        """A cluster that began without hosts has no port for agents."""
        self.good(*ONE[:2])
        self.refused("port for agents", str(self.directory), "--add", "--host", "app2=127.80.0.10:81")


class AskedTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(command, "_on_terminal", lambda: True)

    def test_asked(self) -> None:
        """Everything that options would say; a bad answer is told and asked again, and the password is not repeated."""
        answers = ["", "lb1", "lb1=127.80.0.1", "lb2=127.80.0.2", "", "", "127.80.0.21:2379", "", "10.9.0.100/24", "", "lo",
                   "app1=127.80.0.9:80", "", "", "pass word", "passwort", "pass word", "pass word"]
        result = self.init(str(self.directory), typed="\n".join(answers) + "\n")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(result.output.count("Error: "), 4)
        self.assertNotIn("pass word", result.output)
        node = examine(str(self.directory / "directors/lb2/director.toml"), here=True).configuration.node
        self.assertEqual((node.etcd.endpoints, node.vips.addresses, node.vips.interface),
                         (("127.80.0.21:2379",), ("10.9.0.100/24",), "lo"))
        hashed = (self.directory / "directors/lb2/htpasswd").read_text().strip().partition(":")[2]
        self.assertTrue(PasswordHasher().verify(hashed, "pass word"))

    def test_made(self) -> None:
        """No password is one that is made and told."""
        result = self.init(str(self.directory), typed="lb1=127.80.0.1\n\n\n\n\n\n\n")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("with the password ", result.output)

    def test_broken_off(self) -> None:
        """Nothing is written when the answers end."""
        self.refused("Aborted", str(self.directory), code=1)
