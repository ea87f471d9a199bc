"""Those who mean harm, each alone: ``python -m bench.attackers KIND PORT [ADDRESSES]``; says ``ready`` when it is under way,
and goes on until standard input closes. ``honest-tls PORT SECONDS`` is one who does not: new connections over TLS, one after
the other, and the p99 of connect, handshake and one exchange.

Rates are so moderate that the attacker leaves the honest half of its core: what it does to the victim is to be seen, and not
what it does to its neighbours.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import select
import socket
import ssl
import statistics
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

#: Connections that say a byte now and then: more than a director waits for at one listener.
CROWD = 1_500
DRIP_S = 0.5
#: Connections at once, and how long between two such bursts.
BURST, BURST_S = 1_000, 0.5
RESETS_PER_S = 2_000
HANDSHAKES_PER_S = 500
HELLOS_PER_S = 1_000
#: Opened in one turn of a flood; closed one turn later, whatever was answered.
TURN_S = 0.02
#: At the admin, where one address may have 128 connections and all have 512: one director's whole share.
BODIES = 480
BODY_BYTES = 60_000

RESET = struct.pack("ii", 1, 0)


def client_hello(name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def asked_to_stop(wait_s: float) -> bool:
    return bool(select.select([sys.stdin], [], [], wait_s)[0])


class Attack:
    """:param addresses: to come from, in turn."""

    def __init__(self, port: int, addresses: list[str]) -> None:
        self._port = port
        self._addresses = itertools.cycle(addresses)

    def connect(self) -> socket.socket | None:
        """None: it was not let in."""
        sock = socket.socket()
        with contextlib.suppress(OSError):
            sock.bind((next(self._addresses), 0))
            sock.settimeout(1.0)
            sock.connect(("127.0.0.1", self._port))
            sock.setblocking(False)
            return sock
        sock.close()
        return None

    def crowd(self, count: int, said: bytes) -> None:
        """Each says *said* byte by byte, one in `DRIP_S`, and comes again when it is closed."""
        def member() -> Iterator[None]:
            while True:
                sock = self.connect()
                with contextlib.suppress(OSError):
                    for byte in itertools.chain(said, itertools.repeat(0)):
                        if sock is None:
                            break
                        sock.send(bytes((byte,)))
                        yield
                        with contextlib.suppress(BlockingIOError):
                            if not sock.recv(4096):
                                break
                if sock is not None:
                    sock.close()
                yield

        members = [member() for _ in range(count)]
        for each in members:
            next(each)
        print("ready", flush=True)
        slices = int(DRIP_S / TURN_S)
        for turn in itertools.count():
            began = time.monotonic()
            for each in members[turn % slices::slices]:
                next(each)
            if asked_to_stop(max(0.0, began + TURN_S - time.monotonic())):
                return

    def flood(self, per_s: float, say: Callable[[socket.socket], object]) -> None:
        """So many a second, each of which says something and is closed a turn later."""
        before: deque[list[socket.socket]] = deque()
        print("ready", flush=True)
        start, opened = time.monotonic(), 0
        while not asked_to_stop(TURN_S):
            due, now = int((time.monotonic() - start) * per_s), []
            for _ in range(min(due - opened, int(10 * per_s * TURN_S))):
                if (sock := self.connect()) is not None:
                    with contextlib.suppress(OSError):
                        say(sock)
                    now.append(sock)
            opened = due
            before.append(now)
            for sock in before.popleft() if len(before) > 1 else ():
                sock.close()

    def burst(self) -> None:
        print("ready", flush=True)
        while True:
            socks = [self.connect() for _ in range(BURST)]
            over = asked_to_stop(BURST_S / 2)
            for sock in socks:
                if sock is not None:
                    sock.close()
            if over or asked_to_stop(BURST_S / 2):
                return


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def honest_tls(port: int, seconds: float) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    took, end = [], time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        with socket.create_connection(("127.0.0.1", port), 10) as sock, context.wrap_socket(sock) as tls:
            tls.sendall(b"e" * 64)
            if not tls.recv(64):
                raise SystemExit("an honest client was closed")
        took.append(time.monotonic() - began)
    print(json.dumps({"done": len(took), "p99_us": 1e6 * statistics.quantiles(took, n=100)[98]}))


def main() -> None:
    kind, port, *rest = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if kind == "honest-tls":
        honest_tls(int(port), float(rest[0]))
        return
    attack = Attack(int(port), rest or ["127.0.0.66"])
    hello = client_hello("slow.example")
    head = "POST /api/v1/report HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {BODY_BYTES}\r\n\r\n"
    line = b'{"type":"hello","version":1,"agent":"x","boot_id":"1","token":"wrong","hosts":[{"host":"web/main/s"}]}\n'
    kinds: dict[str, Callable[[], None]] = {
        "slow-hellos": lambda: attack.crowd(CROWD, hello),
        "header-drip": lambda: attack.crowd(CROWD, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2"),
        "slow-bodies": lambda: attack.crowd(BODIES, head.encode()),
        "handshakes": lambda: attack.flood(HANDSHAKES_PER_S, lambda sock: sock.send(hello)),
        "agent-hellos": lambda: attack.flood(HELLOS_PER_S, lambda sock: sock.send(line)),
        "resets": lambda: attack.flood(RESETS_PER_S, reset),
        "accept-burst": attack.burst,
    }
    kinds[kind]()


if __name__ == "__main__":
    main()
