"""A server and its agent in one process, which a test may kill or freeze: ``python machine.py NAME [UTILISATION RATE]``.

Prints the server's port; it answers each client with its name. Its agent then reads lines from standard input, the hosts that it
speaks for and the address of a director, ``SERVICE/GROUP/HOST ADDRESS``, and reports ten times a second to each.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from typing import Any

INTERVAL_S = 0.1
#: A director that was restarted is found again within this.
RETRY_S = 0.3
#: Longer than the few bytes after which a close counts as early.
ANSWER_BYTES = 100


def serve(listening: socket.socket, answer: bytes) -> None:
    while True:
        client, _ = listening.accept()
        threading.Thread(target=attend, args=(client, answer), daemon=True).start()


def attend(client: socket.socket, answer: bytes) -> None:
    with client, contextlib.suppress(OSError):
        while client.recv(1000):
            client.sendall(answer)


def report(host: str, address: str, load: dict[str, Any]) -> None:
    """Again and again, from hello to the end of the connection."""
    to, _, port = address.rpartition(":")
    boot = f"{os.getpid()}-{time.time_ns():x}"
    while True:
        with contextlib.suppress(OSError), socket.create_connection((to, int(port)), 5) as director:
            hello = {"type": "hello", "version": 1, "agent": host.rpartition("/")[2], "boot_id": boot, "hosts": [{"host": host}]}
            director.sendall(json.dumps(hello).encode() + b"\n")
            seq = 0
            while seq or director.recv(10_000):  # the welcome
                seq += 1
                director.sendall(json.dumps({"type": "report", "seq": seq, "load": load}).encode() + b"\n")
                time.sleep(INTERVAL_S)
        time.sleep(RETRY_S)


def main() -> None:
    name, *figures = sys.argv[1:]
    load = {}
    if figures:
        utilisation, rate = map(float, figures)
        load = {"utilisation": utilisation, "rate": rate, "completions": 10}
    listening = socket.create_server(("127.0.0.1", 0), backlog=200)
    answer = name.encode().ljust(ANSWER_BYTES, b".") + b"\n"
    threading.Thread(target=serve, args=(listening, answer), daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    for line in sys.stdin:
        host, address = line.split()
        threading.Thread(target=report, args=(host, address, load), daemon=True).start()


if __name__ == "__main__":
    main()
