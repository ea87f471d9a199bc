"""The least that a TLS end by pyOpenSSL can be: ``python -m bench.bare_tls PORT BACKEND CERTIFICATE KEY``.

One epoll loop that accepts, shakes hands, connects and copies, with the director's settings of TLS. No limits, no deadlines,
no half-close, no counting: what it costs is what Python, pyOpenSSL and OpenSSL cost, and so a limit for whatever is built on
them.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

from OpenSSL import SSL

from director.relay.openssl import errno_of
from director.tls.profile import harden

CHUNK = 16_384
_BLOCKS = (SSL.WantReadError, SSL.WantWriteError, BlockingIOError)


class Pair:
    """A client and its backend; *held*: read from the backend, not yet taken by the client."""

    def __init__(self, client: socket.socket, tls: SSL.Connection) -> None:
        self.client = client
        self.tls = tls
        self.backend: socket.socket | None = None
        self.held = b""


def main() -> None:
    port, backend, certificate, key = sys.argv[1:]
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    harden(context)
    context.use_certificate_chain_file(certificate)
    context.use_privatekey_file(key)
    context.set_session_id(b"bench")
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=4096)
    listener.setblocking(False)
    epoll, pairs = select.epoll(), dict[int, Pair]()
    epoll.register(listener, select.EPOLLIN)

    def close(pair: Pair) -> None:
        with contextlib.suppress(SSL.Error):
            pair.tls.shutdown()
        for each in (pair.client, pair.backend):
            if each is not None:
                del pairs[each.fileno()]
                each.close()

    def serve(pair: Pair) -> None:
        if pair.backend is None:
            pair.tls.do_handshake()
            pair.backend = socket.create_connection(("127.0.0.1", int(backend)))
            pair.backend.setblocking(False)
            pairs[pair.backend.fileno()] = pair
            epoll.register(pair.backend, select.EPOLLIN | select.EPOLLET)
        with contextlib.suppress(*_BLOCKS):
            while True:
                pair.backend.sendall(pair.tls.recv(CHUNK))
        while True:
            if not pair.held:
                pair.held = pair.backend.recv(CHUNK)
                if not pair.held:
                    close(pair)
                    return
            pair.held = pair.held[pair.tls.send(pair.held):]

    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        client, _ = listener.accept()
                        client.setblocking(False)
                        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        tls = SSL.Connection(context, client)
                        tls.set_accept_state()
                        pairs[client.fileno()] = Pair(client, tls)
                        epoll.register(client, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
            elif (pair := pairs.get(fd)) is not None:
                try:
                    serve(pair)
                except _BLOCKS:
                    pass
                except SSL.SysCallError as error:
                    errno_of(error)
                    close(pair)
                except (SSL.Error, OSError):
                    close(pair)


if __name__ == "__main__":
    main()
