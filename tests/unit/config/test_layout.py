"""`director.config.init.layout`: the files of a new cluster are good, private, and fit together."""

from __future__ import annotations

import datetime
import hashlib
import stat
import tempfile
import tomllib
from pathlib import Path

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from agent.config import AgentConfig, configure
from cluster.address import Address
from cluster.errors import ConfigError
from cluster.model import Configuration
from director.admin.htpasswd import parse as parse_htpasswd
from director.config.files import examine
from director.config.init.layout import Terms, layout
from director.config.init.wanted import Wanted
from director.config.init.writing import File, write_tree
from director.config.secret import read_secret

NOW = datetime.datetime.now(datetime.UTC)
HASH = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$x"
HOSTS = {"app1": Address("10.9.0.1", 80), "app2": Address("fd00::9", 8080)}
PAIR = Wanted({"lb1": "127.80.0.1", "lb2": "127.80.0.2"}, HOSTS, ("10.9.0.100/24",), "lo", ("127.80.0.9:2379",))
ALONE = Wanted({"lb1": "127.80.0.1"}, HOSTS)
IPV6 = Wanted({"lb1": "fd00::1"}, HOSTS, ("fd00::100/64",), "lo", ("[fd00::21]:2379",))
EMPTY = Wanted({"lb1": "lb1.example"})


class LayoutTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory())) / "cluster"

    def files(self, wanted: Wanted) -> dict[str, File]:
        return layout(wanted, Terms(str(self.directory), "admin", HASH, 30, NOW))

    def written(self, wanted: Wanted) -> dict[str, File]:
        files = self.files(wanted)
        write_tree(self.directory, files)
        return files

    def node(self, name: str) -> Configuration:
        return examine(str(self.directory / f"directors/{name}/director.toml"), here=True).configuration

    def agent(self, name: str) -> AgentConfig:
        return configure(str(self.directory / f"agents/{name}/agent.toml"), {})

    def certificate(self, path: str) -> tuple[set[str], set[str], list[x509.ObjectIdentifier]]:
        """DNS names, IP addresses and purposes."""
        certificate = x509.load_pem_x509_certificate((self.directory / path).read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (set(names.get_values_for_type(x509.DNSName)), {str(ip) for ip in names.get_values_for_type(x509.IPAddress)},
                list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value))


class FilesTests(LayoutTestCase):
    def test_check(self) -> None:
        """`director check` has no error and the agents take theirs, whatever was asked for."""
        for wanted in (PAIR, ALONE, IPV6, EMPTY):
            self.directory = Path(self.enterContext(tempfile.TemporaryDirectory())) / "cluster"
            self.written(wanted)
            for name in wanted.directors:
                self.assertEqual(self.node(name).node.name, name)
            for name, address in wanted.hosts.items():
                self.assertEqual((self.agent(name).name, self.agent(name).port), (name, address.port))

    def test_nothing_odd(self) -> None:
        """Nor any warning but what is the machine's."""
        self.written(PAIR)
        found = examine(str(self.directory / "directors/lb1/director.toml"), here=True).warnings
        self.assertEqual([each for each in found if "somaxconn" not in each.message and "CAP_NET" not in each.message], [])

    def test_modes(self) -> None:
        """Keys, secrets, tokens and hashes are their owner's alone, wherever a name does not say so."""
        for name, file in self.written(PAIR).items():
            mode = stat.S_IMODE((self.directory / name).stat().st_mode)
            private = b"PRIVATE KEY" in file.content or b"$argon2" in file.content or name.endswith(("token", "secret"))
            self.assertEqual(mode, 0o600 if private else 0o644, name)

    def test_services(self) -> None:
        """With etcd in a file of their own, else in the director's; the same hosts and listeners in both."""
        files = self.written(PAIR)
        apart = examine(str(self.directory / "services.toml")).configuration.services
        self.assertEqual(self.node("lb1").services, {})
        self.directory = self.directory.with_name("alone")
        self.assertNotIn("services.toml", self.written(ALONE))
        self.assertEqual(self.node("lb1").services, apart)
        self.assertEqual([host.address for host in apart["web"].groups["main"].hosts.values()], ["10.9.0.1:80", "[fd00::9]:8080"])
        self.assertIn("services.toml", files)

    def test_secrets(self) -> None:
        """One secret for all directors; a token for each agent, which its identity has the hash of; nothing twice."""
        self.written(PAIR)
        secrets = {read_secret(str(self.node(name).node.peers.secret_file)) for name in PAIR.directors}
        self.assertEqual(len(secrets), 1)
        identities = self.node("lb1").node.agents.identities
        self.assertEqual(identities, self.node("lb2").node.agents.identities)
        tokens = {name: Path(str(self.agent(name).token_file)).read_text().strip() for name in HOSTS}
        self.assertEqual({name: hashlib.sha256(token.encode()).hexdigest() for name, token in tokens.items()},
                         {name: identity.token_sha256 for name, identity in identities.items()})
        self.assertEqual(identities["app1"].hosts, ("web/main/app1",))
        other = {name: file.content for name, file in self.files(PAIR).items()}
        for name in ("authority/ca.key.pem", "directors/lb1/peers.secret", "agents/app1/token", "directors/lb1/admin.key.pem"):
            self.assertNotEqual(other[name], (self.directory / name).read_bytes(), name)

    def test_names(self) -> None:
        """A director for its peers and for agents, the admin for browsers, an agent for nobody to connect to."""
        self.written(PAIR)
        serves, dials = x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH
        self.assertEqual(self.certificate("directors/lb1/director.crt.pem"),
                         ({"lb1.directors.internal"}, {"127.80.0.1"}, [serves, dials]))
        self.assertEqual(self.certificate("directors/lb1/admin.crt.pem"),
                         ({"lb1", "localhost"}, {"127.80.0.1", "127.0.0.1", "::1"}, [serves]))
        self.assertEqual(self.certificate("agents/app1/agent.crt.pem"), ({"app1.agents.internal"}, set(), [dials]))
        self.assertEqual(self.node("lb1").node.peers.certificate_domain, "directors.internal")

    def test_user(self) -> None:
        """The admin's first user may do everything."""
        self.written(ALONE)
        admin = self.node("lb1").node.admin
        self.assertEqual(admin.htpasswd_role, "full")
        parsed = parse_htpasswd(Path(str(admin.htpasswd)).read_text(), admin.htpasswd_role)
        self.assertEqual((list(parsed.users), parsed.problems), (["admin"], ()))

    def test_agents_know_every_director(self) -> None:
        self.written(PAIR)
        self.assertEqual(self.agent("app2").directors, ("127.80.0.1:7946", "127.80.0.2:7946"))
        self.assertEqual(self.node("lb2").node.agents.advertise, self.agent("app2").directors)

    def test_toml(self) -> None:
        """A directory's name with blanks and quotes is written as TOML."""
        self.directory = self.directory.with_name("it's \"mine\" \\ ü")
        self.written(ALONE)
        self.assertTrue(tomllib.loads((self.directory / "agents/app1/agent.toml").read_text())["token_file"]
                        .startswith(str(self.directory)))
        self.node("lb1")


class RefusedTests(LayoutTestCase):
    def test_refused(self) -> None:
        """What `check` would refuse is never written: a loop, a virtual address that cannot be one, a listener twice."""
        for wanted, words in (
            (ALONE._replace(hosts={"a": Address("127.80.0.1", 8080)}), "in a circle"),
            (PAIR._replace(vips=("127.0.0.5/8",)), "cannot be moved"),
            (ALONE._replace(listen=("127.80.0.1:7946",)), "7946"),
            (PAIR._replace(interface="much too long a name"), "network interface"),
        ):
            with self.assertRaises(ConfigError) as caught:
                self.files(wanted)
            self.assertIn(words, str(caught.exception))
