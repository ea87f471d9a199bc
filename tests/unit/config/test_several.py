"""One configuration in several files: merged by name, and every error with the file and line that it is in."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import ConfigError
from director.config import several
from director.config.files import examine, load, load_services, parse

WEB = "[services.web]\nlisten = ['127.0.0.1:1']\ngroups.main.hosts.a = '127.0.0.1:2'\n"
MAIL = WEB.replace("web", "mail").replace(":1'", ":3'")


class SeveralTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        (self.directory / "conf.d").mkdir()
        self.main = str(self.directory / "director.toml")

    def write(self, text: str, name: str = "director.toml") -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def refused(self) -> list[str]:
        with self.assertRaises(ConfigError) as caught:
            load(self.main)
        return [str(problem).replace(f"{self.directory}/", "") for problem in caught.exception.problems]

    def test_one_configuration(self) -> None:
        """The main file's tables and those of a directory's files, in the order of their names, are one."""
        self.write("include = ['conf.d', 'users.toml']\n[node]\nname = 'd1'\nlog.level = 'debug'\n" + WEB)
        self.write(MAIL, "conf.d/10-mail.toml")
        self.write("[node.log]\naccess = true\n[node.admin.users.ann]\npassword = '$argon2id$x'\n", "conf.d/20-node.toml")
        self.write("[node.admin.users.bob]\npassword = '$argon2id$y'\n", "users.toml")
        for other in (".hidden.toml", "b.toml~", "b.toml.dpkg-new", "README"):
            self.write("what = [", f"conf.d/{other}")
        found = load(self.main)
        self.assertEqual(list(found.services), ["web", "mail"])
        self.assertEqual((found.node.name, found.node.log.level, found.node.log.access), ("d1", "debug", True))
        self.assertEqual(list(found.node.admin.users), ["ann", "bob"])
        self.assertEqual(list(load_services(self.main)), ["web", "mail"])

    def test_order_of_names(self) -> None:
        """The order in which a directory lists them does not matter."""
        self.write("include = ['conf.d']")
        names = [f"s{number}" for number in (3, 1, 2)]
        for name in names:
            self.write(WEB.replace("web", name).replace(":1'", f":1{name[1]}'"), f"conf.d/{name}.toml")
        self.assertEqual(list(load(self.main).services), sorted(names))

    def test_twice(self) -> None:
        """A service, a value and an array that stand in two files are told with both places, all at once."""
        self.write("include = ['conf.d']\n[node]\nname = 'd1'\nadmin.endpoints = [{ listen = '127.0.0.1:7' }]\n" + WEB)
        self.write("# mine\n" + WEB + "[node]\nname = 'd1'\n", "conf.d/a.toml")
        self.write("[[node.admin.endpoints]]\nlisten = '127.0.0.1:8'\n[services.web.limits]\nqueue = 1\n", "conf.d/b.toml")
        hint = "(one of the two files has to have it wholly)"
        self.assertEqual(self.refused(), [
            f"conf.d/a.toml:2: services.web: is there already: director.toml:5 {hint}",
            f"conf.d/a.toml:6: node.name: is there already: director.toml:3 {hint}",
            f"conf.d/b.toml:1: node.admin.endpoints: is there already: director.toml:4 {hint}",
            f"conf.d/b.toml:3: services.web: is there already: director.toml:5 {hint}",
        ])

    def test_errors_have_their_file_and_line(self) -> None:
        """Also those of what is in one file and does not fit the other, and warnings."""
        self.write("include = ['conf.d']\n" + WEB)
        self.write("\n" + MAIL.replace(":3'", ":1'") + "relay = 'c'\n", "conf.d/mail.toml")
        self.write("[services.ftp]\nqueue = 1\n", "conf.d/ftp.toml")
        self.assertEqual([line.partition(": ")[0] for line in self.refused()],
                         ["conf.d/ftp.toml:2", "conf.d/mail.toml:3", "conf.d/mail.toml:5"])
        self.write("\n\n[services.mail]\nlisten = ['127.0.0.1:3']\n", "conf.d/mail.toml")
        self.write("", "conf.d/ftp.toml")
        odd = examine(self.main).warnings
        self.assertIn((str(self.directory / "conf.d/mail.toml"), 3), [(each.file, each.line) for each in odd])

    def test_every_broken_file_is_told(self) -> None:
        self.write("include = ['conf.d']\n[node]\nnmae = 'x'\n")
        self.write("a = [", "conf.d/a.toml")
        (self.directory / "conf.d/b.toml").write_bytes(b"\xff")
        (self.directory / "conf.d/c.toml").mkdir()
        found = self.refused()
        self.assertEqual([line.split(":")[0] for line in found], ["conf.d/a.toml", "conf.d/b.toml", "conf.d/c.toml"])

    def test_includes_that_are_none(self) -> None:
        for include, words in (
            ("['none.d']", "director.toml:1: include[0]: cannot read none.d: No such file or directory"),
            ("'conf.d'", 'director.toml:1: include: expected an array of paths, such as ["conf.d"]'),
            ("[1]", "expected an array"), ("['']", "expected an array"),
            ("['conf.d', 'conf.d/a.toml']", "director.toml:1: include[1]: conf.d/a.toml is included already"),
        ):
            self.write(f"include = {include}\n")
            self.write("", "conf.d/a.toml")
            (found,) = self.refused()
            self.assertIn(words, found)

    def test_no_chains(self) -> None:
        """Else a file could include itself."""
        self.write("include = ['conf.d']\n")
        self.write("\ninclude = ['../director.toml']\n", "conf.d/a.toml")
        self.assertEqual(self.refused(), ["conf.d/a.toml:2: include: a file that is included includes no others"])

    def test_too_many(self) -> None:
        self.patch(several, "MAX_FILES", 2)
        self.write("include = ['conf.d']\n")
        for number in range(3):
            self.write("", f"conf.d/{number}.toml")
        self.assertEqual(self.refused(), ["director.toml:1: include[0]: 3 files are more than 2"])

    def test_an_empty_directory(self) -> None:
        self.write("include = ['conf.d']\n" + WEB)
        self.assertEqual(list(load(self.main).services), ["web"])

    def test_paths(self) -> None:
        """Are the main file's, wherever the process is; absolute ones are what they are."""
        self.write(f"include = ['{self.directory}/conf.d']\n")
        self.write(WEB, "conf.d/a.toml")
        here = os.getcwd()
        os.chdir(self.directory)
        self.addCleanup(os.chdir, here)
        self.assertEqual(list(load("director.toml").services), ["web"])

    def test_text_includes_nothing(self) -> None:
        """Only a file can."""
        with self.assertRaises(ConfigError) as caught:
            parse("include = ['conf.d']")
        self.assertIn("unknown key", str(caught.exception))
