"""A director that polls responders of agent-check, over real sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol

from cluster.agent_check import Answer, compose
from director.service import DirectorService
from tests.integration.kit import DirectorTestCase, reactor, service, until


class _Answering(Protocol):
    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self.factory.line)  # type: ignore[union-attr]
        transport.loseConnection()


class Responder(Factory[Protocol]):
    """Says *line*."""

    noisy = False
    protocol = _Answering

    def __init__(self) -> None:
        self.line = b""
        self.port = reactor.listenTCP(0, self, interface="127.0.0.1")


class Polling(DirectorTestCase):
    def host(self, director: DirectorService, name: str = "a") -> Any:
        host = director.operations.picture().host("web", "main", name)
        assert host is not None
        return host

    async def test_a_responder_is_followed(self) -> None:
        """Weight, maximum and state, by every word; clients go elsewhere while it says so; its end changes nothing; pictures
        and metrics show it."""
        a, b = await self.backend("a"), await self.backend("b")
        responder = Responder()
        self.addCleanup(lambda: responder.port.stopListening() if responder.port.connected else None)
        director = await self.director(service(
            {"a": {"address": a.address, "max_connections": 50}, "b": {"address": b.address}},
            group={"health": {"agent_check": {"port": responder.port.getHost().port, "interval_s": 0.05},
                              "slow_start_s": 0.0}}))
        responder.line = b"75% maxconn:7 up ready\r\n"
        await until(lambda: (self.host(director).agent_weight, self.host(director).max_connections) == (0.75, 7))
        for word in ("drain", "maint"):
            responder.line = word.encode() + b"\n"
            await until(lambda: not self.host(director).in_rotation, word)
            responder.line = b"ready\n"
            await until(lambda: self.host(director).in_rotation, "ready")
        for word in ("down", "fail", "stopped"):
            responder.line = compose(Answer(health=word, why="disk full"))  # type: ignore[arg-type]
            await until(lambda word=word: f"{word}: disk full" in self.host(director).why_not, word)
            responder.line = b"up\n"
            await until(lambda: self.host(director).in_rotation, "up")
        labels = {"service": "web", "group": "main", "host": "a"}
        self.assertEqual(director.registry.get_sample_value("txdirector_host_agent_check_answers", labels), 1)
        responder.line = b"50%"
        await until(lambda: self.host(director).responder.problem == "its line does not end", "no newline")
        await responder.port.stopListening()
        await until(lambda: self.host(director).responder.problem == "refused", "refused")
        self.assertEqual(self.host(director).responder.said, "up")
        self.assertEqual((self.host(director).agent_weight, self.host(director).in_rotation), (0.75, True))
        self.assertEqual(director.registry.get_sample_value("txdirector_host_agent_check_answers", labels), 0)
