"""`director.config.summary` and `director.relay.choice`: what would run, in words."""

from __future__ import annotations

import sys

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cluster.errors import Misuse
from director.config.files import parse
from director.config.summary import start_lines
from director.relay import choice, make_relay
from director.relay.choice import choose, native_missing
from director.service import make_relays


class SummaryTests(SynchronousTestCase):
    def test_etcd(self) -> None:
        """With etcd it says where the services are, and describes none of the file's as if it were used."""
        configuration = parse("""
            [node]
            store = "etcd:"
            etcd = { endpoints = ["127.0.0.1:1"], cluster = "lab" }
            [services.web]
        """)
        self.assertEqual(list(start_lines(configuration, native_missing="")),
                         ["store: etcd at 127.0.0.1:1; the services are those of cluster lab there"])

    def test_split(self) -> None:
        """Each group with its share."""
        configuration = parse("""
            [services.web]
            split = { blue = 3, green = 1 }
            groups.blue.hosts.a = "a:1"
            groups.green.hosts = { b = "b:1", c = "c:1" }
        """)
        [line, *_] = start_lines(configuration, native_missing="")
        self.assertIn("→ 75 % group blue: 1 host, auto and 25 % group green: 2 hosts, auto,", line)

    def test_lines(self) -> None:
        """Services with listeners, group and relay; where agents and operators connect; the store."""
        configuration = parse("""
            [node]
            agents.listen = ["127.0.0.1:1"]
            admin.endpoints = [{ listen = "127.0.0.1:2" }]
            metrics.listen = "127.0.0.1:3"
            hooks.chat = { url = "https://chat.example/s3cret", on = ["host_down", "host_up"] }
            hooks.own = { command = ["/bin/true", "x"], on = ["vip_taken"] }
            [services.web]
            listen = ["0.0.0.0:80", "[::]:81"]
            relay = "python"
            groups.blue.hosts.a = "a:1"
            [services.mail]
        """)
        self.assertEqual(
            list(start_lines(configuration, native_missing="not built")),
            [
                "service web: 0.0.0.0:80, [::]:81 → group blue: 1 host, auto, "
                "relay python (as configured)",
                "service mail: no listener → no group, relay python (no native relay: not built)",
                "agents: 127.0.0.1:1, plaintext",
                "admin: http://127.0.0.1:2/",
                "metrics, without a password: http://127.0.0.1:3/metrics",
                "hook chat: host_down, host_up → chat.example",
                "hook own: vip_taken → /bin/true",
                "store: memory:",
            ],
        )


class ChoiceTests(SynchronousTestCase):
    def test_choices(self) -> None:
        """The native relay wherever it is there and not excluded, with the reason in words."""
        self.assertEqual(choose("auto", ""), ("native", "the fastest there is"))
        self.assertEqual(choose("native", ""), ("native", "as configured"))
        self.assertEqual(choose("python", ""), ("python", "as configured"))
        self.assertEqual(choose("auto", "no"), ("python", "no native relay: no"))
        self.assertEqual(choose("native", "no"), ("python", "native was asked for, but no"))

    def test_without_the_extension(self) -> None:
        """An installation without it says so; asked for by name the native relay is misuse, else Python's is taken."""
        self.patch(sys, "modules", {**sys.modules, "director.relay._relay": None})
        self.assertEqual(native_missing(), "its extension was not built")
        self.assertRaises(Misuse, make_relay, "native", reactor=Clock())
        self.assertEqual(make_relay("auto", reactor=Clock()).name, "python")
        self.assertEqual(list(make_relays(1, reactor=Clock())), ["python", "tls"])

    def test_a_broken_extension(self) -> None:
        """One that does not load says why."""

        def refuse(name: str) -> None:
            raise ImportError("wrong ELF class")

        self.patch(choice, "import_module", refuse)
        self.assertEqual(native_missing(), "its extension does not load: wrong ELF class")

    def test_the_best_comes_first(self) -> None:
        """A director has every relay that it can have; a service that says nothing gets the first."""
        if native_missing():
            raise SkipTest("this is about the native relay")
        relays = make_relays(2, reactor=Clock())
        self.assertEqual([(name, relay.name) for name, relay in relays.items()],
                         [(name, name) for name in ("native", "python", "tls")])
