"""`director.summary` and `director.relay.choice`: what would run, in words."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from director.config import parse
from director.relay.choice import choose
from director.summary import summary


class SummaryTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """Services with listeners, group and relay; where agents and operators connect; the store."""
        configuration = parse("""
            [node]
            agents.listen = ["127.0.0.1:1"]
            admin.endpoints = [{ listen = "127.0.0.1:2" }]
            [services.web]
            listen = ["0.0.0.0:80", "[::]:81"]
            relay = "python"
            groups.blue.hosts.a = "a:1"
            [services.mail]
        """)
        self.assertEqual(
            list(summary(configuration, native_missing="not built")),
            [
                "service web: 0.0.0.0:80, [::]:81 → group blue: 1 host, weightedleastconns, "
                "relay python (as configured)",
                "service mail: no listener → no group, relay python (no native relay: not built)",
                "agents: 127.0.0.1:1, plaintext",
                "admin: http://127.0.0.1:2/",
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
