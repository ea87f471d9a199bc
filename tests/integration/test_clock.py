"""The time of day is set, or runs fast, while a process runs: to its timers that is nothing."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import selectors
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from argon2 import PasswordHasher

from tests.etcd_server import free_port
from tests.faketime import FAST, RIGHT, STEPS, TimeOfDay, require_faketime
from tests.integration.test_cli import CliTestCase, Running, address, until

#: What a clock does wrong in these tests. A rate of 2 makes a second's wait wrong by half, which a test can see; 1.02 is what
#: a clock may really do.
WRONG = (*STEPS, FAST, "+0 x2")
#: What a host's failure takes to be noticed here: two probes a tenth of a second apart; and much for a busy machine. Less
#: than any step.
USUAL_S = 3.0
#: A deadline, and how much later than that it may come.
DEADLINE_S, LATE_S = 1.0, 2.0
#: Reports every tenth of a second are missed after so long, and watched for longer.
SILENT_S, WATCH_S = 1.5, 2.0
#: Off by so much the time of day is another.
APART_S = 2.0

#: A director starts in seconds, on a busy machine in many.
START_S = 60.0
HEALTH = {
    "interval_s": 0.1, "suspect_interval_s": 0.1, "down_interval_s": 0.1, "jitter": 0.0, "rise": 1, "fall": 2,
    "slow_start_s": 0.0, "suspect_after_s": 0.2, "timeout_s": 0.5,
}
CTL = """
import select, time
time.sleep = lambda seconds: select.select((), (), (), seconds)  # libfaketime breaks the real one, see tests/faketime.py
from director.ctl import main
main(prog_name='directorctl')
"""


def backend(port: int = 0) -> socket.socket:
    """What accepts connections, in the kernel only, and says nothing. Probes of a whole test wait in its queue."""
    return socket.create_server(("127.0.0.1", port), backlog=4096)


def service(name: str, host: str, more: str = "") -> str:
    health = "\n".join(f"health.{key} = {value}" for key, value in HEALTH.items())
    return f"""
[services.{name}]
listen = ["127.0.0.1:0"]
timeouts.half_closed_s = 0.1
{more}
[services.{name}.groups.main]
{health}
hosts.a = "{host}"
"""


class ClockTestCase(CliTestCase):
    def setUp(self) -> None:
        require_faketime()
        super().setUp()
        self.clock = TimeOfDay(self.directory / "clock")
        self.backend = backend()
        self.addCleanup(lambda: self.backend.close())
        self.admin = 0

    def faked(self, *command: str) -> Running:
        """A process with the clock."""
        running = Running(*command, env=self.clock.environment)
        self.addCleanup(self.clock.forget, running.process.pid)
        self.addCleanup(running.end)
        return running

    def director(self, services: Mapping[str, str], node: str = "", *, faked: bool = True) -> Running:
        """A director that is ready. *services*: further lines of each."""
        text = "".join(service(name, address(self.backend), more) for name, more in services.items())
        config = self.write(f'[[node.admin.endpoints]]\nlisten = "127.0.0.1:0"\n{node}\n{text}')
        running = (self.faked if faked else self.start)("-m", "director", "run", config)
        running.says(r"ready\n")
        self.admin = int(running.says(r"admin at http://127\.0\.0\.1:(\d+)")[1])
        return running

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, Any, str]:
        """A call: the status, a header or two, the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=10)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def rest(self, method: str, path: str, **body: object) -> Any:
        status, _, text = self.ask(method, f"/api/v1/{path}", json.dumps(body) if body else None,
                                   **{"Content-Type": "application/json"} if body else {})
        self.assertLess(status, 400, text)
        return json.loads(text)

    def host(self) -> Any:
        return self.rest("GET", "services/web/groups/main/hosts/a")

    def wrong(self, what: str) -> None:
        """Set the clock; returns once the director has seen it."""
        before = self.off()
        self.clock.set(what)
        if " " not in what:
            until(lambda: abs(self.off() - before) > APART_S)

    def off(self) -> float:
        """By how much the director's clock is."""
        at: float = self.rest("GET", "status")["at"]
        return at - time.time()

    def wrongs(self) -> Iterator[str]:
        """One after the other; the clock is right again after each."""
        for what in WRONG:
            yield what
            self.clock.set(RIGHT)


class DirectorTests(ClockTestCase):
    def test_probes(self) -> None:
        """A host that dies is noticed in the usual time, and its coming back, too."""
        self.director({"web": ""})
        port = self.backend.getsockname()[1]
        until(lambda: self.host()["state"] == "up")
        for what in self.wrongs():
            self.wrong(what)
            self.backend.close()
            self.noticed("down", what)
            self.backend = backend(port)
            self.noticed("up", what)

    def noticed(self, state: str, what: str) -> None:
        began = time.monotonic()
        until(lambda: self.host()["state"] == state)
        self.assertLess(time.monotonic() - began, USUAL_S, f"{state}, {what}")

    def test_deadlines(self) -> None:
        """What waits is let go in time: clients for a place, for their PROXY header, idle ones, those of a drained host."""
        running = self.director({
            "queued": f"limits = {{ max_connections = 1, queue = 1, queue_timeout_s = {DEADLINE_S} }}",
            "headed": f'proxy = {{ accept_from = ["127.0.0.0/8"], timeout_s = {DEADLINE_S} }}',
            "idle": f"timeouts.idle_s = {DEADLINE_S}",
            "drained": "",
        })
        ports = {name: int(running.says(rf"{name} listens on 127\.0\.0\.1:(\d+)")[1])
                 for name in ("queued", "headed", "idle", "drained")}
        order = "services/drained/groups/main/hosts/a/state"
        for what in self.wrongs():
            first = socket.create_connection(("127.0.0.1", ports["queued"]))
            self.addCleanup(first.close)
            until(lambda: self.open("queued") == 1)
            began = time.monotonic()
            clients = {name: socket.create_connection(("127.0.0.1", port)) for name, port in ports.items()}
            until(lambda: self.open("drained") == 1)
            self.rest("PUT", order, state="drain", why="a test", deadline_s=DEADLINE_S)
            self.wrong(what)
            for name, after in self.ends(clients, began, what).items():
                self.assertGreater(after, 0.8 * DEADLINE_S, f"{name}, {what}")
                self.assertLess(after, DEADLINE_S + LATE_S, f"{name}, {what}")
            self.rest("PUT", order, state="up")
            first.close()
            until(lambda: self.open("queued") == 0)

    def open(self, service: str) -> int:
        found = {each["name"]: each["connections"] for each in self.rest("GET", "status")["services"]}
        count: int = found[service]
        return count

    def ends(self, clients: dict[str, socket.socket], began: float, what: str) -> dict[str, float]:
        """When each was closed."""
        after: dict[str, float] = {}
        with selectors.DefaultSelector() as selector:
            for name, client in clients.items():
                selector.register(client, selectors.EVENT_READ, name)
            while selector.get_map() and time.monotonic() - began < DEADLINE_S + LATE_S:
                for key, _ in selector.select(0.1):
                    after[key.data] = time.monotonic() - began
                    selector.unregister(key.fileobj)
        for client in clients.values():
            client.close()
        self.assertEqual(set(after), set(clients), repr(after) + what)
        return after

    def test_people(self) -> None:
        """An hour's step forward signs nobody out; one back makes nobody wait an hour for another try at a password."""
        hashed = PasswordHasher(time_cost=1, memory_cost=64).hash("engine")
        users = "".join(f"[node.admin.users.{name}]\npassword = '{hashed}'\n" for name in ("ada", "bob"))
        self.director({"web": ""}, users)
        form = {"name": "ada", "password": "engine"}
        status, headers, text = self.ask("POST", "/sign-in", urlencode(form), **{"Content-Type": FORM})
        self.assertEqual(status, 303, text)
        cookie = headers["Set-Cookie"].partition(";")[0]
        self.clock.set("+7200")
        self.assertEqual(self.ask("GET", "/", Cookie=cookie)[0], 200)
        self.clock.set(RIGHT)
        while (told := self.ask("GET", "/api/v1/status", Authorization=basic("wrong")))[0] == 401:
            pass
        self.assertEqual(told[0], 429)
        self.clock.set("-3600")
        began, wait_s = time.monotonic(), int(told[1]["Retry-After"])
        until(lambda: self.ask("GET", "/api/v1/status", Authorization=basic("engine"))[0] == 200)
        self.assertLess(time.monotonic() - began, wait_s + LATE_S)


FORM = "application/x-www-form-urlencoded"


def basic(password: str) -> str:
    """Of bob, who has not signed in yet: who has is remembered."""
    return "Basic " + base64.b64encode(f"bob:{password}".encode()).decode()


class OtherWaysTests(ClockTestCase):
    """However a director is started: back by an hour, it notices a host that dies. Its probes ask by HTTP, which a test sees."""

    TAC = """
from cluster.model import Health, Probe
from director.builder import Director
director = Director()
director.service("web", "127.0.0.1:0").group("main", health=Health({health}, probe=Probe(kind="http"))).host("a", "{host}")
"""

    def notices(self, *command: str) -> None:
        running = self.faked(*command)
        self.backend.settimeout(START_S)  # until a director under libfaketime is there
        for _ in range(3):
            with self.backend.accept()[0] as probe:
                probe.recv(4096)
                probe.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        time.sleep(HEALTH["interval_s"] / 2)  # amid two probes: a timer that begins after the step is none the worse for it
        self.clock.set("-3600")
        began = time.monotonic()
        self.backend.close()
        running.says("web/main/a is down, was")
        self.assertLess(time.monotonic() - began, USUAL_S)
        running.tell(signal.SIGTERM)
        running.ended()

    def python(self, more: str) -> str:
        health = ", ".join(f"{key}={value}" for key, value in HEALTH.items())
        return self.write(self.TAC.format(health=health, host=address(self.backend)) + more, "made.py")

    def test_twist(self) -> None:
        config = self.write(service("web", address(self.backend)).replace("hosts.a", "health.probe.kind = 'http'\nhosts.a"))
        self.notices("-m", "twisted", "--log-format", "text", "director", "--config", config)

    def test_tac(self) -> None:
        twistd = ("-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile",
                  str(self.directory / "pid"))
        self.notices(*twistd, "--python", self.python("application = director.application()\n"))

    def test_embedded(self) -> None:
        """Made within a call of a reactor that runs."""
        self.notices(self.python("""
import sys
from twisted.internet import reactor
from twisted.python import log

def begin():
    tree = director.service_tree(reactor)
    tree.startService()
    reactor.addSystemEventTrigger("before", "shutdown", tree.stopService)

log.startLogging(sys.stdout)
reactor.callLater(0.1, begin)
reactor.run()
"""))


class AgentTests(ClockTestCase):
    """The agent's clock; the director's is right."""

    def setUp(self) -> None:
        super().setUp()
        self.agents = free_port()
        digest = hashlib.sha256(b"secret").hexdigest()
        self.director({"web": ""}, f"""
[node.agents]
listen = ["127.0.0.1:{self.agents}"]
interval_s = 0.1
[node.agents.identities.a]
hosts = ["*/*/*"]
token_sha256 = "{digest}"
""", faked=False)
        self.words = ("--director", f"127.0.0.1:{self.agents}", "--name", "a", "--leave-deadline", "1",
                      "--port", str(self.backend.getsockname()[1]), "--token-file", self.write("secret\n", "token"))

    def test_reports(self) -> None:
        """Reports come as often as before, over the connection that is there."""
        running = self.faked("-m", "agent.cli", *self.words, "--host", "web/main/a")
        until(lambda: self.host()["agent_connected"])
        for what in self.wrongs():
            self.clock.set(what)
            began = time.monotonic()
            while time.monotonic() - began < WATCH_S:
                self.assertLess(self.host()["heartbeat_age_s"], SILENT_S, what)
        running.tell(signal.SIGTERM)
        running.ended()
        self.assertEqual(running.output.count("connected to director"), 1)

    def test_leaving(self) -> None:
        """An agent that is told to stop waits for open connections for as long as it was told."""
        self.leaves("-m", "agent.cli", *self.words, "--host", "web/main/a")

    def test_twist(self) -> None:
        self.leaves("-m", "twisted", "--log-format", "text", "director-agent", *self.words, "--host", "web/main/a")

    def leaves(self, *command: str) -> None:
        running = self.faked(*command)
        until(lambda: self.host()["agent_connected"])
        with socket.create_connection(self.backend.getsockname()):
            running.tell(signal.SIGTERM)
            running.says("leaving: waiting")
            began = time.monotonic()
            until(lambda: self.host()["admin"] == "drain")  # it was told, and the wait has begun
            self.clock.set("-3600")
            running.ended()
        took = time.monotonic() - began
        self.assertGreater(took, 0.8 * DEADLINE_S, running.output)
        self.assertLess(took, DEADLINE_S + LATE_S, running.output)


class CtlTests(ClockTestCase):
    def test_wait(self) -> None:
        """A wait for a drain is over when its time is, wherever the clock of the one who waits went meanwhile."""
        director = self.director({"web": ""}, faked=False)
        port = int(director.says(r"web listens on 127\.0\.0\.1:(\d+)")[1])
        for what in self.wrongs():
            with socket.create_connection(("127.0.0.1", port)):
                until(lambda: self.host()["in_flight"] == 1)
                running = self.faked("-c", CTL, "--url", f"http://127.0.0.1:{self.admin}", "drain", "web/main/a", "--wait",
                                     "--timeout", "1")
                until(lambda: self.host()["admin"] == "drain")
                began = time.monotonic()
                self.clock.set(what)
                self.assertEqual(running.ended(), 1, running.output)
                self.assertIn("1 connections are still open after 1 s", running.output)
                self.assertLess(time.monotonic() - began, DEADLINE_S + LATE_S, what)
            self.rest("PUT", "services/web/groups/main/hosts/a/state", state="up")
            until(lambda: self.host()["in_flight"] == 0)
