"""Every service of a director and of an agent answers start and stop, in whatever state it is."""

from __future__ import annotations

import ast
import gc
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import TestCase

import agent.process
import agent.service
from agent.config import AgentConfig, Prometheus
from agent.scraping import Scraper
from cluster.address import Address
from cluster.keys import Keys
from cluster.memory import MemoryStore
from cluster.model import Configuration
from cluster.model import Vips as VipsConfig
from cluster.takeover import Timing
from director.config.files import checked
from director.ha.fence import Lifetime
from director.ha.keeping import Keeping
from director.ha.owning import Presiding
from director.ha.reigning import Reigning
from director.ha.spreading import Spreading
from director.ha.summarising import Summarising
from director.ports.binding import BindError, bind
from director.service import DirectorService, make_service
from director.traffic.listener import Listener, Listeners
from tests.integration.kit import reactor, until

ROOT = Path(__file__).parents[2]
SEQUENCES = (
    "stop", "stop stop", "start stop", "start start stop", "start stop stop", "start stop& stop", "start wait stop",
    "start stop start stop", "start wait stop stop start stop",
)


class _Nobody:
    def accepted(self, fd: int, name: bytes | None) -> None:
        os.close(fd)


class StatesTests(TestCase):
    timeout = 300

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.directory = holder.name
        self.taken: dict[str, int] = {}  # ports, by who is to listen there
        gc.collect()
        gc.freeze()  # what is there already need not be looked at after each of hundreds of sequences
        self.addCleanup(gc.unfreeze)

    def configuration(self, **ports: int) -> Configuration:
        ports |= self.taken
        at = {name: f"127.0.0.1:{ports.get(name, 0)}" for name in ("agents", "admin", "metrics", "peers", "manhole", "web")}
        secret, keys = Path(self.directory, "secret"), Path(self.directory, "keys")
        if not secret.exists():
            secret.write_bytes(b"x" * 32)
            secret.chmod(0o600)
            keys.touch()
        return checked({
            "node": {
                "agents": {"listen": [at["agents"]]},
                "admin": {"endpoints": [{"listen": at["admin"]}], "htpasswd": str(keys), "htpasswd_role": "full"},
                "metrics": {"listen": at["metrics"]},
                "control_socket": f"{self.directory}/control",
                "peers": {"listen": at["peers"], "secret_file": str(secret)},
                "hooks": {"h": {"command": ["/bin/sleep", "30"]}},
                "manhole": {"listen": at["manhole"], "host_key": f"{self.directory}/key", "authorized_keys": str(keys)},
            },
            "services": {"web": {"listen": [at["web"]], "groups": {"a": {"hosts": {"b": "127.0.0.1:1"}}}}},
        })

    def table(self) -> dict[str, Callable[[], Any]]:
        """What makes a new one of each class of service, by the class."""
        made: list[DirectorService] = []

        def part(of: Callable[[DirectorService], Any]) -> Callable[[], Any]:
            def make() -> Any:
                tree = make_service(self.configuration(), reactor=reactor)
                tree.store = self.store
                made.append(tree)
                service = of(self.on(tree))
                if service is not tree and service.parent is not None:
                    service.disownServiceParent()
                return service
            return make

        def keeping() -> Keeping:
            return Keeping(self.store, ("/x",), f"{self.directory}/snapshot", "c", reactor=reactor)

        def summarising() -> Summarising:
            tree = self.on(make_service(self.configuration(), reactor=reactor))
            return Summarising(self.store, Keys("c"), tree.node.inventory, tree.clustering.membership, director="d",
                               every_s=1.0, reactor=reactor, wall=time.time)

        def reigning() -> Reigning:
            tree = self.on(make_service(self.configuration(), reactor=reactor))
            assert tree.clustering.peers is not None
            return Reigning(self.store, Keys("c"), tree.clustering.peers, director="d", timing=Timing(), reactor=reactor,
                            members=dict)

        def spreading() -> Spreading:
            tree = self.on(make_service(self.configuration(), reactor=reactor))
            peers = tree.clustering.peers
            assert peers is not None
            leading = Presiding(self.store, Keys("c"), peers, director="d", timing=Timing(), reactor=reactor, members=dict,
                                spread=True)
            return Spreading(
                VipsConfig(interface="lo", addresses=("192.0.2.80/32", "2001:db8::80/128"), spread=True), leading, peers,
                self.store, Keys("c"), timing=Timing(), members=dict, wanted=lambda: True, rivals=lambda: False,
                turn_away=lambda at: None, fence=lambda groups: tuple(Lifetime("a test") for _ in groups), reactor=reactor)

        def listeners() -> Listeners:
            return Listeners(Address("127.0.0.1", 0), _Nobody(), reactor=reactor)

        def listener() -> Listener:
            [sock] = bind(Address("127.0.0.1", 0))
            return Listener(Address("127.0.0.1", 0), _Nobody(), reactor=reactor, sock=sock)

        config = AgentConfig(directors=("127.0.0.1:1",), name="a", hosts=("web/a/b",))
        return {
            "DirectorService": lambda: make_service(self.configuration(), reactor=reactor),
            "Node": part(lambda tree: tree.node),
            "Resolver": part(lambda tree: tree.node.resolver),
            "Listening": part(lambda tree: tree.node.listeners),
            "Discovering": part(lambda tree: tree.node.discovering),
            "Probing": part(lambda tree: tree.node.probing),
            "Prober": part(lambda tree: tree.node.probing.prober),
            "ProbeLoop": part(lambda tree: tree.node.probing.loop),
            "Scripts": part(lambda tree: tree.node.probing.scripts),
            "Responders": part(lambda tree: tree.responders),
            "Sync": part(lambda tree: tree.sync),
            "Swapping": part(lambda tree: tree.swapping),
            "AuditTrail": part(lambda tree: tree.audit),
            "AgentListener": part(lambda tree: tree.agents),
            "AgentPort": part(lambda tree: tree.agents.ports[0]),
            "AdminListener": part(lambda tree: tree.admin.getServiceNamed("node.admin.endpoints[0]")),
            "Htpasswd": part(lambda tree: tree.admin.getServiceNamed("htpasswd")),
            "Feed": part(lambda tree: tree.admin.services[-1]),
            "SidePort": part(lambda tree: tree.side_doors.services[0]),
            "ManholeListener": part(lambda tree: tree.side_doors.services[1]),
            "Clustering": part(lambda tree: tree.clustering),
            "Membership": part(lambda tree: tree.clustering.membership),
            "Observing": part(lambda tree: tree.clustering.observing),
            "Leading": part(lambda tree: tree.clustering.leading),
            "Vips": part(lambda tree: tree.clustering.vips),
            "Peers": part(lambda tree: tree.clustering.peers),
            "Promising": part(lambda tree: tree.clustering.promising),
            "Hooks": part(lambda tree: tree.hooks),
            "Renewal": part(lambda tree: tree.certificates),
            "Forgetting": part(lambda tree: tree.forgetting),
            "Capping": part(lambda tree: tree.clustering.capping),
            "Keeping": keeping,
            "Summarising": summarising,
            "Reigning": reigning,
            "Spreading": spreading,
            "Listeners": listeners,
            "Listener": listener,
            "LoadReporter": lambda: agent.service.LoadReporter(config, reactor=reactor),
            "AgentProcess": lambda: agent.process.AgentProcess(config, reactor=reactor),
            "Scraper": lambda: Scraper(Prometheus(url="http://127.0.0.1:1/", requests="x"), reactor=reactor,
                                       monotonic=time.monotonic),
        }

    def on(self, tree: DirectorService) -> DirectorService:
        """*tree*, all of whose parts have the running store."""
        clustering = tree.clustering
        for part in (tree, tree.sync, tree.audit, clustering, clustering.membership, clustering.observing,
                     clustering.leading, clustering.vips, clustering.promising, clustering.capping):
            name = "store" if part is tree else "_store"
            assert hasattr(part, name), part
            setattr(part, name, self.store)
        return tree

    async def step(self, service: Any, step: str) -> list[Any]:
        """Do it; what is not waited for."""
        match step:
            case "start":
                service.startService()
            case "stop":
                await maybeDeferred(service.stopService)
            case "stop&":
                return [maybeDeferred(service.stopService)]
            case "wait":
                await until_turned()
        return []

    async def check_sequence(self, name: str, make: Callable[[], Any], sequence: str) -> None:
        self.store = MemoryStore(clock=reactor, wall=time.time)
        await self.store.start()
        before = open_things()
        service = make()
        if isinstance(service, DirectorService):
            service.ready.addErrback(lambda _: None)
        left = []
        for step in sequence.split():
            left += await self.step(service, step)
        for stopped in left:
            await stopped
        if name == "Listener" and not sequence.startswith("start"):
            self.assertEqual(service.fileno(), -1)
        service = None
        await self.store.stop()
        try:
            await until(lambda: open_things() <= before, "nothing to be left")
        except AssertionError:
            self.fail(f"{name}: {sequence}: left {sorted(open_things() - before)}")
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [], f"{name}: {sequence}")

    async def test_each_in_each_state(self) -> None:
        """No exception, no failure that nobody handles, and afterwards no timer, no reader, no descriptor."""
        await self.warm_up()
        for name, make in self.table().items():
            for sequence in SEQUENCES:
                try:
                    await self.check_sequence(name, make, sequence)
                except self.failureException:
                    raise
                except Exception as error:
                    raise AssertionError(f"{name}: {sequence}: {error!r}") from error

    async def warm_up(self) -> None:
        """What is opened once and stays: the reactor's threads, the random source."""
        await self.check_quietly("start wait stop")

    async def check_quietly(self, sequence: str) -> None:
        tree = make_service(self.configuration(), reactor=reactor)
        for step in sequence.split():
            await self.step(tree, step)

    async def test_taken(self) -> None:
        """A director one of whose ports is taken says which, stops whole, and leaves nothing."""
        await self.warm_up()
        for name in ("agents", "admin", "metrics", "peers", "manhole", "web"):
            with socket.create_server(("127.0.0.1", 0)) as taken:
                before = open_things()
                port = taken.getsockname()[1]
                tree = make_service(self.configuration(**{name: port}), reactor=reactor)
                tree.startService()
                with self.assertRaisesRegex(Exception, f"cannot listen on 127.0.0.1:{port}: Address already in use"):
                    if name == "peers":
                        tree.clustering.peers.startService()  # type: ignore[union-attr]  # there is no etcd to join
                    await tree.ready
                await maybeDeferred(tree.stopService)
                await maybeDeferred(tree.stopService)
                await until(lambda: open_things() <= before, "nothing to be left")  # noqa: B023
                gc.collect()
                self.assertEqual(self.flushLoggedErrors(), [])

    async def test_one_that_cannot_be_stopped(self) -> None:
        """It is told, and keeps none of the others from their end."""
        await self.warm_up()
        before = open_things()
        tree = make_service(self.configuration(), reactor=reactor)
        tree.startService()
        await tree.ready
        stop = tree.responders.stopService
        self.patch(tree.responders, "stopService", lambda: maybeDeferred(stop).addCallback(lambda _: 1 / 0))
        await maybeDeferred(tree.stopService)
        await until(lambda: open_things() <= before, "nothing to be left")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_start_failed(self) -> None:
        """Whatever listens can be stopped after its start failed, and started again once it can listen."""
        await self.warm_up()
        for name, key in (("AgentPort", "agents"), ("AgentListener", "agents"), ("AdminListener", "admin"),
                          ("ManholeListener", "manhole"), ("Peers", "peers"), ("Listeners", "")):
            self.store = MemoryStore(clock=reactor, wall=time.time)
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = taken.getsockname()[1]
                self.taken = {key: port} if key else {}
                if name == "Listeners":
                    service: Any = Listeners(Address("127.0.0.1", port), _Nobody(), reactor=reactor)
                else:
                    service = self.table()[name]()
                before = open_things()
                self.assertRaises(BindError, service.startService)
                await maybeDeferred(service.stopService)
                await maybeDeferred(service.stopService)
                self.assertLessEqual(open_things(), before, name)
            service.startService()
            await maybeDeferred(service.stopService)
            await until(lambda: open_things() <= before, name)  # noqa: B023

    def test_none_is_missing(self) -> None:
        """The table has every class that is a service."""
        found = set(services())
        self.assertEqual(found - set(self.table()) - {"ControlSocket"}, set())  # ControlSocket is the SidePort's example


async def until_turned() -> None:
    """Let what was begun go on for a moment: it need not be done."""
    turns = [0]

    def turn() -> bool:
        turns[0] += 1
        return turns[0] > 5

    await until(turn)


def open_things() -> set[str]:
    """The reactor's timers and readers, and this process's descriptors."""
    things = {f"timer {call}" for call in reactor.getDelayedCalls() if "deferLater" not in str(call)}
    things = {each for each in things if "kit" not in each and "TestCase" not in each and "_timeoutCall" not in each}
    things |= {f"reader {reader!r}" for reader in reactor.getReaders()}
    return things | {f"descriptor {fd}" for fd in os.listdir("/proc/self/fd")}


def services() -> Iterator[str]:
    """The names of all classes that inherit from a service, directly or not."""
    bases: dict[str, set[str]] = {}
    for package in ("agent", "director", "cluster"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    known = {"MultiService", "TwistedService"}
    while more := {name for name, of in bases.items() if of & known} - known:
        known |= more
    direct = {name for name, of in bases.items() if "Service" in of and not of & {"Record", "OfService"}}
    yield from sorted((known | direct) - {"MultiService", "TwistedService", "Service"} - {"OfService"})
