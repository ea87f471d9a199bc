"""`director.config.files`: files in, checked configurations or every error out, and back again."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import ConfigError, Problem
from cluster.model import Configuration, Group, Host, Service
from cluster.validate import convert
from director.config import check as rules
from director.config import files
from director.config.files import SHORTHANDS, check, checked, dump_json, dump_toml, examine, load, parse

HASH = "0" * 64

GOOD = f"""\
[node]
name = "lb1"
store = "file:/var/lib/txdirector/state"

[node.agents]
listen = ["127.0.0.1:7946"]
identities.app1 = {{ hosts = ["web/*/app1"], token_sha256 = "{HASH}" }}

[[node.admin.endpoints]]
listen = "127.0.0.1:7401"

[services.web]
listen = ["0.0.0.0:80", "[::]:80", "unix:/run/web"]
enable = "blue"
limits = {{ max_connections = 100, queue = 10 }}
sticky.mode = "table"

[services.web.groups.blue]
scheduler = "p2c"
parameters = {{ choices = 3 }}
hosts.app1 = "10.0.0.1:80"
hosts."app2.example" = {{ address = "app2.example:80", weight = 0.5 }}
"""


class FilesTestCase(SynchronousTestCase):
    """With a directory of its own."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def write(self, content: str | bytes) -> str:
        path = os.path.join(self.directory, "director.toml")
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        return path


def problems(text: str) -> list[Problem]:
    """What is wrong with a document."""
    try:
        parse(text, file="d.toml")
    except ConfigError as error:
        return list(error.problems)
    return []


class ParseTests(SynchronousTestCase):
    def test_good(self) -> None:
        """A whole document becomes the model, hosts in their short form too."""
        configuration = parse(GOOD)
        self.assertEqual(configuration.node.name, "lb1")
        self.assertEqual(
            configuration.services["web"].groups["blue"].hosts,
            {"app1": Host(address="10.0.0.1:80"), "app2.example": Host(address="app2.example:80", weight=0.5)},
        )

    def test_empty(self) -> None:
        """An empty document is a director without services."""
        self.assertEqual(parse(""), Configuration())

    def test_every_error_with_line_and_hint(self) -> None:
        """Errors of type, of reference and of address are told together, by line, with hints."""
        found = problems("""\
[node]
nmae = "lb1"
[services.web]
listen = ["0.0.0.0:80", "nonsense"]
enable = "bleu"
relay = "c"
[services.web.groups.blue]
scheduler = "leastcons"
[services.web.groups.blue.hosts]
app1 = { adress = "10.0.0.1:80" }
app2 = "10.0.0.2:99999"
""")
        self.assertEqual(
            [str(problem) for problem in found],
            [
                "d.toml:2: node.nmae: unknown key (did you mean name?)",
                "d.toml:4: services.web.listen[1]: 'nonsense': expected host:port, [ipv6]:port or unix:/path",
                "d.toml:5: services.web.enable: there is no group 'bleu' (did you mean blue?)",
                'd.toml:6: services.web.relay: expected one of "auto", "native", "python", got "c"',
                "d.toml:8: services.web.groups.blue.scheduler: unknown scheduler 'leastcons' (did you mean 'leastconns'?)",
                "d.toml:10: services.web.groups.blue.hosts.app1.adress: unknown key (did you mean address?)",
                "d.toml:10: services.web.groups.blue.hosts.app1.address: missing",
                "d.toml:11: services.web.groups.blue.hosts.app2.address: '10.0.0.2:99999': the port must be 1 to 65535",
            ],
        )

    def test_no_echoes(self) -> None:
        """What is wrong by type isn't judged again for what it then lacks."""
        self.assertEqual(
            [
                problem.place
                for problem in problems(
                    '[node.agents]\nlisten = ["0.0.0.0:1"]\ntls = "cert.pem"\n'
                    '[node.agents.identities.a]\nhosts = ["*/*/*"]\ntoken_sha256 = "plain"\n'
                    "[[node.admin.endpoints]]\nlisten = 5\n"
                    '[services.web]\nenable = "blue"\n[services.web.groups]\nblue = 5\n'
                )
            ],
            [
                "node.agents.tls",
                "node.agents.identities.a.token_sha256",
                "node.admin.endpoints[0].listen",
                "services.web.groups.blue",
            ],
        )

    def test_syntax(self) -> None:
        """What is no TOML is told with its line."""
        [problem] = problems("[node]\nname = \n")
        self.assertEqual(str(problem), "d.toml:2: not TOML: Invalid value, column 8")
        [problem] = problems('a = 1\n\nb = """\n\n')
        self.assertEqual((problem.line, problem.message[:9]), (3, "not TOML:"))
        [problem] = problems("[node]\nname = 'a'\nname = 'b'\n")
        self.assertEqual(problem.line, 3)

    def test_secret_hints(self) -> None:
        """A plaintext token or password is refused without being repeated; the hint says what makes a good one."""
        found = problems(
            '[node.agents.identities.a]\nhosts = []\ntoken_sha256 = "hunter2"\n'
            '[node.admin.users.bob]\npassword = "hunter2"\n'
        )
        self.assertEqual([problem.hint.split("`")[1] for problem in found], ["director token", "directorctl password"])
        self.assertNotIn("hunter2", "".join(map(str, found)))


class SplitTests(SynchronousTestCase):
    GROUPS = "[services.web.groups.blue]\n[services.web.groups.green]\n"

    def test_good(self) -> None:
        """Shares of any unit, 0 among them; what was written is what comes out."""
        text = f"[services.web]\nsplit = {{ blue = 0, green = 0.5 }}\n{self.GROUPS}"
        configuration = parse(text)
        self.assertEqual(configuration.services["web"].shares, {"blue": 0.0, "green": 1.0})
        self.assertEqual(parse(dump_toml(configuration)), configuration)
        self.assertEqual(parse(self.GROUPS).services["web"].shares, {"blue": 1.0})

    def test_wrong(self) -> None:
        for split, enable, wrong in (
            ("{ blue = 1, gren = 1 }", "blue", "split.gren: there is no group 'gren' (did you mean green?)"),
            ("{ blue = 0, green = 0.0 }", "blue", "split: nobody has a share above 0 (to end the split, remove it)"),
            ("{ blue = -1, green = 1 }", "blue", "split.blue: expected a number from 0 to 1000000, got -1"),
            ("{ blue = '95', green = 1 }", "blue",
             "split.blue: expected a number from 0 to 1000000, got a string (write it without quotes)"),
            ("95", "blue", "split: expected a table, got 95"),
            ("{ blue = 1 }", "green", "split: the enabled group, 'green', has no share: it stands in for the others "
             "(give it one, 0 if need be, or enable another group)"),
        ):
            found = problems(f"[services.web]\nenable = '{enable}'\nsplit = {split}\n{self.GROUPS}")
            self.assertEqual([str(each) for each in found], [f"d.toml:3: services.web.{wrong}"])


class LoadTests(FilesTestCase):
    def test_load(self) -> None:
        """A file is read, and its warnings are at hand."""
        path = self.write(b"[services.web]\nlisten = ['127.0.0.1:1']\n")
        self.assertEqual(load(path).services["web"].listen, ("127.0.0.1:1",))
        self.assertEqual(
            [str(problem) for problem in examine(path).warnings],
            [f"{path}:1: services.web.groups: nothing can answer: there is no group"],
        )

    def test_unreadable(self) -> None:
        """A file that is absent, a directory or not UTF-8 is a configuration error, not a traceback."""
        for path, words in (
            (os.path.join(self.directory, "absent"), "No such file"),
            (os.curdir, "Is a directory"),
            (self.write(b"\xff\xfe"), "not UTF-8"),
        ):
            with self.assertRaises(ConfigError) as caught:
                load(path)
            self.assertIn(words, str(caught.exception))
            self.assertTrue(str(caught.exception).startswith(path))


class CheckTests(FilesTestCase):
    """Each rule: a document that breaks it and the place where that is told."""

    def broken(self, place: str, words: str, text: str) -> None:
        found = problems(text)
        self.assertEqual([problem.place for problem in found], [place], [str(problem) for problem in found])
        self.assertIn(words, found[0].message)

    def test_what_toml_cannot_hold(self) -> None:
        """Numbers of thousands of digits, deep nesting, and times without an end are errors like any other."""
        self.broken("", "a number is too long", "a = " + "9" * 5000)
        self.broken("", "nested too deeply", "a = " + "[" * 5000 + "]" * 5000)
        self.broken("services.web.timeouts.idle_s", "a number above 0", "[services.web]\ntimeouts.idle_s = inf")

    def test_schedulers(self) -> None:
        """Schedulers must exist (the old short names do) and their parameters must be theirs and in range."""
        group = "[services.web.groups.blue]\n"
        self.assertEqual(problems(group + 'scheduler = "leastc"'), [])
        self.broken(
            "services.web.groups.blue.parameters.choices",
            "choices",
            group + 'scheduler = "p2c"\nparameters.choices = 1',
        )
        self.broken(
            "services.web.groups.blue.parameters.colour", "colour", group + 'scheduler = "p2c"\nparameters.colour = 1'
        )

    def test_networks(self) -> None:
        """Networks must be networks, wherever they are given."""
        for key in ("access.allow", "access.deny", "proxy.accept_from", "groups.blue.registration.networks"):
            self.broken(f"services.web.{key}[1]", "neither a network", f"services.web.{key} = ['10.0.0.0/8', 'ten']")

    def test_listeners_taken_twice(self) -> None:
        """One address cannot be had by two listeners, nor beside the wildcard of its family; port 0 is always free."""

        def at(*listen: str) -> str:
            return f"services.a.listen = ['{listen[0]}']\nservices.b.listen = ['{listen[1]}']"

        for pair in (
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::1]:80", "[::]:80"),
            ("unix:/a", "unix:/a"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("localhost:1", "127.0.0.1:1"),
            ("[::1]:1", "localhost:1"),
            ("localhost:1", "[::]:1"),
        ):
            self.broken("services.b.listen[0]", "is taken by services.a.listen[0]", at(*pair))
        for pair in (
            ("0.0.0.0:80", "[::]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("unix:/a", "unix:/b"),
            ("10.0.0.1:1", "10.0.0.2:1"),
            ("0.0.0.0:1", "0.0.0.0:2"),
            ("localhost:1", "127.0.0.2:1"),
        ):
            self.assertEqual(problems(at(*pair)), [])
        self.broken(
            "node.admin.endpoints[0].listen",
            "node.agents.listen[0]",
            "node.agents.listen = ['127.0.0.1:1']\nnode.admin.endpoints = [{listen = '127.0.0.1:1'}]",
        )

    def test_unfit_to_listen(self) -> None:
        """What a director could not bind is told before it runs, wherever it listens; as a host's address it may do."""
        for listen, words in (("[::ffff:127.0.0.1]:1", "written as IPv6"), ("[fe80::1]:1", "which"),
                              ("224.0.0.1:1", "many machines"), ("[ff02::1%eth0]:1", "many machines")):
            self.broken("services.a.listen[0]", words, f"services.a.listen = ['{listen}']")
            self.assertTrue(any(words in problem.message for problem in problems(f"node.agents.listen = ['{listen}']")))
        self.assertEqual(problems("services.a.listen = ['[fe80::1%eth0]:1']"), [])
        self.assertEqual(problems("services.a.groups.b.hosts.c = '[::ffff:127.0.0.1]:1'"), [])

    def test_weight_header(self) -> None:
        """Of HTTP probes, by the usual name or another one."""
        probe = "services.a.groups.b.health.probe"
        for value in ("true", "false", "'X-My-Weight'"):
            self.assertEqual(problems(f"{probe} = {{kind = 'http', weight_header = {value}}}"), [])
        for value in ("'a b'", "'x:'", "''", "3"):
            self.broken(f"{probe}.weight_header", "", f"{probe} = {{kind = 'http', weight_header = {value}}}")
        self.broken(f"{probe}.weight_header", "a tcp probe has no headers", f"{probe}.weight_header = true")

    def test_scripts(self) -> None:
        """A script probe has a program, by its whole path, and no other kind of probe has one."""
        probe = "services.a.groups.b.health.probe"
        self.assertEqual(problems(f"node.scripts = '/s'\n{probe} = {{kind = 'script', command = ['/s/check', '', '-x']}}"), [])
        self.broken(f"{probe}.command", "missing", f"{probe}.kind = 'script'")
        self.broken(f"{probe}.command", "a http probe runs no program", f"{probe} = {{kind = 'http', command = ['/s/check']}}")
        self.broken(f"{probe}.command[0]", "absolute", f"{probe} = {{kind = 'script', command = ['check']}}")
        self.broken(f"{probe}.command[1]", "", f"{probe} = {{kind = 'script', command = ['/s/check', \"a\\u0000b\"]}}")
        self.broken("node.scripts", "absolute", "node.scripts = 'scripts'")

    def test_agent_check(self) -> None:
        """A port, at each host's own address."""
        check = "services.a.groups.b.health.agent_check = {port = 9000}\nservices.a.groups.b.hosts.c = "
        self.assertEqual(problems(check + "'10.0.0.1:1'"), [])
        self.broken("services.a.groups.b.hosts.c.address", "agent_check has a port", check + "'unix:/a'")
        self.broken("services.a.groups.b.health.agent_check.port", "missing", "services.a.groups.b.health.agent_check = {}")

    def test_unix_peers(self) -> None:
        """"unix" stands for clients of UNIX sockets among those whose headers are read, and nowhere else; who owns the
        socket has a name, and its mode is octal."""
        self.assertEqual(problems("services.a.proxy.accept_from = ['unix', '10.0.0.0/8']"), [])
        patroni = "services.a.groups.b.health.probe.port = 8008\nservices.a.groups.b.hosts.c."
        self.assertEqual(problems(patroni + "address = '10.0.0.1:5432'\nservices.a.groups.b.hosts.c.probe_port = 1"), [])
        self.broken("services.a.groups.b.hosts.c.address", "UNIX socket", patroni + "address = 'unix:/a'")
        self.broken("services.a.groups.b.health.probe.port", "already",
                    "services.a.groups.b.health.probe = {port = 1, address = '10.0.0.1:1'}")
        self.broken("services.a.groups.b.health.probe.port", "", "services.a.groups.b.health.probe.port = 0")
        probed = "services.a.groups.b.hosts.c = {probe_port = 1, address = "
        self.broken("services.a.groups.b.hosts.c.probe_port", "UNIX socket", probed + "'unix:/a'}")
        self.broken("services.a.groups.b.hosts.c.probe_port", "address of its own",
                    probed + "'10.0.0.1:1'}\nservices.a.groups.b.health.probe.address = '10.0.0.1:1'")
        self.broken("services.a.access.allow[0]", "neither a network", "services.a.access.allow = ['unix']")
        self.assertEqual(problems("services.a.unix = {mode = '0600', owner = 'www-data', group = '33'}"), [])
        self.broken("services.a.unix.mode", "", "services.a.unix.mode = '0o660'")
        self.broken("services.a.unix.owner", "", "services.a.unix.owner = 'a b'")

    def test_peers(self) -> None:
        """Directors must be able to prove who they are, and to find each other; certificates need a role and files."""
        here = "[node.peers]\nlisten = '127.0.0.1:1'\n"
        secret = f"secret_file = {json.dumps(self.write(b'x' * 16))}\n"
        files = "".join(f"tls.{key} = {json.dumps(self.write(b''))}\n" for key in ("certificate", "key", "client_ca"))
        self.assertEqual(problems(here + secret), [])
        self.assertEqual(problems(here + files + "certificate_domain = 'directors'"), [])
        self.broken("node.peers", "secret_file, tls", here)
        self.broken("node.peers.secret_file", "cannot read", here + "secret_file = '/nonexistent'")
        self.broken("node.peers.certificate_domain", "missing", here + files)
        self.broken("node.peers.tls.client_ca", "missing",
                    here + files.rpartition("tls.client_ca")[0] + "certificate_domain = 'directors'")
        self.broken("node.peers.listen", "by TCP", "[node.peers]\nlisten = 'unix:/a'\n" + secret)
        self.broken("node.peers.advertise", "cannot connect", "[node.peers]\nlisten = '0.0.0.0:1'\n" + secret)
        self.assertEqual(problems("[node.peers]\nlisten = '0.0.0.0:1'\nadvertise = '10.0.0.1:1'\n" + secret), [])
        self.broken("node.peers.listen", "is taken by", here + secret + "[node.agents]\nlisten = ['127.0.0.1:1']")

    def test_vips(self) -> None:
        """Virtual addresses need an interface, must be movable and different; keeping them needs peers."""
        here = "[node.vips]\ninterface = 'eth0'\n"
        self.assertEqual(problems(here + "addresses = ['10.0.0.1/24', '2001:db8::1/64', '10.0.0.2/32']"), [])
        self.broken("node.vips.interface", "missing", "node.vips.addresses = ['10.0.0.1/24']")
        self.broken("node.vips.interface", "network interface", "node.vips.interface = 'a/b'")
        for wrong, words in (("ten", "like"), ("127.0.0.2/8", "cannot be moved"), ("224.0.0.1/4", "cannot be moved"),
                             ("10.0.0.1", "no prefix length"), ("2001:db8::1", "no prefix length")):
            self.broken("node.vips.addresses[0]", words, here + f"addresses = ['{wrong}']")
        self.broken("node.vips.addresses[1]", "there already", here + "addresses = ['10.0.0.1/24', '10.0.0.1/32']")
        self.broken("node.vip_on_isolation", "promises", "node.vip_on_isolation = 'keep'")

    def test_spread(self) -> None:
        """Addresses are spread by promises, over directors that balance; priorities are of what is spread."""
        vips = "[node.vips]\ninterface = 'eth0'\naddresses = ['10.0.0.1/24', '2001:db8::1/64']\n"
        self.broken("node.vips.spread", "by promises", vips + "spread = true")
        self.broken("node.vips.priorities", "spread", vips + "priorities = { '10.0.0.1' = 200 }")
        promises = ("node.takeover = 'promises'\nnode.store = 'etcd:'\nnode.etcd.endpoints = ['10.0.0.9:2379']\n"
                    f"node.peers.listen = '10.0.0.1:1'\nnode.peers.secret_file = {json.dumps(self.write(b'x' * 16))}\n")
        for text in ("10.0.0.2", "lb1", "10.0.0.1/24"):
            self.broken(f"node.vips.priorities.\"{text}\"" if "." in text else f"node.vips.priorities.{text}", "not one of",
                        promises + vips + f"spread = true\npriorities = {{ '{text}' = 200 }}")
        self.broken("node.vips.spread", "no addresses", promises + "node.vips.spread = true")
        self.broken("node.vips.spread", "does not balance", promises + "node.roles = ['manage']\n" + vips + "spread = true")
        many = [f"10.0.{number}.1/24" for number in range(65)]
        self.broken("node.vips.spread", "64 addresses", promises + f"[node.vips]\ninterface = 'eth0'\nspread = true\naddresses = {many}")
        self.assertEqual(problems(promises + vips + "spread = true\npriorities = { '10.0.0.1' = 200, '2001:DB8::1' = 50 }"), [])

    def test_health(self) -> None:
        """A host must be suspect before it can be out, and probes need a sane path, address and header."""
        health = "[services.web.groups.blue.health]\n"
        here = "services.web.groups.blue.health"
        self.broken(f"{here}.suspect_after_s", "not below", health + "suspect_after_s = 5.0")
        self.broken(f"{here}.probe.path", "begins with /", health + "probe.path = 'x y'")
        self.broken(f"{here}.probe.path", "begins with /", health + r'probe.path = "/\r\nHost: x"')
        self.broken(f"{here}.probe.host_header", "host name", health + r'probe.host_header = "a\r\nb"')
        self.broken(f"{here}.probe.address", "expected host:port", health + "probe.address = 'x'")

    def test_sources(self) -> None:
        """Source addresses are IP addresses that can be connected from, once each, and there is one for each host's family."""
        group = "[services.web.groups.blue]\nsource = [{}]\nhosts.a = '{}'\n"
        place = "services.web.groups.blue.source"
        for sources, host, where, what in (
            ("'app.example'", "10.0.0.1:80", f"{place}[0]", "expected an IP address"),
            ("'10.0.0.9', '0.0.0.0'", "10.0.0.1:80", f"{place}[1]", "nothing can be connected from"),
            ("'10.0.0.9', '10.0.0.9'", "10.0.0.1:80", f"{place}[1]", "there already"),
            ("'10.0.0.9'", "[2001:db8::1]:80", place, "none is an IPv6 address, as that of host 'a' is"),
        ):
            self.broken(where, what, group.format(sources, host))

    def test_plaintext(self) -> None:
        """Beyond loopback agents and admin speak TLS unless told otherwise, and admin has users."""
        identity = f"[node.agents.identities.a]\nhosts = []\ntoken_sha256 = '{HASH}'\n"
        agents = "[node.agents]\nlisten = ['0.0.0.0:1']\n"
        self.broken("node.agents.listen[0]", "plaintext", agents + identity)
        self.assertEqual(problems(agents + "insecure = true\n" + identity), [])
        self.broken("node.agents.listen[0]", "anyone may report", agents + "insecure = true")
        self.assertEqual(problems("node.agents.listen = ['[::1]:1']"), [])
        user = "[node.admin.users.bob]\npassword = '$argon2id$x'\n"
        endpoint = "[[node.admin.endpoints]]\nlisten = '0.0.0.0:1'\n"
        self.broken("node.admin.endpoints[0].listen", "plaintext", user + endpoint)
        self.assertEqual(problems("node.admin.insecure = true\n" + user + endpoint), [])
        self.broken("node.admin.endpoints[0].listen", "no users", "node.admin.insecure = true\n" + endpoint)
        self.assertEqual(problems("node.admin.endpoints = [{listen = 'unix:/run/admin'}]"), [])

    def test_metrics_port(self) -> None:
        """An address, which may be any; one where strangers could read is warned of."""
        self.broken("node.metrics.listen", "host:port", "node.metrics.listen = '9711'")
        self.broken("node.metrics.tls.key", "cannot read /none", "[node.metrics]\nlisten = '127.0.0.1:1'\n"
                    "tls = { certificate = '/etc/passwd', key = '/none' }")
        self.broken("node.metrics.listen", "missing",
                    "node.metrics.tls = { certificate = '/etc/passwd', key = '/etc/passwd' }")
        for address, odd in (("127.0.0.1:1", False), ("10.0.0.1:1", False), ("[fd00::1]:1", False), ("unix:/run/m", False),
                             ("0.0.0.0:1", True), ("[::]:1", True), ("8.8.8.8:1", True)):
            found = rules.warnings(parse(f"node.metrics.listen = '{address}'"))
            self.assertEqual("node.metrics.listen" in [problem.place for problem in found], odd, address)

    def test_hooks(self) -> None:
        """A program or a web address, with what belongs to it, and not too many."""
        here = "node.hooks.h"
        self.assertEqual(problems("node.hooks.h = { command = ['/bin/true', 'x'] }"), [])
        self.assertEqual(problems("node.hooks.h = { url = 'https://a/', ca = '/etc/passwd', token_file = '/etc/passwd' }"), [])
        for place, words, keys in (
            (here, "either", ""), (here, "either", "command = ['/x'], url = 'http://a/'"),
            (f"{here}.command[0]", "absolute", "command = ['x']"), (f"{here}.url", "expected http", "url = 'a'"),
            (f"{here}.on", "told of nothing", "command = ['/x'], on = []"),
            (f"{here}.on[0]", '"host_up"', "command = ['/x'], on = ['host_upp']"),
            (f"{here}.ca", "only a url", "command = ['/x'], ca = '/etc/passwd'"),
            (f"{here}.ca", "no certificate", "url = 'http://a/', ca = '/etc/passwd'"),
            (f"{here}.token_file", "cannot read", "url = 'http://a/', token_file = '/none'"),
            (f"{here}.when", '"always"', "command = ['/x'], when = 'never'"),
        ):
            self.broken(place, words, f"node.hooks.h = {{ {keys} }}")
        self.broken("node.hooks", "more than the 16", "".join(f"node.hooks.h{n} = {{ command = ['/x'] }}\n" for n in range(17)))

    def test_tokens_in_plaintext(self) -> None:
        """A hook's token that others could read on the way is warned of."""
        for url, odd in (("http://a/", True), ("http://10.0.0.1/", True), ("https://a/", False), ("http://127.0.0.1/", False),
                         ("http://[::1]:8/", False), ("http://localhost/", False)):
            found = rules.warnings(parse(f"node.hooks.h = {{ url = '{url}', token_file = '/etc/passwd' }}"))
            self.assertEqual("node.hooks.h.token_file" in [problem.place for problem in found], odd, url)

    def test_htpasswd(self) -> None:
        """A file of users serves beyond loopback as users do, and must be readable; of their hashes bcrypt does too."""
        here = "node.admin.insecure = true\n[[node.admin.endpoints]]\nlisten = '0.0.0.0:1'\n"
        self.assertEqual(problems(f"node.admin.htpasswd = {json.dumps(self.write(''))}\n" + here), [])
        self.broken("node.admin.htpasswd", "cannot read /nowhere", "node.admin.htpasswd = '/nowhere'\n" + here)
        self.assertEqual(problems("[node.admin.users.bob]\npassword = '$2y$05$x'"), [])
        self.broken("node.admin.users.bob.password", "", "[node.admin.users.bob]\npassword = '$apr1$x'")

    def test_tls_files(self) -> None:
        """TLS files must be readable files."""
        path = self.write("")
        self.broken(
            "node.agents.tls.key",
            "cannot read /nowhere/key: No such file",
            f"node.agents.tls = {{certificate = '{path}', key = '/nowhere/key'}}",
        )
        self.broken(
            "node.agents.tls.key", "NUL", f'node.agents.tls = {{certificate = "{path}", key = "\\u0000"}}'
        )
        self.broken(
            "node.agents.tls.client_ca",
            "not a file",
            f"node.agents.tls = {{certificate = '{path}', key = '{path}', client_ca = '/'}}",
        )

    def test_identities(self) -> None:
        """An identity has one proof, which is nobody else's, and patterns of three parts."""

        def identity(name: str, rest: str) -> str:
            return f"[node.agents.identities.{name}]\n{rest}\n"

        proof = f"token_sha256 = '{HASH}'\n"
        self.broken("node.agents.identities.a", "exactly one", identity("a", "hosts = []"))
        self.broken(
            "node.agents.identities.a.certificate_name",
            "not asked for",
            identity("a", "hosts = []\ncertificate_name = 'a'"),
        )
        self.broken(
            "node.agents.identities.b.token_sha256",
            "'a' has the same one",
            identity("a", proof + "hosts = []") + identity("b", proof + "hosts = []"),
        )
        for pattern in ("web/app1", "web//app1", "web/blue/app 1", "web/blue/[a]"):
            self.broken(
                "node.agents.identities.a.hosts[0]",
                "service/group/host",
                identity("a", proof + f"hosts = ['{pattern}']"),
            )

    def test_node(self) -> None:
        """Stores, log targets, resolvers and advertised addresses must make sense."""
        self.broken("node.store", "memory:, file:/path or etcd:", "node.store = 'file:state'")
        self.broken("node.log.target", "stderr", "node.log.target = ''")
        self.broken("node.resolvers[0]", "IP address", "node.resolvers = ['dns.example:53']")
        self.broken("node.agents.advertise[0]", "port", "node.agents.advertise = ['10.0.0.1:0']")


class WarningTests(FilesTestCase):
    def warned(self, text: str) -> list[str]:
        return [problem.place for problem in examine(self.write(text)).warnings]

    def test_good(self) -> None:
        """Nothing is odd about a good document."""
        self.assertEqual(self.warned(GOOD), [])

    def test_small_queues(self) -> None:
        """What the kernel grants listeners is asked of it, whenever a file is read."""
        self.patch(files, "granted", lambda: 128)
        self.assertEqual(self.warned(GOOD), ["node.roles"])

    def test_whose_services(self) -> None:
        """With etcd the file's services do not count: that there are any is odd, and nothing about them; none is right."""
        etcd = "[node]\nstore = 'etcd:'\netcd.endpoints = ['127.0.0.1:1']\n"
        self.assertEqual(self.warned(etcd), [])
        self.assertEqual(self.warned(etcd + "[services.web]\n[services.mail]\n"), ["services"])

    def test_odd(self) -> None:
        """What is allowed but probably not meant is warned of."""
        service = "[services.web]\nlisten = ['127.0.0.1:1']\n"
        group = service + "[services.web.groups.blue]\n"
        here = "services.web.groups.blue"
        for text, places in [
            ("", ["services"]),
            (service, ["services.web.groups"]),
            (group, [f"{here}.hosts"]),
            (group + "registration.mode = 'auto'", [f"{here}.registration.mode"]),
            (group + "hosts.a = {address = 'a:1', weight = 0}", [f"{here}.hosts"]),
            (group + "hosts = {a = 'a:1', b = 'a:1'}", [f"{here}.hosts.b"]),
            (group + "hosts.a = 'a:1'\nscheduler = 'maglev'\n[services.web.sticky]", ["services.web.sticky"]),
            ("[services.web]\ngroups.blue.hosts.a = 'a:1'", ["services.web.listen"]),
            (
                "node.agents = {interval_s = 3.0, listen = ['127.0.0.1:7']}\n" + group + "hosts.a = 'a:1'",
                [f"{here}.health.suspect_after_s"],
            ),
        ]:
            self.assertEqual(self.warned(text), places, text)


def values(node: inspect.Type) -> st.SearchStrategy[Any]:
    """Any value of a type, its constraints kept."""
    match node:
        case inspect.StructType(cls=cls, fields=fields):
            return st.fixed_dictionaries(
                {field.name: values(field.type) for field in fields if field.required},
                optional={field.name: values(field.type) for field in fields if not field.required},
            ).map(lambda chosen: cls(**chosen))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=2)
        case inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=2).map(tuple)
        case inspect.UnionType(types=types):
            return st.one_of([values(each) for each in types])
        case inspect.LiteralType(values=choices):
            return st.sampled_from(choices)
        case inspect.StrType(pattern=pattern):
            return st.text(max_size=10) if pattern is None else st.from_regex(pattern)
        case inspect.IntType(ge=low, le=high):
            return st.integers(low, high or 2**40)
        case inspect.FloatType(gt=above, ge=low, le=high):
            return st.floats(
                low if above is None else above,
                high,
                exclude_min=above is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case _:
            raise AssertionError(node)


class RoomTests(SynchronousTestCase):
    """What is odd about a configuration on a machine with so many descriptors and these addresses."""

    def odd(self, text: str, descriptors: float, ours: tuple[str, ...] = ()) -> list[str]:
        found = rules.warnings(parse(text), descriptors=descriptors, ours=ours.__contains__)
        return [str(problem) for problem in found if "no group" not in problem.message and "no listener" not in problem.message]

    def test_too_many_clients(self) -> None:
        """max_connections of all services together against what the hard limit has room for."""
        text = "[services.a]\nlimits.max_connections = 3000\n[services.b]\nlimits.max_connections = 3000\n"
        (line,) = self.odd(text, 8_192)
        self.assertIn("max_connections add up to 6000, and the hard limit of 8192 descriptors has room for 3824", line)
        self.assertEqual(self.odd(text, 20_000), [])
        self.assertEqual(self.odd("node.roles = ['manage']\n" + text, 8_192), [])

    def test_unbounded(self) -> None:
        """A service without a maximum is odd where there is room for few."""
        (line,) = self.odd("[services.a]\n", 1_024)
        self.assertIn("not every service has max_connections, and the hard limit of 1024 descriptors has room for 372", line)
        self.assertEqual(self.odd("[services.a]\n", 20_000), [])
        self.assertEqual(self.odd("[services.a]\n", float("inf")), [])

    def test_sources(self) -> None:
        """A source address that this machine does not have."""
        text = "[services.a.groups.b]\nsource = ['10.0.0.8', '10.0.0.9']\nhosts.c = '10.0.0.1:80'\n"
        (line,) = self.odd(text, 20_000, ours=("10.0.0.8",))
        self.assertIn("services.a.groups.b.source[1]: 10.0.0.9 is no address of this machine", line)


class DumpTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """A dumped configuration parses to the same one, as TOML and as JSON."""
        configuration = parse(GOOD)
        self.assertEqual(parse(dump_toml(configuration)), configuration)
        self.assertEqual(checked(msgspec.json.decode(dump_json(configuration))), configuration)

    def test_defaults_left_out(self) -> None:
        """Only what differs from the defaults is dumped."""
        group = Group(hosts={"a": Host(address="a:1", weight=1.0)})
        self.assertEqual(
            dump_toml(Configuration(services={"web": Service(groups={"blue": group})})),
            '[services.web.groups.blue.hosts.a]\naddress = "a:1"\n',
        )

    @settings(max_examples=40)
    @given(values(inspect.type_info(Configuration)))
    def test_any_configuration(self, configuration: Configuration) -> None:
        """Whatever the types allow survives TOML and JSON."""
        for data in (tomllib.loads(dump_toml(configuration)), msgspec.json.decode(dump_json(configuration))):
            self.assertEqual(convert(data, Configuration, shorthands=SHORTHANDS), (configuration, []))

    @settings(max_examples=40)
    @given(values(inspect.type_info(Configuration)))
    def test_checks_never_break(self, configuration: Configuration) -> None:
        """The rules find problems in anything that the types allow, and never fall over."""
        for problem in check(configuration):
            self.assertTrue(problem.place and problem.message)
