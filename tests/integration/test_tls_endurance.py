"""TLS for long and by much: large transfers that stall, and certificates that are renewed while clients come.

A director in a process of its own; Python's ``ssl`` at both ends. ``TLS_TRANSFERS`` says how many transfers of 100 MB each way,
``TLS_RENEWALS`` how many renewals; ``make soak`` has 1,000 and 100.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import signal
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from tests.clients.kit import PATIENCE_S, Director, wait_until
from tests.integration.pki import Authority

TRANSFERS = int(os.environ.get("TLS_TRANSFERS") or 0)
RENEWALS = int(os.environ.get("TLS_RENEWALS") or 5)
#: Each way.
SIZE = 100_000_000 if TRANSFERS else 6_000_000
#: For each of the places where TLS may be.
EACH = max(2, TRANSFERS // 3)
#: Of the places at once.
AT_ONCE = 3
#: An end stops reading, or writing, for so long, at one of so many of its steps.
STALL_S, STALLS = 0.05, 200
MOST_AT_ONCE = 1 << 18
#: Of which everything is sent, from anywhere in it.
NOISE = random.Random(1).randbytes(2 * MOST_AT_ONCE)
TRANSFER_S = 300.0
CLIENTS = 4
EXCHANGE = b"are you there?"


class End:
    """One end of a transfer: sends `SIZE` bytes and reads as many, with stalls of either; says what it sent and got."""

    def __init__(self, sock: socket.socket, seed: int) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._random = random.Random(seed)
        self._left = [SIZE, SIZE]  # to read, to send
        self._until = [0.0, 0.0]
        self._wants = [select.POLLIN, select.POLLOUT]
        self._digests = [hashlib.sha256(), hashlib.sha256()]
        self._piece = memoryview(b"")

    def run(self) -> tuple[str, str]:
        """Digests of what was got, and sent. Raises what the socket raises, and `EOFError`."""
        deadline = time.monotonic() + TRANSFER_S
        while any(self._left):
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError(f"{self._left} bytes are missing")
            stuck = True
            for way, step in enumerate((self._read, self._send)):
                if self._left[way] and now >= self._until[way]:
                    if not self._random.randrange(STALLS):
                        self._until[way] = now + self._random.random() * STALL_S
                        continue
                    stuck &= not self._tried(way, step)
            if stuck:
                self._wait(now)
        got, sent = self._digests
        return got.hexdigest(), sent.hexdigest()

    def _tried(self, way: int, step: Any) -> bool:
        """Whether it got anywhere."""
        try:
            count = step()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            self._wants[way] = {ssl.SSLWantReadError: select.POLLIN, ssl.SSLWantWriteError: select.POLLOUT}.get(
                type(error), (select.POLLIN, select.POLLOUT)[way])
            return False
        self._left[way] -= count
        return True

    def _read(self) -> int:
        data = self._sock.recv(min(self._left[0], self._random.randrange(1, MOST_AT_ONCE)))
        if not data:
            raise EOFError(f"{self._left[0]} bytes are missing")
        self._digests[0].update(data)
        return len(data)

    def _send(self) -> int:
        if not self._piece:
            start, size = self._random.randrange(MOST_AT_ONCE), self._random.randrange(1, MOST_AT_ONCE)
            self._piece = memoryview(NOISE)[start:start + min(size, self._left[1])]
        sent = self._sock.send(self._piece)
        self._digests[1].update(self._piece[:sent])
        self._piece = self._piece[sent:]
        return sent

    def _wait(self, now: float) -> None:
        """Until a stall is over, or the kernel has what is wanted."""
        events, pause_s = 0, 1.0
        for way in (0, 1):
            if self._left[way] and now >= self._until[way]:
                events |= self._wants[way]
            elif self._left[way]:
                pause_s = min(pause_s, self._until[way] - now)
        poll = select.poll()
        poll.register(self._sock, events)
        poll.poll(1000 * pause_s)


class TLSEnduranceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.cleaning = contextlib.ExitStack()
        self.addCleanup(self.cleaning.close)
        self.folder = Path(self.cleaning.enter_context(tempfile.TemporaryDirectory()))
        self.authority = Authority(self.folder)
        self.certificate, self.key = self.authority.issue("localhost", days=30)
        self.clients = ssl.create_default_context(cafile=self.authority.path)
        self.servers = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.servers.load_cert_chain(self.certificate, self.key)
        self.listener = self.cleaning.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))

    @contextlib.contextmanager
    def director(self, *, listens: bool, connects: bool) -> Iterator[Director]:
        """TLS at its listener, and to its host."""
        pair = f'{{ certificate = "{self.certificate}", key = "{self.key}" }}'
        director = Director("auto", {"only": f"localhost:{self.listener.getsockname()[1]}"}, self.folder,
                            more=f"tls.certificates = [{pair}]" if listens else "",
                            group='health.probe.kind = "none"' + (f'\ntls.ca = "{self.authority.path}"' if connects else ""))
        try:
            yield director
            director.check_balance()
            self.assertEqual(director.stop(), 0)
        finally:
            director.end()

    def connect(self, director: Director, *, secure: bool) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", director.port), PATIENCE_S)
        return self.clients.wrap_socket(sock, server_hostname="localhost") if secure else sock

    def accept(self, *, secure: bool) -> socket.socket:
        sock, _ = self.listener.accept()
        sock.settimeout(PATIENCE_S)
        return self.servers.wrap_socket(sock, server_side=True) if secure else sock

    # --- transfers

    def transfers(self, *, listens: bool, connects: bool) -> None:
        with self.director(listens=listens, connects=connects) as director, ThreadPoolExecutor(2 * AT_ONCE) as ends:
            for start in range(0, EACH, AT_ONCE):
                running: list[tuple[Future[tuple[str, str]], ...]] = []
                kept: list[socket.socket] = []
                for seed in range(start, min(start + AT_ONCE, EACH)):
                    accepted = ends.submit(self.accept, secure=connects)
                    client = self.connect(director, secure=listens)
                    server = accepted.result(PATIENCE_S)
                    kept += [client, server]
                    running.append((ends.submit(End(client, seed).run), ends.submit(End(server, ~seed).run)))
                for one, other in running:
                    (got, sent), (got_there, sent_there) = one.result(), other.result()
                    self.assertEqual((got, got_there), (sent_there, sent))
                for sock in kept:
                    sock.close()
            moved = "txdirector_relay_bytes_total"
            wait_until(lambda: director.total(moved) == 2 * EACH * SIZE, "every byte is counted")

    def test_from_clients(self) -> None:
        """TLS at the listener: both ways at once, whatever stalls, not one byte wrong."""
        self.transfers(listens=True, connects=False)

    def test_to_hosts(self) -> None:
        """TLS to the host: the same."""
        self.transfers(listens=False, connects=True)

    def test_both(self) -> None:
        """At both: the same."""
        self.transfers(listens=True, connects=True)

    # --- renewals

    def test_renewals(self) -> None:
        """Certificates that are renewed while clients come: each of these sees the old one or the new, and is served."""
        over, served = threading.Event(), threading.Event()

        def serve() -> None:
            with ThreadPoolExecutor(2 * CLIENTS) as echoing:
                self.listener.settimeout(0.2)
                while not served.is_set():
                    with contextlib.suppress(TimeoutError):
                        echoing.submit(echo, self.listener.accept()[0])

        def visits(director: Director) -> int:
            count = 0
            while not over.is_set():
                with self.connect(director, secure=True) as client:
                    exchange(client)
                count += 1
            return count

        with self.director(listens=True, connects=False) as director, ThreadPoolExecutor(1 + CLIENTS) as threads:
            serving = threads.submit(serve)
            try:
                with self.connect(director, secure=True) as first:
                    visiting = [threads.submit(visits, director) for _ in range(CLIENTS)]
                    for _ in range(RENEWALS):
                        self.authority.issue("localhost", days=30)
                        new = x509.load_pem_x509_certificate(Path(self.certificate).read_bytes()).serial_number
                        director.process.send_signal(signal.SIGHUP)
                        wait_until(lambda: self.seen(director) == new, "it is in use")  # noqa: B023
                        exchange(first)
                    over.set()
                    self.assertGreaterEqual(sum(each.result(PATIENCE_S) for each in visiting), RENEWALS)
            finally:
                over.set()
                served.set()
            serving.result(PATIENCE_S)

    def seen(self, director: Director) -> int:
        """The number of the certificate that a new client gets."""
        with self.connect(director, secure=True) as client:
            assert isinstance(client, ssl.SSLSocket)
            shown = client.getpeercert(binary_form=True)
            assert shown is not None
            return x509.load_der_x509_certificate(shown).serial_number


def exchange(client: socket.socket) -> None:
    client.sendall(EXCHANGE)
    got = b""
    while len(got) < len(EXCHANGE):
        piece = client.recv(100)
        assert piece, "it was closed"
        got += piece
    assert got == EXCHANGE


def echo(sock: socket.socket) -> None:
    with sock, contextlib.suppress(ConnectionResetError):  # a client that goes without goodbye
        while data := sock.recv(4096):
            sock.sendall(data)
