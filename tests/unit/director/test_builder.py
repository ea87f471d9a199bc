"""`director.builder`: the same configuration as a file's, written in Python."""

from __future__ import annotations

from twisted.application.service import Application, IServiceCollection
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import ConfigError
from cluster.model import AdminEndpoint, Health, Limits, Logging, Probe
from director.builder import Director
from director.config.files import parse

HASH = "0" * 64


def small() -> Director:
    director = Director()
    director.service("web", "127.0.0.1:0").group("blue").host("app1", "127.0.0.1:1")
    return director


class BuilderTests(SynchronousTestCase):
    def test_same_as_file(self) -> None:
        """Every call has its counterpart in TOML, and both give the same configuration."""
        director = Director("lb1", store="file:/state", log=Logging(access=True), resolvers=("127.0.0.1:53",))
        director.agents("127.0.0.1:1", interval_s=0.5).identity("app1", "web/*/app1", token_sha256=HASH)
        director.admin(AdminEndpoint(listen="127.0.0.1:2")).user("bob", "$argon2id$x", role="full")
        web = director.service("web", "127.0.0.1:3", enable="green", split={"green": 3, "blue": 1},
                               limits=Limits(max_connections=5))
        web.group("blue", scheduler="p2c", choices=3).host("app1", "a:1", weight=2).host("app2", "b:1", backup=True)
        web.group("green", health=Health(probe=Probe(kind="http"))).host("app3", "c:1", max_connections=4)
        self.assertEqual(
            director.configuration(),
            parse(f"""
            [node]
            name = "lb1"
            store = "file:/state"
            log.access = true
            resolvers = ["127.0.0.1:53"]
            agents.listen = ["127.0.0.1:1"]
            agents.interval_s = 0.5
            agents.identities.app1 = {{ hosts = ["web/*/app1"], token_sha256 = "{HASH}" }}
            admin.endpoints = [{{ listen = "127.0.0.1:2" }}]
            admin.users.bob = {{ password = "$argon2id$x", role = "full" }}
            [services.web]
            listen = ["127.0.0.1:3"]
            enable = "green"
            split = {{ green = 3, blue = 1 }}
            limits.max_connections = 5
            [services.web.groups.blue]
            scheduler = "p2c"
            parameters.choices = 3
            hosts = {{ app1 = {{ address = "a:1", weight = 2 }}, app2 = {{ address = "b:1", backup = true }} }}
            [services.web.groups.green]
            health.probe.kind = "http"
            hosts.app3 = {{ address = "c:1", max_connections = 4 }}
        """),
        )

    def test_every_error_at_once(self) -> None:
        """Errors of type, of reference and of repetition come together, when the configuration is asked for."""
        director = Director("bad name", store="disk")
        web = director.service("web", "nonsense", enable="gone")
        web.group("blue", scheduler="nope").host("a", "x:1", weight=-1).host("a", "y:1")
        director.service("mail")
        director.service("mail")
        with self.assertRaises(ConfigError) as caught:
            director.configuration()
        self.assertEqual(
            {problem.place for problem in caught.exception.problems},
            {
                "node.name",
                "node.store",
                "services.web.listen[0]",
                "services.web.enable",
                "services.web.groups.blue.scheduler",
                "services.web.groups.blue.hosts.a",
                "services.mail",
            },
        )

    def test_weight_of_the_wrong_type(self) -> None:
        """What Python does not check at the call is checked by the model."""
        director = Director()
        director.service("web").group("blue").host("a", "x:1", weight="2")  # type: ignore[arg-type]
        with self.assertRaises(ConfigError) as caught:
            director.configuration()
        self.assertEqual([problem.hint for problem in caught.exception.problems], ["write it without quotes"])

    def test_nothing_built_on_errors(self) -> None:
        """Embedding a bad configuration raises before anything is made."""
        with self.assertRaises(ConfigError):
            Director(store="disk").attach(IServiceCollection(Application("app")), MemoryReactorClock())

    def test_attach(self) -> None:
        """The tree becomes a child of the application that it is attached to."""
        application = IServiceCollection(Application("app"))
        tree = small().attach(application, MemoryReactorClock())
        self.assertEqual(list(application), [tree])
        self.assertEqual(tree.configuration, small().configuration())

    def test_application(self) -> None:
        """What a .tac file needs: an application with the director in it."""
        [tree] = IServiceCollection(small().application(MemoryReactorClock()))
        self.assertEqual(tree.name, "director")
