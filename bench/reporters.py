"""Agents enough to keep a director busy: ``python -m bench.reporters PORT HOSTS REPORTS_PER_S``.

One connection for each host of ``reported/main``; every report differs, so every one moves a weight. Says ``ready`` once
all are welcome, and goes on until standard input closes.
"""

from __future__ import annotations

import random
import select
import socket
import sys
import time

SLICE_S = 0.01


def connect(port: int, number: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 10)
    hello = f'{{"type":"hello","version":1,"agent":"a{number}","boot_id":"{time.time_ns()}",'
    sock.sendall(f'{hello}"hosts":[{{"host":"reported/main/h{number}"}}]}}\n'.encode())
    answer = sock.recv(65_536)
    if b'"welcome"' not in answer:
        raise SystemExit(f"agent {number} is not welcome: {answer!r}")
    return sock


def main() -> None:
    port, count, per_s = map(int, sys.argv[1:])
    agents = [connect(port, number) for number in range(count)]
    print("ready", flush=True)
    sent, start = 0, time.monotonic()
    while not select.select([sys.stdin], [], [], SLICE_S)[0]:
        due = int((time.monotonic() - start) * per_s)
        while sent < due:
            seq, number = divmod(sent, count)
            busy = random.random()
            line = f'{{"type":"report","seq":{seq + 1},"load":{{"utilisation":{busy:.3f},"rate":100,"completions":25}}}}\n'
            agents[number].sendall(line.encode())
            sent += 1


if __name__ == "__main__":
    main()
