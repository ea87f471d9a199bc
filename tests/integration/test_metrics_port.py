"""The metrics on a port of their own: for everybody, and nothing else is there."""

from __future__ import annotations

import ssl
import time
from http.client import HTTPConnection
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import HTTPChannel
from twisted.web.test.requesthelper import DummyRequest

from director.admin.control import Caller, Role
from director.admin.scraping import MAX_CONNECTIONS_PER_ADDRESS, MAX_SCRAPES, OnlyMetrics, OpenMetrics
from tests.integration.kit import service, until
from tests.integration.pki import Authority
from tests.integration.test_admin_endpoints import EndpointCase, get


def asked(address: str, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    """By nobody in particular."""
    host, port = address.rsplit(":", 1)
    connection = HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


class PortTests(EndpointCase):
    async def metrics(self, **tls: Any) -> str:
        """Where they are."""
        await self.start({"listen": "127.0.0.1:0"}, metrics={"listen": "127.0.0.1:0", **tls})
        (listener,) = self.running.metrics_port
        return str(listener.address)  # type: ignore[attr-defined]

    async def test_everybody_reads_and_nobody_does_more(self) -> None:
        """No password, GET and HEAD; no other page of the admin, no change, no large body."""
        address = await self.metrics()
        status, headers, body = await deferToThread(asked, address, "GET", "/metrics")
        self.assertEqual(status, 200)
        self.assertIn("text/plain", headers["Content-Type"])
        self.assertIn(b'txdirector_service_connections{service="web"} 0.0', body)
        self.assertIn(b"txdirector_metrics_connections 1.0", body)
        status, headers, body = await deferToThread(asked, address, "HEAD", "/metrics")
        self.assertEqual((status, body), (200, b""))
        self.assertGreater(int(headers["Content-Length"]), 1000)
        for path in ("/", "/api/v1/status", "/metrics/more", "/running.txt", "/sign-in"):
            self.assertEqual((await deferToThread(asked, address, "GET", path))[0], 404, path)
        for method in ("POST", "PUT", "DELETE"):
            self.assertEqual((await deferToThread(asked, address, method, "/metrics", b"x"))[0], 405, method)
        status, _, body = await deferToThread(asked, address, "POST", "/api/v1/apply", b"x" * 100_000)
        self.assertEqual((status, b"only /metrics is served here" in body), (404, True))

    async def test_ready(self) -> None:
        """New clients should come while the director serves; from the order to stop on they should not, and who comes all the
        same, since nobody has told their router yet, is served as ever."""
        backend = await self.backend("a")
        data = service({"a": backend.address}, group={"health": {"probe": {"kind": "none"}}})
        data["node"] = {"metrics": {"listen": "127.0.0.1:0"}, "leave_s": 1.0}
        self.running = await self.director(data)
        (listener,) = self.running.metrics_port
        address = str(listener.address)  # type: ignore[attr-defined]
        self.assertEqual((await deferToThread(asked, address, "GET", "/ready"))[::2], (200, b"ready\n"))
        self.assertEqual((await deferToThread(asked, address, "POST", "/ready"))[0], 405)
        begun = time.monotonic()
        stopped = self.running.stopService()
        late = await self.client(self.running)  # whom the stop waits for then
        self.assertEqual((await deferToThread(asked, address, "GET", "/ready"))[::2], (503, b"it stops\n"))
        await until(lambda: late.received, "the late client is served")
        late.close()
        await stopped
        self.assertGreaterEqual(time.monotonic() - begun, 1.0)

    async def test_tls(self) -> None:
        """By a certificate of its own, whose end is watched as all are."""
        authority = Authority(self.folder)
        certificate, key = authority.issue("127.0.0.1")
        address = await self.metrics(tls={"certificate": certificate, "key": key})
        context = ssl.create_default_context(cafile=authority.path)
        status, body = await deferToThread(get, address, "/metrics", context, "nobody:at all")
        self.assertEqual(status, 200)
        self.assertIn(b'txdirector_certificate_expires_timestamp_seconds{place="node.metrics.tls"}', body)

    async def test_connections_are_bounded(self) -> None:
        """One too many is closed and counted, and the admin's are not those."""
        address = await self.metrics()
        host, port = address.rsplit(":", 1)

        def crowd() -> bytes:
            kept = [HTTPConnection(host, int(port), timeout=20) for _ in range(MAX_CONNECTIONS_PER_ADDRESS)]
            try:
                for connection in kept:
                    connection.request("HEAD", "/metrics")
                    connection.getresponse().read()
                with self.assertRaises(OSError):
                    asked(address, "GET", "/metrics")
                kept[0].request("GET", "/metrics")
                return kept[0].getresponse().read()
            finally:
                for connection in kept:
                    connection.close()

        body = await deferToThread(crowd)
        self.assertIn(b'txdirector_metrics_refused_connections_total{maximum="address"} 1.0', body)
        self.assertNotIn(b'txdirector_admin_refused_connections_total{maximum="address"}', body)


class ScrapesTests(SynchronousTestCase):
    def test_few_at_a_time(self) -> None:
        """One more is told to come again; once one is over there is room."""
        registry, clock = CollectorRegistry(), Clock()
        Gauge("one", "A family.", registry=registry)
        page = OpenMetrics(OnlyMetrics(), registry, clock=clock)

        def scrape() -> tuple[Any, Deferred[bytes]]:
            request: Any = DummyRequest([b"metrics"])
            request.channel = HTTPChannel()  # its client is there
            return request, Deferred.fromCoroutine(page.answer(Caller("anybody", Role.READONLY), request))

        running = [scrape() for _ in range(MAX_SCRAPES)]
        request, answer = scrape()
        self.assertIn(b"under way", self.successResultOf(answer))
        self.assertEqual((request.responseCode, request.responseHeaders.getRawHeaders("retry-after")), (503, ["1"]))
        clock.advance(0)
        for _, each in running:
            self.assertIn(b"one 0.0", self.successResultOf(each))
        request, answer = scrape()
        clock.advance(0)
        self.assertIn(b"one 0.0", self.successResultOf(answer))
