"""`director.config.machine`: what `director run` needs of its machine is told by `check`, all at once, with line and key."""

from __future__ import annotations

import datetime
import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import ConfigError
from director.config import machine
from director.config.files import examine, load
from director.config.self_signed import self_signed

SERVICE = "[services.web]\nlisten = ['127.0.0.1:0']\nlimits.max_connections = 9\ngroups.main.hosts.a = '127.0.0.1:1'\n"
NOW = datetime.datetime.now(datetime.UTC)
ETCD = "[node]\nstore = 'etcd:'\netcd.endpoints = ['127.0.0.1:1']\n"


class MachineTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def write(self, text: str) -> str:
        path = self.directory / "d.toml"
        path.write_text(text.replace("DIR", str(self.directory)))
        return str(path)

    def file(self, name: str, content: str, mode: int = 0o600) -> None:
        path = self.directory / name
        path.write_text(content)
        path.chmod(mode)

    def refused(self, text: str) -> list[tuple[int | None, str, str]]:
        """Line, place and message of each problem that only this machine has with *text*."""
        path = self.write(text)
        load(path)  # good, as far as the file goes
        try:
            examine(path, here=True)
        except ConfigError as error:
            return [(each.line, each.place, each.message) for each in error.problems]
        return []

    def broken(self, place: str, words: str, text: str) -> None:
        [(line, found, message)] = self.refused(text)
        self.assertEqual(found, place)
        self.assertIn(words, message)
        self.assertIsNotNone(line)

    def warned(self, text: str) -> list[tuple[str, str]]:
        return [(each.place, each.message) for each in examine(self.write(text), here=True).warnings]

    def in_the_way(self, text: str) -> list[tuple[str, str]]:
        return [(each.place, each.message) for each in examine(self.write(text), here=True).at_present]


class ErrorTests(MachineTestCase):
    def test_good(self) -> None:
        """A good document does here; no file is made by looking."""
        self.assertEqual(self.refused("[node]\nlog.target = 'DIR/log'\nstore = 'file:DIR/state'\n"), [])
        self.assertEqual(os.listdir(self.directory), ["d.toml"])
        self.assertEqual(self.refused(SERVICE), [])

    def test_unwritable(self) -> None:
        """The log's and the store's files must be possible to write, or to make."""
        for key, start in (("log.target", ""), ("store", "file:")):
            for path, words in (("DIR/no/file", "there is no directory"), ("DIR", "is a directory"),
                                ("DIR/d.toml/file", "there is no directory")):
                self.broken(f"node.{key}", words, f"[node]\n{key} = '{start}{path}'\n")

    def test_rights(self) -> None:
        """So says the user who asks."""
        if os.geteuid() != 0:
            self.skipTest("only root can be somebody else")
        os.chmod(self.directory, 0o755)
        self.file("log", "", 0o444)
        text = "[node]\nlog.target = 'DIR/log'\nstore = 'file:DIR/state'\n"
        path = self.write(text)
        os.chmod(path, 0o644)
        os.seteuid(65534)
        try:
            with self.assertRaises(ConfigError) as caught:
                examine(path, here=True)
        finally:
            os.seteuid(0)
        self.assertEqual([(each.line, each.place) for each in caught.exception.problems],
                         [(2, "node.log.target"), (3, "node.store")])

    def test_secret(self) -> None:
        """The secret must be long enough, and nobody else's to read."""
        text = "[node.peers]\nlisten = '127.0.0.1:1'\nsecret_file = 'DIR/secret'\n"
        self.file("secret", "x" * 40)
        self.assertEqual(self.refused(text), [])
        self.file("secret", "x" * 40, 0o644)
        self.broken("node.peers.secret_file", "everybody", text)
        self.file("secret", "short")
        self.broken("node.peers.secret_file", "at least", text)

    def test_certificates(self) -> None:
        """Files of TLS must be what they are named for, and belong together, wherever they are named."""
        public, private = self_signed(["localhost"], days=1, now=NOW)
        _, other = self_signed(["localhost"], days=1, now=NOW)
        self.file("cert", public.decode())
        self.file("key", private.decode())
        self.file("other", other.decode())
        self.file("none", "no PEM")
        tls = "{{ certificate = 'DIR/{}', key = 'DIR/{}', client_ca = 'DIR/cert' }}"
        for cert, key, words in (("cert", "none", "none"), ("none", "key", "none"), ("cert", "other", "not the key of")):
            for text in ("[node]\nadmin.endpoints = [{ listen = '127.0.0.1:1', tls = " + tls + " }]\n",
                         "[node.agents]\nlisten = ['127.0.0.1:1']\ntls = " + tls + "\n",
                         "[node.peers]\nlisten = '127.0.0.1:1'\ncertificate_domain = 'd'\ntls = " + tls + "\n"):
                [(_, place, message)] = self.refused(text.replace("[{ ", "[{{ ").replace(" }]", " }}]").format(cert, key))
                self.assertTrue(place.endswith(("tls.key", "tls.certificate")), place)
                self.assertIn(words, message)
            self.broken(f"node.etcd.{'certificate' if cert == 'none' else 'key'}", words,
                        ETCD + f"etcd.ca = 'DIR/cert'\netcd.certificate = 'DIR/{cert}'\netcd.key = 'DIR/{key}'\n")
        self.broken("node.etcd.ca", "none", ETCD + "etcd.ca = 'DIR/none'\n")

    def test_interface(self) -> None:
        """The virtual addresses' interface must be there; what is there is told."""
        self.broken("node.vips.interface", "no network interface 'eth77'",
                    "[node.vips]\ninterface = 'eth77'\naddresses = ['10.0.0.1/24']\n")
        self.assertEqual(self.refused("[node.vips]\ninterface = 'lo'\naddresses = ['10.0.0.1/24']\n"), [])

    def test_unix_sockets(self) -> None:
        """Owner and group must exist, and the path must be free for a socket."""
        unix = "[services.web]\nlisten = ['unix:DIR/web']\n"
        self.broken("services.web.unix.owner", "no user 'nobodyhere'", unix + "unix.owner = 'nobodyhere'\n")
        self.broken("services.web.unix.group", "no group 'nobodyhere'", unix + "unix.group = 'nobodyhere'\n")
        self.broken("services.web.listen[0]", "there is no directory", unix.replace("web']", "no/web']"))
        self.file("web", "")
        self.broken("services.web.listen[0]", "no socket", unix)
        self.broken("node.control_socket", "no socket", "[node]\ncontrol_socket = 'DIR/web'\n")
        self.assertEqual(self.refused(ETCD + unix + "unix.owner = 'nobodyhere'\n"), [], "that service is not used")

    def test_all_at_once(self) -> None:
        """Together with what is wrong in the file itself, in its order."""
        path = self.write("[node]\nname = ''\nlog.target = 'DIR/no/log'\nstore = 'file:DIR/no/state'\n"
                          "[services.web]\nlisten = ['nonsense']\nunix.owner = 'nobodyhere'\n")
        with self.assertRaises(ConfigError) as caught:
            examine(path, here=True)
        self.assertEqual([each.line for each in caught.exception.problems], [2, 3, 4, 6, 7])


class WarningTests(MachineTestCase):
    def test_snapshot(self) -> None:
        """A director runs without its snapshot."""
        [(place, words)] = self.warned(ETCD + "etcd.snapshot = 'DIR/no/file'\n")
        self.assertEqual(place, "node.etcd.snapshot")
        self.assertIn("there is no directory", words)

    def test_capabilities(self) -> None:
        """Virtual addresses take capabilities of whoever may lead; those that are missing are named."""
        if os.geteuid() != 0:
            self.skipTest("only root can be somebody else")
        text = "[node.vips]\ninterface = 'lo'\naddresses = ['10.0.0.1/24']\n"
        both = "the capabilities CAP_NET_ADMIN and CAP_NET_RAW"

        def lacking(text: str) -> list[str]:
            return [message for place, message in self.warned(text) if place == "node.vips.addresses"]

        self.directory.chmod(0o755)
        self.assertEqual(lacking(text), [])
        Path(self.write(text)).chmod(0o644)
        os.seteuid(65534)
        try:
            found = [each.message for each in examine(str(self.directory / "d.toml"), here=True).warnings]
        finally:
            os.seteuid(0)
        self.assertTrue(any(both in message for message in found), found)
        for bits, expected in ((1 << 12, "the capability CAP_NET_RAW"), (1 << 13, "the capability CAP_NET_ADMIN"), (0, both)):
            self.patch(machine, "_effective_capabilities", lambda bits=bits: bits)
            [message] = lacking(text)
            self.assertIn(f"lacks {expected}", message)
            self.assertEqual(lacking(text + "[node]\nroles = ['balance']\n"), [])
        self.patch(machine, "_effective_capabilities", lambda: None)
        self.assertEqual(lacking(text), [], "where that cannot be told")

    def test_scripts(self) -> None:
        """A program that would not be run as a probe here is told, and what that means."""
        probe = SERVICE + "groups.main.health.probe = {kind = 'script', command = ['DIR/check']}\n"
        self.file("check", "", 0o644)
        for node, words in (("", "names no directory"), ("[node]\nscripts = '/other'\n", "it is not in /other"),
                            ("[node]\nscripts = 'DIR'\n", "it is not executable")):
            [(place, message)] = self.warned(probe + node)
            self.assertEqual(place, "services.web.groups.main.health.probe.command[0]")
            self.assertIn(words, message)
        self.file("check", "", 0o755)
        (self.directory / "check").chmod(0o755)
        self.assertEqual(self.warned(probe + "[node]\nscripts = 'DIR'\n"), [])

    def test_damaged_store(self) -> None:
        """A store's file that is damaged, too."""
        self.file("state", "nonsense\n" * 3)
        [(place, words)] = self.in_the_way(SERVICE + "[node]\nstore = 'file:DIR/state'\n")
        self.assertEqual(place, "node.store")
        self.assertIn("damaged at byte", words)
