"""What a probe that asks something may say."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cluster.errors import ConfigError
from director.config.files import checked
from director.config.probing import MAX_STEPS


def problems(**probe: Any) -> list[str]:
    """Without the place of the probe."""
    group = {"hosts": {"a": "10.0.0.1:80"}, "health": {"probe": probe}}
    try:
        checked({"services": {"web": {"listen": ["127.0.0.1:0"], "groups": {"main": group}}}})
    except ConfigError as error:
        return [str(problem).partition("health.probe.")[2] for problem in error.problems]
    return []


class AskingTests(SynchronousTestCase):
    def test_good(self) -> None:
        for probe in (
            {"kind": "exchange", "steps": [{"receive": "^220 "}, {"send": "QUIT\r\n"}]},
            {"kind": "exchange", "steps": [{"send": "\u00ff", "receive": "[\u00f0-\u00ff]"}], "tls": {}},
            {"kind": "grpc", "grpc_service": "shop.Cart", "tls": {}}, {"kind": "redis", "role": "replica", "password": "p"},
            {"kind": "postgresql", "role": "primary", "user": "monitor", "password": "monitor", "database": "postgres"},
        ):
            self.assertEqual(problems(**probe), [], probe)

    def test_wrong(self) -> None:
        for probe, wanted in (
            ({"kind": "exchange"}, "steps: nothing is waited for"), ({"kind": "exchange", "steps": [{"send": "x"}]}, "steps: nothing is"),
            ({"kind": "exchange", "steps": [{"receive": "a(b"}]}, "steps[0].receive: no regular expression: missing ), "),
            ({"kind": "exchange", "steps": [{"receive": "a*"}]}, "steps[0].receive: matches nothing at all"),
            ({"kind": "exchange", "steps": [{"receive": "\u0100"}]}, "steps[0].receive: expected "),
            ({"kind": "exchange", "steps": [{"receive": "x"}] * (MAX_STEPS + 1)}, "steps: expected at most"),
            ({"kind": "http", "steps": [{"receive": "x"}]}, "steps: a http probe has no use for it (kind = \"exchange\" does)"),
            ({"kind": "grpc", "role": "primary"}, "role: a grpc probe has no use for it"),
            ({"kind": "redis", "database": "x"}, "database: a redis probe"), ({"kind": "redis", "user": "x"}, "password: missing"),
            ({"kind": "tcp", "password": "x"}, "password: a tcp probe"), ({"kind": "redis", "password": "../x"}, "password: expected a name"),
            ({"kind": "script", "command": ["/x"], "tls": {}}, "tls: a script probe makes no connection"),
        ):
            found = problems(**probe)
            self.assertEqual(len(found), 1, (probe, found))
            self.assertTrue(found[0].startswith(wanted), (wanted, found))
