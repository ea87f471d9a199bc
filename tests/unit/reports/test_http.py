"""Posted reports: statuses and answers."""

from __future__ import annotations

import hashlib
import json
from io import BytesIO
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from cluster.model import Identity
from cluster.wire import MAX_LINE_BYTES
from director.reports.http import ReportResource
from director.reports.roster import Roster
from tests.unit.reports.agent_sink import RecordingSink

APP1 = "web/blue/app1"


class Posting(SynchronousTestCase):
    def setUp(self) -> None:
        self.sink = RecordingSink(APP1)
        identity = Identity(hosts=("web/*/*",), token_sha256=hashlib.sha256(b"secret").hexdigest())
        self.resource = ReportResource(Roster({"x": identity}, self.sink), self.sink.rejected, monotonic=lambda: 1.0)

    def post(self, body: bytes) -> tuple[int, Any]:
        request = DummyRequest([b""])
        request.method = b"POST"
        request.content = BytesIO(body)
        request.client = IPv4Address("TCP", "10.0.0.1", 1)
        answer = self.resource.render(request)
        assert isinstance(answer, bytes)
        return request.responseCode or 200, json.loads(answer)

    def report(self, **change: object) -> tuple[int, Any]:
        body = {"agent": "a", "boot_id": "b", "token": "secret", "seq": 1, "hosts": {APP1: {"in_flight": 3}}} | change
        return self.post(json.dumps(body).encode())

    def test_accepted(self) -> None:
        """A good post is passed on and says how many hosts counted, and why others did not."""
        self.assertEqual(self.report(hosts={APP1: {}, "web/x/y": {}}),
                         (200, {"accepted": 1, "dropped": {"web/x/y": "unknown_host"}}))
        self.assertEqual(len(self.sink.events), 1)

    def test_refused(self) -> None:
        """Each refusal has its status and its reason, and changes nothing."""
        self.report(seq=5)
        self.sink.take()
        self.assertEqual(self.report(token="no"), (401, {"error": "unauthenticated"}))
        self.assertEqual(self.report(seq=5), (409, {"error": "replayed"}))
        self.assertEqual(self.report(seq=4), (409, {"error": "stale"}))
        for body, status, reason in (
            (b"", 400, "malformed"), (b"[]", 400, "malformed"), (b" " * (MAX_LINE_BYTES + 1), 413, "oversized"),
        ):
            code, answer = self.post(body)
            self.assertEqual((code, answer["error"]), (status, reason))
        self.assertEqual(self.sink.events, [])
        self.assertEqual(self.sink.rejects,
                         ["unauthenticated", "replayed", "stale", "malformed", "malformed", "oversized"])
