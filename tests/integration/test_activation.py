"""Sockets that systemd made and passes on, as systemd-socket-activate and units do."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.etcd_server import free_port
from tests.integration.test_cli import DEADLINE_S
from tests.integration.test_upgrade import UpgradeTestCase
from tests.integration.upgrade_kit import Stage, until

#: What systemd does between fork and exec: descriptors from 3 on, and the number of the very process in LISTEN_PID.
ACTIVATE = """
import os, sys
descriptors = sys.argv[1].split(":")
for number, descriptor in enumerate(descriptors):
    os.dup2(int(descriptor), 3 + number)
names = ":".join(f"s{number}" for number in range(len(descriptors)))
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(descriptors)), LISTEN_FDNAMES=names)
os.execv(sys.executable, [sys.executable, "-m", "director", *sys.argv[2:]])
"""


class ActivationTests(UpgradeTestCase):
    def passing(self, *sockets: socket.socket) -> tuple[str, ...]:
        """A program that gives these to the director."""
        for sock in sockets:
            sock.set_inheritable(True)
        return (sys.executable, "-c", ACTIVATE, ":".join(str(sock.fileno()) for sock in sockets))

    def moved_up(self, sock: socket.socket) -> socket.socket:
        """The same at a descriptor that none of the new ones overwrites."""
        with sock:
            return socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 200))

    def test_used(self) -> None:
        """A client that waits at systemd's socket since before the start is served; sockets that nothing here is configured
        for are named; the file of a UNIX socket is left alone at the stop, and after an upgrade."""
        path = str(self.directory / "web.socket")
        tcp = self.moved_up(socket.create_server(("127.0.0.1", self.port)))
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(path)
        os.chmod(path, 0o600)
        unix.listen()
        unix = self.moved_up(unix)
        other = self.moved_up(socket.create_server(("127.0.0.1", free_port())))
        datagrams = self.moved_up(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        early = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        self.addCleanup(early.close)
        early.sendall(b"hello")
        config = self.config(drain_s=1.0).replace("listen = [", f"listen = ['unix:{path}', ")
        stage = Stage(self.directory, config, program=self.passing(tcp, unix, other, datagrams), closed=False)
        self.addCleanup(stage.end)
        for sock in (tcp, unix, datagrams):
            sock.close()
        self.assertEqual(early.recv(5), b"hello")
        early.close()
        self.assertIn(f"systemd has a socket at 127.0.0.1:{other.getsockname()[1]}, where nothing here listens", stage.text)
        self.assertIn("systemd's socket 's3' (descriptor 6) does not listen", stage.text)
        other.close()
        for _ in range(2):
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE_S)
                client.connect(path)
                client.sendall(b"ping")
                self.assertEqual(client.recv(4), b"ping")
            stage.upgrade()
            stage.alone()
        os.kill(stage.pids[-1], 15)
        until(lambda: stage.alive() == [])
        self.assertTrue(Path(path).is_socket())

    def test_not_ours(self) -> None:
        """Variables that were meant for another process say nothing."""
        environment = {**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "3"}
        done = subprocess.run([sys.executable, "-m", "director", "check", self.write()], env=environment, check=False,
                              capture_output=True, timeout=DEADLINE_S)
        self.assertEqual(done.returncode, 0, done.stderr)

    def write(self) -> str:
        path = self.directory / "director.toml"
        path.write_text(self.config())
        return str(path)
