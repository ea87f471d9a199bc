"""Agent and listener over real sockets, with real certificates and a real process."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from agent.config import AgentConfig, AgentTLS
from agent.service import LoadReporter
from cluster import wire
from cluster.address import Address
from cluster.model import TLS, AgentListeners, HostRef, Identity
from director.reports.agents import LEFT, AgentListener
from tests.integration.pki import Authority
from tests.unit.reports.agent_sink import RecordingSink

ROOT = Path(__file__).parents[2]
APP1 = "web/blue/app1"
APP2 = "web/green/app2"
#: Far beyond what anything here takes; a machine with two busy cores may stutter.
DEADLINE_S = 20.0


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class AgentCase(TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.sink = RecordingSink(APP1, APP2)
        self._stack = ExitStack()
        self.addCleanup(self._stack.close)
        self.errors: list[Any] = []
        globalLogPublisher.addObserver(self._watch_log)
        self.addCleanup(globalLogPublisher.removeObserver, self._watch_log)

    def _watch_log(self, event: Any) -> None:
        if event["log_level"].name in ("error", "critical"):
            self.errors.append(event)

    def tearDown(self) -> None:
        """Nothing an agent or a director does to the other is an exception in the log."""
        self.assertEqual(self.errors, [])

    def listen(self, listen: str = "127.0.0.1:0", sink: RecordingSink | None = None, name: str = "d1",
               **fields: Any) -> AgentListener:
        config = AgentListeners(listen=(listen,), **({"interval_s": 0.1} | fields))
        listener = AgentListener(config, sink or self.sink, reactor=reactor, name=name, monotonic=time.monotonic,
                                 wall=time.time)
        listener.startService()
        self.addCleanup(lambda: listener.stopService() if listener.running else None)
        return listener

    def report(self, *listeners: AgentListener | str, **fields: Any) -> LoadReporter:
        directors = tuple(each if isinstance(each, str) else str(each.ports[0].address) for each in listeners)
        config = AgentConfig(**({"name": "app1", "directors": directors, "hosts": (APP1,), "interval_s": 0.1,
                                 "leave_deadline_s": 0.0} | fields))
        reporter = LoadReporter(config, reactor=reactor)
        reporter.startService()
        self.addCleanup(lambda: reporter.stopService() if reporter.running else None)
        return reporter

    @inlineCallbacks
    def until(self, condition: Callable[[], object], what: str) -> Any:
        """Wait for *condition*, looking every few milliseconds."""
        give_up = time.monotonic() + DEADLINE_S
        while not (value := condition()):
            if time.monotonic() > give_up:
                self.fail(f"never: {what}; {self.sink.events[-5:]} {self.sink.rejects[-5:]}")
            yield deferLater(reactor, 0.005)
        return value

    def seen(self, *kind: object, sink: RecordingSink | None = None) -> bool:
        """Whether an event begins with *kind*."""
        return any(event[: len(kind)] == kind for event in (sink or self.sink).events)


class Plain(AgentCase):
    @inlineCallbacks
    def test_reports_arrive_and_leaving_too(self) -> Any:
        """The application's own counts reach the director; stopping is a farewell."""
        listener = self.listen()
        reporter = self.report(listener)
        reporter.begin()
        with reporter.track():
            pass
        yield self.until(lambda: any(e[0] == "reported" and e[2].completions for e in self.sink.events), "a report")
        load = next(e[2] for e in self.sink.events if e[0] == "reported" and e[2].completions)
        self.assertEqual((load.in_flight, load.completions, load.errors, load.state), (1, 1, 0, "ready"))
        yield reporter.stopService()
        yield self.until(lambda: self.seen("lost"), "the farewell")
        self.assertTrue(self.seen("leaving", APP1))
        self.assertEqual(self.sink.events[-1], ("lost", APP1, LEFT))
        self.assertEqual(self.sink.rejects, [])

    @inlineCallbacks
    def test_reconnects_after_a_director_restarts(self) -> Any:
        """The same agent comes back by itself, its sequence goes on."""
        listener = self.listen()
        address = str(listener.ports[0].address)
        self.report(listener)
        yield self.until(lambda: self.seen("reported"), "a report")
        yield listener.stopService()
        self.assertTrue(self.seen("lost", APP1))
        self.sink.take()
        self.listen(address)
        yield self.until(lambda: self.seen("reported"), "a report after the restart")
        self.assertEqual(self.sink.rejects, [])

    @inlineCallbacks
    def test_learns_further_directors(self) -> Any:
        """One configured director names another; both hear every report."""
        other = RecordingSink(APP1)
        second = self.listen(sink=other, name="d2")
        first = self.listen(advertise=(str(second.ports[0].address),))
        reporter = self.report(first)
        yield self.until(lambda: self.seen("reported", sink=other) and self.seen("reported"), "reports at both")
        self.assertEqual(list(reporter.directors.values()), [True, True])

    @inlineCallbacks
    def test_two_names_of_one_director(self) -> Any:
        """An agent that learns a second address of its director settles on one connection."""
        listener = self.listen()
        port = listener.ports[0].address.port
        listener.announce(directors=[f"localhost:{port}", f"127.0.0.1:{port}"], leader=None)
        reporter = self.report(f"127.0.0.1:{port}")
        yield self.until(lambda: "replaced" in self.sink.rejects, "the second connection")
        yield self.until(lambda: list(reporter.directors.values()) == [True], "one connection")
        self.sink.take()
        yield self.until(lambda: self.sink.events[5:], "reports")
        self.assertEqual({event[0] for event in self.sink.events}, {"reported"})

    @inlineCallbacks
    def test_orders_are_obeyed(self) -> Any:
        """A drained agent reports ``drain`` until it is told ``up``."""
        listener = self.listen()
        self.report(listener)
        yield self.until(lambda: self.seen("reported"), "a report")
        for order, state in (("drain", "drain"), ("up", "ready")):
            self.sink.take()
            self.assertTrue(listener.order(HostRef.parse(APP1), wire.Instruction(order=order)))
            yield self.until(lambda state=state: self.sink.events and self.sink.events[-1][2].state == state, state)

    @inlineCallbacks
    def test_unix_sockets(self) -> Any:
        """A socket in the file system works as well, and is gone afterwards."""
        path = self.folder / "agents.sock"
        listener = self.listen(f"unix:{path}")
        self.report(listener)
        yield self.until(lambda: self.seen("reported"), "a report")
        self.assertEqual(path.stat().st_mode & 0o777, 0o660)
        yield listener.stopService()
        self.assertFalse(path.exists())

    @inlineCallbacks
    def test_a_storm_is_served_in_the_end(self) -> Any:
        """More connections at once than the rate allows: all are served, none refused."""
        listener = self.listen(handshakes_per_s=200.0)
        count = 160
        address = listener.ports[0].address
        line = b'{"type":"hello","version":1,"agent":"a%d","boot_id":"b","hosts":[{"host":"web/blue/x"}]}\n'
        for number in range(count):
            client = socket.create_connection((address.host, address.port))
            self._stack.callback(client.close)
            client.sendall(line % number)
        yield self.until(lambda: len(listener.connections()) == count, "everyone's welcome")
        self.assertEqual(set(self.sink.rejects), set())

    @inlineCallbacks
    def test_an_agent_during_a_flood(self) -> Any:
        """Hundreds of connections that say nothing, or nonsense, from another address: an agent is served at once."""
        listener = self.listen(handshakes_per_s=50.0)
        address = listener.ports[0].address
        for number in range(400):
            client = socket.socket()
            self._stack.callback(client.close)
            client.bind(("127.0.0.9", 0))
            client.setblocking(False)
            client.connect_ex((address.host, address.port))
            if number % 50 == 49:
                yield deferLater(reactor, 0)
        yield self.until(lambda: "no_turn" in self.sink.rejects, "more than may wait")
        began = time.monotonic()
        self.report(listener)
        yield self.until(lambda: self.seen("reported"), "a report")
        self.assertLess(time.monotonic() - began, 1.5)  # its line would have held it up for two, the kernel's for six

    @inlineCallbacks
    def test_the_documented_client(self) -> Any:
        """The standard-library client of the docs is an agent."""
        listener = self.listen()
        address = listener.ports[0].address
        process = subprocess.Popen([sys.executable, str(ROOT / "docs/examples/heartbeat_client.py"), address.host,
                                    str(address.port), APP1, "3"])
        self.addCleanup(process.wait)
        yield self.until(lambda: self.seen("lost"), "the client's farewell")
        kinds = [event[0] for event in self.sink.events]
        self.assertEqual(kinds, ["connected", "reported", "reported", "reported", "leaving", "lost"])
        self.assertEqual((self.sink.events[-1], self.sink.rejects), (("lost", APP1, LEFT), []))
        self.assertEqual(process.wait(DEADLINE_S), 0)


class Encrypted(AgentCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority(self.folder)
        self.certificate, self.key = self.authority.issue("localhost", "127.0.0.1")

    def listen_tls(self, *, mutual: bool = False, **identities: Identity) -> AgentListener:
        tls = TLS(certificate=self.certificate, key=self.key, client_ca=self.authority.path if mutual else None)
        return self.listen(tls=tls, identities=identities)

    @inlineCallbacks
    def test_a_certificate_is_an_identity(self) -> Any:
        """Mutual TLS: the DNS name of the agent's certificate says for whom it speaks, and for whom not."""
        certificate, key = self.authority.issue("app1.example")
        listener = self.listen_tls(mutual=True, app1=Identity(hosts=("web/blue/*",), certificate_name="app1.example"))
        self.report(listener, hosts=(APP1, APP2),
                    tls=AgentTLS(ca=self.authority.path, certificate=certificate, key=key))
        yield self.until(lambda: self.seen("reported", APP1), "a report")
        self.assertFalse(self.seen("connected", APP2))
        self.assertIn("forbidden_host", self.sink.rejects)

    @inlineCallbacks
    def test_other_certificates_do_not_pass(self) -> Any:
        """None, one of another authority, one of another name: no agent, no change, each counted."""
        stranger, stranger_key = Authority(self.folder, "other-ca").issue("stranger.example")
        named, named_key = self.authority.issue("app9.example")
        listener = self.listen_tls(mutual=True, app1=Identity(hosts=("*/*/*",), certificate_name="app1.example"))
        ca = self.authority.path
        for tls, reason in (
            (AgentTLS(ca=ca), "tls"),
            (AgentTLS(ca=ca, certificate=stranger, key=stranger_key), "tls"),
            (AgentTLS(ca=ca, certificate=named, key=named_key), "unauthenticated"),
        ):
            self.sink.rejects.clear()
            reporter = self.report(listener, tls=tls)
            yield self.until(lambda reason=reason: reason in self.sink.rejects, reason)
            yield reporter.stopService()
        self.assertEqual(self.sink.events, [])

    @inlineCallbacks
    def test_a_token_over_tls(self) -> Any:
        """The right token from a file is an identity; a wrong one is refused and told to stay away."""
        listener = self.listen_tls(app1=Identity(hosts=("web/*/*",), token_sha256=digest("secret")))
        token_file = self.folder / "token"
        token_file.write_text("secret\n")
        tls = AgentTLS(ca=self.authority.path)
        wrong = self.report(listener, tls=tls, token="wrong")
        yield self.until(lambda: self.sink.rejects, "the refusal")
        self.assertEqual((self.sink.events, self.sink.rejects), ([], ["unauthenticated"]))
        yield wrong.stopService()
        self.report(listener, tls=tls, token_file=str(token_file))
        yield self.until(lambda: self.seen("reported", APP1), "a report")

    @inlineCallbacks
    def test_an_agent_does_not_talk_to_a_false_director(self) -> Any:
        """A director of another authority, or with another name, hears not a word of the token."""
        false_authority = Authority(self.folder, "false-ca")
        for certificate, key in (false_authority.issue("127.0.0.1"), self.authority.issue("elsewhere.example")):
            warnings: list[Any] = []
            observer = warnings.append
            globalLogPublisher.addObserver(observer)
            self.addCleanup(globalLogPublisher.removeObserver, observer)
            listener = self.listen(tls=TLS(certificate=certificate, key=key),
                                   identities={"x": Identity(hosts=("*/*/*",), token_sha256=digest("secret"))})
            reporter = self.report(listener, tls=AgentTLS(ca=self.authority.path), token="secret")
            yield self.until(lambda seen=warnings: any("no connection" in str(each.get("log_format")) for each in seen),
                             "the agent's refusal")
            yield reporter.stopService()
            yield listener.stopService()
        self.assertEqual(self.sink.events, [])
        self.assertLessEqual(set(self.sink.rejects), {"tls"})

    @inlineCallbacks
    def test_the_wrong_port(self) -> Any:
        """Both sides say what is wrong when only one speaks TLS."""
        said: list[str] = []

        def observe(event: Any) -> None:
            said.append(str(formatEvent(event)))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        identities = {"x": Identity(hosts=("*/*/*",), token_sha256=digest("secret"))}
        plain, secure = self.listen(identities=identities), self.listen_tls(**identities)
        tls = AgentTLS(ca=self.authority.path)
        for there, kind, words in (
            (plain, {"tls": tls}, ("nothing was said there: perhaps the port speaks no TLS", "TLS is spoken to a port")),
            (secure, {}, ("perhaps the port takes TLS (--tls", "the other side speaks no TLS")),
        ):
            said.clear()
            reporter = self.report(there, **kind)
            for word in words:
                yield self.until(lambda word=word: any(word in line for line in said), word)
            yield reporter.stopService()

    @inlineCallbacks
    def test_renewed_certificates(self) -> Any:
        """Director and agent each show what their files have when they connect anew, even if another authority signed it;
        what is connected stays so until then."""
        certificate, key = self.authority.issue("app1.example")
        listener = self.listen_tls(mutual=True, app1=Identity(hosts=("web/blue/*",), certificate_name="app1.example"))
        self.report(listener, tls=AgentTLS(ca=self.authority.path, certificate=certificate, key=key))
        yield self.until(lambda: self.seen("reported"), "a report")
        successor = Authority(self.folder, "successor")
        successor.issue("app1.example")
        successor.issue("localhost", "127.0.0.1")
        Path(self.authority.path).write_bytes(Path(successor.path).read_bytes())
        self.assertEqual([each.look() for each in listener.certificates], [True])
        self.assertEqual(len(listener.connections()), 1)
        for protocol in list(listener._open):
            protocol.abort("the test says so")
        self.sink.events.clear()
        yield self.until(lambda: self.seen("reported"), "a report with the new certificates")

    @inlineCallbacks
    def test_a_common_server_name(self) -> Any:
        """Directors may share a certificate's name that is not their address."""
        self.certificate, self.key = self.authority.issue("directors.example")
        listener = self.listen_tls(x=Identity(hosts=("*/*/*",), token_sha256=digest("secret")))
        self.report(listener, tls=AgentTLS(ca=self.authority.path, server_name="directors.example"), token="secret")
        yield self.until(lambda: self.seen("reported"), "a report")


class Process(AgentCase):
    """The ``director-agent`` command and the plugin."""

    def spawn(self, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, env=os.environ | {"COLUMNS": "80"})

        def reap() -> None:
            if process.poll() is None:
                process.kill()
            process.communicate()

        self.addCleanup(reap)
        return process

    def command(self, name: str) -> str:
        return str(Path(sys.executable).with_name(name))

    def service_with_a_client(self) -> tuple[Address, socket.socket]:
        """A listening service, and the established connection of a client of it."""
        service = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        host, port = service.getsockname()
        client = self._stack.enter_context(socket.create_connection((host, port)))
        self._stack.enter_context(service.accept()[0])
        return Address(host, port), client

    def in_flight(self) -> float | None:
        reports = [event[2] for event in self.sink.events if event[0] == "reported"]
        return reports[-1].in_flight if reports else None  # type: ignore[attr-defined]

    @inlineCallbacks
    def drain(self, process: subprocess.Popen[bytes], end: Callable[[], None]) -> Any:
        """SIGTERM while a client is connected: the agent says it leaves and stays; then *end* ends it."""
        yield self.until(lambda: self.in_flight() == 1, "the client's connection counted")
        process.send_signal(signal.SIGTERM)
        yield self.until(lambda: self.seen("leaving", APP1), "the farewell")
        self.sink.take()
        yield self.until(lambda: self.sink.events[3:], "reports while leaving")
        self.assertEqual({event[2].state for event in self.sink.events}, {"drain"})  # type: ignore[attr-defined]
        self.assertIsNone(process.poll())
        end()
        yield self.until(lambda: process.poll() is not None, "the end")
        self.assertEqual(self.sink.events[-1], ("lost", APP1, LEFT))

    @inlineCallbacks
    def test_sigterm_waits_for_open_connections(self) -> Any:
        """The command stays until the service's last connection is closed, then exits with 0."""
        address, client = self.service_with_a_client()
        listener = self.listen()
        process = self.spawn(self.command("director-agent"), "--director", str(listener.ports[0].address),
                             "--host", APP1, "--port", str(address.port), "--name", "app1")

        def end() -> None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()

        yield self.drain(process, end)
        self.assertEqual(process.returncode, 0)

    @inlineCallbacks
    def test_a_second_sigterm_stops_at_once(self) -> Any:
        """Also under ``twist``, configured by a file; nothing is logged as an error."""
        address, _client = self.service_with_a_client()
        listener = self.listen()
        config = self.folder / "agent.toml"
        config.write_text(f'name = "app1"\ndirectors = ["{listener.ports[0].address}"]\nhosts = ["{APP1}"]\n'
                          f"port = {address.port}\n")
        process = self.spawn(self.command("twist"), "director-agent", "--config", str(config))
        yield self.drain(process, lambda: process.send_signal(signal.SIGTERM))
        assert process.stderr is not None
        self.assertNotIn(b"Traceback", process.stderr.read())

    def test_bad_options(self) -> None:
        """Everything wrong is named at once, with exit code 2."""
        done = subprocess.run([self.command("director-agent"), "--director", "10.0.0.1:1", "--host", "web/app1",
                               "--register", "x"], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        self.assertEqual(done.returncode, 2)
        for part in ("--director (no. 1): 10.0.0.1:1 is beyond this machine", "--host (no. 1): ", "--register: "):
            self.assertIn(part, done.stderr)


