"""The ``director`` command, ``twist director`` and the examples, as processes of their own."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from twisted.trial.unittest import SynchronousTestCase

from cluster import journal
from cluster.store import Record
from director.relay.choice import native_missing
from director.version import VERSION
from tests.etcd_server import EtcdCluster

#: A process that has not answered by then never will; far beyond what a loaded machine needs.
DEADLINE_S = 30.0

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
LISTENS = re.compile(r"listens on 127\.0\.0\.1:(\d+)")

SERVICE = """
[services.web]
listen = ["127.0.0.1:{port}"]
groups.blue.health.probe.kind = "none"
[services.web.groups.blue.hosts]
app1 = "{host}"
"""


class Running:
    """A process whose output is read until it says what is waited for."""

    def __init__(self, *command: str, env: Mapping[str, str] = MappingProxyType({})) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
            env={**os.environ, **env},
        )
        assert self.process.stdout is not None
        self._out = self.process.stdout
        self.output = ""

    def says(self, pattern: str) -> re.Match[str]:
        """Wait for *pattern* in all that was written so far."""
        deadline = time.monotonic() + DEADLINE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while not (found := re.search(pattern, self.output)):
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                data = os.read(self._out.fileno(), 65536) if ready else b""
                if not data:
                    raise AssertionError(f"never said {pattern!r}:\n{self.output}")
                self.output += data.decode()
        return found

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end; returns the exit code."""
        self.output += self.process.communicate(timeout=DEADLINE_S)[0].decode()
        return self.process.returncode

    def end(self) -> None:
        """For cleanup."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._out.close()


def until(holds: Callable[[], object]) -> None:
    """Wait for a condition outside of any process's output."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, holds
        time.sleep(0.01)


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """A listening socket on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(DEADLINE_S)
        yield sock


def address(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname())


class CliTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def write(self, text: str, name: str = "director.toml") -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def start(self, *command: str) -> Running:
        running = Running(*command)
        self.addCleanup(running.end)
        return running

    def relayed(self, backend: socket.socket, port: int) -> tuple[socket.socket, socket.socket]:
        """A client of the director on *port*, and the backend's end of its connection."""
        client = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self.addCleanup(client.close)
        host, _ = backend.accept()
        self.addCleanup(host.close)
        host.settimeout(DEADLINE_S)
        client.sendall(b"ping")
        self.assertEqual(host.recv(4), b"ping")
        return client, host

    def director(self, backend: socket.socket, extra: str = "", of_service: str = "") -> tuple[Running, int]:
        """A running director with one service; and that service's port."""
        text = SERVICE.replace("[services.web]\n", f"[services.web]\n{of_service}\n")
        running = self.start("-m", "director", "run", self.write(extra + text.format(port=0, host=address(backend))))
        running.says(r"ready\n")
        return running, int(running.says(LISTENS.pattern)[1])


class RunTests(CliTestCase):
    def test_serves_and_stops(self) -> None:
        """It says what it runs, relays, logs each connection when asked to, and ends with 0 on SIGTERM."""
        with listening() as backend:
            running, port = self.director(backend, "node.log.access = true\n")
            client, host = self.relayed(backend, port)
            client.close()
            self.assertEqual(host.recv(1), b"")
            host.close()
            running.says(r"service=web group=blue host=app1 reason=client_closed to_host=4 to_client=0 ")
            running.tell(signal.SIGTERM)
            self.assertEqual(running.ended(), 0)
            self.assertIn(f"txdirector {VERSION}, node director\n", running.output)
            self.assertIn("service web: 127.0.0.1:0 → group blue: 1 host, auto, relay ", running.output)

    def test_stop_waits_for_connections(self) -> None:
        """After SIGTERM nobody new gets in, an open connection goes on, and with its end the director ends."""
        with listening() as backend:
            running, port = self.director(backend)
            client, host = self.relayed(backend, port)
            running.tell(signal.SIGTERM)
            running.says(r"SIGTERM: stopping.*\n(.*\n)*.*waiting up to 300 s for 1 connections")
            self.assertRaises(ConnectionRefusedError, socket.create_connection, ("127.0.0.1", port))
            host.sendall(b"pong")
            self.assertEqual(client.recv(4), b"pong")
            client.close()
            host.close()
            self.assertEqual(running.ended(), 0)

    def test_second_signal_stops_at_once(self) -> None:
        """A second SIGTERM or SIGINT ends it though connections are open."""
        with listening() as backend:
            running, port = self.director(backend)
            self.relayed(backend, port)
            running.tell(signal.SIGINT)
            running.says("SIGINT: stopping")
            running.tell(signal.SIGTERM)
            self.assertEqual(running.ended(), 128 + signal.SIGTERM)

    def test_second_signal_cuts(self) -> None:
        """Those it cuts are in the access log, with the reason, and a client amid a download sees a reset, not an end."""
        for relay in ["python", *([] if native_missing() else ["native"])]:
            with listening() as backend:
                running, port = self.director(backend, "node.log.access = true\n", f"relay = '{relay}'")
                client, host = self.relayed(backend, port)
                host.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while host.send(bytes(1 << 20)):
                        pass
                running.tell(signal.SIGTERM)
                running.says("waiting up to")
                running.tell(signal.SIGTERM)
                self.assertEqual(running.ended(), 128 + signal.SIGTERM)
                self.assertRegex(running.output, r"service=web group=blue host=app1 reason=shutdown to_host=4 to_client=\d+")
                with self.assertRaises(ConnectionResetError):
                    while client.recv(1 << 20):
                        pass

    def test_ports_taken(self) -> None:
        """Whichever it is, a sentence says which, and that is all: no traceback, no second word; the exit code is 1."""
        log = self.directory / "log"
        for name, place in (
            ("web", "services.web.listen = ['{}']"), ("agents", "node.agents.listen = ['{}']"),
            ("admin", "node.admin.endpoints = [{{listen = '{}'}}]"), ("control", "node.control_socket = '{}'"),
            ("manhole", f"node.manhole = {{{{listen = '{{}}', host_key = '{self.directory}/key', passwords = true}}}}"),
        ):
            with socket.socket(socket.AF_UNIX) if name == "control" else listening() as taken:
                where = f"{self.directory}/control"
                if name == "control":
                    taken.bind(where)
                    taken.listen()
                else:
                    where = address(taken)
                path = self.write(f"node.log.target = '{log}'\n{place.format(where)}\n"
                                  "services.other.groups.b.hosts.c = '127.0.0.1:1'\n")
                running = self.start("-m", "director", "run", path)
                self.assertEqual(running.ended(), 1, running.output)
                self.assertRegex(
                    running.output,
                    rf"^director: cannot start: (.*: )?cannot listen on (unix:)?{re.escape(where)}: Address already in use\n$",
                )
                self.assertNotIn("Traceback", log.read_text())
                if name != "control":  # that is a socket's file, which only listening tells from a forgotten one
                    before = log.read_text().partition("cannot start")[0]
                    self.assertRegex(before, r"\A\S+ info  \[director\] txdirector \S+, node director\n\S+ critical ")
                log.unlink()

    def test_peers_port_taken(self) -> None:
        """That of the other directors is noticed last, with the store there."""
        etcd = EtcdCluster().start()
        self.addCleanup(etcd.stop)
        secret, log = self.directory / "secret", self.directory / "log"
        secret.touch(0o600)
        secret.write_bytes(b"x" * 32)
        with listening() as taken:
            path = self.write(f"""
                node.log.target = '{log}'
                node.store = 'etcd:'
                node.etcd.endpoints = ['{etcd.members[0].endpoint}']
                node.peers = {{listen = '{address(taken)}', secret_file = '{secret}'}}
            """)
            running = self.start("-m", "director", "run", path)
            self.assertEqual(running.ended(), 1, running.output)
            self.assertRegex(running.output, rf"^director: cannot start: .*cannot listen on {address(taken)}: [A-Z a-z]+\n$")
            self.assertNotIn("Traceback", log.read_text())

    def test_orderly_stop(self) -> None:
        """It says nothing of hosts: that a probe was cut short is no news of them."""
        with listening() as silent:
            probe = "health.probe = {kind = 'http', timeout_s = 60.0}\nhealth.fall = 1\n"
            text = SERVICE.replace("health.probe.kind = \"none\"\n", probe.replace("health.fall", "groups.blue.health.fall"))
            path = self.write(text.replace("{kind", "{{kind").replace("60.0}", "60.0}}").format(port=0, host=address(silent)))
            running = self.start("-m", "director", "run", path)
            running.says("ready\n")
            probing, _ = silent.accept()
            self.addCleanup(probing.close)
            running.tell(signal.SIGTERM)
            self.assertEqual(running.ended(), 0)
            for word in ("cancelled", "suspect", "isolation", "web/blue/app1 is"):
                self.assertNotIn(word, running.output)

    def test_rotation(self) -> None:
        """SIGUSR1 makes it open its log file anew."""
        log = self.directory / "log"
        with listening() as backend:
            path = self.write(f"node.log.target = '{log}'\n" + SERVICE.format(port=0, host=address(backend)))
            running = self.start("-m", "director", "run", path)
            until(lambda: log.exists() and "ready\n" in log.read_text())
            log.rename(self.directory / "log.1")
            running.tell(signal.SIGUSR1)
            until(log.exists)
            running.tell(signal.SIGTERM)
            self.assertEqual(running.ended(), 0)
            self.assertIn("SIGTERM: stopping", log.read_text())

    def test_config_errors(self) -> None:
        """Every error is told on one line each, the exit code is 2, and nothing was started."""
        with listening() as free:
            port = free.getsockname()[1]
        path = self.write(SERVICE.format(port=port, host="nonsense") + 'wieght = 1\n[node]\nstore = "disk"\n')
        running = self.start("-m", "director", "run", path)
        self.assertEqual(running.ended(), 2)
        self.assertEqual(
            [line.split(": ")[:2] for line in running.output.splitlines()],
            [
                [f"{path}:6", "services.web.groups.blue.hosts.app1.address"],
                [f"{path}:7", "services.web.groups.blue.hosts.wieght"],
                [f"{path}:9", "node.store"],
            ],
        )

    def test_unsafe_admin(self) -> None:
        """An admin that others can reach is not served without users, nor in plaintext unless that is asked for."""
        endpoint = "[[node.admin.endpoints]]\nlisten = '0.0.0.0:0'\n"
        user = "[node.admin.users.ada]\npassword = '$argon2id$x'\n"
        for text, why in (
            ("node.admin.insecure = true\n" + endpoint, "is reachable from outside, and there are no users"),
            (user + endpoint, "would send passwords in plaintext"),
        ):
            running = self.start("-m", "director", "run", self.write(text))
            self.assertEqual(running.ended(), 2)
            self.assertIn(f"node.admin.endpoints[0].listen: 0.0.0.0:0 {why}", running.output)

    def test_bind_error(self) -> None:
        """An address that is taken is named, and the exit code is 1; a log file does not hide it."""
        for extra in ("", f"node.log.target = '{self.directory / 'log'}'\n"):
            with listening() as taken:
                path = self.write(extra + SERVICE.format(port=taken.getsockname()[1], host="127.0.0.1:1"))
                running = self.start("-m", "director", "run", path)
                self.assertEqual(running.ended(), 1)
                self.assertRegex(running.output, rf"cannot start: .*: cannot listen on {address(taken)}: Address already in use\n")

    def test_unwritable_log(self) -> None:
        """A log that cannot be written is named, by `check` as by `run`, and the exit code is 2."""
        path = self.write("node.log.target = '/nowhere/log'")
        for command in ("run", "check"):
            running = self.start("-m", "director", command, path)
            self.assertEqual(running.ended(), 2)
            self.assertEqual(running.output, f"{path}:1: node.log.target: cannot write the log to /nowhere/log: "
                                             "there is no directory /nowhere\n")


class CheckTests(CliTestCase):
    def test_good(self) -> None:
        """OK, what would run, and 0."""
        running = self.start("-m", "director", "check", str(EXAMPLES / "director.toml"))
        self.assertEqual(running.ended(), 0)
        self.assertEqual(running.output.splitlines()[0], "OK")
        self.assertIn("admin: http://127.0.0.1:7401/", running.output)

    def test_warnings(self) -> None:
        """What is odd is told and changes no exit code."""
        path = self.write("")
        running = self.start("-m", "director", "check", path)
        self.assertEqual(running.ended(), 0)
        self.assertIn(f"warning: {path}: services: there is no service", running.output)

    def test_errors(self) -> None:
        """Every error, and 2."""
        running = self.start("-m", "director", "check", self.write('node.nmae = 1\nnode.store = "disk"\n'))
        self.assertEqual(running.ended(), 2)
        self.assertEqual(len(running.output.splitlines()), 2)

    def test_no_file(self) -> None:
        """A file that is not there is an error like the others."""
        running = self.start("-m", "director", "check", "/nowhere.toml")
        self.assertEqual(
            (running.ended(), running.output), (2, "/nowhere.toml: cannot read it: No such file or directory\n")
        )


class OtherCommandTests(CliTestCase):
    def test_version(self) -> None:
        """Which version, on what, and which relay, and why."""
        running = self.start("-m", "director", "--version")
        self.assertEqual(running.ended(), 0)
        self.assertRegex(
            running.output,
            rf"\Atxdirector {re.escape(VERSION)}\nPython 3\.\S+, Twisted \S+\n"
            r"relay (native|python) \(.+\)\n\Z",
        )

    def test_three_versions(self) -> None:
        """Each of the three commands tells its version."""
        for module, words in (("director.ctl", "directorctl"), ("agent.cli", "director-agent")):
            running = self.start("-c", f"from {module} import main; main()", "--version")
            self.assertEqual((running.ended(), running.output), (0, f"{words} {VERSION}\n"))

    def test_completion(self) -> None:
        """Each has a script for a shell, which the shell takes, and by which the command answers with its words."""
        for module, name, words, begun, expected in (
            ("director.cli", "director", ("completion",), "boot", "bootstrap"),
            ("agent.cli", "director-agent", ("--completion",), "--leave", "--leave-deadline"),
            ("director.ctl", "directorctl", ("completion",), "reo", "reopen-logs"),
        ):
            call = ("-c", f"import sys; sys.argv[0] = '{name}'; from {module} import main; main(prog_name='{name}')")
            running = self.start(*call, *words, "bash")
            self.assertEqual(running.ended(), 0, running.output)
            [variable] = set(re.findall(r"\b_\w+_COMPLETE\b", running.output))
            self.assertEqual(subprocess.run(["bash", "-n"], input=running.output, text=True).returncode, 0)
            asked = {**os.environ, variable: "bash_complete", "COMP_WORDS": f"{name} {begun}", "COMP_CWORD": "1"}
            told = subprocess.run([sys.executable, *call], env=asked, text=True, capture_output=True, timeout=30)
            self.assertIn(f"plain,{expected}", told.stdout.splitlines(), told.stderr)

    def test_token(self) -> None:
        """A token and its digest, which a configuration takes; another one each time."""
        outputs = []
        for _ in range(2):
            running = self.start("-m", "director", "token")
            self.assertEqual(running.ended(), 0)
            outputs.append(running.output)
        self.assertNotEqual(*outputs)
        token, line = outputs[0].splitlines()
        self.assertEqual(len(token), 43)
        path = self.write(f"[node.agents.identities.app1]\nhosts = []\n{line}\n")
        self.assertEqual(self.start("-m", "director", "check", path).ended(), 0)


class SalvageTests(CliTestCase):
    def test_salvage(self) -> None:
        """A director refuses a damaged file with the command that saves the rest; that writes a new file, twice into the
        same place never, and a director starts on it."""
        path = self.write("", "state")
        records = tuple(Record(f"/txdirector/default/services/{name}", b"{}", 1, 1) for name in ("a", "b"))
        sound = b"".join(journal.compacted(1, records, (), at=0.0))
        damaged = sound.replace(b"services/a", b"services/?")
        Path(path).write_bytes(damaged)
        config = self.write(f"[node]\nstore = \"file:{path}\"\n")
        refused = self.start("-m", "director", "run", config)
        self.assertEqual(refused.ended(), 1)
        self.assertIn(f"director salvage {path}", refused.output)
        done = self.start("-m", "director", "salvage", path)
        self.assertEqual(done.ended(), 0)
        for said in ("left out: from byte", "saved: /txdirector/default/services/b",
                     f"1 records at revision 1 are in {path}.salvaged"):
            self.assertIn(said, done.output)
        self.assertEqual(Path(path).read_bytes(), damaged)
        again = self.start("-m", "director", "salvage", path)
        self.assertEqual((again.ended(), f"{path}.salvaged: File exists" in again.output), (1, True))
        Path(f"{path}.salvaged").rename(path)
        sound_now = self.start("-m", "director", "salvage", path)
        self.assertEqual((sound_now.ended(), "is sound" in sound_now.output), (0, True))


class ExampleTests(CliTestCase):
    """The examples run as they are, but for ports, which the tests' machine may not have free."""

    def free_ports(self, name: str) -> str:
        text = (EXAMPLES / name).read_text()
        return self.write(re.sub(r"127\.0\.0\.1:(7401|7946|8080)", "127.0.0.1:0", text), name)

    def stopped(self, running: Running) -> None:
        """A clean end; Twisted's own commands raise the signal again once everything has stopped."""
        running.tell(signal.SIGTERM)
        self.assertIn(running.ended(), (0, -signal.SIGTERM))

    def test_toml(self) -> None:
        """`director run` on the example serves."""
        running = self.start("-m", "director", "run", self.free_ports("director.toml"))
        running.says(r"ready\n")
        self.stopped(running)

    def test_twist(self) -> None:
        """`twist director --config` serves the same file."""
        running = self.start(
            "-m", "twisted", "--log-format", "text", "director", "--config", self.free_ports("director.toml")
        )
        running.says(LISTENS.pattern)
        self.stopped(running)

    def test_twist_errors(self) -> None:
        """`twist director` tells every error and starts nothing."""
        running = self.start(
            "-m",
            "twisted",
            "--log-format",
            "text",
            "director",
            "--config",
            self.write('node.nmae = 1\nnode.store = "disk"\n'),
        )
        self.assertNotEqual(running.ended(), 0)
        self.assertIn("director.toml:1: node.nmae: unknown key", running.output)
        self.assertIn("director.toml:2: node.store", running.output)

    def test_tac(self) -> None:
        """twistd runs the .tac file."""
        pidfile = str(self.directory / "pid")
        twistd = ("-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile", pidfile)
        running = self.start(*twistd, "--python", self.free_ports("director.tac"))
        running.says(LISTENS.pattern)
        self.stopped(running)

    def test_embedded(self) -> None:
        """The application with a balancer inside serves."""
        path = Path(self.free_ports("embed.py"))
        text = path.read_text()
        path.write_text(
            text.replace(
                'if __name__ == "__main__":',
                'if __name__ == "__main__":\n'
                "    import sys\n\n    from twisted.python import log\n\n"
                "    log.startLogging(sys.stdout)\n",
            )
        )
        running = self.start(str(path))
        running.says(LISTENS.pattern)
        self.stopped(running)

    def test_embedding_is_short(self) -> None:
        """Embedding takes under ten lines."""
        text = (EXAMPLES / "embed.py").read_text()
        body = text[text.index("def attach_balancer") : text.index("if __name__")].strip().splitlines()
        self.assertLess(len(body), 10)
