"""`tests.integration.machine` in processes, and clients that ask all the time, for tests that kill and freeze."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from twisted.internet.threads import deferToThread

from director.service import DirectorService
from tests.integration.kit import DirectorTestCase

PROGRAM = Path(__file__).with_name("machine.py")
#: No answer takes that long, on a machine that stutters.
ANSWER_S = 20.0


class Machine:
    """One server with its agent."""

    def __init__(self, name: str, *figures: float) -> None:
        self.name = name
        self._process = subprocess.Popen([sys.executable, "-S", str(PROGRAM), name, *map(str, figures)], text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def port(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def reports_to(self, address: object, host: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{host} {address}\n")
        self._process.stdin.flush()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()

    def died(self) -> None:
        """Wait until the kernel has closed all that was its."""
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._process.communicate()


class Attempt(NamedTuple):
    """One client, begun at monotonic seconds."""

    began: float
    host: str  #: who answered; empty: nobody did


class Clients:
    """A few at a time, one after the other."""

    def __init__(self, address: str, at_once: int) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._over = threading.Event()
        self.seen: list[Attempt] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(at_once)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            began, answer = time.monotonic(), b""
            with contextlib.suppress(OSError), socket.create_connection(self._address, ANSWER_S) as sock:
                sock.sendall(b"?")
                while b"\n" not in answer and (more := sock.recv(1000)):
                    answer += more
            name, ended, _ = answer.decode().partition("\n")
            self.seen.append(Attempt(began, name.strip(".") if ended else ""))

    @property
    def failed(self) -> int:
        return sum(not attempt.host for attempt in self.seen)

    def over(self) -> None:
        """The next is the last."""
        self._over.set()

    def stop(self) -> None:
        self.over()
        for thread in self._threads:
            thread.join()


class MachinesTestCase(DirectorTestCase):
    """Everything that a test starts ends with it."""

    def machines(self, count: int, *figures: float, prefix: str = "h") -> dict[str, Machine]:
        found = {f"{prefix}{number}": Machine(f"{prefix}{number}", *figures) for number in range(count)}
        for machine in found.values():
            self.addCleanup(machine.close)
        return found

    def ask(self, director: DirectorService, at_once: int) -> Clients:
        clients = Clients(director.node.listeners.addresses("web")[0], at_once)
        self.addCleanup(deferToThread, clients.stop)
        return clients
