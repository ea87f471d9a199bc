"""Clients that go while they wait."""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import time

from director.service import DirectorService
from tests.integration.kit import DirectorTestCase, service, until

#: Close with a reset.
LINGER_0 = struct.pack("ii", 1, 0)


class DepartureTests(DirectorTestCase):
    def plain(self, director: DirectorService) -> socket.socket:
        """A client of the first listener, as plain as can be."""
        where = director.node.listeners.addresses("web")[0]
        client: socket.socket
        if where.startswith("unix:"):
            client = socket.socket(socket.AF_UNIX)
            client.connect(where.removeprefix("unix:"))
        else:
            host, port = where.rsplit(":", 1)
            client = socket.create_connection((host, int(port)))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        client.setblocking(False)
        self.addCleanup(client.close)
        return client

    def queued(self, director: DirectorService) -> int:
        return director.node.inventory.services["web"].admission.queued

    async def full(self, listen: str = "127.0.0.1:0", queue: int = 20, timeout_s: float = 600.0) -> DirectorService:
        """A director whose only place is taken."""
        site = await self.backend("a")
        director = await self.director(service({"a": {"address": site.address, "max_connections": 1}}, listen=[listen],
                                               limits={"queue": queue, "queue_timeout_s": timeout_s}))
        self.first = self.plain(director)
        await until(lambda: site.connections, "the first")
        return director

    async def test_resets_leave_the_queue(self) -> None:
        """Clients that reset leave at once; those that finish sending, or send, wait on, in their order, and are served."""
        director = await self.full()
        clients = [self.plain(director) for _ in range(20)]
        await until(lambda: self.queued(director) == 20, "the queue")
        finished, sent = clients[3], clients[7]
        finished.shutdown(socket.SHUT_WR)
        sent.send(b"hello")
        for client in clients:
            if client not in (finished, sent):
                client.close()
        await until(lambda: self.queued(director) == 2, "the dead to leave")
        self.assertEqual(self.ended(director, "client_reset"), 18)
        self.first.close()
        await until(lambda: self.ended(director, "client_closed") + self.ended(director, "host_closed") >= 1, "the FIN's end")
        self.assertEqual(finished.recv(9), b"a\n")
        await until(lambda: self.queued(director) == 0, "the last one's turn")
        self.assertFalse(director.node._departures.watched)

    async def test_the_dead_take_no_place(self) -> None:
        """Whoever comes in the same turn of the reactor in which the queue died finds room in it."""
        director = await self.full(queue=5)
        dead = [self.plain(director) for _ in range(5)]
        await until(lambda: self.queued(director) == 5, "the queue")
        for client in dead:
            client.close()
        frontend = director.node.frontends["web"]
        mine, theirs = socket.socketpair()
        self.addCleanup(mine.close)
        frontend.accepted(theirs.detach(), None)
        self.assertEqual((self.queued(director), self.ended(director, "queue_full")), (1, 0))

    async def test_a_fin_does_not_spin(self) -> None:
        """Clients that wait after their FIN, or with bytes sent, cost no time."""
        director = await self.full()
        for _ in range(20):
            client = self.plain(director)
            client.send(b"x")
            client.shutdown(socket.SHUT_WR)
        await until(lambda: self.queued(director) == 20, "the queue")
        looks: list[float] = []
        look = director.node._departures.look
        director.node._departures.look = lambda: bool(looks.append(time.monotonic())) or look()  # type: ignore[method-assign]
        began = time.monotonic()
        await until(lambda: time.monotonic() - began > 0.3)
        self.assertEqual(looks, [])

    async def test_unix(self) -> None:
        """Over a UNIX socket one that closed without a word is gone; what another one sent before it closed is passed on."""
        with tempfile.TemporaryDirectory() as directory:
            director = await self.full(f"unix:{directory}/web")
            silent, spoke = self.plain(director), self.plain(director)
            spoke.send(b"log this")
            await until(lambda: self.queued(director) == 2, "the queue")
            silent.close()
            spoke.close()
            await until(lambda: self.queued(director) == 1, "the silent one to leave")
            self.first.close()
            await until(lambda: self.queued(director) == 0, "the other's turn")
            metrics = director.node.metrics.service("web").host("main", "a")
            await until(lambda: metrics.to_host_bytes == len(b"log this"), "what it sent")

    async def test_while_a_unix_backlog_is_full(self) -> None:
        """One that resets while its host's UNIX socket has no room leaves at once, and gives its place back."""
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "host")
            with socket.socket(socket.AF_UNIX) as host, socket.socket(socket.AF_UNIX) as filler:
                host.bind(path)
                host.listen(0)
                filler.connect(path)
                director = await self.director(service(
                    {"a": f"unix:{path}"}, timeouts={"connect_s": 600.0}, group={"health": {"probe": {"kind": "none"}}}))
                client, frontend = self.plain(director), director.node.frontends["web"]
                await until(lambda: frontend._retrying, "the wait for the backlog")
                client.close()
                await until(lambda: not frontend._retrying and not frontend.open, "its end")
                self.assertEqual(self.ended(director, "client_reset"), 1)
                self.assertEqual(frontend.service.admission.connections, 0)

    async def test_with_half_a_header(self) -> None:
        """One that resets amid its PROXY header, or before it, leaves at once, and gives its place back."""
        site = await self.backend("a")
        director = await self.director(service(
            {"a": site.address}, proxy={"accept_from": ["127.0.0.0/8"], "timeout_s": 600.0}))
        frontend = director.node.frontends["web"]
        for start in (b"", b"PROXY TCP4 "):
            client = self.plain(director)
            if start:
                client.send(start)
            await until(lambda: frontend._headers.waiting, "the reader")
            client.close()
            await until(lambda: not frontend._headers.waiting, "its end")
        ended = self.ended(director, "bad_proxy_header") + self.ended(director, "client_reset")
        self.assertEqual((ended, director.node.descriptors.places.taken), (2, 0))
