"""gRPC's health check with a real gRPC server, in plain and over TLS."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from cluster.address import Address
from cluster.model import Probe, ProbeTLS
from director.checks.probes import Prober
from tests.integration.pki import Authority

#: What each service's health is, as HealthCheckResponse says it; the server's own is that of the empty name.
HEALTH = {b"": b"\x08\x01", b"\x0a\x04cart": b"\x08\x01", b"\x0a\x04shop": b"\x08\x02"}


def check(asked: bytes, context: Any) -> bytes:
    if asked not in HEALTH:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return HEALTH[asked]


class GrpcProbeTests(TestCase):
    def setUp(self) -> None:
        self.prober = Prober(reactor=reactor)
        self.prober.startService()
        self.addCleanup(lambda: self.prober.stopService())
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def serve(self, *, credentials: Any = None, healthy: bool = True) -> Address:
        server = grpc.server(ThreadPoolExecutor(max_workers=1))
        if healthy:
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
                "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)})])
        where = "127.0.0.1:0"
        port = server.add_secure_port(where, credentials) if credentials else server.add_insecure_port(where)
        server.start()
        self.addCleanup(lambda: server.stop(None).wait(20))
        return Address("127.0.0.1", port)

    async def probe(self, target: Address, service: str = "", tls: ProbeTLS | None = None) -> str:
        result = await self.prober.probe(target, Probe(kind="grpc", grpc_service=service, timeout_s=10.0, tls=tls))
        return f"{'passed' if result.ok else 'failed'}: {result.detail.split(' in ')[0]}"

    async def test_services(self) -> None:
        target = self.serve()
        for service, wanted in (("", "passed: SERVING"), ("cart", "passed: SERVING"), ("shop", "failed: NOT_SERVING"),
                                ("x", "failed: grpc-status NOT_FOUND")):
            self.assertEqual(await self.probe(target, service), wanted)
        self.assertEqual(await self.probe(self.serve(healthy=False)), "failed: grpc-status UNIMPLEMENTED")

    async def test_tls(self) -> None:
        """By ALPN, which gRPC insists on."""
        authority = Authority(self.folder)
        certificate, key = (Path(path).read_bytes() for path in authority.issue("host.example"))
        target = self.serve(credentials=grpc.ssl_server_credentials([(key, certificate)]))
        tls = ProbeTLS(ca=authority.path, server_name="host.example")
        self.assertEqual(await self.probe(target, tls=tls), "passed: SERVING")
        self.assertEqual((await self.probe(target))[:7], "failed:")
