"""Limits of clients, with real clients."""

from __future__ import annotations

import socket

from cluster.address import Address
from director.core.proxy_protocol import encode
from director.service import DirectorService
from tests.integration.kit import DirectorTestCase, service, until


class ArrivalTests(DirectorTestCase):
    async def test_of_a_client(self) -> None:
        """Open connections of one address; another address has its own, and so has a client behind a trusted proxy."""
        site = await self.backend("a")
        director = await self.director(service(
            {"a": site.address}, listen=["0.0.0.0:0", "[::1]:0"], limits={"max_connections_per_client": 2},
            proxy={"accept_from": ["127.0.0.9"]}))
        first, *_ = [self.plain(director, "127.0.0.1") for _ in range(3)]
        await until(lambda: self.ended(director, "client_full") == 1, "the third to be refused")
        self.plain(director, "127.0.0.2")
        for number in range(3):
            self.plain(director, "::1")
            source = Address(f"2001:db8::{number}", 5000)
            self.plain(director, "127.0.0.9").sendall(encode("v2", source, Address("2001:db8::", 80)))
        await until(lambda: self.ended(director, "client_full") == 3, "the third of IPv6, and of a /64 behind the proxy")
        await until(lambda: len(site.connections) == 7, "all others to be served")
        first.close()
        await until(lambda: len(site.connections) == 6, "the first to be gone")
        self.plain(director, "127.0.0.1")
        await until(lambda: len(site.connections) == 7, "the next to be served")
        self.assertEqual(self.ended(director, "client_full"), 3)

    async def test_of_a_director(self) -> None:
        """Clients beyond `node.limits` wait in the backlog, and are served when it is their turn."""
        site = await self.backend("a")
        director = await self.director({**service({"a": site.address}), "node": {"limits": {"max_connections": 2}}})
        clients = [self.plain(director, "127.0.0.1") for _ in range(4)]
        await until(lambda: director.node.descriptors.places.pauses, "accepting to pause")
        await until(lambda: len(site.connections) == 2, "two to be served")
        self.assertEqual(director.metrics.service("web").accepted, 2)
        self.assertGreater(director.node.shortages.counts["connections", "accept"], 0)
        for client in clients[:2]:
            client.close()
        await until(lambda: director.metrics.service("web").accepted == 4, "the others' turn")

    async def test_of_a_directors_rate(self) -> None:
        """So many a second are accepted, the others later; nobody is refused."""
        site = await self.backend("a")
        director = await self.director({**service({"a": site.address}), "node": {"limits": {"new_per_s": 20}}})
        for _ in range(30):
            self.plain(director, "127.0.0.1")
        began = director.node.monotonic()
        await until(lambda: len(site.connections) == 30, "all to be served")
        self.assertGreater(director.node.monotonic() - began, 0.3)
        self.assertGreater(director.node.shortages.counts["accepts", "accept"], 0)

    def plain(self, director: DirectorService, address: str) -> socket.socket:
        """A client from that address."""
        v6 = ":" in address
        port = int(director.node.listeners.addresses("web")[v6].rsplit(":", 1)[1])
        client = socket.create_connection(("::1" if v6 else "127.0.0.1", port), source_address=(address, 0))
        self.addCleanup(client.close)
        return client
