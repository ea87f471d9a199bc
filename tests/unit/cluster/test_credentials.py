"""Credentials of systemd's, wherever a configuration names a file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect
from twisted.trial.unittest import SynchronousTestCase

from agent.config import AgentConfig
from cluster.credentials import FILES, resolved
from cluster.model import TLS, Admin, AdminEndpoint, Configuration, Hook, Node, Peers

HERE = {"CREDENTIALS_DIRECTORY": "/run/credentials/txdirector.service"}


def fields(node: inspect.Type) -> set[str]:
    """Names of all text fields below, those of lists left out."""
    found: set[str] = set()
    match node:
        case inspect.StructType(fields=inner):
            for field in inner:
                types = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
                if any(isinstance(each, inspect.StrType) for each in types):
                    found.add(field.name)
                found |= fields(field.type)
        case inspect.DictType(value_type=value):
            found |= fields(value)
        case inspect.VarTupleType(item_type=item):
            found |= fields(item)
        case inspect.UnionType(types=types):
            for each in types:
                found |= fields(each)
        case _:
            pass
    return found


class CredentialTests(SynchronousTestCase):
    def test_everywhere(self) -> None:
        """In tables, arrays and named tables; what names none is as it was."""
        tls = TLS(certificate="/a", key="credential:key")
        configuration = Configuration(node=Node(
            peers=Peers(secret_file="credential:peers.secret"), hooks={"h": Hook(url="http://a/", token_file="credential:t")},
            admin=Admin(endpoints=(AdminEndpoint(listen="127.0.0.1:1"), AdminEndpoint(listen="127.0.0.1:2", tls=tls)))))
        found, problems = resolved(configuration, HERE)
        self.assertEqual(problems, [])
        self.assertEqual(found.node.peers.secret_file, "/run/credentials/txdirector.service/peers.secret")
        self.assertEqual(found.node.hooks["h"].token_file, "/run/credentials/txdirector.service/t")
        there = found.node.admin.endpoints[1].tls
        assert there is not None
        self.assertEqual((there.certificate, there.key), ("/a", "/run/credentials/txdirector.service/key"))
        self.assertIs(found.node.admin.endpoints[0], configuration.node.admin.endpoints[0])
        self.assertIs(resolved(Configuration(), HERE)[0].node, Configuration().node)

    def test_only_files(self) -> None:
        """Other text that looks like one is just text."""
        node = Node(admin=Admin(project_url="credential:x"))
        self.assertEqual(resolved(node, {}), (node, []))

    def test_none_given(self) -> None:
        """Each is told, with its place, and stands as it is."""
        node = Node(peers=Peers(secret_file="credential:s"), hooks={"a.b": Hook(token_file="credential:t")})
        found, problems = resolved(node, {}, "node")
        self.assertEqual(found, node)
        self.assertEqual([problem.place for problem in problems], ['node.hooks."a.b".token_file', "node.peers.secret_file"])
        self.assertIn("LoadCredential=t:", problems[0].hint)

    @given(st.text(max_size=300))
    def test_no_way_out(self, name: str) -> None:
        """No name leads out of the directory."""
        found, problems = resolved(Peers(secret_file=f"credential:{name}"), HERE)
        if not problems:
            assert found.secret_file is not None
            directory, _, last = found.secret_file.rpartition("/")
            self.assertEqual((directory, last), (HERE["CREDENTIALS_DIRECTORY"], name))
            self.assertNotIn(last, ("", ".", ".."))
            self.assertNotIn("\0", last)

    def test_names_that_are_none(self) -> None:
        for name in ("", ".", "..", "a/b", "../a", "a:b", "a\nb"):
            self.assertTrue(resolved(Peers(secret_file=f"credential:{name}"), HERE)[1], name)

    def test_every_file_of_the_configurations(self) -> None:
        """No field that names a file is forgotten: those that are not among them are known."""
        others = {
            # texts that are no file's name
            "name", "store", "cluster", "user", "listen", "advertise", "certificate_domain", "certificate_name", "token_sha256",
            "password", "project_url", "interface", "url", "role", "token", "server_name", "register", "requests", "latency_sum",
            "latency_count", "enable", "scheduler", "address", "path", "host_header", "send", "owner", "group", "mode",
            "weight_header", "receive", "grpc_service", "database",
            # places that are written to, or made, or looked into
            "target", "snapshot", "control_socket", "scripts", "cgroup", "probe_passwords",
        }
        named = fields(inspect.type_info(Configuration)) | fields(inspect.type_info(AgentConfig))
        self.assertEqual(named - others - FILES, set())
        self.assertLessEqual(FILES, named)
