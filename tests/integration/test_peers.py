"""Directors that link with each other over real sockets, and everybody who is not let in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from cluster import wire
from cluster.errors import ConfigError
from cluster.model import TLS, Member
from cluster.model import Peers as Config
from cluster.peer_wire import Alive, Ask, Promise
from director.config.secret import read_secret
from director.ha import peers as module
from director.ha.peers import Peers
from tests.integration.kit import Client, reactor, until
from tests.integration.pki import Authority

SECRET = "a secret of these tests only\n"


class Recording(Peers):
    """Remembers what it hears, and who left."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.news: list[tuple[str, object]] = []
        self.left: list[tuple[str, bool]] = []
        self.on_left.append(lambda who, gone: self.left.append((who, gone)))
        for kind in (Alive, Ask, Promise):
            self.hear(kind, lambda who, message: self.news.append((who, message)))


class PeersTestCase(TestCase):
    timeout = 60

    def secret(self, text: str = SECRET, mode: int = 0o600) -> str:
        path = Path(self.mktemp())
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    async def director(self, name: str, *, listen: str = "127.0.0.1:0", **config: Any) -> Recording:
        if "tls" not in config:
            config.setdefault("secret_file", self.secret())
        peers = Recording(Config(listen=listen, **config), cluster="c", director=name, boot_id=f"{name}-boot",
                          reactor=reactor)
        peers.startService()
        self.addCleanup(lambda: peers.stopService() if peers.running else None)
        return peers

    def introduce(self, *directors: Peers) -> None:
        members = {each.director: Member(name=each.director, boot_id="b", version="1", started=0.0, peers=str(each.address))
                   for each in directors}
        for each in directors:
            each.set_members(members)

    async def linked(self, *directors: Peers) -> None:
        names = {each.director for each in directors}
        await until(lambda: all(set(each.names) == names - {each.director} for each in directors), "all linked")


class LinkTests(PeersTestCase):
    async def test_three_directors(self) -> None:
        """All find each other, speak both ways, and say who they are linked with."""
        directors = [await self.director(name) for name in ("d1", "d2", "d3")]
        self.introduce(*directors)
        await self.linked(*directors)
        first, second, _ = directors
        self.assertTrue(first.send("d2", Ask(number=1, for_s=6.0)))
        self.assertTrue(second.send("d1", Promise(number=1, granted=True)))
        self.assertFalse(first.send("d9", Alive()))
        await until(lambda: second.news and first.news, "both hear")
        self.assertEqual(second.news, [("d1", Ask(number=1, for_s=6.0))])
        self.assertEqual(first.news, [("d2", Promise(number=1, granted=True))])
        self.assertEqual([(each.director, each.boot_id) for each in first.states()], [("d2", "d2-boot"), ("d3", "d3-boot")])

    async def test_comes_back(self) -> None:
        """A peer that stops is gone, by its own kernel's word; when it is there again it is linked again."""
        first, second = [await self.director(name) for name in ("d1", "d2")]
        self.introduce(first, second)
        await self.linked(first, second)
        address = str(second.address)
        await maybeDeferred(second.stopService)
        await until(lambda: not first.names, "noticed")
        self.assertEqual(first.left, [("d2", True)])
        self.assertFalse(first.send("d2", Alive()))
        again = await self.director("d2", listen=address)
        await self.linked(first, again)

    async def test_silent_peer(self) -> None:
        """A peer that says nothing is cut off, which is no proof that it is gone; one that beats stays."""
        self.patch(module, "SILENCE_S", 0.6)
        self.patch(module, "BEAT_S", 0.2)
        directors = [await self.director(name) for name in ("d1", "d2", "d3")]
        first, second, _ = directors
        for each in directors[:2]:
            each.on_beat.append(lambda each=each: [each.send(name, Alive()) for name in each.names])
        self.introduce(*directors)
        await self.linked(*directors)
        await until(lambda: ("d3", False) in first.left and ("d3", False) in second.left, "the silent one is cut off")
        self.assertNotIn("d2", [who for who, _ in first.left])

    async def test_replaced(self) -> None:
        """A second connection of the same director takes the place of the first."""
        first, second = [await self.director(name) for name in ("d1", "d2")]
        self.introduce(first, second)
        await self.linked(first, second)
        newer = await self.director("d1")
        self.introduce(newer, second)
        await until(lambda: newer.names == ("d2",), "the newer is linked")
        await until(lambda: ("d2", True) in first.left, "the older is not")
        self.assertEqual(second.names, ("d1",))

    async def test_stop_while_dialling(self) -> None:
        """A stop ends attempts to connect, and those that never got a welcome."""
        first = await self.director("d1")
        silent = reactor.listenTCP(0, _silent(), interface="127.0.0.1")
        self.addCleanup(silent.stopListening)
        where = f"127.0.0.1:{silent.getHost().port}"
        first.set_members({"d2": Member(name="d2", boot_id="b", version="1", started=0.0, peers=where)})
        await until(lambda: first._open, "connected")
        await maybeDeferred(first.stopService)
        self.assertEqual((first._open, first.names), (set(), ()))


class StrangerTests(PeersTestCase):
    async def test_both_sides_say_why_there_is_no_link(self) -> None:
        """The dialler, too: once, not with every try."""
        said: list[str] = []

        def observe(event: Any) -> None:
            said.append(str(formatEvent(event)))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        one = await self.director("d1")
        two = await self.director("d2", secret_file=self.secret("another secret altogether"))
        self.introduce(one, two)
        await until(lambda: sum("not proven to be d1" in line for line in said) > 1, "two tries")
        mine = [line for line in said if line.startswith("no link with d2")]
        self.assertEqual(mine, [
            "no link with d2: it closed the connection without a welcome: has it the same cluster, secret?"])
        gone = Member(name="d3", boot_id="b", version="1", started=0.0, peers="127.0.0.1:1")
        one.set_members({"d3": gone})
        await until(lambda: any(line.startswith("no link with d3: Connection was refused") for line in said), "refused")

    async def test_other_secret(self) -> None:
        """A director with another secret is not linked, whoever dials."""
        for names in (("d1", "d2"), ("d2", "d1")):
            good = await self.director(names[0])
            bad = await self.director(names[1], secret_file=self.secret("another secret altogether"))
            self.introduce(good, bad)
            await until(lambda good=good, bad=bad: good._waits or bad._waits, "an attempt failed")
            self.assertEqual((good.names, bad.names), ((), ()))
            for each in (good, bad):
                await maybeDeferred(each.stopService)

    async def test_an_agent_claims_to_be_a_director(self) -> None:
        """An agent, with the token that opens the agents' port to it, opens nothing here: neither by its own protocol's hello nor
        by a director's."""
        token = "an agent's token, long enough to be a secret"
        director = await self.director("d2")
        assert director.address is not None
        agent = wire.Conversation(wire.Role.AGENT)
        hello = agent.send(wire.Hello(version=1, agent="app1", boot_id="b", token=token,
                                      hosts=[wire.HostClaim(host="web/blue/app1")]))
        client: Client = await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", director.address.port), Client())
        await until(lambda: client.received, "the challenge")
        client.send(hello)
        await until(lambda: client.lost, "closed")
        impostor = await self.director("d1", secret_file=self.secret(token))
        self.introduce(impostor, director)
        await until(lambda: impostor._waits, "turned away")
        self.assertEqual((impostor.names, director.names, director.news), ((), (), []))

    async def test_nobody_says_hello(self) -> None:
        """Who connects and says nothing is cut off; who fills the port is not let in beyond a number."""
        self.patch(module, "HANDSHAKE_TIMEOUT_S", 0.3)
        self.patch(module, "MAX_CONNECTIONS", 2)
        director = await self.director("d2")
        assert director.address is not None
        clients = [await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", director.address.port), Client())
                   for _ in range(3)]
        await until(lambda: all(client.lost for client in clients), "all cut off")
        self.assertEqual(sum(bool(client.received) for client in clients), 2)


class CertificateTests(PeersTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.authority = Authority(folder)

    async def with_certificate(self, name: str, *names: str, **config: Any) -> Recording:
        certificate, key = self.authority.issue(*names)
        tls = TLS(certificate=certificate, key=key, client_ca=self.authority.path)
        return await self.director(name, tls=tls, certificate_domain="directors.test", **config)

    async def test_directors(self) -> None:
        """Directors with certificates of their own names link, without any secret."""
        directors = [await self.with_certificate(name, f"{name}.directors.test") for name in ("d1", "d2")]
        self.introduce(*directors)
        await self.linked(*directors)

    async def test_only_one_speaks_tls(self) -> None:
        """Both sides say so."""
        said: list[str] = []

        def observe(event: Any) -> None:
            said.append(str(formatEvent(event)))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.introduce(await self.with_certificate("d1", "d1.directors.test"), await self.director("d2"))
        for words in ("no link with d2: the other side speaks no TLS", "TLS is spoken there, and no peer link of ours"):
            await until(lambda words=words: any(words in line for line in said), words)

    async def test_renewed_certificates(self) -> None:
        """What is dialled and accepted after a renewal, even of the authority, is with the new ones."""
        directors = [await self.with_certificate(name, f"{name}.directors.test") for name in ("d1", "d2")]
        successor = Authority(self.authority.folder, "successor")
        for name in ("d1", "d2"):
            successor.issue(f"{name}.directors.test")
        Path(self.authority.path).write_bytes(Path(successor.path).read_bytes())
        self.assertTrue(all(each.look() for each in directors[0].certificates))
        self.introduce(*directors)
        await until(lambda: directors[0]._waits, "turned away: one has the old, one the new ones")
        self.assertTrue(all(each.look() for each in directors[1].certificates))
        await self.linked(*directors)

    async def test_an_agents_certificate(self) -> None:
        """A certificate that the same authority signed for an agent, or for another director, is no director's; with
        a secret beside it neither."""
        for secret in ({}, {"secret_file": self.secret()}):
            good = await self.with_certificate("d2", "d2.directors.test", **secret)
            for names in (("app1.agents.test",), ("d3.directors.test", "app1.agents.test")):
                bad = await self.with_certificate("d1", *names, **secret)
                self.introduce(bad, good)
                await until(lambda bad=bad: bad._waits, "turned away")
                self.assertEqual((good.names, bad.names), ((), ()))
                await maybeDeferred(bad.stopService)
            await maybeDeferred(good.stopService)

    async def test_false_acceptor(self) -> None:
        """A dialler does not take a certificate of another name for the director it looks for."""
        one = await self.with_certificate("d1", "d1.directors.test")
        two = await self.with_certificate("d2", "app1.agents.test")
        self.introduce(one, two)
        await until(lambda: one._waits, "turned away")
        self.assertEqual((one.names, two.names), ((), ()))


class SecretTests(PeersTestCase):
    def test_read(self) -> None:
        """A secret is a file's content without its last newline; too short a one, an open one, or none is an error."""
        self.assertEqual(read_secret(self.secret()), SECRET.strip().encode())
        for path in (self.secret("short"), self.secret(mode=0o644), os.path.join(self.mktemp(), "absent")):
            self.assertRaises(ConfigError, read_secret, path)


def _silent() -> Any:
    factory = Factory.forProtocol(Client)
    factory.noisy = False
    return factory
