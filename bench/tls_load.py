"""Clients that speak TLS 1.3: ``python -m bench.tls_load WHAT PORT AUTHORITY ...`` prints one line of JSON.

    full PORT AUTHORITY SECONDS        new connections with a full handshake and one exchange, by four processes
    resumed PORT AUTHORITY SECONDS     the same with a session of before
    bulk PORT AUTHORITY MEGABYTES      one download
    idle PORT AUTHORITY COUNT          connections with one exchange each; holds them until standard input closes

The backend is ``load.c``'s.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import ssl
import struct
import sys
import time

#: Enough that one always has something to do while others wait for the proxy.
PROCESSES = 4
EXCHANGE = b"e" + bytes(63)


class Clients:
    def __init__(self, port: int, authority: str) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=authority)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3

    def connect(self, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """One that has had an exchange, and the tickets before it."""
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = self._context.wrap_socket(sock, server_hostname="localhost", session=session)
        client.sendall(EXCHANGE)
        got = 0
        while got < len(EXCHANGE):
            piece = client.recv(4096)
            if not piece:
                raise SystemExit("a connection ended early")
            got += len(piece)
        return client

    def connections(self, seconds: float, *, resumed: bool) -> int:
        session = None
        if resumed:
            with self.connect() as first:
                session = first.session
        done, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            with self.connect(session) as client:
                if client.session_reused is not resumed:
                    raise SystemExit("a session was not resumed" if resumed else "a session was resumed")
            done += 1
        return done

    def bulk(self, size: int) -> int:
        sock = socket.create_connection(("127.0.0.1", self._port))
        done, buffer = 0, bytearray(1 << 18)
        with self._context.wrap_socket(sock, server_hostname="localhost") as client:
            client.sendall(b"b" + struct.pack("=q", size))
            while count := client.recv_into(buffer):
                done += count
        return done


def by_processes(clients: Clients, seconds: float, *, resumed: bool) -> int:
    """Each writes how many it has done into a pipe."""
    reader, writer = os.pipe()
    children = []
    for _ in range(PROCESSES):
        pid = os.fork()
        if not pid:
            os.write(writer, struct.pack("=q", clients.connections(seconds, resumed=resumed)))
            os._exit(0)
        children.append(pid)
    for pid in children:
        if os.waitpid(pid, 0)[1]:
            raise SystemExit("a client has failed")
    return sum(struct.unpack("=q", os.read(reader, 8))[0] for _ in children)


def main() -> None:
    what, port, authority, amount = sys.argv[1:]
    clients = Clients(int(port), authority)
    began = time.monotonic()
    if what == "idle":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        held = [clients.connect() for _ in range(int(amount))]
        print(json.dumps({"held": len(held)}), flush=True)
        sys.stdin.read()
        return
    done = clients.bulk(int(amount) << 20) if what == "bulk" else \
        by_processes(clients, float(amount), resumed=what == "resumed")
    print(json.dumps({"done": done, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
