"""HTTP: the status, and the weight after it. The status line's parser is tested in ``test_probes.py``."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cluster.address import Address
from cluster.model import Probe
from director.checks.dialogues.http import Http
from tests.unit.checks.dialogues.kit import both_ways


class HttpTests(SynchronousTestCase):
    def verdict(self, said: bytes, **spec: Any) -> str:
        return both_ways(lambda: Http(Address("192.0.2.1", 80), Probe(kind="http", **spec)), said)

    def test_statuses(self) -> None:
        for said, spec, wanted in (
            (b"HTTP/1.1 204 No\r\n", {}, "passed: HTTP 204"), (b"HTTP/1.1 503 No\r\n", {}, "failed: HTTP 503"),
            (b"HTTP/1.1 503 No\r\n", {"expect": (503,)}, "passed: HTTP 503"), (b"HTTP/1.1 200 OK\r\n", {"expect": (503,)}, "failed: HTTP 200"),
            (b"HTTP/1.1 200 OK\r\nX-Load-Balancing-Endpoint-Weight: 3\r\n\r\n", {"weight_header": True}, "passed: HTTP 200, weight 3"),
            (b"HTTP/1.1 200 OK\r\n", {"weight_header": True}, "waits"),
        ):
            self.assertEqual(self.verdict(said, **spec), wanted)

    def test_ends_in_its_headers(self) -> None:
        """The status has come: it has passed."""
        dialogue = Http(Address("192.0.2.1", 80), Probe(kind="http", weight_header=True))
        self.assertFalse(dialogue.passed_anyway())
        self.assertEqual(dialogue.heard(b"HTTP/1.1 200 OK\r\n"), b"")
        self.assertTrue(dialogue.passed_anyway())
