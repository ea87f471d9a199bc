"""Peers that speak TLS with a relay: as sockets, so that the relay's contract tests can be the same."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import select
import socket
import threading
import time
from concurrent.futures import Future
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from director.relay.interface import Limits
from director.relay.openssl import FIN, errno_of, in_words
from director.relay.turnarounds import NO_TALLY
from director.tls.profile import economize, harden
from tests.contract.relay_kit import LIMITS, PATIENCE_S, Relayed, RelayKit, receive


class Truncated(Exception):
    """FIN came without close_notify."""


def contexts() -> tuple[SSL.Context, SSL.Context]:
    """A server's, and a client's that trusts everybody."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.test")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    server, client = SSL.Context(SSL.TLS_SERVER_METHOD), SSL.Context(SSL.TLS_CLIENT_METHOD)
    server.use_certificate(builder.sign(key, hashes.SHA256()))
    server.use_privatekey(key)
    harden(server)
    economize(client)
    return server, client


SERVER, CLIENT = contexts()


class TLSPeer:
    """A socket that speaks TLS, as far as tests use sockets. Its end says goodbye, unless it is a reset."""

    def __init__(self, sock: socket.socket, context: SSL.Context) -> None:
        self.sock = sock
        if sock.family != socket.AF_UNIX:  # else what is said behind a ticket waits for that to be acknowledged
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = SSL.Connection(context, sock)
        self.begun: Future[bytes] | None = None  #: a handshake in another thread: what came before it, without TLS
        self._lock = threading.Lock()  # two threads of a test may send and receive
        self._silent = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def _until_done(self, what: str, *arguments: Any) -> Any:
        if self.begun is not None and what != "do_handshake":
            self.begun.result()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self._lock:
                    return getattr(self.tls, what)(*arguments)
            except SSL.WantReadError:
                wanted = select.POLLIN
            except SSL.WantWriteError:
                wanted = select.POLLOUT
            except SSL.SysCallError as error:
                number = errno_of(error)
                if number == FIN:
                    raise Truncated from error
                raise OSError(number, os.strerror(number)) from error  # its subclass by the errno
            except SSL.ZeroReturnError:
                raise
            except SSL.Error as error:
                if error.args == ([],):  # once more, after it was told
                    raise ConnectionResetError from error
                raise
            if self.sock.gettimeout() == 0:
                raise BlockingIOError(errno.EAGAIN, "it would block")
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            poll = select.poll()
            poll.register(self.sock, wanted)
            poll.poll(100)  # ms; short: the other thread may have read what this one waits for

    def send(self, data: bytes, flags: int = 0) -> int:
        if flags:
            return self.sock.send(data, flags)
        sent: int = self._until_done("send", data)
        return sent

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self.send(bytes(view[:1 << 20])):]

    def recv(self, size: int) -> bytes:
        if self.begun is not None and (before := self.begun.result()[:size]):
            rest, self.begun = self.begun.result()[size:], Future()
            self.begun.set_result(rest)
            return before
        try:
            data: bytes = self._until_done("recv", min(size, 1 << 20))
        except SSL.ZeroReturnError:
            return b""
        return data

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._silent |= option == socket.SO_LINGER
        self.sock.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self._until_done("shutdown")

    def close(self) -> None:
        if self.sock.fileno() >= 0 and not self._silent:
            try:
                self.tls.shutdown()
            except SSL.Error as error:
                in_words(error)
        self.sock.close()


class Trusting:
    """See `director.relay.tls_relay.Dials`."""

    def __init__(self, why: str = "") -> None:
        self.why = why

    def connection(self, fd: int) -> SSL.Connection:
        session = SSL.Connection(CLIENT, fd)  # type: ignore[arg-type]
        session.set_connect_state()
        return session

    def refusal(self, connection: SSL.Connection) -> str:
        return self.why


class TLSRelayKit(RelayKit):
    """Clients speak TLS, servers do not."""

    host_tls: Trusting | None = None

    def __init__(self, kind: str, threads: int = 1) -> None:
        super().__init__(kind, threads)
        self._sessions: dict[int, SSL.Connection] = {}

    def client(self, family: int = socket.AF_INET, number: int | None = None) -> tuple[Any, int]:
        sock, accepted = super().client(family, number)
        peer, session = TLSPeer(sock, CLIENT), SSL.Connection(SERVER, accepted)  # type: ignore[arg-type]
        peer.tls.set_connect_state()
        session.set_accept_state()
        shake_hands(peer, session)
        self._sessions[accepted] = session
        return peer, accepted

    def new_token(self, client: int) -> int:
        token = SecuredToken(super().new_token(client))
        token.client_tls, token.host_tls = self._sessions.get(client), self.host_tls
        return token

    def answer(self, fd: int, data: bytes) -> None:
        session = self._sessions.pop(fd)
        session.send(data)
        session.shutdown()
        os.close(fd)


class TLSToHostsKit(RelayKit):
    """Servers speak TLS, clients do not."""

    host_tls: Trusting | None = Trusting()
    preface = b""

    def hand_over(self, client: int, host: int, limits: Limits = LIMITS, preface: bytes = b"",
                  tally: int = NO_TALLY) -> tuple[int, int]:
        self.preface = preface
        return super().hand_over(client, host, limits, preface, tally)

    def new_token(self, client: int) -> int:
        token = SecuredToken(super().new_token(client))
        token.host_tls = self.host_tls
        return token

    def relayed(self, *arguments: Any, **more: Any) -> Relayed:
        relayed = super().relayed(*arguments, **more)
        begun: Any = relayed.server
        begun.begun.result()  # the relay's side is through with the handshake a moment earlier
        return relayed

    def serve(self, server: socket.socket) -> Any:
        peer = TLSPeer(self.keep(server), SERVER)
        peer.tls.set_accept_state()
        peer.begun = self.run(self._begin, peer, self.preface)
        return peer

    def _begin(self, peer: TLSPeer, preface: bytes) -> bytes:
        before = receive(peer.sock, len(preface))
        peer._until_done("do_handshake")
        return before


class TLSBothWaysKit(TLSRelayKit, TLSToHostsKit):
    """Both do."""

    host_tls = TLSToHostsKit.host_tls


class SecuredToken(int):
    """See `director.relay.tls_relay.Secured`."""

    client_tls: SSL.Connection | None = None
    host_tls: Trusting | None = None
    why = ""

    def host_refused(self, why: str) -> None:
        self.why = why


def shake_hands(peer: TLSPeer, session: SSL.Connection) -> None:
    """To its end, with what a server says after it."""
    left = [peer.tls, session]
    deadline = time.monotonic() + PATIENCE_S
    while left:
        assert time.monotonic() < deadline
        for each in list(left):
            with contextlib.suppress(SSL.WantReadError):
                each.do_handshake()
                left.remove(each)
    with contextlib.suppress(SSL.WantReadError):  # tickets: a socket that is closed with something unread resets
        peer.tls.recv(1)
    if peer.sock.family != socket.AF_UNIX:  # and one that is powered off acknowledges nothing
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
