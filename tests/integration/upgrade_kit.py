"""A director as a process, clients that notice everything, and upgrades under them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.etcd_server import free_port

#: A condition that does not hold by then never will; far beyond what a loaded machine needs.
DEADLINE_S = 60.0
CTL = "from director.ctl import main; main(prog_name='directorctl')"
#: What a backend sends for each number: any part of it can be checked by itself.
PATTERN = b"".join(number.to_bytes(4, "big") for number in range(65536))


def until(holds: Callable[[], Any], what: str = "") -> Any:
    """Wait for a condition, and return what it says."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, what or holds
        time.sleep(0.02)
    return found


def content(size: int) -> bytes:
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


_TAKES = "    async def _take_over(self, take: Take, lock: int | None) -> None:\n"
SOURCE = Path(__file__).parents[2]
#: What makes another release of the source, by file: what is replaced by what. ``next`` writes another form of what is known
#: of hosts and of sticky clients; the others are broken, each in a way of its own.
RELEASES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "this": {},
    "next": {"handover/sections.py": ('"hosts": 1, "sticky": 1', '"hosts": 2, "sticky": 2'),
             "core/carrying.py": ("    up_since: float\n", "    up_since: float\n    mood: str = 'good'\n")},
    "crashes": {"handover/taking.py": ("from __future__ import annotations", "from __future__ import annotations\n1 / 0")},
    "hangs": {"handover/taking.py": ("    number = environment.pop(VARIABLE, \"\")", "    import time\n    time.sleep(3600)")},
    "dies": {"handover/estate.py": (_TAKES, f"{_TAKES}        import os\n        os.kill(os.getpid(), 9)\n")},
    "fails": {"handover/estate.py": (_TAKES, f"{_TAKES}        raise ValueError('no')\n")},
}


class Releases:
    """Several releases of the source beside each other, one of which is installed."""

    def __init__(self, directory: Path, *names: str) -> None:
        self._directory = directory
        for name in names:
            for package in ("director", "cluster", "agent"):
                shutil.copytree(SOURCE / package, directory / name / package)
            for file, (before, after) in RELEASES[name].items():
                path = directory / name / "director" / file
                text = path.read_text()
                assert before in text, (name, file)
                path.write_text(text.replace(before, after, 1))
        self.install(names[0])

    @property
    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self._directory / "installed")}

    def install(self, name: str) -> None:
        """What is started from now on is that one."""
        link = self._directory / "link"
        link.symlink_to(self._directory / name)
        link.rename(self._directory / "installed")


class Backend:
    """Answers ``get N`` with so many bytes and a close, slowly where a pause for each part is given; echoes all else."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.address = "{}:{}".format(*self._socket.getsockname())
        self.served = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self.served += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while data := client.recv(65536):
                if not data.startswith(b"get "):
                    client.sendall(data)
                    continue
                _, size, pause = data.split()
                left = content(int(size))
                while left:
                    client.sendall(left[:65536])
                    left = left[65536:]
                    time.sleep(float(pause))
                return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Load:
    """Clients of one address, until `end`; whatever is not as it should be is in `faults`."""

    def __init__(self, port: int, *, per_s: float, idle: int = 0, long_bytes: int = 0) -> None:
        self.faults: Counter[str] = Counter()
        self.done = self.transfers = 0
        self._port = port
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._idle = [self.connect() for _ in range(idle)]
        for each in self._idle:
            self.echo(each)
        workers = 8
        self._threads = [threading.Thread(target=self._shorts, args=(workers / per_s,)) for _ in range(workers)]
        if long_bytes:
            self._threads.append(threading.Thread(target=self._longs, args=(long_bytes,)))
        for thread in self._threads:
            thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=DEADLINE_S)

    def echo(self, client: socket.socket, data: bytes = b"ping") -> None:
        client.sendall(data)
        answer = b""
        while len(answer) < len(data):
            more = client.recv(65536)
            if not more:
                raise ConnectionError("closed")
            answer += more
        if answer != data:
            self._fault("corrupted")

    def _fault(self, what: str) -> None:
        with self._lock:
            self.faults[what] += 1

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self._fault(f"{type(error).__name__}: {error}")

    def _short(self) -> None:
        with self.connect() as client:
            self.echo(client, os.urandom(32))
        with self._lock:
            self.done += 1

    def _shorts(self, every_s: float) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + every_s, time.monotonic() - 1.0)
            self._guarded(self._short)

    def _long(self, size: int) -> None:
        with self.connect() as client:
            client.sendall(b"get %d 0.01" % size)
            digest, count = hashlib.sha256(), 0
            while data := client.recv(65536):
                digest.update(data)
                count += len(data)
        if digest.digest() != hashlib.sha256(content(size)).digest():
            self._fault(f"a transfer of {count} bytes instead of {size}")
        self.transfers += 1

    def _longs(self, size: int) -> None:
        while not self._over.is_set():
            self._guarded(lambda: self._long(size))

    def end(self) -> None:
        """Stop, and look whether who was idle all the time is still served."""
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)
        for each in self._idle:
            self._guarded(lambda each=each: self.echo(each))  # type: ignore[misc]
            each.close()


class Stage:
    """A director that is upgraded.

    :param program: the command that runs it, before ``run FILE``.
    :param closed: it has no descriptors of ours.
    """

    def __init__(self, directory: Path, config: str, *, program: tuple[str, ...] = (sys.executable, "-m", "director"),
                 env: Mapping[str, str] | None = None, closed: bool = True) -> None:
        self.directory = directory
        self.log = directory / "director.log"
        self.admin = free_port()
        self.file = directory / "director.toml"
        self.write(config)
        self.pids: list[int] = []
        self._processes: dict[int, int] = {}  # descriptors of these: another may have a dead one's number by now
        self._env = {**os.environ, **(env or {})}
        self.stderr = directory / "stderr"
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen([*program, "run", str(self.file)], env=self._env, stderr=stderr, cwd=directory,
                                            close_fds=closed)
        self.knows(self.process.pid)
        until(lambda: " ready" in self.text or self.process.poll() is not None, "it never became ready")
        assert self.process.poll() is None, self.text + self.stderr.read_text()

    def write(self, config: str) -> None:
        self.file.write_text(
            f"[node.log]\ntarget = '{self.log}'\n[[node.admin.endpoints]]\nlisten = '127.0.0.1:{self.admin}'\n{config}")

    @property
    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", CTL, "--url", f"http://127.0.0.1:{self.admin}", *words], capture_output=True, text=True,
            timeout=150, check=False,
        )

    def json(self, *words: str) -> Any:
        done = self.ctl(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def upgrade(self) -> int:
        """One that must succeed; the new process's number."""
        pid = int(self.json("upgrade")["pid"])
        self.knows(pid)
        return pid

    def knows(self, pid: int) -> None:
        """There is one more."""
        self.pids.append(pid)
        self._processes[pid] = os.pidfd_open(pid)

    def fails(self) -> str:
        """One that must not; what is said."""
        done = self.ctl("upgrade")
        assert done.returncode == 1, (done.returncode, done.stdout, done.stderr, self.text[-4000:])
        return done.stderr

    def alive(self) -> list[int]:
        """The processes that have not ended."""
        return [pid for pid in self.pids if not _has_ended(self._processes[pid])]

    def alone(self) -> None:
        """Wait until the newest process is the only one, and knows it."""
        until(lambda: self.alive() == self.pids[-1:], f"there is still {self.alive()}, of {self.pids}")
        until(lambda: self.json("status").get("previous_connections") is None)

    def metrics(self) -> dict[str, float]:
        """By the series as it is written."""
        with socket.create_connection(("127.0.0.1", self.admin), timeout=DEADLINE_S) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b""
            while data := client.recv(65536):
                text += data
        return {found[1]: float(found[2]) for found in re.finditer(r"^(txdirector_\S+(?:\{.*\})?) (\S+)$", text.decode(), re.M)}

    def end(self) -> None:
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._processes[pid], signal.SIGKILL)
        for descriptor in self._processes.values():
            os.close(descriptor)
        self.process.wait()


def _has_ended(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))


def counters(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that never fall."""
    return {name: value for name, value in metrics.items()
            if re.match(r"\w+(_total|_bucket|_sum|_count)(\{|$)", name)}

