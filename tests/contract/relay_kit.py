"""What the relay's contract tests need: real peers on loopback, a recorder of events, blocking test bodies.

The relay runs on the real reactor in the main thread, as it does in a director. A test's body is plain blocking code in
another thread (`blocking`): it plays the client and the host, and reaches the relay by `RelayKit.on_reactor`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import itertools
import os
import random
import resource
import select
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from twisted.internet import reactor
from twisted.internet.threads import blockingCallFromThread, deferToThread

import director.relay
from cluster.model import Reason
from director.relay import make_relay
from director.relay.interface import Limits, Relay
from director.relay.turnarounds import NO_TALLY, Turnarounds
from tests.etcd_server import WORKER

#: Where another build of the extension is, with sanitizers or faults, to be tested instead of the installed one.
if directory := os.environ.get("TEST_RELAY_BUILD"):
    director.relay.__path__.insert(0, directory)

#: Nothing on loopback takes this long, on whatever machine; it ends a test that hangs.
PATIENCE_S = 20.0
LIMITS = Limits(connect_s=PATIENCE_S, idle_s=PATIENCE_S, half_closed_s=PATIENCE_S)
LINGER_0 = struct.pack("ii", 1, 0)
#: The user and group that root becomes to be an ordinary one. The quota of pipes is a user's: tests that run at the same time
#: have one each.
ORDINARY = 60_000 + WORKER


def blocking(body: Callable[[Any], None]) -> Callable[[Any], Any]:
    """Run a test's `begin` and its body in a thread, beside the reactor."""

    @functools.wraps(body)
    def test(self: Any) -> Any:
        def begin_and_body() -> None:
            self.begin()
            body(self)

        return deferToThread(begin_and_body)

    return test


class Final(NamedTuple):
    """A connection's last event: `closed` has a reason, `connect_failed` an error and the client's descriptor."""

    reason: Reason | None = None
    to_host: int = 0
    to_client: int = 0
    error: int = 0
    client: int = -1


class Recorder:
    """`RelayEvents` that remembers, and checks what holds for every event."""

    def __init__(self) -> None:
        self.calling = False  #: a call to the relay is under way
        self.violations: list[str] = []
        self._thread = threading.main_thread()
        self._changed = threading.Condition()
        self._connected: set[object] = set()
        self._final: dict[object, Final] = {}

    def connected(self, token: object) -> None:
        with self._changed:
            self._check("connected", token)
            if token in self._connected:
                self.violations.append(f"{token}: connected twice")
            self._connected.add(token)
            self._changed.notify_all()

    def connect_failed(self, token: object, client: int, error: int) -> None:
        if token in self._connected:
            self.violations.append(f"{token}: connect_failed after connected")
        self._finish(token, Final(client=client, error=error))

    def closed(self, token: object, reason: Reason, to_host: int, to_client: int) -> None:
        self._finish(token, Final(reason, to_host, to_client))

    def _finish(self, token: object, final: Final) -> None:
        with self._changed:
            self._check("final", token)
            self._final[token] = final
            self._changed.notify_all()

    def _check(self, event: str, token: object) -> None:
        if token in self._final:
            self.violations.append(f"{token}: {event} after the final event")
        if self.calling:
            self.violations.append(f"{token}: {event} from within a call")
        if threading.current_thread() is not self._thread:
            self.violations.append(f"{token}: {event} on another thread")

    def was_connected(self, token: object) -> bool:
        return token in self._connected

    def has_final(self, token: object) -> bool:
        return token in self._final

    def wait_connected(self, token: object) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: token in self._connected, PATIENCE_S):
                raise AssertionError(f"{token} was never connected")

    def final(self, token: object) -> Final:
        """The final event of *token*, once it has come."""
        with self._changed:
            if not self._changed.wait_for(lambda: token in self._final, PATIENCE_S):
                raise AssertionError(f"{token} never ended")
            return self._final[token]


class Relayed(NamedTuple):
    """A relayed connection as its two peers see it."""

    token: int
    handle: int
    client: socket.socket
    server: socket.socket


class RelayKit:
    """A running relay, and sockets that close with the test. Everything but `start` and `stop` is for other threads."""

    def __init__(self, kind: str, threads: int = 1) -> None:
        self.events = Recorder()
        self.relay: Relay = make_relay(kind, reactor=reactor, threads=threads)  # type: ignore[arg-type]
        self.tokens: list[int] = []
        self._token = itertools.count()
        self.pool = ThreadPoolExecutor(64)
        self._sockets: list[socket.socket] = []
        self._paths: list[str] = []

    def start(self) -> None:
        self.relay.start(self.events)

    def stop(self) -> None:
        self.relay.stop()
        self.pool.shutdown()
        for sock in self._sockets:
            sock.close()
        for path in self._paths:
            os.unlink(path)

    # --- the relay from another thread

    def on_reactor(self, function: Callable[..., Any], *arguments: object) -> Any:
        def call() -> Any:
            self.events.calling = True
            try:
                return function(*arguments)
            finally:
                self.events.calling = False

        return blockingCallFromThread(reactor, call)

    def hand_over(
        self, client: int, host: int, limits: Limits = LIMITS, preface: bytes = b"", tally: int = NO_TALLY
    ) -> tuple[int, int]:
        """Call `relay` with a fresh token; returns token and handle."""
        token = self.new_token(client)
        return token, self.on_reactor(self.relay.relay, token, client, host, limits, preface, tally)

    def new_token(self, client: int) -> int:
        """Of a connection of that client's."""
        token = next(self._token)
        self.tokens.append(token)
        return token

    def turnarounds(self, tally: int) -> Turnarounds:
        return self.on_reactor(self.relay.turnarounds, tally)  # type: ignore[no-any-return]

    def run(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """A peer that works at the same time."""
        return self.pool.submit(function, *arguments)

    # --- sockets

    def keep(self, sock: socket.socket) -> socket.socket:
        """Closed when the test ends, at the latest."""
        sock.settimeout(PATIENCE_S)
        self._sockets.append(sock)
        return sock

    def open_sockets(self) -> list[socket.socket]:
        """The tests' own that are still open."""
        return [sock for sock in self._sockets if sock.fileno() >= 0]

    def listener(self, family: int = socket.AF_INET, backlog: int = 4096) -> socket.socket:
        sock = self.keep(socket.socket(family, socket.SOCK_STREAM))
        sock.bind({socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0), socket.AF_UNIX: ""}[family])
        sock.listen(backlog)
        return sock

    def client(self, family: int = socket.AF_INET, number: int | None = None) -> tuple[socket.socket, int]:
        """A client's socket, and the descriptor that a director accepted for it.

        :param number: that this descriptor has to have.
        """
        with self.listener(family) as listener:
            client = self.keep(socket.socket(family, socket.SOCK_STREAM))
            client.connect(listener.getsockname())
            accepted, _ = listener.accept()
        accepted.setblocking(False)
        return client, accepted.detach() if number is None else renumbered(accepted.detach(), number)

    def accept(self, listener: socket.socket) -> socket.socket:
        """The server's side of a connection."""
        return self.serve(listener.accept()[0])

    def serve(self, server: socket.socket) -> socket.socket:
        """What a listener has accepted, as tests talk to it."""
        return self.keep(server)

    def answer(self, fd: int, data: bytes) -> None:
        """What a director may do with a descriptor that it got back: a last word, and the end."""
        with socket.socket(fileno=fd) as mine:
            mine.sendall(data)

    def connecting(self, listener: socket.socket) -> int:
        """The descriptor of a connect under way."""
        sock = socket.socket(listener.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.connect_ex(listener.getsockname())
        return sock.detach()

    def relayed(
        self,
        limits: Limits = LIMITS,
        preface: bytes = b"",
        families: tuple[int, int] = (socket.AF_INET, socket.AF_INET),
        numbers: tuple[int, int] | None = None,
        tally: int = NO_TALLY,
    ) -> Relayed:
        """A client and a server with the relay between them.

        :param numbers: of the descriptors that are handed over; what has them now is closed.
        """
        client, accepted = self.client(families[0], numbers[0] if numbers else None)
        with self.listener(families[1]) as listener:
            host = self.connecting(listener)
            if numbers is not None:
                host = renumbered(host, numbers[1])
            token, handle = self.hand_over(accepted, host, limits, preface, tally)
            server = self.accept(listener)
        self.events.wait_connected(token)
        return Relayed(token, handle, client, server)

    def unanswering(self) -> socket.socket:
        """A listener whose queue is full: a connect to it hangs until something is accepted."""
        listener = self.listener(backlog=0)
        while True:
            filler = self.keep(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            if not select.select([], [filler], [], 0.2)[1]:
                return listener


def pattern(size: int, seed: object) -> bytes:
    """Bytes that are the same for the same seed, and nowhere like themselves."""
    return random.Random(str(seed)).randbytes(size)


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly *size* bytes, or what came before the end of the stream."""
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive_all(sock: socket.socket) -> bytes:
    """Everything up to FIN."""
    return receive(sock, 1 << 40)


def receive_until_reset(sock: socket.socket) -> tuple[bytes, bool]:
    """Everything up to FIN or RST, and whether it was RST."""
    parts = []
    while True:
        try:
            part = sock.recv(1 << 20)
        except ConnectionResetError:
            return b"".join(parts), True
        if not part:
            return b"".join(parts), False
        parts.append(part)


def renumbered(fd: int, number: int) -> int:
    """Move a descriptor to another number."""
    os.dup2(fd, number, inheritable=False)
    os.close(fd)
    return number


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    sock.close()


def power_off(sock: socket.socket) -> None:
    """From now on its kernel takes no packet for it, and so answers none: a classic BPF program that keeps 0 bytes."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(program)))  # SO_ATTACH_FILTER


def unsent(sock: socket.socket) -> int:
    """Bytes that the other kernel has not acknowledged (SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def local_address(fd: int) -> object:
    """The address of a socket that is only a descriptor."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.getsockname()


def wait_until(true: Callable[[], bool]) -> None:
    """Look until it is so. For what leaves no event to wait for."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError("it did not come about")
        time.sleep(0.01)


def descriptors() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def many_descriptors(wanted: int) -> Iterator[bool]:
    """Raise this process's soft limit; yields whether *wanted* descriptors are allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield max(soft, hard) >= wanted
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
