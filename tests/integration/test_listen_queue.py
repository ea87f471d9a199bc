"""What the kernel says of a listener's queue."""

from __future__ import annotations

import socket

from director.ports.binding import BACKLOG
from director.resources.backlog import granted
from tests.integration.kit import DirectorTestCase, service, until


class ListenQueueTests(DirectorTestCase):
    async def test_who_waits(self) -> None:
        """Clients that are not accepted yet are counted, beside how many may wait."""
        director = await self.director(service({"a": "127.0.0.1:1"}))
        address = director.node.listeners.addresses("web")[0]
        listener = next(iter(next(iter(director.node.listeners._listeners.values()))))
        listener._reactor.removeReader(listener)
        host, port = address.rsplit(":", 1)
        for _ in range(3):
            self.addCleanup(socket.create_connection((host, int(port))).close)

        def shown(name: str) -> float | None:
            return director.registry.get_sample_value(f"txdirector_listen_{name}", {"service": "web", "address": address})

        await until(lambda: shown("queue") == 3, "the queue")
        self.assertEqual(shown("backlog"), granted())
        self.assertLessEqual(granted(), BACKLOG)
        listener._reactor.addReader(listener)
        await until(lambda: shown("queue") == 0, "all to be accepted")
